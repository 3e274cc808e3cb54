"""A Ctrl-C that Python drops in a finaliser, and SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from esl_lava.interrupts import (
    Termination,
    describe_exit,
    postpone_termination,
    raise_on_sigterm,
    reraise_dropped_interrupts,
)

SIGNALS = {KeyboardInterrupt: signal.SIGINT, Termination: signal.SIGTERM}


class FailingFinaliser:
    """An object whose finaliser fails."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error in SIGNALS:
            signal.raise_signal(SIGNALS[self.error])
            for _ in range(1000):  # Python raises only between certain instructions
                pass
        else:
            raise self.error


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    # Background jobs of a shell ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", SIGNALS)
def test_an_interruption_of_a_finaliser_comes_again(
    capfd: pytest.CaptureFixture[str], error: type[BaseException]
) -> None:
    before, passed = sys.unraisablehook, []

    def program() -> None:
        with reraise_dropped_interrupts(), raise_on_sigterm():
            FailingFinaliser(error)
            passed.append("dropped, until")
            time.sleep(30)

    with pytest.raises(error):
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


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_sigterm_is_raised_once() -> None:
    cleaned = []

    def program() -> None:
        with raise_on_sigterm():
            try:
                terminate()
            finally:
                terminate()  # a cluster may send it to the job and to each of its processes
                cleaned.append(True)

    with pytest.raises(Termination):
        program()
    assert cleaned
    terminate()  # the process exits with its own code


def test_without_sigterm_nothing_changes() -> None:
    with raise_on_sigterm(), postpone_termination() as arrived:
        assert not arrived()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_process_that_ignores_sigterm_still_does() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with raise_on_sigterm(), postpone_termination() as arrived:
        terminate()
        assert not arrived()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_termination_is_postponed() -> None:
    passed = []

    def program() -> None:
        with raise_on_sigterm(), postpone_termination() as arrived:
            terminate()
            passed.append(arrived())

    with pytest.raises(Termination):
        program()
    assert passed == [True]


def test_an_error_comes_before_a_postponed_termination() -> None:
    def program() -> None:
        with raise_on_sigterm(), postpone_termination() as arrived:
            terminate()
            assert arrived()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program()


def test_other_threads_do_not_handle_signals() -> None:
    answers = []

    def work() -> None:
        with raise_on_sigterm(), postpone_termination() as arrived:
            answers.append(arrived())

    with raise_on_sigterm():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert answers == [False]


def test_signals_without_a_name_have_a_number() -> None:
    assert describe_exit(-signal.SIGTERM) == "was ended by SIGTERM"
    assert describe_exit(-250) == "was ended by signal 250"
    assert describe_exit(0) == "ended with exit code 0"
