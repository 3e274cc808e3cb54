"""What the runner needs to know of a format."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A changed file.

    Attributes:
        content: its bytes.
        change: what was changed, in some words.
        sealed: whether a checksum of the whole content was left as it was. Then a reader must
            refuse the file or find the very same meaning.
    """

    content: bytes
    change: str
    sealed: bool = False


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        file: name of its files.
        seeds: makes sound files, always the same.
        mutate: (random numbers, sound file) -> mutant. The same numbers give the same mutant.
        read: reads a file as the product does, and returns all that it finds.
        agrees: (mutant's file, sound file, what `read` found in the mutant) -> whether the mutant
            means this, by code that has nothing in common with the product's reader.
    """

    file: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Callable[[random.Random, bytes], Mutant]
    read: Callable[[Path], Any]
    agrees: Callable[[Path, bytes, Any], bool]


class Chooser:
    """Several kinds of mutation, each with a weight."""

    def __init__(self, *choices: tuple[int, Callable[[random.Random, bytes], Mutant]]) -> None:
        self.weights, self.functions = zip(*choices)

    def __call__(self, rng: random.Random, content: bytes) -> Mutant:
        """Return a mutant of one of the kinds."""
        (function,) = rng.choices(self.functions, self.weights)
        mutant: Mutant = function(rng, content)
        return mutant
