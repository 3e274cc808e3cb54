"""Profiles of hypothesis: `make test` has the same outcome on every machine and in every run."""

import importlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import profiles

STRANGER = 'NUMBERS = (987654321987, 123456789123)\nBYTES = b"PK\\x03\\x04"\nTEXT = "stranger"\n'


def draw_examples(profile: settings) -> list[object]:
    examples: list[object] = []

    @settings(profile, max_examples=300)
    @given(st.integers() | st.binary() | st.text())
    def draw(value: object) -> None:
        examples.append(value)

    draw()
    return examples


@pytest.mark.slow
def test_examples_do_not_depend_on_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = draw_examples(profiles.SAME)
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("stranger")
    assert draw_examples(profiles.SAME) == before


@pytest.mark.slow
def test_fuzzing_draws_new_examples_in_every_run() -> None:
    assert draw_examples(profiles.FUZZ) != draw_examples(profiles.FUZZ)


def test_no_profile_reads_the_clock() -> None:
    for profile in (profiles.SAME, profiles.FUZZ):
        assert profile.deadline is None
        assert HealthCheck.too_slow in profile.suppress_health_check


def test_torchs_global_generator_has_the_same_seed_in_every_test() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)
