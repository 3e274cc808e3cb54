"""Trained layers as arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.trained import DenseWeights, SparseWeights, find_sparse_fault


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_stored_connections_are_those_of_a_masked_weight(shape, density, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < density
    values = np.where(mask, rng.standard_normal(shape), 0).astype(np.float32)
    rows = mask.reshape(len(mask), -1)
    starts = np.append(0, rows.sum(axis=1).cumsum())
    pre = np.nonzero(rows)[1].astype(np.int32)
    parts = {"values": values[mask], "starts": starts, "pre": pre}
    assert find_sparse_fault(*rows.shape, **parts, sides=np.array(rows.shape)) is None
    weights = SparseWeights(rows.shape[1], starts, pre, values[mask]).densified(tuple(shape))
    assert weights.values.dtype == np.float32
    assert np.array_equal(weights.values, values)
    assert weights.mask is not None
    assert np.array_equal(weights.mask, mask)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"the mask has shape \(3,\), but the weights have \(2, 2\)"
    ):
        DenseWeights(np.zeros((2, 2)), np.zeros(3))
