"""The digest of the content of a `model.pt`, by which damage is noticed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping

import numpy as np

MAX_DEPTH = 32
"""Most levels of containers within one another."""

DIGEST = "digest"
"""Key of the digest in the content."""


def digest(content: Mapping[str, object]) -> str:
    """Return the hexadecimal SHA-256 of all keys, types, orders and bits, but those of `DIGEST`.

    Args:
        content: nested dictionaries, lists and tuples of texts, numbers, Booleans, None and arrays
            or tensors.

    Raises:
        ValueError: if it holds anything else, or more than `MAX_DEPTH` levels of containers.
    """
    sha = hashlib.sha256()
    _feed(sha.update, {key: content[key] for key in content if key != DIGEST}, MAX_DEPTH)
    return sha.hexdigest()


def _feed(add: Callable[[bytes | memoryview], None], value: object, depth: int) -> None:
    """Add a value with its type and its length, so that no two values give the same bytes."""
    if depth < 0:
        raise ValueError(f"containers are nested more deeply than {MAX_DEPTH} levels")
    if isinstance(value, str):
        raw = value.encode(errors="surrogatepass")
        add(b"text %d " % len(raw) + raw)
    elif isinstance(value, float):
        add(b"float " + struct.pack("<d", value))
    elif value is None or isinstance(value, int):  # Booleans are integers
        add(b"%a " % value)
    elif isinstance(value, Mapping):
        add(b"table %d " % len(value))
        for key, item in value.items():
            _feed(add, key, depth - 1)
            _feed(add, item, depth - 1)
    elif isinstance(value, list | tuple):
        add(b"%s %d " % (type(value).__name__.encode(), len(value)))
        for item in value:
            _feed(add, item, depth - 1)
    else:
        array = np.asarray(value)  # a tensor too
        if array.dtype.hasobject:
            raise ValueError(f"a {type(value).__name__} is neither a tensor nor plain data")
        add(f"array {array.dtype.str} {array.shape} ".encode())
        add(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
