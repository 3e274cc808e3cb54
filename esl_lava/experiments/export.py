"""`model.pt` to `net.h5`: lower, check, write, read back."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from esl_lava import modelfile, netfile
from esl_lava.chip import LOIHI1_REFRACTORY
from esl_lava.config import from_toml, to_toml
from esl_lava.data.catalogue import samples_of
from esl_lava.data.config import OWN
from esl_lava.data.own import Own
from esl_lava.errors import ConfigError, DataError, FileError, LimitError
from esl_lava.experiments import samedata
from esl_lava.experiments.rundir import refuse_overwrite
from esl_lava.export import check, lower, unbounded_layers
from esl_lava.models.stored import load_model, trained_layers
from esl_lava.network import Network
from esl_lava.simulate import simulate
from esl_lava.values import Keys, keys

RANGE_SAMPLES = 1000
"""Training samples run where the static bound cannot exclude an overflow."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Exported:
    """A network as read back from the file at `path`, of `size` bytes, that was written."""

    KEYS: ClassVar[Keys] = keys(
        "network.density network.weights network.connections network.synapses bytes=size"
    )

    network: Network
    path: Path
    size: int


def export(
    model_path: Path, net_path: Path, overwrite: bool = False, own: Own | None = None
) -> Exported:
    """Write the integer network of a trained model as netx HDF5.

    Everything is checked before anything is written; what was written is read back and
    compared, masks included.

    Args:
        model_path, net_path: what is read and what is written.
        overwrite: whether that may be replaced.
        own: where the samples come from that the network was trained on, where these were the
            user's own: they decide where an overflow is possible.

    Raises:
        ConfigError: when own samples are given, and the training had others.
        FileError: for files that cannot be read, would be overwritten, or are the same.
        LimitError: with every limit the network breaks.
    """
    if os.path.realpath(net_path) == os.path.realpath(model_path):
        raise FileError(f"{net_path}: is the model itself")
    refuse_overwrite(net_path, overwrite)
    network = lowered(model_path)
    check(network)
    _check_range(network, own)
    netfile.write(network, net_path)
    stored = netfile.read(net_path)
    if netfile.digest(stored) != netfile.digest(network):
        raise FileError(f"{net_path}: what was read back is not what was written")
    return Exported(stored, net_path, net_path.stat().st_size)


def lowered(model_path: Path) -> Network:
    """The integer network of a `model.pt`, with its provenance.

    Raises:
        FileError: when the file is no such model.
        LimitError: when its weights are not finite.
    """
    saved, experiment = load_model(model_path)
    steps = experiment.encoding.steps
    provenance = {
        "package_version": saved.package,
        "source_sha256": modelfile.digest(model_path),
        "config": to_toml(experiment),
        **samedata.facts(saved.data),
    }
    network = lower(
        trained_layers(saved),
        steps=steps,
        provenance=provenance,
        input_range=experiment.encoding.input_range,
    )
    pause = max(layer.neuron.refractory for layer in network.layers)
    if pause > LOIHI1_REFRACTORY:
        _logger.warning(
            "encoding.steps %d: neurons that fire once pause for %d steps, Loihi 1 can %d; "
            "Loihi 2's neurons are programs",
            steps,
            pause,
            LOIHI1_REFRACTORY,
        )
    return network


def _check_range(network: Network, own: Own | None) -> None:
    """Where weights alone do not exclude an overflow of u or v, let data decide, and say so.

    Data that do overflow a layer are a LimitError.
    """
    assert network.steps is not None
    experiment = from_toml(network.provenance["config"], recorded=True)
    name = experiment.data.name
    if own is not None and name != OWN:
        raise ConfigError(f"{own.name} was given, and the training had data.name {name!r}")
    unsure = unbounded_layers(network, network.steps)
    if not unsure:
        return
    layers = ", ".join(unsure)
    try:
        data = samples_of(experiment.data, "train", experiment.encoding, own)
    except DataError as error:
        _logger.warning(
            "%s: some input could overflow u or v, and no data tell whether it happens: %s",
            layers,
            error,
        )
        return
    samedata.remark_others(network.provenance, data)
    data = data.take(min(RANGE_SAMPLES, len(data)))
    overflows = simulate(network, data.spikes(experiment.encoding)).overflows
    faults = [
        f"layer {layer}: u wrapped {wraps} and v clipped {clips} times on {len(data)} samples "
        f"of {data.name}, which training does not know; smaller weights or fewer steps avoid it"
        for layer, (wraps, clips) in overflows.items()
        if wraps or clips
    ]
    if faults:
        raise LimitError(faults)
    _logger.warning(
        "%s: some input could overflow u or v; none of %d training samples of %s did",
        layers,
        len(data),
        data.name,
    )
