"""A Ctrl-C that Python drops in a finaliser."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from esl_lava.interrupts import reraise_dropped_interrupts


class FailingFinaliser:
    """An object whose finaliser fails."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
            for _ in range(1000):  # Python raises only between certain instructions
                pass
        else:
            raise self.error


@pytest.fixture(autouse=True)
def _sigint() -> None:
    # Background jobs of a shell ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interruption_of_a_finaliser_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    before, passed = sys.unraisablehook, []

    def program() -> None:
        with reraise_dropped_interrupts():
            FailingFinaliser(KeyboardInterrupt)
            passed.append("dropped, until")
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        program()
    assert passed
    assert sys.unraisablehook is before
    assert capfd.readouterr().err == ""


def test_other_failures_of_a_finaliser_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))
    with reraise_dropped_interrupts():
        FailingFinaliser(ZeroDivisionError)
    assert shown == [ZeroDivisionError]
