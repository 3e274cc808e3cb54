"""Damage checkpoints and go on from them. Run this as a program: a fault may crash the process.

    python -m tests.training.mutants SEED COUNT KIND [KIND ...]

It writes one JSON line for each mutant: the damage, and the outcome `refused`, `same`, `differs`
or `failed`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import random
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esl_lava import modelfile
from esl_lava.config import Experiment, from_mapping, override
from esl_lava.data.datasets import load
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import UserError
from esl_lava.modelfile import SavedModel, archive
from esl_lava.models.restore import as_tensors
from esl_lava.models.stored import load_model
from esl_lava.training.trainer import Trainer, TrainingProgress

BASE: dict[str, Any] = {
    "seed": 3,
    "data": {"validation": 0.2},
    "encoding": {"steps": 2},
    "model": {"layers": "6-5", "weight_scale": 3.0},
    "sparsity": {"density": 0.4, "t_iter": 1, "end": 1.0},
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.02},
}
KINDS: dict[str, dict[str, Any]] = {
    "fused": {},
    "slayer": {"training.engine": "slayer", "sparsity.redistribution": "magnitude"},
    "sparse": {"training.engine": "sparse", "sparsity.growth": "gradient"},
    "momentum": {"training.engine": "sparse", "sparsity.growth": "momentum"},
    "dense": {"sparsity.dense_epochs": 1},
    "single": {
        "model": {"kind": "single_spike", "layers": "6", "current_decay": 0.05},
        "encoding": {"kind": "latency", "steps": 8},
    },
    "maps": {"model": {"kind": "convolutional", "layers": "2C3-AP2-3C3-AP2"}},
    "stored maps": {
        "model": {"kind": "convolutional", "layers": "2C3-R3S2-GAP"},
        "training.engine": "sparse",
        "sparsity.redistribution": "nonzero",
    },
}
"""Settings of a training, as `config.override` takes them, besides those of `BASE`."""

STEPS = 4
LIMITS = {resource.RLIMIT_AS: 12 << 30, resource.RLIMIT_CPU: 500, resource.RLIMIT_CORE: 0}

# Entries whose numbers can have any valid value: a change of such a number need not be noticed.
FREE = (
    ("weights",),
    ("ever",),
    ("package",),
    ("history",),
    ("state", "losses"),
    ("state", "best"),
    ("state", "optimizer", "state"),
    ("state", "evolver", "generators"),
    ("state", "evolver", "history"),
    ("state", "evolver", "moments"),
)

Place = tuple[Any, ...]


def settings(kind: str) -> Experiment:
    """Return the experiment of a kind of training."""
    changes = dict(KINDS[kind])
    base = copy.deepcopy(BASE)
    for key in ("model", "encoding"):
        if key in changes:
            base[key] = changes.pop(key)
    return override(from_mapping(base), changes)


def samples() -> TrainingSamples:
    """Return 20 samples: 4 for validation, and 16 for two steps in an epoch."""
    return load("digits", "train").take(20)


def stopped(experiment: Experiment, data: TrainingSamples, after: int) -> SavedModel:
    """Return the checkpoint of a training after so many steps."""
    trainer = Trainer(experiment, data)

    def stop(progress: TrainingProgress) -> None:
        if progress.iteration == after:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        trainer.run(stop)
    return trainer.checkpoint()


def go_on(path: Path, data: TrainingSamples) -> str:
    """Go on with a training to its end, and return a digest of all that it ends with."""
    saved, experiment = load_model(path)
    trainer = Trainer(experiment, data, saved)
    model = trainer.run()
    parts = [model, trainer.checkpoint()]
    sha = hashlib.sha256()
    for part in parts:
        for name in ("weights", "masks", "ever", "history", "state"):
            update(sha.update, getattr(part, name))
    return sha.hexdigest()


def update(add: Callable[[bytes], object], value: object) -> None:
    """Add all types, keys and bits of nested containers to a digest."""
    add(type(value).__name__.encode())
    if isinstance(value, np.ndarray):
        add(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            add(repr(key).encode())
            update(add, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            update(add, item)
    else:
        add(repr(value).encode())


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all values in nested containers."""
    if place:
        yield place
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from places(item, (*place, key))


def look(content: Any, place: Place) -> Any:
    """Return the value at a place."""
    for key in place:
        content = content[key]
    return content


def put(content: Any, place: Place, change: Callable[[Any, Any], Any]) -> Any:
    """Return a container in which `change` (container, key) has changed the one of the place."""
    if len(place) == 1:
        parent = list(content) if isinstance(content, tuple) else content
        parent = change(parent, place[0])
    else:
        parent = list(content) if isinstance(content, tuple) else content
        parent[place[0]] = put(parent[place[0]], place[1:], change)
    return tuple(parent) if isinstance(content, tuple) else parent


def mutate_array(array: Any, rng: random.Random) -> tuple[Any, str]:
    """Return an array with another number, shape or type."""
    kind = rng.choice(["number", "number", "shape", "dtype", "special", "shorter", "longer"])
    array = array.copy()
    if kind == "number" and array.size:
        index = rng.randrange(array.size)
        flat = array.reshape(-1)
        if array.dtype == np.bool_:
            flat[index] = not flat[index]
        elif array.dtype.kind == "f":
            flat[index] = rng.choice([0.0, 1.0, -1.0, 1e30, -1e-30, float(flat[index]) * 2 + 1])
        else:
            low, high = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
            flat[index] = rng.choice([0, 1, low, high, rng.randint(int(low), int(high))])
        return array, kind
    if kind == "special" and array.dtype.kind == "f" and array.size:
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
        return array, kind
    if kind == "dtype":
        others = [d for d in archive.STORAGES.values() if d != array.dtype]
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(others)), kind
    if kind == "shorter" and array.size:
        return array.reshape(-1)[: rng.randrange(array.size)].copy(), kind
    if kind == "longer":
        return np.concatenate([array.reshape(-1), array.reshape(-1)[:1]]), kind
    shapes = [(1, *array.shape), array.shape[1:], (array.size,), (0,), (), (1,)]
    return np.zeros(rng.choice(shapes), array.dtype), "shape"


def mutate(content: Any, rng: random.Random) -> tuple[Any, Place, str]:
    """Return a copy of the content of a file with one change, its place, and its kind."""
    content = copy.deepcopy(content)
    everywhere = [place for place in places(content) if place[0] not in ("format", "version")]
    # Choose the depth first, or most changes would be in the longest lists.
    top = rng.choice(["weights", "masks", "ever", "history", *["state"] * 8])
    below = [place for place in everywhere if place[0] == top]
    second = rng.choice(sorted({str(place[1]) for place in below if len(place) > 1}) or [""])
    place = rng.choice([p for p in below if len(p) == 1 or str(p[1]) == second])
    value = look(content, place)
    action = rng.choice(["change", "change", "change", "change", "drop", "add", "replace", "swap"])
    if action == "drop":

        def drop(parent: Any, key: Any) -> Any:
            del parent[key]
            return parent

        return put(content, place, drop), place, action
    if action == "add" and isinstance(value, dict | list):
        extra = rng.choice([0, 1.5, "x", None, np.zeros(3, np.float32), [], {}])
        if isinstance(value, dict):
            value[rng.choice(["extra", 0, 99, "hidden1"])] = extra
        else:
            value.insert(rng.randrange(len(value) + 1), extra)
        return content, place, action
    if action == "swap":
        other = rng.choice(everywhere)
        replacement = copy.deepcopy(look(content, other))
    elif action == "replace":
        replacement = rng.choice(
            [None, True, -1, 0, 1 << 40, 10**30, 0.5, "", "x", [], {}, (), np.zeros(2, np.int64)]
        )
    elif isinstance(value, np.ndarray):
        replacement, action = mutate_array(value, rng)
    elif isinstance(value, bool) or value is None:
        replacement = rng.choice([True, False, None, 0])
    elif isinstance(value, int):
        replacement = rng.choice([value + 1, value - 1, -value, float(value), 1 << 31, 1 << 70])
        action = "number"
    elif isinstance(value, float):
        replacement = rng.choice(
            [value * 1.5 + 1e-3, -value, 0.0, 1.0, float("nan"), float("inf"), 1e300, int(value)]
        )
        action = "number"
    elif isinstance(value, dict) and value:
        keys = list(value)
        old = rng.choice(keys)
        if rng.random() < 0.5:
            action = "rename"
            replacement = {("renamed" if key == old else key): value[key] for key in keys}
        else:
            action = "order"
            rng.shuffle(keys)
            replacement = {key: value[key] for key in keys}
    elif isinstance(value, list | tuple) and value:
        action = "repeat"
        replacement = type(value)([*value, value[-1]])
    else:
        replacement = "changed"

    def assign(parent: Any, key: Any) -> Any:
        parent[key] = replacement
        return parent

    return put(content, place, assign), place, action


def may_differ(place: Place) -> bool:
    """Return whether a change at a place may give a valid checkpoint of another training."""
    return any(place[: len(free)] == free for free in FREE)


def set_limits() -> None:
    """Limit memory and time of this process, and log nothing."""
    for limit, value in LIMITS.items():
        resource.setrlimit(limit, (value, value))
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)


def main(kind: str, seed: int, count: int) -> None:
    """Try `count` mutants of a kind of training."""
    data, experiment, rng = samples(), settings(kind), random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        contents, digests = [], []
        for after in (STEPS - 1, STEPS - 2, 0):
            modelfile.write(stopped(experiment, data, after), path)
            contents.append(archive.load(path))
            digests.append(go_on(path, data))
        assert len(set(digests)) == 1, "the undamaged checkpoints differ"
        for _ in range(count):
            content, place, action = mutate(contents[rng.choice([0, 0, 1, 1, 2])], rng)
            torch.save(as_tensors(content), path)
            line: dict[str, Any] = {
                "kind": kind,
                "place": "/".join(map(str, place)),
                "action": action,
            }
            try:
                same = go_on(path, data) == digests[0]
                line["outcome"] = "same" if same else "differs"
                line["free"] = may_differ(place)
            except UserError as error:
                line |= {"outcome": "refused", "error": str(error), "code": error.code}
            except Exception:
                line |= {"outcome": "failed", "error": traceback.format_exc()}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    set_limits()
    for name in sys.argv[3:]:
        main(name, int(sys.argv[1]), int(sys.argv[2]))
