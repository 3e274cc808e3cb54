"""Whether data are those that a training had: they are known by digests, as names say little."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from esl_lava.data.samples import Samples
from esl_lava.errors import DataError

SHOWN = 12
"""So many hexadecimal digits tell two digests apart for people."""

_logger = logging.getLogger(__name__)


def digests(splits: Mapping[str, Samples]) -> dict[str, str]:
    """Split -> SHA-256 of what it holds, as a model records them."""
    return {split: data.digest for split, data in splits.items()}


def facts(recorded: Mapping[str, str]) -> dict[str, str]:
    """Recorded digests as facts of a network's provenance."""
    return {fact_name(split): digest for split, digest in recorded.items()}


def fact_name(split: str) -> str:
    """What the digest of a split is called in a network's provenance."""
    return f"{split}_data_sha256"


def refuse_others(where: object, recorded: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse to go on with other data than a training began with.

    Args:
        where: the file that says what it began with, for the error.
        recorded: split -> digest; none in files from before they were recorded.
        found: the same of the data there are.

    Raises:
        DataError: naming the split and both digests.
    """
    for split, digest in recorded.items():
        if split in found and found[split] != digest:
            raise DataError(
                f"{where}: made with other data: its {split} split has SHA-256 "
                f"{digest[:SHOWN]}..., the one here {found[split][:SHOWN]}..."
            )


def remark_others(recorded: Mapping[str, str], data: Samples) -> None:
    """Say in the log where data of a name are not those of that name in the training.

    Args:
        recorded: provenance of a network; it holds no digest where nobody recorded it.
        data: all of a split here.
    """
    trained = recorded.get(fact_name(str(data.split)))
    if trained is not None and data.digest != trained:
        _logger.warning(
            "%s (%s): not the data that the training had by this name: SHA-256 %s..., then %s...",
            data.name,
            data.split,
            data.digest[:SHOWN],
            trained[:SHOWN],
        )
