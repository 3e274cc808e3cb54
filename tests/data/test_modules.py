import re
import sys
from pathlib import Path

import pytest

from esl_lava.data.config import Encoding
from esl_lava.data.modules import own_from_module
from esl_lava.errors import ConfigError, DataError, FileError, UserError
from tests.faults import refused

RATE = Encoding(steps=2)
GOOD = """\
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
import beside_{name}

@dataclass
class Sizes:
    train: int = 4
    test: int = 2

def load(split):
    samples = getattr(Sizes(), split)
    return np.full((samples, 2, 2), beside_{name}.PIXEL, np.uint8), np.arange(samples)

number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A module of the user, with a second module beside it that it imports."""
    name = re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / f"beside_{name}.py").write_text("PIXEL = 7\n")
    path = tmp_path / "mine.py"
    path.write_text(GOOD.format(name=name))
    return path


def test_a_function_gives_samples(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    own = own_from_module("mine.py:load")
    train, test = (own.samples(split, RATE) for split in ("train", "test"))
    assert (train.name, train.classes, len(train)) == ("own (mine.py)", 4, 4)
    assert (test.name, test.classes, len(test)) == ("own (mine.py)", 4, 2)
    assert train.choose(slice(1)).picture(0).tolist() == [[7, 7], [7, 7]]


def test_what_stands_beside_it_hides_no_package(file: Path) -> None:
    (file.parent / "numpy.py").write_text("raise RuntimeError('not numpy')\n")
    own_from_module(f"{file}:load")
    assert sys.path[-1] == str(file.parent)
    own_from_module(f"{file}:load")
    assert sys.path.count(str(file.parent)) == 1


@pytest.mark.parametrize("text", ["{}", "{}:", "{}:a.b", "numpy:load", ":load"])
def test_other_texts_are_refused(file: Path, text: str) -> None:
    text = text.replace("{}", str(file))
    with refused(ConfigError, "type", key="--data-module", value=text):
        own_from_module(text)


def test_a_function_that_the_file_has_not_is_refused_with_the_nearest(file: Path) -> None:
    for name, hint in (("loud", "did you mean load?"), ("number", "")):
        with refused(
            ConfigError, "unknown", key="--data-module", value=name, file=str(file)
        ) as caught:
            own_from_module(f"{file}:{name}")
        assert hint in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in (f"{tmp_path}/none.py", f"{tmp_path}/a\0.py"):
        with refused(FileError, "not-found", file=name):
            own_from_module(f"{name}:load")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("def load(split):\n    return 1 / 0\n", ", line 2: ZeroDivisionError: division by zero"),
        ("x = 1\nraise ValueError('two\\nlines')\n", ", line 2: ValueError: two lines"),
        ("def load(split:\n", ", line 1: SyntaxError: '(' was never closed"),
        ("import no_such_package\n", ", line 1: ModuleNotFoundError: No module named 'no_such_p"),
        ("def load(split):\n    exit(3)\n", ", line 2: SystemExit: 3"),
        ("def load(split):\n    assert split == 'none'\n", ", line 2: AssertionError"),
        ("def load():\n    pass\n", ": TypeError: load() takes 0 positional arguments but 1 was"),
        (
            "class Items:\n    def __len__(self):\n        return 3\n"
            "    def __getitem__(self, place):\n        raise KeyError(place)\n"
            "def load(split):\n    return Items()\n",
            ", line 5: KeyError: 0",
        ),
        (
            "def load(split):\n    raise ValueError('x' * 999)\n",
            ", line 2: ValueError: " + "x" * 297,
        ),
    ],
)
def test_what_it_raises_is_one_sentence(tmp_path: Path, program: str, said: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(program)
    with refused(DataError, "failed", file=str(path)) as caught:
        own_from_module(f"{path}:load").samples("train", RATE)
    assert str(caught.value).startswith(f"{path}{said}")
    assert len(str(caught.value)) < 500


def test_what_it_gives_is_looked_at_as_everything(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy\ndef load(split):\n    return numpy.ones((2, 3, 3)), numpy.ones(2)"
    )
    with refused(UserError, "type", key="labels", value="float64") as caught:
        own_from_module(f"{path}:load").samples("test", RATE)
    assert str(caught.value).startswith(f"{path}: load('train'): labels")


def test_a_ctrl_c_in_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def load(split):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        own_from_module(f"{path}:load").samples("train", RATE)
