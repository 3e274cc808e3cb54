"""Packages that only some commands need."""

from importlib.metadata import metadata

import pytest

from esl_lava.errors import UserError
from esl_lava.packages import EXTRAS, LAVA, PAST_PINS, is_installed, missing, needed
from tests.faults import check


def not_found(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_every_extra_that_is_named_exists() -> None:
    assert set(EXTRAS.values()) <= set(metadata("esl-lava").get_all("Provides-Extra") or ())


@pytest.mark.parametrize("package", EXTRAS)
def test_the_development_environment_has_them_all(package: str) -> None:
    assert is_installed(package)


def test_a_package_that_is_absent_is_not_installed() -> None:
    assert not is_installed("no_package_of_this_name")
    assert not is_installed("no_package_of_this_name.inside")
    assert is_installed(LAVA)


@pytest.mark.parametrize(
    ("package", "pins_end", "command"),
    [
        ("lava", (4, 0), "pip install 'esl-lava[lava]'"),
        ("lava", (3, 0), f"pip install 'esl-lava[lava]', then {PAST_PINS}"),
        ("torch", (3, 0), f"pip install 'esl-lava[train]', then {PAST_PINS}"),
        ("matplotlib", (3, 0), "pip install 'esl-lava[report]'"),
    ],
)
def test_the_error_names_the_command_that_installs_a_package(
    monkeypatch: pytest.MonkeyPatch, package: str, pins_end: tuple[int, int], command: str
) -> None:
    monkeypatch.setattr("esl_lava.packages.PINS_END", pins_end)
    monkeypatch.setattr("esl_lava.packages.is_installed", lambda package: False)
    error: UserError = needed(package)
    check(error.faults[0], "package", value=package)
    assert str(error).endswith(f"is not installed; install it with {command}")


def test_an_installed_lava_needs_no_second_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_lava.packages.PINS_END", (3, 0))
    assert str(needed("torch")).endswith("pip install 'esl-lava[train]'")


def test_one_half_of_lava_is_not_lava(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_lava.packages.is_installed", lambda package: package != LAVA)
    assert str(missing(not_found("lava.lib"))) == str(needed("lava"))


def test_other_packages_are_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(not_found("esl_lava.nothing")) is None
    assert missing(ModuleNotFoundError("without a name")) is None
    assert missing(not_found("scipy.nothing")) is None  # scipy is installed
    monkeypatch.setattr("esl_lava.packages.is_installed", lambda package: False)
    error = missing(not_found("lava.magma"))
    assert str(error) == str(needed("lava"))
