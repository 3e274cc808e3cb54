"""A checkpoint of a stranger is refused before torch or a kernel uses a wrong entry of it.

Run as a program, this module tries all cases and writes a JSON line for each: a fault may crash the
process.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava.arrays import Array
from esl_lava.errors import UserError
from esl_lava.modelfile import SavedModel
from esl_lava.sparsity.schedule import SCHEDULES, Schedule
from esl_lava.training.checkpoint import Plan
from esl_lava.training.trainer import Trainer
from tests.fuzz import trainings

LIMITS = {resource.RLIMIT_AS: 12 << 30, resource.RLIMIT_CPU: 500, resource.RLIMIT_CORE: 0}
ADAM = "state.optimizer.param_groups[0]"
DENSE, STORED = "hidden1.synapse.weight", "hidden1.synapse.weight.values"

Edit = Callable[[SavedModel], object]
"""Changes a checkpoint in place."""


def at(*place: object) -> Callable[[Callable[[Any], Any]], Edit]:
    """Return a function that makes an edit of the value at a place of the file."""

    def by(change: Callable[[Any], Any]) -> Edit:
        def edit(saved: SavedModel) -> None:
            parent: Any = getattr(saved, str(place[0]))
            for key in place[1:-1]:
                parent = parent[key]
            parent[place[-1]] = change(parent[place[-1]])

        return edit

    return by


def group(key: str, value: object) -> Edit:
    """Return an edit of an option of the optimiser."""

    def edit(saved: SavedModel) -> None:
        saved.state["optimizer"]["param_groups"][0][key] = value

    return edit


def moments(change: Callable[[Array], Array]) -> Edit:
    """Return an edit of all moments of the optimiser."""

    def edit(saved: SavedModel) -> None:
        for entry in saved.state["optimizer"]["state"].values():
            for key in ("exp_avg", "exp_avg_sq"):
                entry[key] = change(entry[key])

    return edit


def element(value: float, index: int = 0) -> Callable[[Array], Array]:
    """Return a change of one element of an array."""

    def change(array: Array) -> Array:
        array = array.copy()
        array.reshape(-1)[index] = value
        return array

    return change


def remove(*place: object) -> Edit:
    """Return an edit that removes an entry."""

    def edit(saved: SavedModel) -> None:
        parent: Any = getattr(saved, str(place[0]))
        for key in place[1:-1]:
            parent = parent[key]
        del parent[place[-1]]

    return edit


def words(first: int, **fields: int) -> Callable[[Array], Array]:
    """Return a change of a generator's state: of its words, from word `first` on, and of fields."""
    places = {"seed": slice(0, 8), "left": slice(8, 12), "next": slice(16, 24)}

    def change(state: Array) -> Array:
        state = state.copy()
        state[24 + 8 * first : 24 + 8 * 624] = 0
        for name, value in fields.items():
            part = places[name]
            state[part] = np.frombuffer(value.to_bytes(part.stop - part.start, "little"), np.uint8)
        return state

    return change


def add_connection(saved: SavedModel) -> None:
    """Add a connection to a mask and to the record of all connections so far."""
    free = int(np.flatnonzero(~saved.masks["hidden1"].reshape(-1))[0])
    for table in (saved.masks, saved.ever):
        table["hidden1"].reshape(-1)[free] = True


def at_connection(saved: SavedModel) -> None:
    """Make a moment of a connection infinite."""
    moment = saved.state["optimizer"]["state"][0]["exp_avg"]
    moment[saved.masks["hidden1"]] = math.inf


def forget_connection(saved: SavedModel) -> None:
    """Take a connection out of the record of all connections so far."""
    saved.ever["hidden1"].reshape(-1)[np.flatnonzero(saved.masks["hidden1"].reshape(-1))[0]] = False


first_moment = at("state", "optimizer", "state", 0, "exp_avg")
generator = at("state", "evolver", "generators", "hidden1")
OF_STATE = {"key": "state.optimizer.state[0].exp_avg", "layer": "hidden1"}
OF_GENERATOR = {"key": "state.evolver.generators.hidden1", "layer": "hidden1"}

Case = tuple[Edit, str, Mapping[str, object]]
FOREIGN: dict[str, Case] = {
    "moments of one number": (moments(lambda _: np.zeros(1, np.float32)), "mismatch", OF_STATE),
    "moments that are too long": (
        moments(lambda a: np.append(a, np.zeros(9, np.float32))),
        "mismatch",
        OF_STATE,
    ),
    "moments of another type": (
        moments(lambda a: a.astype(np.float64)),
        "mismatch",
        OF_STATE,
    ),
    "a moment that is no tensor": (first_moment(lambda _: 3), "type", OF_STATE),
}
"""Cases of every kind of training of which the first weight has a dense or sparse moment."""

CASES: dict[str, dict[str, Case]] = {
    "slayer": FOREIGN,
    "momentum": {
        "no dense moments": (
            remove("state", "evolver", "moments"),
            "mismatch",
            {"key": "state.evolver.moments"},
        ),
        "short dense moments": (
            at("state", "evolver", "moments", "hidden1", "exp_avg")(lambda a: a[1:]),
            "mismatch",
            {"key": "state.evolver.moments.hidden1.exp_avg", "layer": "hidden1"},
        ),
    },
    "sparse": {
        **FOREIGN,
        "an input beyond the layer": (
            at("weights", "hidden1.synapse.weight.pre")(element(64, -1)),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "an input before the layer": (
            at("weights", "hidden1.synapse.weight.pre")(element(-1)),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "rows beyond the connections": (
            at("weights", "hidden1.synapse.weight.starts")(element(1 << 40, -1)),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "rows that do not ascend": (
            at("weights", "hidden1.synapse.weight.starts")(element(1 << 40, 2)),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "other sides": (
            at("weights", "hidden1.synapse.weight.sides")(element(1 << 30, 1)),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "a best model with an input beyond the layer": (
            at("state", "best", "weights", "hidden1.synapse.weight.pre")(element(64, -1)),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "past connections beyond the layer": (
            at("ever", "hidden1")(lambda _: np.array([0, 1 << 40])),
            "mismatch",
            {"key": "ever", "layer": "hidden1"},
        ),
        "past connections that lack present ones": (
            at("ever", "hidden1")(lambda _: np.array([0])),
            "mismatch",
            {"key": "ever", "layer": "hidden1"},
        ),
    },
    "fused": {
        **FOREIGN,
        **{
            f"another {key}": (group(key, value), "mismatch", {"key": f"{ADAM}.{key}"})
            for key, value in {
                "betas": (0.5, 0.999),
                "weight_decay": 0.1,
                "eps": 1e-3,
                "lr": 0.5,
                "amsgrad": True,
                "maximize": True,
                "capturable": True,
                "differentiable": True,
                "params": [1, 0, 2],
            }.items()
        },
        "an unknown option": (group("momentum", 0.9), "mismatch", {"key": ADAM}),
        "another Adam": (
            group("decoupled_weight_decay", True),
            "mismatch",
            {"key": f"{ADAM}.decoupled_weight_decay"},
        ),
        "a lacking option": (
            remove("state", "optimizer", "param_groups", 0, "betas"),
            "mismatch",
            {"key": f"{ADAM}.betas"},
        ),
        "another number of steps": (
            at("state", "optimizer", "state", 1, "step")(lambda _: np.array(7, np.float32)),
            "mismatch",
            {"key": "state.optimizer.state[1].step", "value": 7.0, "limit": 3.0},
        ),
        "steps of another type": (
            at("state", "optimizer", "state", 1, "step")(lambda a: a.astype(np.float64)),
            "mismatch",
            {"key": "state.optimizer.state[1].step", "layer": "hidden2"},
        ),
        "no state of a weight": (
            remove("state", "optimizer", "state", 1),
            "mismatch",
            {"key": "state.optimizer.state", "layer": "hidden2"},
        ),
        "the state of an unknown weight": (
            lambda s: s.state["optimizer"]["state"].update({3: {}}),
            "mismatch",
            {"key": "state.optimizer.state", "value": 3},
        ),
        "a negative mean of squares": (
            at("state", "optimizer", "state", 0, "exp_avg_sq")(element(-1)),
            "range",
            {"key": "state.optimizer.state[0].exp_avg_sq", "value": 1, "layer": "hidden1"},
        ),
        "an infinite moment of connections": (at_connection, "not-finite", {"layer": "hidden1"}),
        "a weight that is NaN": (
            at("weights", "readout.synapse.weight")(element(math.nan)),
            "not-finite",
            {"layer": "readout", "value": 1},
        ),
        "weights of another type": (
            at("weights", DENSE)(lambda a: a.astype(np.float64)),
            "mismatch",
            {"key": DENSE},
        ),
        "a decay of another configuration": (
            at("weights", "hidden1.neuron.current_decay")(lambda a: a + 1),
            "mismatch",
            {"key": "hidden1.neuron.current_decay"},
        ),
        "one connection more": (
            add_connection,
            "mismatch",
            {"key": "masks", "layer": "hidden1"},
        ),
        "a forgotten connection": (
            forget_connection,
            "mismatch",
            {"key": "ever", "value": 1, "layer": "hidden1"},
        ),
        "a generator of another length": (generator(lambda a: a[:-1]), "mismatch", OF_GENERATOR),
        "a generator beyond its words": (
            generator(words(624, left=600, next=600)),
            "damaged",
            OF_GENERATOR,
        ),
        "a generator far beyond its words": (
            generator(words(624, left=1, next=1 << 40)),
            "damaged",
            OF_GENERATOR,
        ),
        "a generator of zeros": (generator(words(0)), "damaged", OF_GENERATOR),
        "a generator of another seed": (generator(words(624, seed=5)), "damaged", OF_GENERATOR),
        "no generator": (
            remove("state", "evolver", "generators", "hidden1"),
            "mismatch",
            {"key": "state.evolver.generators"},
        ),
        "another step of the evolver": (
            at("state", "evolver", "iteration")(lambda n: n - 1),
            "mismatch",
            {"key": "state.evolver.iteration", "value": 2, "limit": 3},
        ),
        "an update that waits": (
            at("state", "evolver", "waiting")(lambda _: True),
            "mismatch",
            {"key": "state.evolver.waiting"},
        ),
        "a lacking update": (
            at("state", "evolver", "history")(lambda updates: updates[:-1]),
            "mismatch",
            {"key": "state.evolver.history", "value": 2, "limit": 3},
        ),
        "an update with impossible numbers": (
            at("state", "evolver", "history", 0, 2, 0)(lambda n: [n[0], n[1] + 1, n[2], n[3]]),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "another fraction": (
            at("state", "evolver", "history", 0, 1)(lambda _: 0.5),
            "mismatch",
            {"value": 0.5},
        ),
        "a step that is no integer": (
            at("state", "iteration")(float),
            "type",
            {"key": "state.iteration"},
        ),
        "a truth value as step": (
            at("state", "iteration")(lambda _: True),
            "type",
            {"key": "state.iteration"},
        ),
        "a step after the last": (
            at("state", "iteration")(lambda _: 5),
            "range",
            {"key": "state.iteration", "value": 5, "limit": 4},
        ),
        "another step": (
            at("state", "iteration")(lambda _: 2),
            "mismatch",
            {"key": "state.evolver.iteration"},
        ),
        "an infinite loss": (
            at("state", "losses")(lambda _: [math.inf]),
            "not-finite",
            {"key": "state.losses"},
        ),
        "too many losses": (
            at("state", "losses")(lambda losses: losses * 2),
            "mismatch",
            {"key": "state.losses", "value": 2, "limit": 1},
        ),
        "no epoch": (
            lambda saved: saved.history.clear(),
            "mismatch",
            {"key": "history", "value": 0, "limit": 1},
        ),
        "another epoch": (
            at("history", 0, "epoch")(lambda _: 2),
            "mismatch",
            {"key": "history[0].epoch", "value": 2},
        ),
        "another density": (
            at("history", 0, "density")(lambda _: 0.9),
            "mismatch",
            {"key": "history[0].density", "value": 0.9},
        ),
        "another exploration": (
            at("history", 0, "exploration")(lambda _: 1.0),
            "mismatch",
            {"key": "history[0].exploration"},
        ),
        "an unknown layer": (
            at("history", 0, "silent")(lambda _: {"hidden9": 0}),
            "mismatch",
            {"key": "history[0].silent"},
        ),
        "no best model": (
            at("state", "best")(lambda _: {}),
            "mismatch",
            {"key": "state.best.weights"},
        ),
        "a best model of another shape": (
            at("state", "best", "weights", DENSE)(lambda a: a[1:]),
            "mismatch",
            {"layer": "hidden1"},
        ),
        "a best model whose mask has another type": (
            at("state", "best", "masks", "hidden1")(lambda a: a.astype(np.float64)),
            "mismatch",
            {"key": "state.best.masks", "layer": "hidden1"},
        ),
        "a best model without its mask": (
            remove("state", "best", "masks", "hidden1"),
            "mismatch",
            {"key": "state.best.masks"},
        ),
        "an unknown part": (
            lambda saved: vars(saved)["state"].update(extra=1),
            "mismatch",
            {"key": "state", "value": "'extra'"},
        ),
    },
    "maps": {
        "moments of one number": (
            moments(lambda _: np.zeros(1, np.float32)),
            "mismatch",
            {"layer": "conv1"},
        ),
        "a negative variance": (
            at("weights", "conv1.norm.running_var")(element(-2)),
            "mismatch",
            {"key": "conv1.norm.running_var", "value": -2.0, "layer": "conv1"},
        ),
        "another number of batches": (
            at("weights", "conv1.norm.num_batches_tracked")(lambda a: np.array(a + 1)),
            "mismatch",
            {"key": "conv1.norm.num_batches_tracked", "value": 4, "limit": 3},
        ),
        "an infinite bias": (
            at("weights", "conv1.norm.bias")(element(math.inf)),
            "not-finite",
            {"layer": "conv1"},
        ),
    },
    "stored maps": {
        "moments of one number": (
            moments(lambda _: np.zeros(1, np.float32)),
            "mismatch",
            {"layer": "conv1"},
        ),
        "an input beyond the layer": (
            at("weights", "conv2.synapse.weight.pre")(element(1 << 30, -1)),
            "mismatch",
            {"layer": "conv2"},
        ),
    },
}


def main(kind: str) -> None:
    """Write the outcome of each case: the fields of the error, or null if there is none."""
    data, experiment = trainings.samples(), trainings.settings(kind)
    saved = trainings.stopped(experiment, data, trainings.STEPS - 1)
    for name, (edit, _, _) in CASES[kind].items():
        damaged = copy.deepcopy(saved)
        edit(damaged)
        outcome = None
        try:
            Trainer(experiment, data, damaged).run()
        except UserError as error:
            (fault,) = error.faults
            outcome = fault.as_json()
        print(json.dumps([kind, name, outcome]), flush=True)


def set_limits() -> None:
    """Limit memory and time of this process, and log nothing."""
    for limit, value in LIMITS.items():
        resource.setrlimit(limit, (value, value))
    logging.disable(logging.CRITICAL)


def run_python(*arguments: str) -> list[Any]:
    """Run a module in a process of its own and return the JSON of its lines."""
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture(scope="module")
def outcomes() -> list[Any]:
    """Return [kind, name, fault] of each case."""
    return run_python("tests.training.test_checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_each_wrong_entry_is_refused_by_name(kind: str, outcomes: list[Any]) -> None:
    faults = {name: fault for of_kind, name, fault in outcomes if of_kind == kind}
    assert list(faults) == list(CASES[kind])
    for name, (_, code, fields) in CASES[kind].items():
        fault = faults[name]
        assert fault is not None, f"{name}: not refused"
        assert fault["code"] == code, f"{name}: {fault}"
        for key, value in fields.items():
            assert fault.get(key) == value, f"{name}: {key} of {fault}"
        for key in ("key", "layer"):
            assert fault.get(key, "") in fault["sentence"]
        assert "\n" not in fault["sentence"]


@pytest.mark.slow
def test_moments_at_free_positions_do_not_matter() -> None:
    """They may be infinite in a good training, as they never reach the network."""
    data, experiment = trainings.samples(), trainings.settings("fused")
    saved = trainings.stopped(experiment, data, trainings.STEPS - 1)
    spoilt = copy.deepcopy(saved)
    spoilt.state["optimizer"]["state"][0]["exp_avg"][~saved.masks["hidden1"]] = math.nan
    expected, model = (Trainer(experiment, data, each).run() for each in (saved, spoilt))
    assert all(np.array_equal(a, model.weights[name]) for name, a in expected.weights.items())


def test_the_steps_of_the_updates_are_those_of_the_schedule() -> None:
    data, experiment = trainings.samples(), trainings.settings("dense")
    topology = experiment.model.describe(data.shape, data.classes)
    for t_iter, t_end, steps_per_epoch in ((1, 9, 2), (2, 9, 3), (3, 10, 5), (7, 5, 2)):
        schedule = Schedule(SCHEDULES["cosine"], 0.3, t_iter, t_end)
        plan = Plan(experiment, topology, steps_per_epoch, schedule, True)
        assert list(plan.updates) == [
            step for step in range(1, 20) if step > plan.dense_steps and schedule.due(step)
        ]


def test_a_network_of_another_size_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A small file must not make the training allocate a network of any size."""
    data, experiment = trainings.samples(), trainings.settings("fused")
    saved = trainings.stopped(experiment, data, 1)
    monkeypatch.setattr(
        "esl_lava.training.trainer.build_to_train", lambda *_: pytest.fail("it was built")
    )
    model = replace_layers(experiment, "60000-60000")
    with pytest.raises(UserError) as caught:
        Trainer(model, data, saved)
    assert caught.value.code == "mismatch"


def replace_layers(experiment: Any, layers: str) -> Any:
    """Return an experiment of other layers."""
    return experiment.model_copy(
        update={"model": experiment.model.model_copy(update={"layers": layers})}
    )


if __name__ == "__main__":
    set_limits()
    for each in CASES:
        main(each)
