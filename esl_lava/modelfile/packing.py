"""Make the bytes of a `model.pt`, as torch writes them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping

import numpy as np
import torch

from esl_lava.modelfile.archive import STORAGES
from esl_lava.modelfile.contents import DIGEST, digest
from esl_lava.pickles import MAX_INTEGER_KEY

_DTYPES = frozenset(torch.from_numpy(np.empty(0, dtype)).dtype for dtype in STORAGES.values())


def pack(content: Mapping[str, object]) -> bytes:
    """Return a zip-format torch file of arrays, tensors and plain containers, and their digest.

    Raises:
        TypeError: naming the place of any other value.
    """
    buffer = io.BytesIO()  # torch writes the name of a file into the zip; a buffer has no name
    plain = {key: _plain(value, f"the model[{key!r}]") for key, value in content.items()}
    torch.save({**plain, DIGEST: digest(plain)}, buffer)
    return buffer.getvalue()


def _plain(value: object, place: str) -> object:
    """Return a copy of a value that torch always writes as the same bytes.

    The bytes of the value itself would also depend on shared objects and on the layout and the
    storage of tensors.

    Raises:
        TypeError: naming the place of a value that the reader would refuse.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.type not in STORAGES.values() or not value.dtype.isnative:
            raise TypeError(f"{place} is an array of {value.dtype}, which a model cannot hold")
        value = torch.from_numpy(np.array(value, order="C"))
    if isinstance(value, torch.Tensor):
        if value.dtype not in _DTYPES or value.layout is not torch.strided:
            raise TypeError(f"{place} is a tensor of {value.dtype}, which a model cannot hold")
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r}, neither text nor an integer")
            if isinstance(key, int) and not 0 <= key <= MAX_INTEGER_KEY:
                raise TypeError(f"{place} has the key {key!r}, outside 0..{MAX_INTEGER_KEY}")
        return {
            sys.intern(key) if isinstance(key, str) else key: _plain(item, f"{place}[{key!r}]")
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return sys.intern(str(value))
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{place} is a {type(value).__name__}, neither a tensor nor plain data")
