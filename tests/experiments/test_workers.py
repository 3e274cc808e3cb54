"""Processes that do one thing after the other, and who gets which GPU."""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.experiments import workers
from esl_lava.experiments.workers import (
    VISIBLE,
    Crew,
    EndedError,
    Worker,
    ending,
    gpus,
    side_by_side,
)

# --- what workers do; found there under its name ------------------------------------------


def add(a: int, b: int) -> int:
    print("not an answer")
    os.system("echo not an answer either")
    return a + b


def fail() -> None:
    raise ZeroDivisionError("of all things")


def kill(by: int) -> None:
    os.kill(os.getpid(), by)


def leave(code: int) -> None:
    os._exit(code)


def device_for(seconds: float) -> tuple[str | None, float, float]:
    """What is seen, and from when to when."""
    begun = time.monotonic()
    time.sleep(seconds)
    return os.environ.get(VISIBLE), begun, time.monotonic()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def wait_beside(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


def search_path() -> list[str]:
    return sys.path


# --- the tests ---------------------------------------------------------------------------


@pytest.fixture
def worker() -> Iterator[Worker]:
    with closing(Worker()) as one:
        yield one


def is_there(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool]) -> None:
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came true")


def test_a_worker_does_one_thing_after_the_other(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [worker.do(add, n, 1) for n in range(3)] == [1, 2, 3]
    first = worker.do(os.getpid)
    assert first == worker.do(os.getpid) != os.getpid()
    worker.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("not an answer either\n") == 3


def test_what_raises_there_raises_here_with_its_traceback(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"in fail[\s\S]*ZeroDivisionError: of all things"):
        worker.do(fail)
    assert worker.do(add, 1, 1) == 2


@pytest.mark.parametrize(
    ("last", "how"),
    [
        ((kill, signal.SIGKILL), "was ended by SIGKILL"),
        ((kill, signal.SIGSEGV), "was ended by SIGSEGV"),
        ((leave, 3), "ended with exit code 3"),
    ],
)
def test_what_ended_a_worker_is_said(worker: Worker, last: tuple, how: str) -> None:
    for _ in range(2):  # and again, of one that has long ended
        with pytest.raises(EndedError) as ended:
            worker.do(*last)
        assert str(ended.value) == how


def test_signals_without_a_name_have_a_number() -> None:
    assert ending(-signal.SIGTERM) == "was ended by SIGTERM"
    assert ending(-250) == "was ended by signal 250"
    assert ending(0) == "ended with exit code 0"


def test_libraries_use_one_thread_where_nobody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    with closing(Worker()) as one:
        assert one.do(environment, "OMP_NUM_THREADS") == "1"
        assert one.do(environment, "NUMBA_NUM_THREADS") == "2"


def test_a_worker_ends_with_whoever_made_it(tmp_path: Path) -> None:
    """However that ends: here it is killed while the worker is at work."""
    made = os.fork()
    if made == 0:
        try:
            Worker().do(wait_beside, tmp_path / "process")
        finally:
            os._exit(1)
    until(lambda: (tmp_path / "process").exists() and (tmp_path / "process").read_text() != "")
    process = int((tmp_path / "process").read_text())
    assert is_there(process)
    os.kill(made, signal.SIGKILL)
    os.waitpid(made, 0)
    until(lambda: not is_there(process))


def test_ctrl_c_does_not_reach_a_worker(worker: Worker) -> None:
    assert worker.do(os.getsid, 0) != os.getsid(0)


@pytest.mark.parametrize(
    ("visible", "count", "named"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("2,3", 2, ("2", "3")),
        ("1, MIG-ab/1/0 ,-1,0", 2, ("1", "MIG-ab/1/0")),  # CUDA ends at what it does not know
        ("", 0, ()),
    ],
)
def test_gpus_are_named_as_the_variable_names_each_alone(
    visible: str | None, count: int, named: tuple[str, ...]
) -> None:
    assert gpus(visible, count) == named


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_no_more_run_than_there_are_runs_processes_and_gpus(
    wanted: int, runs: int, devices: int
) -> None:
    count = side_by_side(wanted, runs, [str(n) for n in range(devices)])
    limits = [wanted, runs] + ([devices] if devices else [])
    assert count == max(1, min(limits))


def test_each_run_has_a_gpu_to_itself() -> None:
    """More threads ask than there are devices: some wait."""
    with closing(Crew(["0", "7"])) as crew, ThreadPoolExecutor(4) as threads:

        def one(_: int) -> tuple[str | None, float, float]:
            with crew.worker(on_gpu=True) as worker:
                return worker.do(device_for, 0.05)

        found = list(threads.map(one, range(8)))
        with crew.worker() as worker:
            assert worker.do(environment, VISIBLE) == os.environ.get(VISIBLE)
    assert {device for device, _, _ in found} == {"0", "7"}
    for device in ("0", "7"):
        times = sorted((begun, ended) for seen, begun, ended in found if seen == device)
        assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(times))


def test_a_gpu_comes_back_from_a_worker_that_was_killed() -> None:
    with closing(Crew(["3"])) as crew:
        with pytest.raises(EndedError), crew.worker(on_gpu=True) as worker:
            worker.do(kill, signal.SIGKILL)
        with crew.worker(on_gpu=True) as worker:
            assert worker.do(environment, VISIBLE) == "3"


def test_without_gpus_nobody_waits_for_one() -> None:
    with closing(Crew()) as crew, crew.worker(on_gpu=True) as worker:
        assert worker.do(environment, VISIBLE) == os.environ.get(VISIBLE)


def test_workers_are_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Crew()) as crew:
        with crew.worker() as worker:
            first = worker.do(os.getpid)
        with crew.worker() as worker:
            assert worker.do(os.getpid) == first
            monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)
        until(lambda: not is_there(first))
        with crew.worker() as worker:
            assert worker.do(os.getpid) != first


def test_a_crew_ends_with_all_of_its_workers(tmp_path: Path) -> None:
    crew = Crew()
    with crew.worker() as worker:
        idle = worker.do(os.getpid)
    with crew.worker() as worker, ThreadPoolExecutor(1) as thread:
        busy = worker.do(os.getpid)
        other = thread.submit(worker.do, wait_beside, tmp_path / "process")
        until((tmp_path / "process").exists)
        crew.close()
        with pytest.raises(EndedError):
            other.result()
    assert crew.closed
    assert not is_there(idle)
    assert not is_there(busy)
    with pytest.raises(EndedError), crew.worker():
        pass


def test_modules_are_found_where_they_are_found_here(worker: Worker) -> None:
    assert set(map(os.path.abspath, sys.path)) <= set(map(os.path.abspath, worker.do(search_path)))
