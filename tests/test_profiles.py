"""`make test` has the same outcome on every machine and in every run."""

import importlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import profiles

STRANGER = 'NUMBERS = (987654321987, 123456789123)\nBYTES = b"PK\\x03\\x04"\nTEXT = "stranger"\n'


def drawn(profile: settings) -> list[object]:
    found: list[object] = []

    @settings(profile, max_examples=300)
    @given(st.integers() | st.binary() | st.text())
    def draw(value: object) -> None:
        found.append(value)

    draw()
    return found


def test_examples_do_not_depend_on_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn(profiles.SAME)
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("stranger")
    assert drawn(profiles.SAME) == before


def test_examples_by_hand_are_others_in_every_run() -> None:
    assert drawn(profiles.FUZZ) != drawn(profiles.FUZZ)


def test_no_profile_looks_at_the_clock() -> None:
    for profile in (profiles.SAME, profiles.FUZZ):
        assert profile.deadline is None
        assert HealthCheck.too_slow in profile.suppress_health_check


def test_torchs_own_generator_begins_alike_in_every_test() -> None:
    alike = torch.rand(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), alike)
