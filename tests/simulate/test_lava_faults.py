"""Inject faults into real Lava: each is named, ends the run and leaves nothing behind.

A `sitecustomize` changes Lava in the worker, so a fault strikes in the process and the step that a
test chooses. The network is one that netx refuses, because without netx a worker starts sooner.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esl_lava.errors import BackendError
from esl_lava.network import Cuba, Matrix
from esl_lava.simulate import lava_cpu, lava_guard, lava_watch, simulate
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.simulate.processes import Watch, gone, processes

pytestmark = pytest.mark.slow

NEURONS = 3000
NETWORK = a_network(
    (
        a_layer(
            "only",
            Matrix.from_dense(np.tile([[2, -2]], (NEURONS, 1))),
            Cuba(4096, 0, 1, refractory=1),
        ),
    ),
    5,
)
INPUTS = np.ones((1, 5, 2), np.uint8)

INJECTION = """
import sys
if any("lava_worker" in word for word in sys.orig_argv):
    import errno, os, re, resource, signal, threading, time
    from pathlib import Path
    import esl_lava
    from multiprocessing import resource_tracker
    from lava.magma.runtime.message_infrastructure import shared_memory_manager
    from lava.magma.runtime.runtime_services import runtime_service
    from lava.proc.dense.models import AbstractPyDenseModelBitAcc as Synapses

    def strike(owner, method, when, fault):
        whole = getattr(owner, method)
        def changed(self, *given, **named):
            if when(self):
                Path({marker!r}).write_text(repr(time.time()))
                fault(self)
            return whole(self, *given, **named)
        setattr(owner, method, changed)

    def loop(self):
        while True:
            pass

    def lock(self):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def kill(number, pid=os.getpid, then=0):
        def fault(self):
            os.kill(pid(), number)
            time.sleep(then)
        return fault

    def fill(folder):
        def fault(self):
            try:
                with open(folder + "/filler", "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            except OSError:
                pass
        return fault

    def throw(error):
        raise error

    sizes = {{"f_blocks": 1 << 20, "f_bavail": 1 << 20, "f_frsize": 4096}}
    whole_disk = lambda folder: type("", (), sizes)
    step_2 = lambda model: model.time_step == 2
    always = lambda model: True
    in_a_step = (Synapses, "run_spk", step_2)
    at_the_start = (Synapses, "__init__", always)
    service = (runtime_service.LoihiPyRuntimeService, "_get_pm_resp", always)
    managers = []
    begin = shared_memory_manager.SharedMemoryManager.start

    def start(self):
        begin(self)
        managers.append(self._manager._process.pid)

    shared_memory_manager.SharedMemoryManager.start = start
    tracker = lambda: resource_tracker._resource_tracker._pid
    {fault}
"""


@pytest.fixture
def inject(tmp_path, monkeypatch):
    """Give a function that installs a fault and returns the file with the time at which it struck.

    The fault is the arguments of `strike`, or another statement.
    """

    def install(fault: str) -> Path:
        (tmp_path / "site").mkdir()
        marker = tmp_path / "struck"
        statement = f"strike({fault})" if fault.startswith("*") else fault
        (tmp_path / "site" / "sitecustomize.py").write_text(
            INJECTION.format(fault=statement, marker=str(marker))
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
        return marker

    return install


def shared_memory_of(process: int) -> list[str]:
    """Return the files in /dev/shm of the runs that a process began."""
    return [name for name in os.listdir("/dev/shm") if f"esl-lava-{process}-" in name]


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Make a folder for temporary files, which is empty afterwards, as is the shared memory."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(lava_watch, "STUCK_SECONDS", 2.0)
    monkeypatch.setattr(lava_watch, "COMPUTING_SECONDS", 1.0)
    monkeypatch.setattr(lava_watch, "STOPPED_SECONDS", 1.0)
    yield folder
    assert list(folder.iterdir()) == []
    assert shared_memory_of(os.getpid()) == []


SYNAPSES = "Lava failed: synapses of layer only: "
UNFINISHED = " before the run was finished"
STUCK = "no step has ended in N s"

FAULTS = {
    "exception": (
        "*in_a_step, lambda model: 1 / 0",
        SYNAPSES + "ZeroDivisionError: division by zero",
    ),
    "exception at the start": (
        "*at_the_start, lambda model: 1 / 0",
        SYNAPSES + "ZeroDivisionError: division by zero",
    ),
    "memory": ("*in_a_step, lambda model: throw(MemoryError)", SYNAPSES + "MemoryError"),
    "exit": ("*in_a_step, lambda model: sys.exit(3)", SYNAPSES + "SystemExit: 3"),
    "hard exit": (
        "*in_a_step, lambda model: os._exit(3)",
        SYNAPSES + "the process ended with exit code 3" + UNFINISHED,
    ),
    "hard exit without an error": (
        "*in_a_step, lambda model: os._exit(0)",
        SYNAPSES + "the process ended with exit code 0" + UNFINISHED,
    ),
    "killed": (
        "*in_a_step, kill(signal.SIGKILL)",
        SYNAPSES + "the process was ended by SIGKILL" + UNFINISHED,
    ),
    "killed at the start": (
        "*at_the_start, kill(signal.SIGKILL)",
        SYNAPSES + "the process was ended by SIGKILL" + UNFINISHED,
    ),
    "killed after the resource tracker": (
        "*in_a_step, lambda _: (kill(signal.SIGKILL, tracker)(_), kill(signal.SIGKILL)(_))",
        SYNAPSES + "the process was ended by SIGKILL" + UNFINISHED,
    ),
    "segmentation": (
        "*in_a_step, kill(signal.SIGSEGV)",
        SYNAPSES + "the process was ended by SIGSEGV" + UNFINISHED,
    ),
    "stopped": (
        "*in_a_step, kill(signal.SIGSTOP)",
        SYNAPSES + "the process is stopped, as by SIGSTOP",
    ),
    "loop": (
        "*in_a_step, loop",
        f"{SYNAPSES}{STUCK}, at {{site}}, line N, in loop",
    ),
    "loop at the start": (
        "*at_the_start, loop",
        f"{SYNAPSES}{STUCK}, at {{site}}, line N, in loop",
    ),
    "loop in C": (
        "*in_a_step, lambda model: re.match('(a+)+$', 'a' * 60 + 'b')",
        f"{SYNAPSES}{STUCK}, at {{re}}",
    ),
    "sleep": (
        "*in_a_step, lambda model: time.sleep(600)",
        f"{SYNAPSES}{STUCK}, at {{site}}, line N, in <lambda>",
    ),
    "deadlock": ("*in_a_step, lock", f"{SYNAPSES}{STUCK}, at {{site}}, line N, in lock"),
    "main process killed": (
        "*in_a_step, kill(signal.SIGKILL, os.getppid)",
        "Lava failed: its main process was ended by SIGKILL",
    ),
    "main process stopped": (
        "*in_a_step, kill(signal.SIGSTOP, os.getppid)",
        "Lava failed: Lava's main process: the process is stopped, as by SIGSTOP",
    ),
    "service killed": (
        "*service, kill(signal.SIGKILL)",
        "Lava failed: Lava's process LoihiPyRuntimeService: the process was ended by SIGKILL"
        + UNFINISHED,
    ),
    "tracker stopped": (
        "*in_a_step, kill(signal.SIGSTOP, tracker, 600)",
        "Lava failed: Python's resource tracker: the process is stopped, as by SIGSTOP",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_one_process(name, tmp_path, inject, monkeypatch):
    fault, sentence = FAULTS[name]
    inject(fault)
    with Watch(monkeypatch) as watch, refused(BackendError, "failed") as caught:
        lava_cpu.run(NETWORK, INPUTS, deadline=600)
    places = {"site": tmp_path / "site" / "sitecustomize.py", "re": ""}
    told = re.sub("(line|in) [0-9]+", r"\1 N", str(caught.value))
    assert told.startswith(sentence.format(**places))
    assert caught.value.faults[0].layer == ("only" if "layer only" in sentence else None)
    assert watch.segments
    assert (watch.left, watch.segments_left) == ([], set())


@pytest.mark.parametrize(
    ("process", "name"),
    [
        ("tracker", "Python's resource tracker"),
        ("managers.pop", "Lava's manager of shared memory"),
    ],
)
def test_a_run_goes_on_without_those_that_free_its_memory(
    process, name, inject, monkeypatch, caplog
):
    inject(f"*in_a_step, kill(signal.SIGKILL, {process}, 4)")
    monkeypatch.setattr(lava_watch, "STUCK_SECONDS", 60.0)
    with Watch(monkeypatch) as watch:
        lava = lava_cpu.run(NETWORK, INPUTS, ("only",))
    assert f"lava: {name} was ended by SIGKILL. The run goes on without it." in caplog.text
    ours = simulate(NETWORK, INPUTS, record="all")
    np.testing.assert_array_equal(lava.spikes["only"], ours.spikes["only"])
    assert watch.segments
    assert (watch.left, watch.segments_left) == ([], set())


def test_a_run_that_lacks_room_is_refused_before_it_starts(temporary, monkeypatch):
    needed = INPUTS.nbytes + NEURONS * 5
    monkeypatch.setattr(lava_watch, "free_bytes", lambda folder: needed - 1)
    with (
        Watch(monkeypatch) as watch,
        refused(BackendError, "unwritable", file=temporary, value=needed, limit=needed - 1),
    ):
        lava_cpu.run(NETWORK, INPUTS)
    assert watch.groups == []


def test_no_folder_for_temporary_files_is_one_sentence(monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with refused(BackendError, "unwritable", key="TMPDIR"):
        lava_cpu.run(NETWORK, INPUTS)


def test_a_file_system_without_a_size_has_no_limit(temporary, monkeypatch):
    sizes = type("", (), {"f_blocks": 0, "f_bavail": 0, "f_frsize": 4096})
    monkeypatch.setattr(os, "statvfs", lambda folder: sizes)
    assert lava_watch.free_bytes(temporary) == sys.maxsize


def test_a_deep_network_may_compute_all_its_steps_before_its_first_result() -> None:
    layer = a_layer("a", Matrix.from_dense([[2]]), Cuba(4096, 0, 1), delays=[3])
    deep = a_network([layer, *(replace(layer, name=str(n)) for n in range(5))])
    assert lava_cpu._latency(deep) == 6 * 4 + 1


def test_a_disk_that_is_full_while_the_inputs_are_written(temporary, monkeypatch):
    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", save)
    with refused(BackendError, "unwritable", file=temporary):
        lava_cpu.run(NETWORK, INPUTS)


@pytest.mark.parametrize(
    ("fault", "limit"),
    [
        (
            "os.statvfs = lambda folder: "
            "type('', (), {'f_blocks': 9, 'f_bavail': 2, 'f_frsize': 4096})",
            8192,
        ),
        ("os.posix_fallocate = lambda *_: throw(OSError(errno.ENOSPC, 'full'))", None),
    ],
)
def test_too_little_shared_memory_is_named(fault, limit, inject):
    inject(fault)
    with refused(BackendError, "unwritable", file="/dev/shm") as caught:
        lava_cpu.run(NETWORK, INPUTS, deadline=600)
    assert limit in (caught.value.faults[0].limit, None)


def test_a_limit_on_the_size_of_files_is_named(temporary, inject):
    inject(
        "from esl_lava.simulate.lava_processes.streams import PyRecorder\n"
        "    def limit(model): resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "    strike(PyRecorder, 'run_spk', step_2, limit)"
    )
    with refused(BackendError, "failed", layer="only") as caught:
        lava_cpu.run(NETWORK, INPUTS, deadline=600)
    told = re.escape("recorder of layer only: OSError: [Errno 27] File too large: '")
    assert re.search(told + f"{temporary}/esl-lava-.*/spikes0'$", str(caught.value))


PARENT = """
import json, sys
from esl_lava.errors import UserError
from esl_lava.simulate import lava_cpu
from tests.simulate.test_lava_faults import INPUTS, NETWORK
try:
    lava_cpu.run(NETWORK, INPUTS, deadline=600)
except UserError as error:
    print(json.dumps(error.faults[0].as_json()))
"""
CAN_MOUNT = os.system("unshare -rm true 2>/dev/null") == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="this user may not mount file systems of its own")
@pytest.mark.parametrize(
    ("folder", "size", "fault", "sentence"),
    [
        ("/dev/shm", "64k", "pass", "/dev/shm: no room for Lava's channels: "),
        ("/dev/shm", "64k", "os.statvfs = whole_disk", "/dev/shm: no room for Lava's channels: "),
        ("/dev/shm", "20m", "*in_a_step, fill('/dev/shm')", None),
        (
            *(
                "/dev/shm",
                "20m",
                "*in_a_step, lambda _: (fill('/dev/shm')(_), kill(signal.SIGBUS)(_))",
            ),
            "Lava failed: synapses of layer only: the process was ended by SIGBUS before the run "
            "was finished: /dev/shm is full",
        ),
        ("TMPDIR", "16k", "pass", "TMPDIR: no room for "),
        (
            *("TMPDIR", "256k", "*in_a_step, fill(os.environ['TMPDIR'] + '/../..')"),
            "Lava failed: recorder of layer only: OSError: [Errno 28] No space left on device: '",
        ),
    ],
)
def test_a_small_file_system(folder, size, fault, sentence, temporary, inject):
    """`unshare` gives the parent and Lava a file system of some size in place of a folder.

    It also gives them shared memory of their own, because other tests run Lava at the same time.
    """
    inject(fault)
    folder = folder.replace("TMPDIR", str(temporary))
    shared_memory = "mount -t tmpfs none /dev/shm"
    mount = f"{shared_memory} && mount -t tmpfs -o size={size} none {folder}"
    left = f"ls {folder} | grep -v filler; ls {temporary} /dev/shm | grep esl-lava; exit 0"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && "$0" -c "$1"; {left}', sys.executable, PARENT],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    if sentence is None:  # the channels took their memory at the start
        assert done.stdout == ""
        return
    told = json.loads(done.stdout)  # and nothing is left
    assert told["sentence"].startswith(sentence.replace("TMPDIR", str(temporary)))
    assert told["code"] == ("failed" if "failed" in sentence else "unwritable")


@pytest.mark.parametrize("numbers", [[signal.SIGINT] * 2, [signal.SIGTERM], [signal.SIGKILL]])
def test_signals_to_the_parent(numbers, temporary, inject):
    marker = inject("*in_a_step, lambda model: time.sleep(600)")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (marker.exists() and marker.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    (folder,) = temporary.iterdir()
    assert shared_memory_of(parent.pid)
    for number in numbers:
        parent.send_signal(number)
        time.sleep(0.02)
    parent.wait()
    assert until(lambda: not folder.exists())
    assert shared_memory_of(parent.pid) == []


def test_what_a_killed_run_and_its_killed_guard_left_is_removed_by_the_next_run(
    temporary, inject, monkeypatch
):
    marker = inject("*in_a_step, lambda model: time.sleep(600)")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env={**os.environ, "TMPDIR": str(temporary)}
    )
    while not (marker.exists() and marker.read_text()):
        time.sleep(0.05)
    (folder,) = temporary.iterdir()
    (worker,) = lava_guard._groups(folder)
    os.killpg(worker, signal.SIGSTOP)  # so that it does not end itself
    guards = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and is_guard(entry, folder)
    ]
    for pid in (*guards, parent.pid):
        os.kill(pid, signal.SIGKILL)
    parent.wait()
    assert until(lambda: not any(map(processes, guards)))
    assert shared_memory_of(parent.pid)
    assert len(processes(worker)) > 3
    other = temporary / f"esl-lava-{parent.pid}"  # no name of ours
    other.mkdir()
    lava_cpu._remove_abandoned(temporary)
    assert list(temporary.iterdir()) == [other]
    assert shared_memory_of(parent.pid) == []
    assert gone(worker)
    other.rmdir()


def is_guard(process: Path, folder: Path) -> bool:
    """Return whether a process is the guard of a folder."""
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        return lava_guard.__file__.encode() in words and os.fsencode(folder) in words
    return False


def until(holds: Callable[[], bool], seconds: float = 300.0) -> bool:
    """Return whether something holds within some seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_run_in_progress_is_not_abandoned(temporary):
    """Neither one whose process lives, nor one whose lock is held, as in another container."""
    mine = temporary / f"esl-lava-{os.getpid()}-x"
    locked = temporary / f"esl-lava-{2**22 + 1}-x"  # above the highest number of a process
    for folder in (mine, locked):
        folder.mkdir()
    with (locked / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lava_cpu._remove_abandoned(temporary)
        assert set(temporary.iterdir()) == {mine, locked}
    lava_cpu._remove_abandoned(temporary)
    assert set(temporary.iterdir()) == {mine}
    mine.rmdir()


def test_a_killed_guard_is_replaced_at_the_end(temporary):
    with lava_cpu._folder() as folder:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and is_guard(entry, folder):
                os.kill(int(entry.name), signal.SIGKILL)
        (folder / "file").touch()
    assert not folder.exists()
