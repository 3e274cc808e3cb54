"""Worker processes, and how GPUs are distributed to them."""

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
    gpus,
    parallel_runs,
)

pytestmark = pytest.mark.slow

# --- functions that workers import by name -------------------------------------------------


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
    """Return the visible GPU, and when the task began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    return os.environ.get(VISIBLE), began, time.monotonic()


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


def is_running(process: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition did not become true")


def test_a_worker_does_several_tasks(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert [worker.do(add, n, 1) for n in range(3)] == [1, 2, 3]
    first = worker.do(os.getpid)
    assert first == worker.do(os.getpid) != os.getpid()
    worker.close()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("not an answer either\n") == 3


def test_an_error_in_a_worker_is_raised_here_with_its_traceback(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"in fail[\s\S]*ZeroDivisionError: of all things"):
        worker.do(fail)
    assert worker.do(add, 1, 1) == 2


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ((kill, signal.SIGKILL), "was ended by SIGKILL"),
        ((kill, signal.SIGSEGV), "was ended by SIGSEGV"),
        ((leave, 3), "ended with exit code 3"),
    ],
)
def test_the_end_of_a_worker_is_described(worker: Worker, task: tuple, sentence: str) -> None:
    for _ in range(2):  # the second time the worker has already ended
        with pytest.raises(EndedError) as ended:
            worker.do(*task)
        assert str(ended.value) == sentence


def test_libraries_use_one_thread_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    with closing(Worker()) as one:
        assert one.do(environment, "OMP_NUM_THREADS") == "1"
        assert one.do(environment, "NUMBA_NUM_THREADS") == "2"


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Here the parent is killed while the worker does a task."""
    parent = os.fork()
    if parent == 0:
        try:
            Worker().do(wait_beside, tmp_path / "process")
        finally:
            os._exit(1)
    wait_until(lambda: (tmp_path / "process").exists() and (tmp_path / "process").read_text() != "")
    process = int((tmp_path / "process").read_text())
    assert is_running(process)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until(lambda: not is_running(process))


def test_ctrl_c_does_not_reach_a_worker(worker: Worker) -> None:
    assert worker.do(os.getsid, 0) != os.getsid(0)


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("2,3", 2, ("2", "3")),
        ("1, MIG-ab/1/0 ,-1,0", 2, ("1", "MIG-ab/1/0")),  # CUDA stops at an unknown name
        ("", 0, ()),
    ],
)
def test_names_of_gpus(visible: str | None, count: int, names: tuple[str, ...]) -> None:
    assert gpus(visible, count) == names


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_parallel_runs_are_limited_by_runs_processes_and_gpus(
    jobs: int, runs: int, devices: int
) -> None:
    count = parallel_runs(jobs, runs, [str(n) for n in range(devices)])
    limits = [jobs, runs] + ([devices] if devices else [])
    assert count == max(1, min(limits))


def test_each_run_has_its_own_gpu() -> None:
    """There are more threads than GPUs, so some wait."""
    with closing(Crew(["0", "7"])) as crew, ThreadPoolExecutor(4) as threads:

        def one(_: int) -> tuple[str | None, float, float]:
            with crew.worker(on_gpu=True) as worker:
                return worker.do(device_for, 0.05)

        uses = list(threads.map(one, range(8)))
        with crew.worker() as worker:
            assert worker.do(environment, VISIBLE) == os.environ.get(VISIBLE)
    assert {device for device, _, _ in uses} == {"0", "7"}
    for device in ("0", "7"):
        times = sorted((began, ended) for gpu, began, ended in uses if gpu == device)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(times))


def test_the_gpu_of_a_killed_worker_is_used_again() -> None:
    with closing(Crew(["3"])) as crew:
        with pytest.raises(EndedError), crew.worker(on_gpu=True) as worker:
            worker.do(kill, signal.SIGKILL)
        with crew.worker(on_gpu=True) as worker:
            assert worker.do(environment, VISIBLE) == "3"


def test_without_gpus_no_thread_waits_for_one() -> None:
    with closing(Crew()) as crew, crew.worker(on_gpu=True) as worker:
        assert worker.do(environment, VISIBLE) == os.environ.get(VISIBLE)


def test_idle_workers_are_kept_for_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Crew()) as crew:
        with crew.worker() as worker:
            first = worker.do(os.getpid)
        with crew.worker() as worker:
            assert worker.do(os.getpid) == first
            monkeypatch.setattr(workers, "IDLE_SECONDS", 0.05)
        wait_until(lambda: not is_running(first))
        with crew.worker() as worker:
            assert worker.do(os.getpid) != first


def test_closing_a_crew_ends_all_workers(tmp_path: Path) -> None:
    crew = Crew()
    with crew.worker() as worker:
        idle = worker.do(os.getpid)
    with crew.worker() as worker, ThreadPoolExecutor(1) as thread:
        busy = worker.do(os.getpid)
        other = thread.submit(worker.do, wait_beside, tmp_path / "process")
        wait_until((tmp_path / "process").exists)
        crew.close()
        with pytest.raises(EndedError):
            other.result()
    assert crew.closed
    assert not is_running(idle)
    assert not is_running(busy)
    with pytest.raises(EndedError), crew.worker():
        pass


def test_workers_have_the_same_module_path(worker: Worker) -> None:
    assert set(map(os.path.abspath, sys.path)) <= set(map(os.path.abspath, worker.do(search_path)))
