"""Faster convolutions do not crash on convolutions that stock SLAYER computes."""

import copy
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from esl_lava.engines import fused
from esl_lava.engines.slayer import slayer
from tests.engines.test_fused import NEURON, on_chip, passes, spikes


@pytest.mark.slow
def test_random_convolutions_each_in_a_process_of_its_own():
    """The test starts an interpreter with one thread, which can be forked."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.engines.convolutions", "60"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "60 convolutions" in process.stdout
    assert (
        "0 crashes, 0 errors, 0 different spikes, 0 different gradients; 5 kept" in process.stdout
    )


@pytest.mark.slow
def test_maps_that_crash_torchs_convolution_keep_stock_passes(monkeypatch, caplog):
    """The log names the block once. For wider maps the same block has faster passes."""
    torch.manual_seed(0)
    stock = on_chip(
        slayer.block.cuba.Conv(
            dict(NEURON),
            4,
            16,
            (2, 1),
            stride=(2, 2),
            padding=(0, 1),
            dilation=(2, 1),
            groups=4,
            delay_shift=False,
        )
    )
    calls = []
    convolution = fused.functional.conv2d
    monkeypatch.setattr(fused.functional, "conv2d", lambda *a: calls.append(a) or convolution(*a))
    rng = np.random.default_rng(0)
    with caplog.at_level(logging.WARNING):
        for width, faster in ((1, False), (2, True)):
            twin, theirs = copy.deepcopy(stock), copy.deepcopy(stock)
            network = fused.accelerate(torch.nn.ModuleDict({"odd": twin}))
            for _ in range(2):
                x = spikes(rng, (3, 4, 7, width, 3), 0.4)
                assert torch.equal(passes(network["odd"], x)[0], passes(theirs, x)[0])
            assert bool(calls) is faster
    (line,) = caplog.messages
    assert "block odd keeps stock SLAYER's passes on maps of 7 x 1" in line


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "alone"),
    [
        (1, 1, 2, 1, 1, True),  # stops at -1 and 1
        (1, 1, 1, 1, 1, False),
        (3, 1, 4, 1, 1, True),  # at -1 and 3
        (2, 1, 3, 4, 1, True),  # at -4, -1, 2 and 5
        (2, 2, 4, 2, 1, True),  # -2 and -1; 2 and 3
        (1, 2, 2, 3, 2, True),  # -3, -1; -1, 1; 1, 3
        (2, 2, 2, 3, 2, False),  # -1 and 1
        (3, 3, 1, 0, 1, False),
    ],
)
def test_kernels_that_see_only_padding(size, kernel, stride, padding, dilation, alone):
    assert fused.sees_only_padding(size, kernel, stride, padding, dilation) is alone
    seen = torch.nn.functional.conv1d(
        torch.ones(1, 1, size), torch.ones(1, 1, kernel), None, stride, padding, dilation
    )
    assert bool((seen == 0).all()) is alone


def test_a_convolution_without_output_does_not_see_only_padding():
    assert not fused.sees_only_padding(size=1, kernel=3, stride=1, padding=0, dilation=1)
