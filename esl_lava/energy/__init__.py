"""Compute joules: the counts of a run times the energy constants of a device."""

from esl_lava.energy.detail import active_updates, add_details, with_activity, with_messages
from esl_lava.energy.model import EnergyBreakdown, as_ann, by_connections, per_sample

__all__ = [
    "EnergyBreakdown",
    "active_updates",
    "add_details",
    "as_ann",
    "by_connections",
    "per_sample",
    "with_activity",
    "with_messages",
]
