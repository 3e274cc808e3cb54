"""Repairs that let lava-nc 0.10.0 and lava-dl 0.6.0 run with newer Pythons and packages.

These are the last releases of Lava. `import esl_lava` calls `install()`, which repairs single
modules of Lava when they are imported, or at once if they have been imported before. It imports
no module and changes no installed file. `REPAIRS` lists the repairs.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.abc import Loader
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Any

UNUSED = "lava.lib.dl.slayer.object_detection"
"""A package that SLAYER always imports, and that imports OpenCV, Pillow and torchvision.

esl-lava does not use it. An empty module replaces it if one of `REQUIRED_BY_UNUSED` is not
installed.
"""

REQUIRED_BY_UNUSED = ("cv2", "PIL", "torchvision")


@contextmanager
def hash_dataclasses(module: ModuleType) -> Iterator[None]:
    """Make the module's dataclasses hashable, so that one can be a default value of another."""
    original = dataclasses.dataclass

    def hashable(cls: type | None = None, /, **options: Any) -> Any:
        if cls is not None and cls.__module__ == module.__name__:
            options["unsafe_hash"] = True
        return original(cls, **options)

    dataclasses.dataclass = hashable
    try:
        yield
    finally:
        dataclasses.dataclass = original


def _reshape(data: Any, shape: tuple[int, ...]) -> Any:
    return data.reshape(shape)


@contextmanager
def reshape_by_position(module: ModuleType) -> Iterator[None]:
    """Give `ReshapePort` functions that do not use numpy's argument `newshape`."""
    yield
    port = module.ReshapePort
    port.get_transform_func_fwd = lambda self: functools.partial(_reshape, shape=self.shape)
    port.get_transform_func_bwd = lambda self: functools.partial(_reshape, shape=self.old_shape)


@contextmanager
def take_integers_from_arrays(module: ModuleType) -> Iterator[None]:
    """Let `int(...)` in the module take an array of one element with any number of axes."""
    yield
    vars(module)["int"] = lambda value: int(value.item() if hasattr(value, "item") else value)


@contextmanager
def learn_at_the_ends(module: ModuleType) -> Iterator[None]:
    """Let `quantize_8bit` pass the gradient of weights at both ends of the grid."""
    yield
    torch = module.torch
    # SLAYER may be imported where gradients are disabled.
    with torch.inference_mode(False), torch.enable_grad():
        bound = torch.ones(1, device="cpu", requires_grad=True)
        bound.clamp(0, 1).backward()
    if not bound.grad:
        module.Neuron.quantize_8bit = quantise_to_8_bits


def quantise_to_8_bits(neuron: Any, weight: Any, descale: bool = False) -> Any:
    """Quantise as `quantize_8bit` does under torch < 2.14 (`slayer/neuron/base.py`, lava-dl 0.6.0).

    Args:
        neuron: neuron of SLAYER, of which this is a method.
        weight: tensor of weights.
        descale: whether to return even integers in -256..254 instead of weights in their own unit.
    """
    import torch
    from lava.lib.dl.slayer.utils import quantize

    lowest, highest = -256 / neuron.w_scale, 254 / neuron.w_scale
    weight = quantize(weight, step=2 / neuron.w_scale)
    weight = torch.where(weight < lowest, lowest, weight)
    weight = torch.where(weight > highest, highest, weight)
    return weight * neuron.w_scale if descale else weight


# A method is pickled under its name.
quantise_to_8_bits.__name__ = quantise_to_8_bits.__qualname__ = "quantize_8bit"


@dataclass(frozen=True)
class Repair:
    """A repair of a module of Lava.

    Attributes:
        since: change of Python or of a package that made the repair necessary.
        around: context manager for a module; the code of the module runs within it.
    """

    since: str
    around: Callable[[ModuleType], AbstractContextManager[None]]


REPAIRS: Mapping[str, Repair] = MappingProxyType(
    {
        "lava.lib.dl.netx.hdf5": Repair(
            "numpy 2.4 refuses int(array) of an array with axes", take_integers_from_arrays
        ),
        "lava.lib.dl.slayer.neuron.base": Repair(
            "the gradient of clamp at its bounds is 0 from torch 2.14 on, before it was 1",
            learn_at_the_ends,
        ),
        "lava.magma.compiler.var_model": Repair(
            "Python 3.11 refuses a default value that cannot be hashed", hash_dataclasses
        ),
        "lava.magma.core.process.ports.ports": Repair(
            "numpy 2.4 has no reshape(newshape=...)", reshape_by_position
        ),
    }
)
"""Full name of a module of Lava -> its repair."""


class _RepairingLoader(importlib.machinery.SourceFileLoader):
    """Loader that runs the code of a module within its repair."""

    def exec_module(self, module: ModuleType) -> None:
        with REPAIRS[module.__name__].around(module):
            super().exec_module(module)


class _EmptyLoader(Loader):
    """Loader of an empty module."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None  # the ordinary empty module

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = "Replaced by esl_lava.lava_repairs."


def _is_importable(package: str) -> bool:
    """Return whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # a stand-in without a spec is among the imported modules
        return True


class _Finder:
    """Finder of the modules of `REPAIRS` and of `UNUSED`, for `sys.meta_path`."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == UNUSED and not all(map(_is_importable, REQUIRED_BY_UNUSED)):
            return importlib.machinery.ModuleSpec(name, _EmptyLoader())
        if name not in REPAIRS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _RepairingLoader(name, spec.origin)
        return spec


def install() -> None:
    """Repair Lava in this process, including the modules that have been imported before."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    for name, repair in REPAIRS.items():
        if name in sys.modules:
            with repair.around(sys.modules[name]):
                pass
