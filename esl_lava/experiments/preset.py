"""Experiments that come with the package."""

from __future__ import annotations

import difflib
from importlib import resources

from esl_lava.config import Experiment, from_toml
from esl_lava.errors import ConfigError, shorten

_FOLDER = resources.files("esl_lava.experiments").joinpath("presets")


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets, sorted."""
    files = (entry.name for entry in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


def load_preset(name: str) -> Experiment:
    """Return the experiment of a preset.

    Raises:
        ConfigError: if the name is unknown; the sentence suggests the nearest name.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"preset {shorten(name)} is unknown; the presets are {', '.join(names)}{hint}",
            "unknown",
            key="preset",
            value=name,
            limit=", ".join(names),
        )
    return from_toml(_FOLDER.joinpath(f"{name}.toml").read_text(), f"preset {name}")
