"""A short campaign: a training and an export that are killed while they write."""

import signal
from pathlib import Path

import pytest

from tests.kills.campaign import Campaign, Death

pytestmark = pytest.mark.slow


def test_nothing_is_lost_by_a_kill(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    for name in ("train", "export"):
        campaign.prepare(name)
        assert campaign.files[name], "an undisturbed run repeats its bytes"
        for when in ("before", "after"):
            death = Death(signal.SIGKILL, None, "replace", 1, when)
            assert campaign.kill(name, death, f"{name}-{when}") == []
