"""A short campaign: a training that is killed after it wrote its first checkpoint."""

import signal
from pathlib import Path

import pytest

from tests.kills.campaign import Campaign, Death

pytestmark = pytest.mark.slow


def test_nothing_is_lost_by_a_kill(tmp_path: Path) -> None:
    # Other tests run Lava at the same time, and a training does not.
    campaign = Campaign(tmp_path, shared_memory=None)
    campaign.prepare("train")
    assert "run/model.pt" in campaign.files["train"], "an undisturbed run repeats its bytes"
    death = Death(signal.SIGKILL, None, "replace", 2, "after")
    assert campaign.kill("train", death, "killed") == (True, [])
