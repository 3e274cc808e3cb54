"""Test Lava itself through plain netx: equal spikes, and every way in which it can fail.

Tests of the worker's handling alone use a fake `lava` package, because importing the real one takes
seconds.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.errors import BackendError
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Matrix,
    Network,
)
from esl_lava.simulate import lava_cpu, simulate
from esl_lava.simulate.lava_watch import send
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.simulate import equality, residual
from tests.simulate.networks import Case
from tests.simulate.processes import TINY, TINY_INPUT, Watch, gone, processes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _temporary_files_are_removed(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd):
    yield
    assert capfd.readouterr() == ("", "")


def connections(rng, n_post: int, n_pre: int, density: float, low=-60, high=70) -> Matrix:
    """Draw even weights. With `density` below 1 some connections are absent."""
    mask = rng.random((n_post, n_pre)) < density
    return Matrix.from_dense(np.where(mask, 2 * rng.integers(low, high, mask.shape), 0), mask)


def assert_lava_agrees(network: Network, inputs: np.ndarray, **options) -> None:
    ours = simulate(network, inputs, record="all")
    lava = lava_cpu.run(network, inputs, tuple(ours.spikes), **options)
    for name, spikes in ours.spikes.items():
        assert 0.02 < spikes.mean() < 0.98, f"{name} does not tell much"
        np.testing.assert_array_equal(lava.spikes[name], spikes)
        assert lava.spikes[name].dtype == np.uint8
    if ours.readout is None:
        assert lava.readout is None
    else:
        np.testing.assert_array_equal(lava.readout, ours.readout)
        assert lava.readout.dtype == np.int32
    np.testing.assert_array_equal(lava.decisions, ours.decisions)
    assert lava.counts == ours.counts


def biased() -> tuple[Network, np.ndarray]:
    """Every layer has biases: without resets, neurons would fire before the first input."""
    rng = np.random.default_rng(3)
    network = a_network(
        (
            a_layer(
                "a", connections(rng, 12, 10, 0.6), Cuba(1000, 300, 100), rng.integers(-30, 90, 12)
            ),
            a_layer(
                "b", connections(rng, 9, 12, 1.0), Cuba(4096, 0, 150), rng.integers(-30, 90, 9)
            ),
            a_layer("c", connections(rng, 5, 9, 0.7), Cuba(0, 2000, 200), rng.integers(-30, 90, 5)),
        ),
        steps=7,
    )
    return network, (rng.random((5, 7, 10)) < 0.4).astype(np.uint8)


def test_lava_agrees_on_a_biased_network_that_fires_to_the_end(monkeypatch):
    with Watch(monkeypatch) as watch:
        assert_lava_agrees(*biased())
    assert len(watch.groups) == 1
    assert watch.segments
    assert (watch.left, watch.segments_left) == ([], set())


def test_lava_agrees_on_a_sample_alone():
    network, inputs = biased()
    assert_lava_agrees(network, inputs[3:4])


def test_several_workers_and_their_progress(monkeypatch):
    told = []
    with Watch(monkeypatch) as watch:
        assert_lava_agrees(*biased(), workers=2, progress=lambda *now: told.append(now))
    assert len(watch.groups) == 2
    assert (watch.left, watch.segments_left) == ([], set())
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    assert told == sorted(told)


def assert_every_state_agrees(network: Network, inputs: np.ndarray, **options) -> None:
    """Compare spikes, u and v of all layers with the exact simulator and the reference."""
    names = tuple(layer.name for layer in network.layers)
    firing = tuple(layer.name for layer in network.layers if layer.neuron.fires)
    lava = lava_cpu.run(network, inputs, firing, names, **options)
    totals = equality.Totals()
    equality.compare(Case(network, inputs), lava, totals)
    assert set(lava.u) == set(lava.v) == set(names)
    assert totals.differences == 0, totals
    assert totals.silent == 0
    for spikes in lava.spikes.values():
        assert spikes.mean() < 0.98


def test_injected_maps_convolutions_delays_recurrence_and_every_state():
    rng = np.random.default_rng(8)
    kernel = rng.integers(-60, 90, (4, 1, 3, 2))
    convolution = Convolution(kernel, (2, 5, 7), (2, 1), (1, 0), (1, 2), groups=2)
    network = a_network(
        (
            a_layer("injected", Injection((2, 5, 7)), Cuba(1000, 400, 60)),
            a_layer(
                "maps",
                convolution,
                Cuba(rng.integers(0, 4097, 4), 300, rng.integers(40, 90, 4)),
                bias=np.repeat(rng.integers(-20, 30, 4), convolution.n_post // 4),
            ),
            a_layer(
                "delayed",
                connections(rng, 9, convolution.n_post, 0.5),
                Cuba(4096, 100, rng.integers(60, 150, 9)),
                delays=rng.integers(0, 4, 9),
            ),
            a_layer(
                "recurrent",
                connections(rng, 6, 9, 1.0),
                Cuba(2000, 2000, 60),
                bias=rng.integers(-30, 60, 6),
                recurrent=connections(rng, 6, 6, 0.8),
            ),
            a_layer("readout", connections(rng, 3, 6, 1.0), INTEGRATOR),
        ),
        input_range=(-20, 59),
    )
    inputs = rng.integers(-20, 60, (3, 8, 70)).astype(np.int32)
    assert_every_state_agrees(network, inputs)


def test_graded_maps_into_sparse_synapses():
    rng = np.random.default_rng(9)
    convolution = Convolution(2 * rng.integers(-30, 40, (2, 2, 2, 2)), (2, 4, 3))
    network = a_network(
        (
            a_layer("maps", convolution, Cuba(3000, 300, 150)),
            a_layer(
                "delayed",
                connections(rng, 7, convolution.n_post, 0.6),
                Cuba(2000, 100, 90),
                delays=rng.integers(0, 3, 7),
            ),
            a_layer("last", connections(rng, 4, 7, 0.9), Cuba(4096, 0, 120)),
        ),
        input_range=(-7, 7),
    )
    inputs = (rng.integers(-7, 8, (3, 6, 24)) * (rng.random((3, 6, 24)) < 0.6)).astype(np.int32)
    assert_every_state_agrees(network, inputs, sparse=True)


def test_neurons_that_pause_and_decide_by_their_first_spike(caplog):
    """esl-lava's neuron in Lava: a pause that ends within the sample, a longer one, and resets."""
    rng = np.random.default_rng(10)
    network = a_network(
        (
            a_layer("short", connections(rng, 12, 20, 0.5), Cuba(1000, 100, 100, refractory=2)),
            a_layer("once", connections(rng, 5, 12, 0.8), Cuba(170, 0, 900, refractory=62)),
        )
    )
    inputs = (rng.random((5, 9, 20)) < 0.4).astype(np.uint8)
    assert_every_state_agrees(network, inputs)
    ours = simulate(network, inputs, record="all")
    assert (ours.spikes["short"].sum(axis=1) > 1).any()
    assert ours.spikes["once"].sum(axis=1).max() == 1
    assert set(lava_cpu.run(network, inputs).decisions) == set(ours.decisions)
    assert "netx refuses this network, so esl-lava builds it of Lava's processes" in caplog.text
    assert "layer once: netx has no refractory period" in caplog.text
    assert len(set(ours.decisions.tolist())) > 1


def test_random_networks_through_the_runtime():
    totals = equality.check(2, equality.by_runtime, netx=True, seed=3)
    assert totals.cases == 2
    assert totals.differences == 0, totals


def test_random_networks_that_netx_refuses():
    totals = equality.check(4, equality.by_builder, netx=False, seed=5)
    assert totals.cases == 4
    assert totals.differences == 0, totals


def test_a_residual_network(caplog):
    network, inputs = residual.resnet()
    assert len(network.layers[2].inputs) == 1 + 3  # an identity of more than two weights
    assert_every_state_agrees(network, inputs)
    for name, spikes in simulate(network, inputs, record="all").spikes.items():
        assert 0.05 < spikes.mean() < 0.6, f"{name} does not tell much"
    for name in ("block1.2", "block2.2"):
        assert f"layer {name}: netx has no connections from layers other than" in caplog.text


@pytest.mark.parametrize("steps", [2, 5])
def test_skips_from_everywhere(steps):
    network, inputs = residual.from_everywhere(steps)
    assert_every_state_agrees(network, inputs)
    assert_lava_agrees(network, inputs, sparse=True, workers=2)


def test_what_else_netx_refuses():
    """Test a bias with injected input, recurrent maps, and delays in maps and in a skip."""
    rng = np.random.default_rng(11)
    same = {"in_shape": (2, 4, 5), "padding": (1, 1)}
    maps = Convolution(2 * rng.integers(-30, 45, (2, 2, 3, 3)), **same)
    again = Convolution(2 * rng.integers(-30, 30, (2, 2, 3, 3)), **same)
    network = a_network(
        (
            a_layer(
                "injected", Injection((2, 4, 5)), Cuba(1000, 400, 40), rng.integers(-9, 20, 40)
            ),
            a_layer(
                "maps",
                maps,
                Cuba(2000, 300, 150),
                rng.integers(-20, 30, 40),
                delays=rng.integers(0, 4, 40),
                recurrent=again,
                skips=[Input(INPUT, connections(rng, 40, 40, 0.1), rng.integers(0, 3, 40))],
            ),
            a_layer(
                "pausing",
                connections(rng, 6, 40, 0.5),
                Cuba(3000, 100, 200, refractory=1),
                skips=[Input("injected", connections(rng, 6, 40, 0.3))],
            ),
        ),
        input_range=(-63, 63),
    )
    inputs = rng.integers(-10, 30, (3, 7, 40)).astype(np.int32)
    assert_every_state_agrees(network, inputs)


def test_what_lava_cannot_hold_is_refused_before_it_starts(monkeypatch):
    skip = Input(INPUT, Matrix.from_dense([[2, 400]]))
    network = a_network((replace(TINY.layers[0], inputs=(*TINY.layers[0].inputs, skip)),))
    with (
        Watch(monkeypatch) as watch,
        refused(BackendError, "range", layer="only", key="weight", value=400, limit=255) as caught,
    ):
        simulate(network, TINY_INPUT, backend="lava")
    assert "skip from input" in str(caught.value)
    assert watch.groups == []


def test_a_bias_that_lava_would_wrap_is_refused():
    layer = a_layer("a", TINY.layers[0].inputs[0].connections, Cuba(1, 1, 1), np.array([40000]))
    with refused(BackendError, "range", layer="a", key="bias", value=40000, limit=32767):
        lava_cpu.run(a_network((layer,)), TINY_INPUT)


def test_at_least_one_worker():
    with refused(BackendError, "range", key="workers", value=0, limit=1):
        lava_cpu.run(TINY, TINY_INPUT, workers=0)


@pytest.mark.parametrize(
    ("weights", "detail"),
    [
        # netx treats the sign as mixed, and the model treats it as negative.
        ([[0, -128]], "weight -64 instead of -128 from input 1"),
        ([[-2, 400]], "weight 254 instead of 400 from input 1"),
    ],
)
def test_weights_that_lava_would_change_are_refused(weights, detail):
    network = a_network((a_layer("only", Matrix.from_dense(weights), Cuba(4096, 0, 1)),))
    with refused(BackendError, "failed") as caught:
        simulate(network, TINY_INPUT, backend="lava")
    assert "layer only" in str(caught.value)
    assert detail in str(caught.value)


def test_lava_agrees_on_a_readout_and_where_u_wraps_and_v_clips():
    rng = np.random.default_rng(4)
    # Rows of one sign add up to 100 * 256 << 6 in a step, and u is kept: u wraps, v clips.
    strong = np.zeros((14, 100), int)
    strong[:6] = 2 * rng.integers(100, 128, (6, 100))
    strong[6:] = 2 * rng.integers(-50, 52, (8, 100))
    strong[5] = -256
    wrapping = Cuba(7, 400, 30_000)
    network = a_network(
        (
            a_layer("wraps", Matrix.from_dense(strong), wrapping, rng.integers(-4096, 4096, 14)),
            a_layer("middle", connections(rng, 8, 14, 0.5), Cuba(3333, 1, 150)),
            a_layer("readout", connections(rng, 4, 8, 0.9, low=-128, high=128), INTEGRATOR),
        )
    )
    inputs = (rng.random((3, 16, 100)) < 0.7).astype(np.uint8)
    wraps, clips, _ = simulate(network, inputs).overflows["wraps"]
    assert min(wraps, clips) > 10
    assert_lava_agrees(network, inputs)


def test_what_a_process_model_raises_is_told_at_once(tmp_path, monkeypatch):
    """Lava itself would wait for ever and print nothing."""
    path = tmp_path / "hangs.h5"
    netfile.write(TINY, path)
    with h5py.File(path, "a") as file:  # a decay of float type makes a process model fail
        del file["layer/0/neuron/iDecay"]
        file["layer/0/neuron/iDecay"] = 2000.0
    with (
        Watch(monkeypatch) as watch,
        refused(BackendError, "failed") as caught,
    ):
        lava_cpu.run(TINY, TINY_INPUT, path=path, deadline=240)
    assert str(caught.value).startswith(
        "Lava failed: neurons of layer only: TypeError: ufunc 'right_shift' not supported"
    )
    assert (watch.left, watch.segments_left) == ([], set())
    assert len(watch.groups) == 1


def test_a_long_report_stays_one_line_that_a_pipe_keeps_whole():
    reading, writing = os.pipe()
    send(writing, {"sentence": "\u00e9\n" * 9000, "code": "failed"})
    line = os.read(reading, 100_000)
    assert len(line) <= select.PIPE_BUF
    assert line.endswith(b"}\n")
    assert json.loads(line)["sentence"].startswith("\u00e9\n" * 100)


def test_what_a_model_of_what_we_built_raises_is_told_with_its_layer(tmp_path, monkeypatch):
    """`sitecustomize` makes Lava's convolution fail in its second step."""
    (tmp_path / "sitecustomize.py").write_text(
        "import esl_lava\n"
        "import lava.proc.conv.utils as utils\n"
        "calls, whole = [], utils.conv\n"
        "def conv(given, kernel, *geometry):\n"
        "    calls.append(kernel)\n"
        "    if kernel.shape[1:3] == (1, 1) and len(calls) == 2:\n"
        "        raise ArithmeticError('it does not converge')\n"
        "    return whole(given, kernel, *geometry)\n"
        "utils.conv = conv\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    network, inputs = residual.resnet(samples=1)
    with (
        Watch(monkeypatch) as watch,
        refused(BackendError, "failed") as caught,
    ):
        lava_cpu.run(network, inputs, deadline=240)
    told = "Lava failed: synapses of layer block{}.2: ArithmeticError: it does not converge"
    assert str(caught.value) in (told.format(1), told.format(2))  # who is first
    assert (watch.left, watch.segments_left) == ([], set())
    assert len(watch.groups) == 1


def test_a_model_that_cannot_be_built_is_told_with_its_layer(tmp_path):
    """Lava itself reports only "1 Exception(s) occurred. See output above for details."."""
    path = tmp_path / "net.h5"
    netfile.write(TINY, path)
    with h5py.File(path, "a") as file:
        file["layer/0/bias"] = np.ones(3)  # of one neuron
    with refused(BackendError, "failed") as caught:
        lava_cpu.run(TINY, TINY_INPUT, path=path, deadline=240)
    assert re.match("Lava failed: .*ValueError: .*broadcast", str(caught.value))


def test_an_all_zero_layer_is_reported_with_lavas_reason(monkeypatch):
    zeros = Matrix.from_dense(np.zeros((1, 2), int))
    network = a_network((a_layer("only", zeros, Cuba(4096, 0, 1)),))
    with (
        Watch(monkeypatch) as watch,
        refused(BackendError, "failed") as caught,
    ):
        simulate(network, TINY_INPUT, backend="lava")
    assert str(caught.value).startswith("Lava failed: OverflowError: cannot")
    assert watch.left == []


@pytest.fixture
def fake_lava(tmp_path, monkeypatch):
    """Make the worker import a `lava` whose netx runs some statements."""

    def install(statements: str) -> None:
        package = tmp_path / "fake" / "lava" / "lib" / "dl"
        package.mkdir(parents=True)
        for parent in (package, package.parent, package.parent.parent):
            (parent / "__init__.py").touch()
        (package / "netx.py").write_text(statements)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"), prepend=os.pathsep)

    return install


PARENT = """
import sys
import numpy as np
from pathlib import Path
from esl_lava import netfile
from esl_lava.simulate import lava_cpu
path = Path(sys.argv[1])
lava_cpu.run(netfile.read(path), np.ones((1, 3, 2), np.uint8), path=path, deadline=600)
"""
# Two processes that wait; the second is as deaf as Python's resource tracker.
TWO_THAT_WAIT = """
import os, signal, time
from pathlib import Path
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path({marker!r}).write_text(str(os.getpgid(0)))
time.sleep(600)
"""


def heed_signals() -> None:
    """Let a child process react to the signals that this process may ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path, fake_lava, signum):
    path, marker = tmp_path / "net.h5", tmp_path / "group"
    netfile.write(TINY, path)
    fake_lava(TWO_THAT_WAIT.format(marker=str(marker)))
    temporary = tmp_path / "of the parent"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path)],
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
        # Tests in the background ignore Ctrl-C, and under nohup SIGHUP. Their children would too.
        preexec_fn=heed_signals,
    )
    while not (marker.exists() and marker.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    group = int(marker.read_text())
    assert len(processes(group)) == 3  # with Python's resource tracker
    parent.send_signal(signum)
    _, said = parent.communicate()
    assert gone(group)
    assert parent.returncode == -signum
    if signum == signal.SIGINT:
        assert said.endswith(b"KeyboardInterrupt\n")
    end = time.monotonic() + 300
    while list(temporary.iterdir()) and time.monotonic() < end:  # the guard may outlive its parent
        time.sleep(0.05)
    assert list(temporary.iterdir()) == []


def run_tiny(tmp_path, deadline=600.0) -> None:
    path = tmp_path / "net.h5"
    netfile.write(TINY, path)
    lava_cpu.run(TINY, TINY_INPUT, path=path, deadline=deadline)


def test_when_a_worker_fails_the_others_end(tmp_path, fake_lava, monkeypatch):
    fake_lava(
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "first = json.loads(Path(sys.argv[1], 'job.json').read_text())['first']\n"
        "if first == 2: raise ValueError('the third sample')\n"
        "time.sleep(600)"
    )
    path = tmp_path / "net.h5"
    netfile.write(TINY, path)
    inputs = np.repeat(TINY_INPUT, 3, axis=0)
    with (
        Watch(monkeypatch) as watch,
        refused(BackendError, "failed") as caught,
    ):
        lava_cpu.run(TINY, inputs, path=path, deadline=600.0, workers=3)
    assert str(caught.value) == "Lava failed: ValueError: the third sample"
    assert len(watch.groups) == 3
    assert watch.left == []


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        ("raise MemoryError('no room')", r"^Lava failed: MemoryError: no room$"),
        ("raise MemoryError", r"^Lava failed: MemoryError$"),
        (
            "import atexit, time; atexit.register(time.sleep, 600); raise ValueError('at its end')",
            r"^Lava failed: ValueError: at its end$",
        ),
        ("import os; os._exit(0)", "^Lava failed: its main process ended with exit code 0$"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "^Lava failed: its main process was ended by SIGKILL$",
        ),
        (
            "import os; os.write(2, b'a\\n\\n b \\nc\\n\\xff d'); os._exit(3)",
            r"exit code 3; .*:  b  \| c \| \ufffd d$",
        ),
        ("print('Toolbox', 'not found'); raise SystemExit(2)", r"^Lava failed: SystemExit: 2$"),
    ],
)
def test_a_failing_worker(tmp_path, fake_lava, monkeypatch, statements, sentence):
    fake_lava(statements)
    with Watch(monkeypatch) as watch, refused(BackendError, "failed") as caught:
        run_tiny(tmp_path)
    assert re.search(sentence, str(caught.value))
    assert "Toolbox not found" not in str(caught.value)  # said while importing
    assert watch.left == []


def test_what_a_stuck_worker_said_last_is_told(tmp_path, fake_lava, monkeypatch):
    fake_lava("import os, time; os.write(1, b'waiting for a chip\\n'); time.sleep(600)")
    for deadline in (2, 30, 300):  # the later ones where a busy machine says nothing in time
        with refused(BackendError, "timeout", key="deadline", limit=deadline) as caught:
            run_tiny(tmp_path, deadline)
        if "output" in str(caught.value):
            break
    assert str(caught.value).endswith("was stopped; its last output: waiting for a chip")


def test_modules_in_the_working_folder_are_not_imported(tmp_path, fake_lava, monkeypatch):
    fake_lava("raise ValueError('the right one')")
    for name in ("json.py", "h5py.py", "numpy.py"):
        (tmp_path / name).write_text("raise ValueError('a stranger')")
    monkeypatch.chdir(tmp_path)
    with refused(BackendError, "failed") as caught:
        run_tiny(tmp_path)
    assert "the right one" in str(caught.value)


def test_the_deadline_grows_with_the_work(monkeypatch):
    deadlines = []
    monkeypatch.setattr(lava_cpu, "_work", lambda jobs, deadline, _: deadlines.append(deadline))
    for samples in (1, 100):
        with pytest.raises(FileNotFoundError):
            lava_cpu.run(TINY, np.repeat(TINY_INPUT, samples, axis=0), ())
    assert deadlines[0] > lava_cpu.STARTUP_SECONDS
    assert deadlines[1] - deadlines[0] == pytest.approx(99 * (3 + 1) * 0.02)
