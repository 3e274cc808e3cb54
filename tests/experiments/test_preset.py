import pytest

from esl_lava.config import from_toml, to_toml
from esl_lava.errors import ConfigError
from esl_lava.experiments.preset import load_preset, preset_names


def test_those_of_the_readme_are_there() -> None:
    assert {"digits", "mnist"} <= set(preset_names())
    assert preset_names() == tuple(sorted(preset_names()))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    experiment = load_preset(name)
    assert from_toml(to_toml(experiment)) == experiment


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", r"unknown preset 'mnits'; there are .*mnist.*; did you mean mnist\?"),
        ("", "unknown preset ''; there are [a-z0-9_, -]*$"),
        ("../presets/digits", "unknown preset"),
        ("digits.toml", r"unknown preset 'digits\.toml'.*did you mean digits\?"),
    ],
)
def test_an_unknown_preset_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset(name)
