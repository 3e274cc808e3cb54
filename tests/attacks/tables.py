"""Attacks by TOML files."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.attack import attack

CONFIG, DEVICE = "config.toml", "device.toml"
REST = "[sparsity]\ndensity = 0.5\n"


@attack(CONFIG, "damaged")
def brackets(path: Path) -> None:
    """An array is nested 20,000 levels deep."""
    path.write_text(REST + "t_iter = " + "[" * 20_000)


@attack(CONFIG, "damaged")
def braces(path: Path) -> None:
    """Tables are nested 20,000 levels deep."""
    path.write_text(REST + "t_iter = " + "{a = " * 20_000)


@attack(CONFIG, "damaged")
def digits(path: Path) -> None:
    """An integer has 60,000 digits, which takes time by the square."""
    path.write_text(REST + "t_iter = " + "9" * 60_000)


@attack(CONFIG, "range", key="seed")
def digits_in_another_base(path: Path) -> None:
    """An integer has 50,000 hexadecimal digits, which cannot be printed."""
    path.write_text("seed = 0x" + "f" * 50_000 + "\n" + REST)


@attack(CONFIG, "damaged")
def dots(path: Path) -> None:
    """A key has 30,000 dots, which takes time and memory by the square."""
    path.write_text("a" + ".a" * 30_000 + " = 1\n" + REST)


@attack(CONFIG, "too-large")
def a_terabyte(path: Path) -> None:
    """The file has a terabyte of nothing, of which no byte is stored."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


@attack(CONFIG, "damaged")
def no_text(path: Path) -> None:
    """The file is not UTF-8."""
    path.write_bytes(REST.encode() + b"x = '\xff\xfe'\n")


@attack(CONFIG, "unknown")
def a_key_that_a_terminal_obeys(path: Path) -> None:
    """An unknown key clears the screen of whoever prints the error."""
    path.write_text(REST + '"\\u001b[2J\\u001b]0;owned\\u0007" = 1\n')


@attack(CONFIG, "unknown")
def a_thousand_unknown_keys(path: Path) -> None:
    """There are so many unknown keys that their errors would fill the screen."""
    path.write_text(REST + "".join(f"key{n} = 1\n" for n in range(5000)))


@attack(CONFIG, "unknown")
def a_key_that_names_code(path: Path) -> None:
    """The configuration asks for a Python file to be run."""
    path.write_text('[data]\nname = "own"\nmodule = "/tmp/evil.py:load"\n' + REST)


@attack(CONFIG, "not-finite", "range")
def no_number(path: Path) -> None:
    """The learning rate is NaN."""
    path.write_text(REST + "[training]\nlearning_rate = nan\n")


@attack(CONFIG, "damaged")
def a_key_twice(path: Path) -> None:
    """A key is given twice, so that two readers would find two values."""
    path.write_text("seed = 1\nseed = 2\n" + REST)


@attack(CONFIG, "range", "too-large", "limit", "unsupported", "type")
def layers_without_end(path: Path) -> None:
    """The network has ten thousand layers."""
    path.write_text('[model]\nlayers = "' + "-".join(["9"] * 10_000) + '"\n' + REST)


@attack(DEVICE, "damaged")
def a_device_of_brackets(path: Path) -> None:
    """A device file is nested 20,000 levels deep."""
    path.write_text("name = " + "[" * 20_000)


@attack(DEVICE, "not-finite", "range", "missing")
def energies_that_are_infinite(path: Path) -> None:
    """An operation takes an infinite energy."""
    path.write_text(
        'name = "x"\ntitle = "x"\nmaker = "x"\nchip = "x"\ncharges = "events"\nnotes = []\n'
        '[energy.sop]\nvalue = inf\nunit = "pJ"\nkind = "measured"\noperating_point = "x"\n'
        'source = "x"\n'
    )
