"""Mutants of TOML: configurations of trainings, and devices."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from esl_lava.config import from_toml, read_toml, to_toml
from esl_lava.devices import device_names, load_device
from tests.fuzz import trainings
from tests.fuzz.content import mutate
from tests.fuzz.damage import damaged
from tests.fuzz.format import Chooser, Format, Mutant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def seeds() -> list[bytes]:
    """Return complete configurations, and short ones."""
    whole = [to_toml(trainings.settings(kind)).encode() for kind in trainings.KINDS]
    return [*whole, b"[sparsity]\ndensity = 0.5\n", b"seed = 5\n[sparsity]\ndensity = 1\n[model]\n"]


def read(path: Path) -> dict[str, Any]:
    """Read a configuration and return its fields; it must be the same after it was written."""
    experiment = read_toml(path)
    assert from_toml(to_toml(experiment)) == experiment
    return experiment.model_dump(mode="json")


def agrees(path: Path, _: bytes, found: dict[str, Any]) -> bool:
    """Return whether each value of the text is in the configuration."""
    return _holds(found, tomllib.loads(path.read_bytes().decode()))


def _holds(found: Any, text: Any) -> bool:
    if isinstance(text, Mapping):
        return all(key in found and _holds(found[key], value) for key, value in text.items())
    if isinstance(text, list):
        return len(found) == len(text) and all(map(_holds, found, text))
    # Layers may be a number, as the command line reads them.
    return bool(found == text or (type(text) is int and found in (float(text), str(text))))


def device_seeds() -> list[bytes]:
    """Return the devices of this package."""
    folder = resources.files("esl_lava.hw_configs")
    return [folder.joinpath(f"{name}.toml").read_bytes() for name in device_names()]


def read_device(path: Path) -> Any:
    """Read a device and return its fields."""
    return load_device(path).model_dump(mode="json")


def device_agrees(path: Path, _: bytes, found: Any) -> bool:
    """Return whether each number and text of a file is in the device."""
    have = {_leaf(value) for value in _leaves(found)}
    text = tomllib.loads(path.read_bytes().decode())
    return all(_leaf(value) in have for value in _leaves(text))


def _leaf(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) else str(value).strip()


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value


def _any_bytes(rng: random.Random, raw: bytes) -> Mutant:
    changed, names = damaged(rng, raw)
    return Mutant(changed, f"bytes: {names}")


def _content(rng: random.Random, raw: bytes) -> Mutant:
    """Change a key, a value or a type."""
    changed, change = mutate(tomllib.loads(raw.decode()), rng)
    try:
        return Mutant(tomli_w.dumps(_plain(changed)).encode(), change)
    except (TypeError, ValueError) as error:  # TOML has no such value
        return Mutant(raw, f"{change}: {error}")


def _plain(value: Any) -> Any:
    """Return what TOML can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if item is not None]
    return value.tolist() if hasattr(value, "tolist") else value


LINES = (
    *(
        'x = "',
        "x = 1e999",
        "x = nan",
        "x = -inf",
        "x = 0x7fffffffffffffff",
        "x = 1979-05-27",
        "[a",
    ),
    *(
        "[[sparsity]]",
        "[sparsity]",
        "sparsity = 1",
        "density.x = 1",
        "x = " + "[" * 3000,
        "\0",
        "=1",
    ),
    *(
        "x = " + "9" * 5000,
        "a" + ".a" * 300 + " = 1",
        "x = {" * 500,
        '"" = 1',
        "\ufeff",
        "\r",
        "# \x1b[2J",
    ),
    *(
        '"\\u0000" = 1',
        '"\\u001b[31m" = 1',
        'x = "\\ud800"',
        "x = '''\n'''",
        "seed = 1_0",
        "seed = +1",
    ),
    *(
        "seed = 1\nseed = 2",
        "x = true",
        "x = [1, 'a', {}]",
        "a.b = 1\na = 2",
        "[a]\n[a]",
        "x = 1e400",
    ),
    *("seed = 0b11", "seed = 1.0", "seed = 9223372036854775808", "x" * 70_000 + " = 1", "é = 1"),
)


def _lines(rng: random.Random, raw: bytes) -> Mutant:
    """Insert, remove, repeat or exchange lines."""
    lines = raw.decode().split("\n")
    index, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.choice(["insert", "insert", "remove", "repeat", "exchange", "value", "value", "key"])
    line = rng.choice(LINES)
    if kind == "insert":
        lines.insert(index, line)
    elif kind == "remove":
        del lines[index : index + rng.choice([1, 1, 3])]
    elif kind == "repeat":
        lines.insert(other, lines[index])
    elif kind == "exchange":
        lines[index], lines[other] = lines[other], lines[index]
    else:
        key, _, value = lines[index].partition(" = ")
        new = line.partition(" = ")[2]
        lines[index] = f"{key} = {new}" if kind == "value" else f"{line[:60]}{key} = {value}"
    text = "\n".join(lines)
    return Mutant(text.encode(errors="surrogatepass"), f"line {index}: {kind} {line[:30]!r}")


_CHOICES = ((3, _any_bytes), (5, _content), (5, _lines))

FORMAT = Format("config.toml", seeds, Chooser(*_CHOICES), read, agrees)
DEVICE = Format("device.toml", device_seeds, Chooser(*_CHOICES), read_device, device_agrees)
