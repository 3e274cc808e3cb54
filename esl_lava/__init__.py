"""Train sparse spiking networks, export them to Lava with the same spikes, and price them.

The public names are those of `esl_lava.api`. They are loaded when they are first used, so that
`import esl_lava` itself takes no time.
"""

from typing import TYPE_CHECKING, Any

from esl_lava.lava_repairs import install

if TYPE_CHECKING:
    from esl_lava import errors
    from esl_lava.api import (
        INPUT,
        Convolution,
        Cuba,
        Experiment,
        Injection,
        Input,
        Layer,
        MaskEvolver,
        Matrix,
        Network,
        OwnSamples,
        Spikes,
        accelerate,
        evaluate,
        export_model,
        load_experiment,
        load_spikes,
        lower,
        map_network,
        own_samples,
        price,
        read,
        resume,
        run,
        train,
        verify,
        write,
        write_report,
    )

    __version__: str

__all__ = [
    "INPUT",
    "Convolution",
    "Cuba",
    "Experiment",
    "Injection",
    "Input",
    "Layer",
    "MaskEvolver",
    "Matrix",
    "Network",
    "OwnSamples",
    "Spikes",
    "__version__",
    "accelerate",
    "errors",
    "evaluate",
    "export_model",
    "load_experiment",
    "load_spikes",
    "lower",
    "map_network",
    "own_samples",
    "price",
    "read",
    "resume",
    "run",
    "train",
    "verify",
    "write",
    "write_report",
]

install()
del install


def __getattr__(name: str) -> Any:
    """Return a public name."""
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("esl-lava")
    if name == "errors":
        return import_module("esl_lava.errors")
    if name in __all__:
        return getattr(import_module("esl_lava.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
