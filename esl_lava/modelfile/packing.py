"""The bytes of a `model.pt`, as torch writes them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping

import numpy as np
import torch

from esl_lava.modelfile.archive import STORAGES

_DTYPES = frozenset(torch.from_numpy(np.empty(0, dtype)).dtype for dtype in STORAGES.values())


def packed(content: Mapping[str, object]) -> bytes:
    """A zip-format torch file of arrays, tensors and plain containers.

    Raises:
        TypeError: naming the place of anything else.
    """
    buffer = io.BytesIO()  # torch writes a file's name into the zip; a buffer has none
    torch.save(_plain(content, "the model"), buffer)
    return buffer.getvalue()


def _plain(value: object, place: str) -> object:
    """A copy that depends on nothing but the content.

    Which objects are shared, how tensors are laid out and what they are views of would
    otherwise show in the bytes.

    Raises:
        TypeError: naming the place of what a reader would refuse.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.type not in STORAGES.values() or not value.dtype.isnative:
            raise TypeError(f"{place} is an array of {value.dtype}, which has no place in a model")
        value = torch.from_numpy(np.array(value, order="C"))
    if isinstance(value, torch.Tensor):
        if value.dtype not in _DTYPES or value.layout is not torch.strided:
            raise TypeError(f"{place} is a tensor of {value.dtype}, which has no place in a model")
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r}, neither text nor an integer")
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
