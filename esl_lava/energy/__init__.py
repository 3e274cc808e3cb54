"""Counts times the constants of a device: joules."""

from esl_lava.energy.model import EnergyBreakdown, by_connections, per_sample

__all__ = ["EnergyBreakdown", "by_connections", "per_sample"]
