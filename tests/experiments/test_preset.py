import pytest

from esl_lava.config import from_toml, to_toml
from esl_lava.errors import ConfigError
from esl_lava.experiments.preset import load_preset, preset_names
from tests.faults import refused


def test_the_presets_of_the_readme_exist() -> None:
    assert {"digits", "mnist"} <= set(preset_names())
    assert preset_names() == tuple(sorted(preset_names()))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    experiment = load_preset(name)
    assert from_toml(to_toml(experiment)) == experiment


@pytest.mark.parametrize(
    ("name", "near"),
    [("mnits", "mnist"), ("", None), ("../presets/digits", None), ("digits.toml", "digits")],
)
def test_an_unknown_preset_is_refused_with_the_nearest(name: str, near: str | None) -> None:
    names = ", ".join(preset_names())
    with refused(ConfigError, "unknown", key="preset", value=name, limit=names) as caught:
        load_preset(name)
    assert str(caught.value).endswith(f"did you mean {near}?" if near else names)
