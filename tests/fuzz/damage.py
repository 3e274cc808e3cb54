"""Damage to bytes and numbers, without knowledge of a format."""

from __future__ import annotations

import random
from collections.abc import Callable

EDGES = [
    *(0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1000, 4096, 65535, 65536),
    *((1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1),
]
"""Numbers at which readers are often wrong."""


def any_number(rng: random.Random, old: int, width: int = 8) -> int:
    """Return another number of so many bytes, often one at an edge or near the old one."""
    new = rng.choice(
        [
            rng.choice(EDGES),
            old + rng.choice([-2, -1, 1, 2, 8, -8]),
            old * rng.choice([2, 3, 256, -1]),
            old ^ (1 << rng.randrange(8 * width)),
            rng.getrandbits(8 * width),
        ]
    )
    return new % (1 << 8 * width)


def _flip(rng: random.Random, raw: bytearray, place: int) -> None:
    raw[place] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, raw: bytearray, place: int) -> None:
    raw[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])


def _number(rng: random.Random, raw: bytearray, place: int) -> None:
    width = rng.choice([2, 4, 8])
    place -= place % width if rng.random() < 0.5 else 0
    order = rng.choice(["little", "little", "big"])
    old = int.from_bytes(raw[place : place + width], order)
    new = rng.choice([any_number(rng, old, width), rng.randrange(len(raw) + 1)])
    content = (new % (1 << 8 * width)).to_bytes(width, order)
    raw[place : place + width] = content[: len(raw) - place]


def _cut(rng: random.Random, raw: bytearray, place: int) -> None:
    del raw[place:]


def _remove(rng: random.Random, raw: bytearray, place: int) -> None:
    del raw[place : place + rng.choice([1, 2, 4, 8, rng.randrange(1, 65)])]


def _repeat(rng: random.Random, raw: bytearray, place: int) -> None:
    raw[place:place] = raw[place : place + rng.choice([1, 2, 4, 8, rng.randrange(1, 65)])]


def _insert(rng: random.Random, raw: bytearray, place: int) -> None:
    raw[place:place] = rng.randbytes(rng.choice([1, 2, 4, 8, rng.randrange(1, 65)]))


def _zeros(rng: random.Random, raw: bytearray, place: int) -> None:
    length = min(len(raw) - place, rng.choice([4, 16, 64, 512, 4096]))
    raw[place : place + length] = bytes([rng.choice([0, 255])]) * length


def _copy(rng: random.Random, raw: bytearray, place: int) -> None:
    source, length = rng.randrange(len(raw)), rng.choice([4, 8, 16, 64, 512])
    piece = raw[source : source + length][: len(raw) - place]
    raw[place : place + len(piece)] = piece


KINDS: dict[str, Callable[[random.Random, bytearray, int], None]] = {
    kind.__name__[1:]: kind
    for kind in (_flip, _byte, _number, _cut, _remove, _repeat, _insert, _zeros, _copy)
}
"""Name -> function that damages bytes at a place."""

_WEIGHTS = [4, 4, 6, 1, 2, 1, 1, 1, 2]


def damaged(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Return changed bytes, and the names of the changes."""
    raw = bytearray(content)
    names = rng.choices(list(KINDS), _WEIGHTS, k=rng.choice([1, 1, 1, 2, 3, 5]))
    for name in names:
        if raw:
            KINDS[name](rng, raw, rng.randrange(len(raw)))
    return bytes(raw), " ".join(names)
