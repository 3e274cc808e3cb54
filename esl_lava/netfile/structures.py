"""Refuse structures of an HDF5 file with which HDF5 would crash, hang or take all memory.

HDF5 lists the links of a group and the chunks of an array in trees and arrays of its own, and walks
them without a limit. h5py does not show them. This module looks for all of them in the bytes of a
file, by their signatures, and checks the numbers on which the walks depend. (HDF5 file format
specification, version 3.0, sections III.A, III.C, III.G and VII.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from esl_lava.netfile.chunks import MAX_CHUNKS, FileBytes, RefusedError

_PIECE = 1 << 20
_LONGEST = 64
"""Bytes of the longest header below."""
_NODE = struct.Struct("<4sBBH16x")
"""A node of a B-tree, version 1: signature, kind (0: links, 1: chunks), level, children."""
_MAX_RANK = 32
_TREE = struct.Struct("<5sxI2xH")
"""A B-tree, version 2: signature, bytes of a node, levels above the lowest."""
_NODE_BYTES, _LEVELS = 4096, 3
"""HDF5 gives the nodes 512 or 2048 bytes. With three levels, such a tree holds a million links."""
_FIXED_ARRAY = struct.Struct("<8xQ")
_EXTENSIBLE_ARRAY = struct.Struct("<44xQ")


def check_structures(stored: FileBytes) -> None:
    """Check all structures that are known to do harm.

    Raises:
        RefusedError: if there is one.
    """
    nodes: dict[int, tuple[int, int, int]] = {}
    for start in range(0, stored.size, _PIECE):
        piece = stored.look(start, _PIECE + _LONGEST)
        for place in _find(piece, b"FRHP\0"):
            # A fractal heap holds links or attributes. HDF5 would inflate it without a limit.
            if any(piece[place + 7 : place + 9]):  # the length of its filters
                raise RefusedError("links or attributes are compressed", "unsupported")
        for place in _find(piece, b"BTHD\0"):
            _, node_bytes, levels = _TREE.unpack_from(piece.ljust(place + _LONGEST), place)
            if node_bytes > _NODE_BYTES or levels > _LEVELS:
                raise RefusedError(
                    f"a B-tree has {levels} levels of nodes of {node_bytes} bytes, more than "
                    f"{_LEVELS} levels of {_NODE_BYTES} bytes",
                    "too-large",
                    value=levels,
                    limit=_LEVELS,
                )
        for signature, layout in ((b"FAHD\0", _FIXED_ARRAY), (b"EAHD\0", _EXTENSIBLE_ARRAY)):
            for place in _find(piece, signature):
                (count,) = layout.unpack_from(piece.ljust(place + _LONGEST), place)
                if count > MAX_CHUNKS:
                    raise RefusedError(
                        f"an array claims {count} chunks, more than {MAX_CHUNKS}",
                        "too-large",
                        value=count,
                        limit=MAX_CHUNKS,
                    )
        for place in _find(piece, b"TREE"):
            if place + _NODE.size <= len(piece):
                _, kind, level, children = _NODE.unpack_from(piece, place)
                nodes[start + place] = (kind, level, children)
    _check_trees(stored, nodes)


def _find(content: bytes, part: bytes) -> Iterator[int]:
    """Yield the places at which a part occurs."""
    place = content.find(part)
    while place >= 0:
        yield place
        place = content.find(part, place + 1)


def _check_trees(stored: FileBytes, nodes: dict[int, tuple[int, int, int]]) -> None:
    """Check that no B-tree of version 1 leads back to a node, or often to the same nodes.

    HDF5 recurses into a node that is its own child until it crashes. A file of 8 kB can lead to
    one node at 32^8 places.

    Args:
        nodes: place in the file -> kind, level and number of children of every node.
    """
    for kind, widths in ((0, [8]), (1, [8 + 8 * axes for axes in range(2, _MAX_RANK + 2)])):
        levels = {place: level for place, (its_kind, level, _) in nodes.items() if its_kind == kind}
        inner = sorted((level, place) for place, level in levels.items() if level)
        # The key between two children has this width. That of chunks depends on the rank of the
        # array, which a node does not hold. With a wrong width the children are other numbers of
        # the node, which are hardly ever the places of nodes.
        counts = [nodes[place][2] for _, place in inner]
        if sum(_NODE.size + count * (widths[0] + 8) for count in counts) > stored.size:
            raise RefusedError("the nodes of a B-tree overlap", "damaged")
        for width in widths if inner else ():
            below: dict[int, int] = {}
            for (level, place), count in zip(inner, counts):
                raw = stored.look(place + _NODE.size, count * (width + 8))
                count = len(raw) // (width + 8)
                entries = np.frombuffer(raw, [("key", f"V{width}"), ("child", "<u8")], count)
                children = entries["child"].tolist()
                below[place] = sum(1 + below.get(child, 0) for child in children)
                if below[place] > len(nodes) or any(
                    levels.get(child, -1) >= level for child in children
                ):
                    raise RefusedError("a node of a B-tree occurs at several places", "damaged")
