"""Check by digest that data are those of a training. A name alone does not identify data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from esl_lava.data.samples import Samples
from esl_lava.errors import DataError

SHOWN = 12
"""Number of hexadecimal digits of a digest that sentences show."""

_logger = logging.getLogger(__name__)


def digests(splits: Mapping[str, Samples]) -> dict[str, str]:
    """Return split -> SHA-256 of its data, as a model records it."""
    return {split: data.digest for split, data in splits.items()}


def provenance_entries(recorded: Mapping[str, str]) -> dict[str, str]:
    """Return recorded digests as entries of the provenance of a network."""
    return {provenance_key(split): digest for split, digest in recorded.items()}


def provenance_key(split: str) -> str:
    """Return the key of a split's digest in the provenance of a network."""
    return f"{split}_data_sha256"


def refuse_other_data(where: Path, recorded: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Refuse to continue with other data than those of the training.

    Args:
        where: the file that recorded the digests.
        recorded: split -> recorded digest; empty in files of versions without digests.
        current: split -> digest of the data now.

    Raises:
        DataError: if a split differs.
    """
    for split, digest in recorded.items():
        if split in current and current[split] != digest:
            raise DataError(
                f"{where}: made with other data: its {split} split had SHA-256 "
                f"{digest[:SHOWN]}..., but now the split has {current[split][:SHOWN]}...",
                "mismatch",
                key=split,
                value=current[split],
                limit=digest,
                file=where,
            )


def warn_of_other_data(recorded: Mapping[str, str], data: Samples) -> None:
    """Log a warning if data differ from the data of the same name in the training.

    Args:
        recorded: provenance of a network; old files hold no digest.
        data: all samples of a split.
    """
    trained = recorded.get(provenance_key(str(data.split)))
    if trained is not None and data.digest != trained:
        _logger.warning(
            "%s (%s): not the data of this name in the training: SHA-256 is %s..., was %s...",
            data.name,
            data.split,
            data.digest[:SHOWN],
            trained[:SHOWN],
        )
