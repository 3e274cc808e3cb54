"""Mutants of a checkpoint's content, in a sound archive: what `esl train --resume` does with it."""

from __future__ import annotations

import copy
import random
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from esl_lava import modelfile
from esl_lava.data.samples import TrainingSamples
from esl_lava.models.stored import load_model
from esl_lava.training.trainer import Trainer
from tests.fuzz import content, models, trainings
from tests.fuzz.format import Format, Mutant

FREE: tuple[content.Place, ...] = (
    ("config",),
    ("weights",),
    ("masks",),
    ("ever",),
    ("package",),
    ("history",),
    ("data",),
    ("state", "losses"),
    ("state", "best"),
    ("state", "optimizer", "state"),
    ("state", "evolver", "generators"),
    ("state", "evolver", "history"),
    ("state", "evolver", "moments"),
)
"""Entries that can have any valid value. A change of them makes another checkpoint."""

OPTIONS = ("foreach", "fused", "decoupled_weight_decay")
"""Options of Adam that only some versions of torch have, and that are not taken from the file."""


def seeds() -> list[bytes]:
    """Return the checkpoints of each kind of training, after three, two and no steps."""
    made = []
    for kind in trainings.KINDS:
        for after in (trainings.STEPS - 1, trainings.STEPS - 2, 0):
            saved = trainings.stopped(trainings.settings(kind), samples(), after)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, FORMAT.file)
                modelfile.write(saved, path)
                made.append(path.read_bytes())
    return made


@cache
def samples() -> TrainingSamples:
    """Return the samples of all trainings."""
    return trainings.samples()


def read(path: Path) -> str:
    """Go on with a training to its end, and return a digest of all that it ends with."""
    saved, experiment = load_model(path)
    trainer = Trainer(experiment, samples(), saved)
    model = trainer.run()
    parts = ("weights", "masks", "ever", "history", "state")
    ends = [{name: getattr(end, name) for name in parts} for end in (model, trainer.checkpoint())]
    return content.fingerprint(ends)


def agrees(path: Path, sound: bytes, meaning: str) -> bool:
    """Return whether only numbers were changed that can have any value.

    If nothing at all was changed that has a meaning, the training has to end as the sound one.
    """
    found = models.plain(path.read_bytes())
    changed = list(differences(models.plain(sound), found))
    if not changed:
        return meaning == _end_of(sound)
    return all(any(place[: len(free)] == free for free in FREE) for place in changed)


def differences(sound: dict[str, Any], found: dict[str, Any]) -> list[content.Place]:
    """Return the places of the parts of a checkpoint at which two contents differ."""
    return [
        place
        for part in (*modelfile.PARTS, "data")
        for place in content.differences(_part(sound, part), _part(found, part), (part,))
    ]


def _part(whole: dict[str, Any], part: str) -> Any:
    """Return what a part of a checkpoint means: spaces of TOML, and what may lack, mean nothing."""
    value = whole.get(part, {})
    if part == "config":
        return tomllib.loads(value)
    if part == "state":
        value = copy.deepcopy(value)
        value["evolver"].setdefault("waiting", False)
        for group in value["optimizer"]["param_groups"]:
            for option in OPTIONS:
                group.pop(option, None)
    return value


@cache
def _end_of(sound: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FORMAT.file)
        path.write_bytes(sound)
        return read(path)


def mutate(rng: random.Random, raw: bytes) -> Mutant:
    """Change the content, and repair all checksums."""
    changed, change = content.mutate(models.plain(raw), rng, models.FIXED)
    return Mutant(models.repacked(changed), change)


FORMAT = Format("checkpoint.pt", seeds, mutate, read, agrees)
