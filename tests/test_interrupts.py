"""Ctrl-C where Python drops it."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from esl_lava.interrupts import heeded


class Finalised:
    """Something that fails as it goes."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
            for _ in range(1000):  # Python raises between its instructions, and at some only
                pass
        else:
            raise self.error


@pytest.fixture(autouse=True)
def _sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it


def test_an_interruption_of_a_finaliser_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    before, passed = sys.unraisablehook, []

    def program() -> None:
        with heeded():
            Finalised(KeyboardInterrupt)
            passed.append("dropped, until")
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        program()
    assert passed
    assert sys.unraisablehook is before
    assert capfd.readouterr().err == ""


def test_other_failures_of_a_finaliser_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: shown.append(found.exc_type))
    with heeded():
        Finalised(ZeroDivisionError)
    assert shown == [ZeroDivisionError]
