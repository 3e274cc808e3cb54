"""What this machine has of all that esl-lava can use, and what is missing (`esl doctor`)."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from esl_lava.data.folders import DATA_VARIABLE, cache_folder
from esl_lava.data.inventory import data_folder, list_data_sets
from esl_lava.experiments.stack import installed_version
from esl_lava.packages import LAVA, is_installed, needed
from esl_lava.results.environment import Check, Environment, Package

PACKAGES: Mapping[str, tuple[str | None, str]] = MappingProxyType(
    {
        "numpy": (None, "arrays"),
        "numba": (None, "the exact simulator"),
        "h5py": (None, "net.h5"),
        "pydantic": (None, "configurations and device files"),
        "torch": ("train", "training and verification"),
        "lava-nc": ("lava", "the backends lava and lava-models"),
        "lava-dl": ("lava", "training with SLAYER, and netx"),
        "matplotlib": ("report", "pictures"),
        "joblib": ("train", "sweeps"),
        "tonic": ("events", "DVS128 Gesture and SHD"),
        "aedat": ("events", "recordings in AEDAT 4"),
        "distributed": ("cluster", "sweeps on a Dask cluster"),
        "tensorboard": ("tensorboard", "training.log = 'tensorboard'"),
    }
)
"""Name of a package for pip -> (extra of esl-lava, None where it is always needed; its use)."""


def examine() -> Environment:
    """Look at Python, packages, Lava, GPU, data, caches and Loihi. Nothing is changed."""
    packages = [
        Package(name, installed_version(name), extra, use)
        for name, (extra, use) in PACKAGES.items()
    ]
    checks = [
        *_check_python(),
        *_check_lava(),
        *_check_gpu(),
        *_check_data(),
        *_check_caches(),
        *_check_loihi(),
    ]
    return Environment(
        version=version("esl-lava"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        packages=packages,
        checks=checks,
    )


def _check_python() -> Iterator[Check]:
    running = f"Python {platform.python_version()} at {sys.executable}"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Check("Python", "ok", running)
    else:
        yield Check("Python", "broken", running, "use Python 3.10 to 3.13")


def _check_lava() -> Iterator[Check]:
    """Import Lava and SLAYER: an installed Lava can still fail on a newer Python or numpy."""
    for subject, module, package in (
        ("torch", "torch", "torch"),
        ("Lava", "lava.magma.core.run_configs", "lava"),
        ("SLAYER", "lava.lib.dl.slayer", "lava"),
    ):
        if not is_installed(LAVA if package == "lava" else package):
            yield Check(subject, "missing", "not installed", str(needed(package)))
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever an import of a stranger's package raises
            yield Check(
                subject,
                "broken",
                f"the import of {module} fails: {type(error).__name__}: {error}",
                "install the versions of constraints.txt",
            )
        else:
            name = {"Lava": "lava-nc", "SLAYER": "lava-dl"}.get(subject, subject)
            yield Check(subject, "ok", f"{name} {installed_version(name)} can be imported")


def _check_gpu() -> Iterator[Check]:
    if not is_installed("torch"):
        yield Check("GPU", "missing", "torch is not installed, so no GPU can be used")
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        )
        yield Check("GPU", "ok", names)
    else:
        built = "for CUDA" if torch.version.cuda else "for CPUs"
        yield Check(
            "GPU",
            "missing",
            f"torch {torch.__version__} (built {built}) finds no GPU; training uses the CPU",
        )


def _check_data() -> Iterator[Check]:
    folder = data_folder()
    if folder is None:
        yield Check(
            DATA_VARIABLE,
            "missing",
            "not set: only the data sets that come with esl-lava, and mnist, can be used",
            f"export {DATA_VARIABLE}=/folder/of/data/sets",
        )
    elif not Path(folder).is_dir():
        yield Check(
            DATA_VARIABLE,
            "broken",
            f"{folder} is not a folder",
            f"set {DATA_VARIABLE} to a folder of data sets",
        )
    else:
        yield Check(DATA_VARIABLE, "ok", folder)
    available = [listing.name for listing in list_data_sets() if listing.available]
    yield Check("data sets", "ok", ", ".join(available), "esl data says how to get the others")


def _check_caches() -> Iterator[Check]:
    """Check that the caches of data and frames, and of numba's kernels, can be written."""
    folder = cache_folder()
    remedy = "set XDG_CACHE_HOME to a folder that can be written"
    if _can_be_written(folder):
        yield Check("cache of data", "ok", f"{folder} ({_size(folder)})")
    else:
        yield Check("cache of data", "broken", f"{folder} cannot be written", remedy)
    import esl_lava.kernels

    kernels = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(esl_lava.kernels.__file__).parent)
    if _can_be_written(kernels):
        yield Check("cache of kernels", "ok", str(kernels))
    else:
        yield Check(
            "cache of kernels",
            "missing",
            f"{kernels} cannot be written: numba uses another folder or compiles anew",
            "set NUMBA_CACHE_DIR to a folder that can be written",
        )


def _check_loihi() -> Iterator[Check]:
    """Ask Lava whether its extension for Loihi is installed. No chip is looked for."""
    if (
        is_installed("lava.utils.loihi")
        and importlib.import_module("lava.utils.loihi").is_installed()
    ):
        yield Check("Loihi 2", "ok", "Lava's extension for Loihi is installed")
    else:
        yield Check(
            "Loihi 2",
            "missing",
            "Lava's extension for Loihi is not installed: the backend loihi2 is refused",
            "Intel gives it to members of its research community",
        )


def _can_be_written(folder: Path) -> bool:
    """Return whether a file can be made in a folder, or in the nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "empty"
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e6:,.1f} MB"
