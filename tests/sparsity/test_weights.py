import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from esl_lava.sparsity.weights import SparseWeight, carry_over

NOWHERE = torch.tensor([], dtype=torch.int64)


def weight_of(positions: list[int], n_pre: int = 3, n_post: int = 2) -> SparseWeight:
    """Return a module with the weights 1, 2, ... in order of position."""
    weight = SparseWeight(n_pre, n_post, lambda at: torch.arange(1.0, at.numel() + 1))
    weight.begin(torch.tensor(positions, dtype=torch.int64))
    return weight


def listed(weight: SparseWeight) -> list[list[float]]:
    return [t.tolist() for t in (weight.starts, weight.pre, weight.values)]


def test_there_is_no_connection_at_first():
    weight = SparseWeight(3, 2, torch.zeros_like)
    assert listed(weight) == [[0, 0, 0], [], []]
    assert (weight.shape, weight.size) == ((2, 3), 6)
    assert [t.dtype for t in (weight.starts, weight.pre, weight.values)] == [
        torch.int64,
        torch.int32,
        torch.float32,
    ]
    assert isinstance(weight.values, nn.Parameter)
    assert (weight.dense_gradient, weight.wants_dense_gradient) == (None, False)
    assert weight.positions().tolist() == []
    assert [t.tolist() for t in weight.by_pre()] == [[0, 0, 0, 0], [], []]


def test_by_hand():
    asked = []

    def initial(positions: torch.Tensor) -> torch.Tensor:
        asked.append(positions.tolist())
        return positions / 2

    weight = SparseWeight(3, 2, initial)
    values = weight.values
    weight.begin(torch.tensor([1, 2, 3, 5]))
    assert asked == [[1, 2, 3, 5]]
    assert listed(weight) == [[0, 2, 4], [1, 2, 0, 2], [0.5, 1, 1.5, 2.5]]
    assert weight.positions().tolist() == [1, 2, 3, 5]
    starts, post, order = weight.by_pre()
    assert (starts.tolist(), post.tolist(), order.tolist()) == (
        [0, 1, 2, 4],
        [1, 0, 0, 1],
        [2, 0, 1, 3],
    )
    assert weight.by_pre()[2] is order
    values.grad = torch.ones(4)
    weight.dense_gradient = lambda where: torch.zeros(1)
    moved = weight.rewire(torch.tensor([1, 5]), torch.tensor([0, 4]))
    assert listed(weight) == [[0, 2, 4], [0, 2, 0, 1], [0, 1, 1.5, 0]]
    assert moved.tolist() == [-1, 1, 2, -1]
    assert carry_over(torch.tensor([1, 2, 3, 4]), moved).tolist() == [0, 2, 3, 0]
    assert weight.values is values
    assert (values.grad, weight.dense_gradient) == (None, None)
    assert weight.by_pre()[2].tolist() == [0, 2, 3, 1]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.randoms(use_true_random=False))
def test_rewiring_is_that_of_a_dense_weight(n_pre, n_post, random):
    size = n_pre * n_post
    held = [i for i in range(size) if random.random() < 0.5]
    weight = weight_of(held, n_pre, n_post)
    dense = dict(zip(held, weight.values.tolist()))
    for _ in range(3):
        drop = [i for i in dense if random.random() < 0.4]
        grow = [i for i in range(size) if i not in dense and random.random() < 0.4]
        before = weight.values.detach().clone()
        moved = weight.rewire(where(drop), where(grow))
        dense = {i: 0.0 if i in grow else dense[i] for i in sorted({*dense, *grow} - {*drop})}
        assert weight.positions().tolist() == list(dense)
        assert weight.values.tolist() == list(dense.values())
        assert torch.equal(carry_over(before, moved), weight.values)
        starts, post, order = (t.tolist() for t in weight.by_pre())
        by_pre = sorted((i % n_pre, i // n_pre) for i in dense)
        assert post == [j for _, j in by_pre]
        assert [list(dense)[k] for k in order] == [j * n_pre + i for i, j in by_pre]
        assert starts == [sum(i < k for i, _ in by_pre) for k in range(n_pre + 1)]


def where(positions: list[int]) -> torch.Tensor:
    return torch.tensor(positions, dtype=torch.int64)


@pytest.mark.parametrize(
    ("drop", "grow"),
    [
        ([], [1]),  # exists
        ([1], [1]),  # is dropped at once
        ([4], []),
        ([-1], []),
        ([2, 1], []),
        ([2, 2], []),
        ([], [4, 0]),
        ([], [0, 0]),
        ([], [6]),
        ([], [-1]),
        ([1, 2], [4, -3]),
        ([1, 2, 3, 4, 5], []),
    ],
)
def test_rewiring_refuses(drop, grow):
    weight = weight_of([1, 2, 3, 5])
    before = listed(weight)
    with pytest.raises(
        ValueError, match=f"cannot drop {len(drop)} of 4 connections and grow {len(grow)}:"
    ):
        weight.rewire(where(drop), where(grow))
    assert listed(weight) == before


@pytest.mark.parametrize("positions", [[1, 1], [2, 1], [-1, 2], [5, 6]])
def test_beginning_refuses(positions):
    with pytest.raises(ValueError, match=r"2 positions cannot .* strictly ascend within 0\.\.5"):
        weight_of(positions)


def test_construction_refuses():
    for sides in ((0, 2), (2, 0), (2**31, 1)):
        with pytest.raises(
            ValueError, match=r"inputs and .* outputs: each number must be within 1"
        ):
            SparseWeight(*sides, torch.zeros_like)
    weight = SparseWeight(3, 2, lambda at: torch.ones(1))
    with pytest.raises(ValueError, match="there are 1 initial weights, but 2 connections"):
        weight.begin(where([0, 1]))


def test_initial_weights_are_copied_as_float32():
    given = torch.tensor([1.0, 2.0])
    for initial in (lambda at: given, lambda at: given.double(), lambda at: torch.ones(4)[::2]):
        weight = SparseWeight(3, 2, initial)
        weight.begin(where([0, 5]))
        assert weight.values.dtype == torch.float32
        assert weight.values.is_contiguous()
        weight.values.data.fill_(7)
    assert given.tolist() == [1, 2]


def test_gradients_arrive_while_an_old_graph_is_alive():
    weight = weight_of([1, 2, 3])
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    loss = (weight.values * torch.tensor([1.0, 2, 3])).sum()
    loss.backward()
    weight.rewire(where([1]), where([4, 5]))
    other = (weight.values * torch.tensor([1.0, 2, 3, 4])).sum()
    other.backward()
    optimizer.step()
    assert weight.values.tolist() == [2 - 1, 3 - 2, -3, -4]
    assert loss.requires_grad


def test_a_state_of_another_number_of_connections_loads():
    for held in ([0, 4], [], [0, 1, 2, 3, 4, 5]):
        weight = nn.ModuleDict({"synapse": weight_of([1, 2, 3])})
        values, columns = weight["synapse"].values, weight["synapse"].by_pre()
        state = nn.ModuleDict({"synapse": weight_of(held)}).state_dict()
        assert list(state) == [f"synapse.{key}" for key in ("values", "starts", "pre", "sides")]
        kept = copy.deepcopy(state)
        weight.load_state_dict(state)
        assert weight["synapse"].values is values
        assert weight["synapse"].positions().tolist() == held
        assert values.tolist() == [float(i + 1) for i in range(len(held))]
        assert weight["synapse"].by_pre()[1] is not columns[1]
        # A rewiring does not change the loaded state.
        weight["synapse"].rewire(NOWHERE, where([i for i in range(6) if i not in held]))
        assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": [0, 3, 3]}, "starts do not ascend from 0 to 4, the number of connections"),
        ({"starts": [1, 2, 4]}, "starts do not ascend from 0 to 4, the number of connections"),
        ({"starts": [0, 5, 4]}, "starts do not ascend from 0 to 4, the number of connections"),
        ({"starts": [0, -1, 4]}, "starts do not ascend from 0 to 4, the number of connections"),
        ({"starts": [0, 4]}, "starts has shape (2,) of int64, not (3,) of int64"),
        ({"pre": [1, 2, 0, 3]}, "pre has an input neuron outside 0..2"),
        ({"pre": [-1, 2, 0, 2]}, "pre has an input neuron outside 0..2"),
        ({"pre": [2, 1, 0, 2]}, "the input neurons of an output neuron do not ascend in pre"),
        ({"pre": [1, 2, 0, 0]}, "the input neurons of an output neuron do not ascend in pre"),
        ({"pre": [1, 2, 0]}, "pre has shape (3,) of int32, not (4,) of int32"),
        ({"sides": [2, 4]}, "sides are [2, 4], not [2, 3] (outputs, inputs)"),
        ({"sides": [2]}, "sides has shape (1,) of int64, not (2,) of int64"),
        ({"values": [1]}, "pre has shape (4,) of int32, not (1,) of int32"),
    ],
)
def test_structures_that_do_not_fit_are_refused(change, message):
    weight = weight_of([1, 2, 3, 5])
    state = weight.state_dict()
    for name, numbers in change.items():
        state[name] = torch.tensor(numbers, dtype=state[name].dtype)
    other = weight_of([0])
    before = listed(other)
    with pytest.raises(RuntimeError, match="sparse weight: " + re.escape(message)):
        other.load_state_dict(state)
    assert listed(other) == before


def test_states_of_other_kinds_are_refused():
    state = weight_of([1, 2]).state_dict()
    with pytest.raises(RuntimeError, match=r"values has shape .* of float64, not"):
        weight_of([0]).load_state_dict({**state, "values": state["values"].double()})
    del state["pre"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"pre\""):
        weight_of([0]).load_state_dict(state)
    state = weight_of([1, 2]).state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"other\""):
        weight_of([0]).load_state_dict({**state, "other": state["pre"]})
