"""The formats whose readers are tried."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.fuzz import arrays, checkpoints, events, idx, models, networks, tables
from tests.fuzz.format import Format

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "model": models.FORMAT,
        "checkpoint": checkpoints.FORMAT,
        "network": networks.FORMAT,
        "npy": arrays.FORMAT,
        "npz": arrays.PACKED,
        "idx": idx.FORMAT,
        "aedat": events.FORMAT,
        "aedat4": events.AEDAT4,
        "atis": events.ATIS,
        "config": tables.FORMAT,
        "device": tables.DEVICE,
    }
)
"""Name -> format."""
