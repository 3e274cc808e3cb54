"""Repairs of Lava for newer Pythons and packages: each test needs one repair."""

import pickle
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from lava.lib.dl.netx.hdf5 import Network
from lava.lib.dl.slayer.utils import quantize
from lava.magma.core.process.ports.ports import ReshapePort

from esl_lava import lava_repairs
from esl_lava.engines.slayer import slayer
from tests.conftest import run_program

ENDS = [-8.0, -4.01, -4.0, -3.99, 0.3, 3.96, 3.96875, 3.98, 8.0]
"""Weights at, between and beyond the ends of SLAYER's grid, -256/64 and 254/64."""


def python(program: str) -> Any:
    """Run a program in a process of its own and return its outcome."""
    return run_program("python", "-W", "ignore", "-c", program)


@pytest.mark.slow
def test_lava_imports_wherever_the_package_was_imported_first() -> None:
    outcome = python(
        "import esl_lava; from lava.lib.dl import netx, slayer; slayer.block.cuba.Dense"
    )
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_without_the_repairs_later_pythons_refuse_it() -> None:
    outcome = python("from lava.lib.dl import netx")
    if sys.version_info < (3, 11):
        assert outcome.code == 0, outcome.err
    else:
        assert "ValueError: mutable default <class 'lava.magma.compiler.var_model." in outcome.err


@pytest.mark.slow
def test_slayer_needs_no_opencv() -> None:
    program = "import sys; sys.modules['cv2'] = None; {} from lava.lib.dl import slayer"
    assert "ModuleNotFoundError" in python(program.format("")).err
    outcome = python(
        program.format("import esl_lava;") + "; print(slayer.object_detection.__doc__)"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("Replaced by esl_lava.lava_repairs.\n")


@pytest.mark.slow
def test_what_was_imported_before_is_repaired_too() -> None:
    outcome = python(
        "import dataclasses as d; o = d.dataclass; d.dataclass = lambda c=None, /, **k: "
        "o(c, **k, unsafe_hash=True) if c else o(**k)\n"  # without this, the import fails
        "from lava.magma.core.process.ports.ports import ReshapePort\n"
        "import esl_lava, numpy\n"
        "print(ReshapePort((2, 3), old_shape=(6,)).get_transform_func_fwd()(numpy.arange(6)))"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out == "[[0 1 2]\n [3 4 5]]\n"


def test_a_stand_in_counts_as_an_importable_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a_stand_in", ModuleType("a_stand_in"))
    assert lava_repairs._is_importable("a_stand_in")
    assert not lava_repairs._is_importable("no_package_of_this_name")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_slayer_may_be_imported_where_no_gradients_are_kept(mode: str) -> None:
    outcome = python(f"import esl_lava, torch\nwith torch.{mode}(): from lava.lib.dl import slayer")
    assert outcome.code == 0, outcome.err


def test_a_repaired_neuron_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(slayer.neuron.cuba.Neuron(1.0, 1.0, 0.5))
    monkeypatch.setattr(kind, "quantize_8bit", lava_repairs.quantise_to_8_bits)
    block = slayer.block.cuba.Dense(
        {"threshold": 1.0, "current_decay": 1, "voltage_decay": 1}, 3, 2
    )
    again = pickle.loads(pickle.dumps(block))
    assert torch.equal(again.synapse.weight, block.synapse.weight)
    assert again.synapse.pre_hook_fx.__name__ == "quantize_8bit"


def test_nothing_of_lava_is_imported_by_the_repairs() -> None:
    outcome = python("import sys, esl_lava; print([m for m in sys.modules if m[:4] == 'lava'])")
    assert outcome.out == "[]\n"


def test_other_modules_are_not_repaired() -> None:
    assert lava_repairs._Finder.find_spec("lava.lib.dl.slayer.utils") is None
    before = list(sys.meta_path)
    lava_repairs.install()  # a second time
    assert sys.meta_path == before


def test_other_dataclasses_are_not_changed() -> None:
    import dataclasses

    module = ModuleType("a_module")
    original = dataclasses.dataclass
    with lava_repairs.hash_dataclasses(module):
        hashable: Any = dataclasses.dataclass(type("Hashable", (), {"__module__": "a_module"}))
        other: Any = dataclasses.dataclass(type("Other", (), {"__module__": "another"}))
    assert hash(hashable()) == hash(hashable())
    with pytest.raises(TypeError, match="unhashable"):
        hash(other())
    assert dataclasses.dataclass is original


def test_ports_are_reshaped() -> None:
    port = ReshapePort((2, 3), old_shape=(6,))
    forth, back = port.get_transform_func_fwd(), port.get_transform_func_bwd()
    assert forth(np.arange(6)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back(forth(np.arange(6))).tolist() == [0, 1, 2, 3, 4, 5]


def test_netx_reads_integers_that_have_axes(tmp_path: Path) -> None:
    """Read the weight and the bias of an input block as lava-dl stores them."""
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = "input", [4]
        layer["weight"], layer["bias"] = np.array([3]), np.array([[5]])
        neuron = {"type": "CUBA", "iDecay": 1024, "vDecay": 128, "vThMant": 80}
        for key, value in {**neuron, "refDelay": 1, "gradedSpike": False}.items():
            layer[f"neuron/{key}"] = value
    assert Network(net_config=str(path)).in_layer.transform == {"weight": 3, "bias": 5}


def rounded(function: Any, descale: bool) -> tuple[list[float], list[float]]:
    """Return `ENDS` rounded to 8 bits, and their gradients."""
    weights = torch.tensor(ENDS, requires_grad=True)
    neuron = slayer.neuron.cuba.Neuron(threshold=1.0, current_decay=1.0, voltage_decay=0.5)
    out = function(neuron, weights, descale)
    out.sum().backward()
    assert weights.grad is not None
    return out.tolist(), weights.grad.tolist()


@pytest.mark.parametrize("descale", [False, True])
def test_weights_at_the_ends_of_the_grid_learn(descale: bool) -> None:
    stock = type(slayer.neuron.cuba.Neuron(1.0, 1.0, 0.5)).quantize_8bit
    weights, gradients = rounded(stock, descale)
    unit = 64 if descale else 1
    assert weights == [
        unit * w for w in (-4, -4, -4, -4, 0.3125, 3.96875, 3.96875, 3.96875, 3.96875)
    ]
    assert gradients == [0, *[unit] * 7, 0]  # -4.01 and 3.98 are rounded before they are clamped
    assert rounded(lava_repairs.quantise_to_8_bits, descale) == (weights, gradients)


@pytest.mark.parametrize("gradient", [0.0, 1.0])
def test_slayers_own_rounding_stays_where_clamp_is_as_it_was(gradient: float) -> None:
    bound: Any = SimpleNamespace(grad=gradient, clamp=lambda *ends: bound, backward=lambda: None)
    neuron = SimpleNamespace(quantize_8bit=quantize)
    stub = SimpleNamespace(
        ones=lambda *size, device, requires_grad: bound,
        enable_grad=nullcontext,
        inference_mode=nullcontext,
    )
    module: Any = SimpleNamespace(torch=stub, Neuron=neuron)
    with lava_repairs.learn_at_the_ends(module):
        pass
    repaired = neuron.quantize_8bit is lava_repairs.quantise_to_8_bits
    assert repaired == (gradient == 0)
