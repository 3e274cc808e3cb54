"""`effective_weights` against the functions that Lava calls, in a separate interpreter."""

import json
import subprocess
import sys

import numpy as np
import pytest

from esl_lava.netfile.lava_weights import effective_weights

# The test loads netx's module from its file: its package would import torch, for many seconds.
GENUINE = """
import contextlib, io, json, sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import lava
import numpy as np
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

spec = spec_from_file_location("utils", Path(lava.__path__[0], "lib", "dl", "netx", "utils.py"))
netx_utils = module_from_spec(spec)
spec.loader.exec_module(netx_utils)

with contextlib.redirect_stdout(io.StringIO()):  # netx prints a line when it clips
    answers, apart = [], []
    alone, together = json.load(sys.stdin)
    for rows in alone:
        # As lava/lib/dl/netx/hdf5.py (create_dense) ...
        weights, bits, exponent, _ = netx_utils.optimize_weight_bits(np.array(rows).astype(int))
        # ... and lava/proc/dense/models.py (run_spk) do.
        weights = weights.astype(np.int32)
        mode = determine_sign_mode(weights)
        weights = clip_weights(weights, mode, num_bits=8)
        weights = truncate_weights(weights, mode, bits)
        total = weights.sum(axis=1)
        total = np.left_shift(total, exponent) if exponent > 0 else np.right_shift(total, -exponent)
        answers.append((weights.tolist(), exponent, total.tolist()))
    for pair in together:
        # create_dense again, for a layer with recurrent weights.
        forward, recurrent = np.array(pair[0]).astype(int), np.array(pair[1]).astype(int)
        both, bits, exponent, _ = netx_utils.optimize_weight_bits(np.hstack((forward, recurrent)))
        stored = []
        for part in (both[:, : forward.shape[1]], both[:, forward.shape[1] :]):
            weights = part.astype(np.int32)
            mode = determine_sign_mode(weights)
            weights = clip_weights(weights, mode, num_bits=8)
            stored.append(truncate_weights(weights, mode, bits).tolist())
        apart.append((stored, exponent))
print(json.dumps([answers, apart]))
"""


def matrices() -> list[np.ndarray]:
    """Return weight matrices of all kinds that are not all 0."""
    rng = np.random.default_rng(0)
    ranges = [(-256, 254), (-256, 0), (0, 254), (-256, -1), (1, 254), (-8, 8)]
    every = []
    for low, high in ranges:
        for step in (1, 2, 4, 64):
            for _ in range(12):
                shape = rng.integers(1, 5, 2)
                first, last = -(-low // step), high // step
                every.append(step * rng.integers(first, max(first, last) + 1, shape))
    for power in range(9):
        every += [np.array(rows) * 2**power for rows in ([[-1, 0]], [[-1]], [[-1, -1]], [[-1, 1]])]
        every += [np.array([[-(2**power), odd, 0]]) for odd in (-1, -2) if 2**power >= -odd]
        every += [np.array([[-(2**power), -2]]), np.array([[-(2**power), 2]])]
    every += [np.array([[value]]) for value in (*range(-256, -120), 1, 2, 3, 127, 128, 253, 254)]
    every += [np.array([[value, 0]]) for value in (*range(-256, -120, 3), 1, 254)]
    # Out of range: other rules refuse these matrices, but Lava computes the same.
    every += [rng.integers(*limits, (3, 4)) for limits in [(-900, 900), (0, 900), (-900, 0)] * 8]
    every += [
        np.array(rows)
        for rows in (
            [[255]],
            [[256]],
            [[-2, 255]],
            [[-257, 2]],
            [[1, 299]],
            [[-300, 299]],
            [[-257]],
        )
    ]
    return [matrix for matrix in every if matrix.any()]


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of feed-forward and recurrent weights of all mixtures of signs, not all 0."""
    rng = np.random.default_rng(1)
    ranges = [(-256, 255), (-256, 1), (0, 255), (-256, 0), (1, 255), (-8, 9), (0, 1), (-900, 900)]
    both = []
    for forward in ranges:
        for recurrent in ranges:
            for step in (1, 2, 64):
                limits = (np.array(limit) // step for limit in (forward, recurrent))
                n = int(rng.integers(1, 4))
                one, other = (
                    step * rng.integers(low, max(high, low + 1), shape)
                    for (low, high), shape in zip(limits, ((n, int(rng.integers(1, 4))), (n, n)))
                )
                both.append((one, other))
    return [pair for pair in both if pair[0].any() or pair[1].any()]


@pytest.fixture(scope="module")
def genuine() -> tuple[list, list]:
    """The results of Lava for all matrices and pairs."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GENUINE],
        input=json.dumps(
            [
                [matrix.tolist() for matrix in matrices()],
                [[part.tolist() for part in pair] for pair in pairs()],
            ]
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    alone, together = json.loads(process.stdout.splitlines()[-1])
    return alone, together


@pytest.fixture(scope="module")
def cases(genuine) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each matrix, its weights in Lava, and Lava's sum of each row."""
    return [
        (matrix, np.array(stored) * 2.0**exponent, np.array(total))
        for matrix, (stored, exponent, total) in zip(matrices(), genuine[0])
    ]


@pytest.mark.slow
def test_recurrent_weights_are_shifted_together_and_judged_apart(genuine):
    changed = 0
    for pair, (stored, exponent) in zip(pairs(), genuine[1]):
        ours = effective_weights(*(part.astype(np.int32) for part in pair))
        for mine, theirs in zip(ours, stored):
            np.testing.assert_array_equal(mine, np.array(theirs) * 2.0**exponent, err_msg=str(pair))
        apart = [effective_weights(part)[0] if part.any() else part * 1.0 for part in pair]
        changed += any((one != other).any() for one, other in zip(ours, apart))
    assert changed > 10  # shifting them together matters


def test_each_weight_counts_as_in_lava(cases):
    assert len(cases) > 400
    for matrix, genuine, _ in cases:
        (ours,) = effective_weights(matrix.astype(np.int32))
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, genuine, err_msg=str(matrix.tolist()))


def test_unchanged_weights_make_unchanged_sums(cases):
    unchanged = [case for case in cases if (effective_weights(case[0])[0] == case[0]).all()]
    assert len(unchanged) > 200
    for matrix, _, total in unchanged:
        assert total.tolist() == matrix.sum(axis=1).tolist()


def test_lava_adds_up_the_effective_weights_and_rounds_down(cases):
    for matrix, _, total in cases:
        assert total.tolist() == np.floor(effective_weights(matrix)[0].sum(axis=1)).tolist()


def test_a_matrix_of_both_signs_within_range_is_exact(cases):
    mixed = [m for m, *_ in cases if m.min() < 0 < m.max() and m.min() >= -256 and m.max() <= 254]
    assert len(mixed) > 50
    for matrix in mixed:
        np.testing.assert_array_equal(effective_weights(matrix)[0], matrix)


@pytest.mark.parametrize(
    ("weights", "effective"),
    [
        ([[-64, 0]], [[-32, 0]]),
        ([[-128, -2, 0]], [[-127, -2, 0]]),
        ([[-1, 0]], [[-0.5, 0]]),
        ([[-128, -1, 0]], [[-127.5, -1, 0]]),
        ([[-129, -2, 0]], [[0, 0, 0]]),
        ([[-256, -2]], [[-254, -2]]),
        ([[300]], [[0]]),
    ],
)
def test_known_cases(weights, effective):
    assert effective_weights(np.array(weights))[0].tolist() == effective


def test_the_argument_stays_as_it_is():
    weights = np.array([[-64, 0]], np.int32)
    weights.flags.writeable = False
    effective_weights(weights)
    assert weights.tolist() == [[-64, 0]]
