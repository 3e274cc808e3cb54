"""What a training's record of epochs says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """Index of the epoch whose weights a training keeps.

    That of the best validation accuracy, the latest of equals; the last where nothing was
    held back. Epochs before the network became as sparse as it is are no candidates.

    Args:
        history: an entry per epoch with "validation_accuracy" and "density", at least one.
    """

    def rank(index: int) -> tuple[float, int]:
        return history[index]["validation_accuracy"] or 0.0, index

    density = history[-1]["density"]
    return max((i for i, entry in enumerate(history) if entry["density"] == density), key=rank)
