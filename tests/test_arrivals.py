import numpy as np
import pytest

from esl_lava.arrivals import count_by_steps_left, crossed, fan_out, longest_delay
from esl_lava.network import INPUT, Cuba, Injection, Input, Matrix
from tests.graphs import a_layer, a_network, ends
from tests.test_network import any_convolution


def in_time(part, late, left: int) -> list[int]:
    """Count for each input the synapses that a spike with `left` steps left crosses."""
    reached = np.broadcast_to(late, part.n_post) <= left
    return np.count_nonzero(part.unrolled().dense()[reached], axis=0).tolist()


@pytest.mark.parametrize("seed", range(30))
def test_fan_out_by_steps_left(seed):
    rng = np.random.default_rng(seed)
    part = any_convolution(seed)
    if seed % 3 == 0:
        part = Matrix.from_dense(rng.integers(-1, 2, (7, 5)))
    late = int(rng.integers(0, 3)) if seed % 2 else rng.integers(0, 5, part.n_post)
    counts = fan_out(part, late)
    assert counts.shape == (int(np.max(late)) + 1, part.n_pre)
    for left in range(8):
        row = counts[min(left, len(counts) - 1)]
        assert row.tolist() == in_time(part, late, left)
    onto = rng.random(part.n_post) < 0.5
    of_two = fan_out(part, late, onto) + fan_out(part, late, ~onto)
    assert of_two.tolist() == counts.tolist()


def test_fan_out_without_synapses():
    assert fan_out(Injection((3,)), np.array([0, 1, 0])).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("rows", range(1, 9))
def test_spikes_by_the_steps_that_are_left(rows):
    spikes = np.random.default_rng(rows).integers(0, 9, (2, 5, 3))
    counts = count_by_steps_left(spikes, rows)
    assert counts.shape == (2, rows, 3)
    for row in range(rows - 1):
        expected = spikes[:, 4 - row] if row < 5 else 0 * spikes[:, 0]
        assert counts[:, row].tolist() == expected.tolist()
    assert counts[:, -1].tolist() == spikes[:, : max(0, 6 - rows)].sum(axis=1).tolist()


def test_every_synapse_is_crossed_that_is_reached_in_time():
    synapses = np.array([[1, 0], [4, 2], [5, 2]])
    spikes = np.array([[[1, 1], [0, 2], [3, 0]], [[0, 0], [1, 0], [0, 1]]])
    assert crossed(spikes, synapses).tolist() == [1 + 4 + 15, 4 + 2]
    assert crossed(spikes[0], synapses) == 20


def test_inputs_of_a_network_and_when_their_spikes_arrive():
    def full(n_post: int, n_pre: int) -> Matrix:
        return Matrix.from_dense(np.ones((n_post, n_pre), int))

    first = a_layer("a", full(3, 2), Cuba(1, 1, 1), recurrent=full(3, 3))
    second = a_layer(
        "b", full(2, 3), Cuba(1, 1, 1), delays=[4, 0], skips=(Input(INPUT, full(2, 2)),)
    )
    network = a_network((first, second))
    named = [
        (end.source, np.ravel(end.late).tolist())
        for layer in (first, second)
        for end in ends(layer)
    ]
    assert named == [(INPUT, [0]), ("a", [1]), (INPUT, [4, 0]), (INPUT, [0])]
    assert longest_delay(network) == 4
    assert longest_delay(a_network((first,))) == 1
    assert longest_delay(a_network((a_layer("a", full(3, 2), Cuba(1, 1, 1)),))) == 0
