from dataclasses import replace

import pytest

from esl_lava.energy.training import TrainedLayer, TrainingSchedule, training_cost
from esl_lava.errors import DataError
from tests.faults import refused

# 10-20-4, two epochs of 30 samples in batches of 8 (four an epoch), five steps.
FIRST = TrainedLayer("hidden", 20, 200, 200, 0.25, [0.5, 0.25], moved=7)
LAST = TrainedLayer("readout", 4, 80, 80, 0.5, [1.0, 1.0])
SCHEDULE = TrainingSchedule(samples=30, batch=8, steps=5, updates=3, growth="random")

PRESENTED = 30 * 5
CONNECTIONS = 200 * 0.75, 80 * 2  # summed over the epochs


def test_operations_by_hand() -> None:
    found = training_cost([FIRST, LAST], SCHEDULE)
    hidden, readout = CONNECTIONS
    assert found.sparse.operations == {
        "forward": PRESENTED * (hidden + readout),
        "backward": PRESENTED * (hidden + 2 * readout),  # the first layer hands nothing down
        "update": 12 * 4 * (hidden + readout),
        "evolution": 3 * hidden / 2 + 7,  # the readout is never rewired
    }
    assert found.sparse.event_operations == {
        "forward": PRESENTED * (hidden / 4 + readout / 2),
        "backward": PRESENTED * (hidden / 4 + readout * 1.5),
        "update": 12 * 4 * (hidden + readout),
        "evolution": 3 * hidden / 2 + 7,
    }
    assert found.dense.operations == {
        "forward": PRESENTED * (400 + 160),
        "backward": PRESENTED * (400 + 2 * 160),
        "update": 12 * 4 * (400 + 160),
        "evolution": 0,
    }
    assert found.neuron_updates == 24 * 150 * 2


def test_bytes_by_hand() -> None:
    found = training_cost([FIRST, LAST], SCHEDULE)
    hidden, readout = CONNECTIONS
    states = PRESENTED * 2 * 24 * 5
    reads = 4 * 5
    assert found.sparse.bytes == {
        "forward": reads * (hidden + readout) * 8 + states,
        "backward": reads * (hidden * 8 + readout * 16) + states,
        "update": 28 * 4 * (hidden + readout),
        "evolution": 3 * (4 * hidden / 2 + 2 * 200),
    }
    assert found.dense.bytes == {
        "forward": reads * 560 * 4 + states,
        "backward": reads * (400 * 8 + 160 * 12) + states,
        "update": 28 * 4 * 560,
        "evolution": 0,
    }


@pytest.mark.parametrize(("growth", "share"), [("gradient", 3 / 8), ("momentum", 1.0)])
def test_rules_that_rank_all_positions_pay_for_absent_ones(growth: str, share: float) -> None:
    plain = training_cost([FIRST, LAST], SCHEDULE)
    found = training_cost([FIRST, LAST], replace(SCHEDULE, growth=growth))
    absent = PRESENTED * (400 - CONNECTIONS[0])
    more = found.sparse.operations["backward"] - plain.sparse.operations["backward"]
    assert more == pytest.approx(share * absent)
    scored = found.sparse.operations["evolution"] - plain.sparse.operations["evolution"]
    assert scored == 3 * 200
    assert found.dense == plain.dense


def test_a_kernel_costs_operations_wherever_it_slides_but_is_stored_once() -> None:
    slid = replace(FIRST, possible_connections=2000)
    once, often = (training_cost([layer, LAST], SCHEDULE) for layer in (FIRST, slid))
    more = often.sparse.operations["forward"] - once.sparse.operations["forward"]
    assert more == PRESENTED * 1800 * 0.75
    assert often.sparse.bytes == once.sparse.bytes
    assert often.sparse.operations["update"] == once.sparse.operations["update"]


def test_a_dense_training_costs_what_its_twin_does_but_for_indices() -> None:
    dense = [replace(FIRST, densities=[1.0, 1.0], moved=0), LAST]
    found = training_cost(dense, replace(SCHEDULE, updates=0))
    assert found.operations_ratio == 1.0
    assert found.bytes_ratio > 1.0
    assert found.event_ratio < 1.0


def test_epochs_have_to_be_recorded_for_all_layers() -> None:
    with refused(DataError, "mismatch", key="densities", value="hidden 2, readout 1"):
        training_cost([FIRST, replace(LAST, densities=[1.0])], SCHEDULE)
    with refused(DataError, "mismatch", key="densities", value="hidden 0"):
        training_cost([replace(FIRST, densities=[])], SCHEDULE)
