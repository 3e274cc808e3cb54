"""Packages that only some commands need."""

from importlib.metadata import metadata

import pytest

from esl_lava.packages import EXTRAS, is_installed, missing, needed


def not_found(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_every_extra_that_is_named_exists() -> None:
    assert set(EXTRAS.values()) <= set(metadata("esl-lava").get_all("Provides-Extra") or ())


@pytest.mark.parametrize("package", EXTRAS)
def test_the_development_environment_has_them_all(package: str) -> None:
    assert is_installed(package)


def test_what_is_not_there_is_not_installed() -> None:
    assert not is_installed("no_package_of_this_name")


def test_what_no_extra_can_bring_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_lava.packages.LAVA_ENDS", (3, 10))
    for package in ("torch", "lava"):
        assert str(needed(package)) == (
            f"the package {package} is not installed: training and Lava need Python 3.10"
        )
    assert "pip install 'esl-lava[report]'" in str(needed("matplotlib"))


def test_what_is_not_ours_to_explain_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(not_found("esl_lava.nothing")) is None
    assert missing(ModuleNotFoundError("without a name")) is None
    assert missing(not_found("scipy.nothing")) is None  # it is there: a fault of another kind
    monkeypatch.setattr("esl_lava.packages.is_installed", lambda package: False)
    error = missing(not_found("lava.magma"))
    assert str(error) == str(needed("lava"))
    assert str(error) == ("the package lava is not installed: pip install 'esl-lava[lava]'")
