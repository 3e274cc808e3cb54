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

_PIECE = 1 << 18
_HEADER = 160
"""Bytes of the longest header below."""
_NODE = struct.Struct("<4sBBH16x")
"""A node of a B-tree, version 1: signature, kind (0: links, 1: chunks), level, children."""
_MAX_RANK = 32
_TREE = struct.Struct("<5xBIHH")
"""A B-tree, version 2: kind, bytes of a node, bytes of a record, levels above the lowest."""
_NODE_BYTES, _LEVELS = (512, 2048), 3
"""Bytes that HDF5 gives the nodes. With three levels, such a tree holds a million links."""
_RECORDS = {5: (11,), 6: (15,), 8: (17,), 9: (13,), 10: range(16, 300), 11: range(16, 300)}
"""Kind of B-tree, version 2 -> bytes of a record: links, attributes, chunks."""
_HEAP = struct.Struct("<5xH2xBIQQ8x8x8x8x8xQQQQQHQQHHQH")
"""A fractal heap: bytes of an identifier, flags, largest object; next number and tree of huge
objects; number of objects; sizes and numbers of huge and of tiny objects; width of the table,
smallest and largest block, bits of an offset, first rows, place of the root, rows."""
_HEAPS = {7: (2, 4096, 4, 512, 1 << 16, 32, 1), 8: (2, 4096, 4, 1024, 1 << 16, 40, 1)}
"""Bytes of an identifier -> flags, largest object, width, blocks, bits and first rows of the heaps
that every HDF5 makes for links and for attributes. HDF5 divides by these numbers, and shifts by
them."""
_NOWHERE = (1 << 64) - 1
"""HDF5's address of what does not exist."""
_FIXED_ARRAY = struct.Struct("<8xQ")
_EXTENSIBLE_ARRAY = struct.Struct("<44xQ")
_SIGNATURES = frozenset((b"FRHP", b"BTHD", b"FAHD", b"EAHD", b"TREE"))
_HP, _HD, _RE = (int.from_bytes(letters, "little") for letters in (b"HP", b"HD", b"RE"))
_LETTERS = (_HP, _HD, _RE)
"""Two letters of each signature: its last two, but those of TREE are its second and third."""


def check_structures(stored: FileBytes) -> None:
    """Check all structures that are known to do harm.

    Raises:
        RefusedError: if there is one.
    """
    nodes: dict[int, tuple[int, int, int]] = {}
    for place, header in _headers(stored):
        signature, is_first_version = header[:4], not header[4]
        if signature == b"TREE":
            _, kind, level, children = _NODE.unpack_from(header)
            nodes[place] = (kind, level, children)
        elif signature == b"FRHP" and is_first_version:
            _check_heap(header)
        elif signature == b"BTHD" and is_first_version:
            _check_tree(*_TREE.unpack_from(header))
        elif signature in (b"FAHD", b"EAHD") and is_first_version:
            layout = _FIXED_ARRAY if signature == b"FAHD" else _EXTENSIBLE_ARRAY
            (count,) = layout.unpack_from(header)
            if count > MAX_CHUNKS:
                raise RefusedError(
                    f"an array claims {count} chunks, more than {MAX_CHUNKS}",
                    "too-large",
                    value=count,
                    limit=MAX_CHUNKS,
                )
    _check_trees(stored, nodes)


def _headers(stored: FileBytes) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the first bytes of everything that looks like a structure.

    numpy finds two letters of a signature several times as fast as `bytes.find` finds all.
    """
    for start in range(0, stored.size, _PIECE):
        piece = stored.look(start, _PIECE + _HEADER)
        # A header that begins in the last bytes is found in the next piece.
        for first in (0, 1):
            words = np.frombuffer(piece, "<u2", (len(piece) - first) // 2, first)
            for letters in _LETTERS:
                matches = words == letters
                if not matches.any():
                    continue
                for index in np.flatnonzero(matches).tolist():
                    place = first + 2 * index
                    begin = place - (1 if letters == _RE else 2)
                    if 0 <= begin < _PIECE and piece[begin : begin + 4] in _SIGNATURES:
                        yield start + begin, piece[begin : begin + _HEADER].ljust(_HEADER, b"\0")


def _check_heap(header: bytes) -> None:
    """Check the numbers of a fractal heap, which holds links or attributes."""
    if any(header[7:9]):  # HDF5 would inflate it without a limit
        raise RefusedError("links or attributes are compressed", "unsupported")
    name, flags, largest, next_huge, huge_tree, _, *more = _HEAP.unpack_from(header)
    huge_size, huge, tiny_size, tiny, width, smallest, block, bits, first, _, _ = more
    if (next_huge, huge_tree, huge_size, huge) != (0, _NOWHERE, 0, 0):
        raise RefusedError("attributes are longer than those in a heap", "unsupported")
    if (
        tiny
        or tiny_size
        or _HEAPS.get(name) != (flags, largest, width, smallest, block, bits, first)
    ):
        raise RefusedError("a heap of links or attributes is not as HDF5 makes it", "damaged")


def _check_tree(kind: int, node_bytes: int, record: int, levels: int) -> None:
    """Check the numbers of a B-tree, version 2.

    HDF5 takes the kind of the records from the tree, and crashes if it asked for another kind.
    """
    if record not in _RECORDS.get(kind, ()):
        raise RefusedError(
            f"B-trees of kind {kind} with records of {record} bytes are not supported",
            "unsupported",
            value=kind,
        )
    if node_bytes > max(_NODE_BYTES) or levels > _LEVELS:
        raise RefusedError(
            f"a B-tree has {levels} levels of nodes of {node_bytes} bytes; at most {_LEVELS} "
            f"levels and {max(_NODE_BYTES)} bytes are allowed",
            "too-large",
            value=levels,
            limit=_LEVELS,
        )
    if node_bytes not in _NODE_BYTES:  # with nodes of 0 bytes HDF5 takes all memory
        raise RefusedError(
            f"a B-tree has nodes of {node_bytes} bytes, not of 512 or 2048",
            "damaged",
            value=node_bytes,
            limit=_NODE_BYTES,
        )


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
