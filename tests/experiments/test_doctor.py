"""`esl doctor`: what it says of this machine, and of one that lacks or breaks something."""

from __future__ import annotations

import pytest

from esl_lava.experiments import doctor
from esl_lava.packages import EXTRAS
from esl_lava.results.environment import Check


def state(environment, subject: str) -> Check:
    return next(check for check in environment.checks if check.subject == subject)


def test_this_machine_is_sound(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    environment = doctor.examine()
    assert environment.broken == []
    for subject in ("Python", "torch", "Lava", "SLAYER", "ESL_LAVA_DATA", "data sets"):
        assert state(environment, subject).state == "ok"
    assert "digits" in state(environment, "data sets").finding
    assert all(package.version for package in environment.packages if package.extra is None)


def test_packages_name_the_extra_that_installs_them() -> None:
    for name, (extra, _) in doctor.PACKAGES.items():
        if extra is not None and name in EXTRAS:
            assert EXTRAS[name] == extra


def test_a_missing_package_is_no_fault_and_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_installed", lambda name: False)
    environment = doctor.examine()
    assert state(environment, "torch").state == "missing"
    assert "pip install 'esl-lava[train]'" in state(environment, "torch").remedy
    assert state(environment, "GPU").state == "missing"
    assert environment.broken == []


def test_a_package_whose_import_fails_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"cannot import name 'x' from {name}")

    monkeypatch.setattr("importlib.import_module", fail)
    broken = [check.subject for check in doctor._check_lava()]
    assert broken == ["torch", "Lava", "SLAYER"]
    assert all(check.state == "broken" for check in doctor._check_lava())
    assert "ImportError: cannot import name 'x'" in next(doctor._check_lava()).finding


@pytest.mark.parametrize(("value", "expected"), [("", "missing"), ("/no/such/folder", "broken")])
def test_the_data_folder(monkeypatch: pytest.MonkeyPatch, value: str, expected: str) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", value)
    check = next(doctor._check_data())
    assert check.state == expected
    assert value in check.finding


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    monkeypatch.setattr(doctor, "cache_folder", lambda: file / "cache")
    check = next(doctor._check_caches())
    assert check.state == "broken"
    assert str(file) in check.finding
