"""lava-nc 0.10.0 and lava-dl 0.6.0, the last releases, on Pythons and packages younger than they.

`install()`, which `import esl_lava` calls, repairs single modules of Lava when they are
imported, or at once where they have been already. Nothing is imported by that, and no installed
file is changed. `REPAIRS` is the list.
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
"""A package that SLAYER imports unasked, and with it OpenCV, Pillow and torchvision.

Nothing here uses it. It is replaced by an empty module where one of `WANTED_BY_UNUSED` is not
installed.
"""

WANTED_BY_UNUSED = ("cv2", "PIL", "torchvision")


@contextmanager
def hash_dataclasses(module: ModuleType) -> Iterator[None]:
    """Let the module's dataclasses be hashed, so that one may be another's default value."""
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
    """Give `ReshapePort` functions that do without numpy's `newshape`."""
    yield
    port = module.ReshapePort
    port.get_transform_func_fwd = lambda self: functools.partial(_reshape, shape=self.shape)
    port.get_transform_func_bwd = lambda self: functools.partial(_reshape, shape=self.old_shape)


@contextmanager
def take_integers_from_arrays(module: ModuleType) -> Iterator[None]:
    """Let `int(...)` in the module take an array of one element, whatever its axes."""
    yield
    vars(module)["int"] = lambda value: int(value.item() if hasattr(value, "item") else value)


@contextmanager
def learn_at_the_ends(module: ModuleType) -> Iterator[None]:
    """Let `quantize_8bit` pass the gradient of weights that lie on the ends of the grid."""
    yield
    torch = module.torch
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
    ):  # whatever holds where SLAYER is imported
        bound = torch.ones(1, device="cpu", requires_grad=True)
        bound.clamp(0, 1).backward()
    if not bound.grad:
        module.Neuron.quantize_8bit = quantise_to_8_bits


def quantise_to_8_bits(neuron: Any, weight: Any, descale: bool = False) -> Any:
    """Do what `quantize_8bit` does under torch < 2.14 (`slayer/neuron/base.py`, lava-dl 0.6.0).

    Args:
        neuron: SLAYER's, whose method this is.
        weight: tensor of weights.
        descale: whether the weights are returned as integers in -256..254, not in their own
            unit.
    """
    import torch
    from lava.lib.dl.slayer.utils import quantize

    lowest, highest = -256 / neuron.w_scale, 254 / neuron.w_scale
    weight = quantize(weight, step=2 / neuron.w_scale)
    weight = torch.where(weight < lowest, lowest, weight)
    weight = torch.where(weight > highest, highest, weight)
    return weight * neuron.w_scale if descale else weight


# A method is pickled by its name.
quantise_to_8_bits.__name__ = quantise_to_8_bits.__qualname__ = "quantize_8bit"


@dataclass(frozen=True)
class Repair:
    """What is done to a module of Lava.

    Attributes:
        since: what made it necessary.
        around: context manager of a module, within which the module's code is executed.
    """

    since: str
    around: Callable[[ModuleType], AbstractContextManager[None]]


REPAIRS: Mapping[str, Repair] = MappingProxyType(
    {
        "lava.lib.dl.netx.hdf5": Repair(
            "numpy 2.4 refuses int(array) of an array with axes", take_integers_from_arrays
        ),
        "lava.lib.dl.slayer.neuron.base": Repair(
            "torch 2.14 gives clamp the gradient 0 at its bounds, before it was 1",
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
"""Module of Lava, by its full name -> its repair."""


class _RepairingLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with REPAIRS[module.__name__].around(module):
            super().exec_module(module)


class _EmptyLoader(Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None  # the ordinary empty module

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = "Replaced by esl_lava.lava_repairs."


def _is_there(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # somebody's stand-in among the imported modules
        return True


class _Finder:
    """Finds the modules of `REPAIRS` and `UNUSED`, for `sys.meta_path`."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == UNUSED and not all(map(_is_there, WANTED_BY_UNUSED)):
            return importlib.machinery.ModuleSpec(name, _EmptyLoader())
        if name not in REPAIRS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _RepairingLoader(name, spec.origin)
        return spec


def install() -> None:
    """Repair Lava in this process, wherever it will be imported or was."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    for name, repair in REPAIRS.items():
        if name in sys.modules:
            with repair.around(sys.modules[name]):
                pass
