"""Export `model.pt` to `net.h5`: make the integer network, check, write and read it back."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from esl_lava import modelfile, netfile
from esl_lava.chip import LOIHI1_REFRACTORY
from esl_lava.config import from_toml, to_toml
from esl_lava.data.catalogue import load_configured
from esl_lava.data.config import OWN
from esl_lava.data.own import OwnData
from esl_lava.errors import ConfigError, DataError, Fault, FileError, LimitError
from esl_lava.experiments import samedata
from esl_lava.experiments.rundir import refuse_overwrite
from esl_lava.export import check, lower, unbounded_layers
from esl_lava.models.stored import load_model, trained_layers
from esl_lava.network import Network
from esl_lava.simulate import simulate
from esl_lava.values import Keys, keys

RANGE_SAMPLES = 1000
"""Number of training samples to run if the static bounds cannot exclude an overflow."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ExportResult:
    """The exported network.

    Attributes:
        network: the network as read back from the file.
        path: the file that was written.
        size: its size in bytes.
    """

    KEYS: ClassVar[Keys] = keys(
        "network.density network.weights network.connections network.synapses bytes=size"
    )

    network: Network
    path: Path
    size: int


def export(
    model_path: Path, net_path: Path, overwrite: bool = False, own: OwnData | None = None
) -> ExportResult:
    """Write the integer network of a trained model as netx HDF5.

    All checks run before anything is written. The written file is read back and compared,
    including its masks.

    Args:
        model_path: the model to read.
        net_path: the file to write.
        overwrite: whether an existing file may be replaced.
        own: the source of the training samples, if they were the user's own. Training samples show
            whether a possible overflow happens.

    Raises:
        ConfigError: if own samples are given, but the training had other data.
        FileError: if a file cannot be read, would be overwritten, or both paths are the same.
        LimitError: if the network breaks limits; it has one fault for each.
    """
    if os.path.realpath(net_path) == os.path.realpath(model_path):
        raise FileError(
            f"{net_path}: the network would replace its own model", "conflict", file=net_path
        )
    refuse_overwrite(net_path, overwrite)
    network = lower_model(model_path)
    check(network)
    _check_range(network, own)
    netfile.write(network, net_path)
    stored = netfile.read(net_path)
    if netfile.digest(stored) != netfile.digest(network):
        raise FileError(
            f"{net_path}: the file does not hold the network that was written to it",
            "damaged",
            file=net_path,
        )
    return ExportResult(stored, net_path, net_path.stat().st_size)


def lower_model(model_path: Path) -> Network:
    """Return the integer network of a `model.pt`, with its provenance.

    Raises:
        FileError: if the file is not such a model.
        LimitError: as `lower`, for example if weights are not finite.
    """
    saved, experiment = load_model(model_path)
    steps = experiment.encoding.steps
    provenance = {
        "package_version": saved.package,
        "source_sha256": modelfile.digest(model_path),
        "config": to_toml(experiment),
        **samedata.provenance_entries(saved.data),
    }
    try:
        layers = trained_layers(saved)
    except FileError as error:
        raise error.in_file(model_path) from None
    network = lower(
        layers,
        steps=steps,
        provenance=provenance,
        input_range=experiment.encoding.input_range,
    )
    period = max(layer.neuron.refractory for layer in network.layers)
    if period > LOIHI1_REFRACTORY:
        _logger.warning(
            "encoding.steps %d: the refractory period of neurons that fire once is %d steps, but "
            "Loihi 1 supports only %d; Loihi 2 has programmable neurons",
            steps,
            period,
            LOIHI1_REFRACTORY,
        )
    return network


def _check_range(network: Network, own: OwnData | None) -> None:
    """Run training samples if the weights alone cannot exclude an overflow of u or v.

    Raises:
        ConfigError: if own samples are given, but the training had other data.
        LimitError: if the samples overflow a layer.
    """
    assert network.steps is not None
    experiment = from_toml(network.provenance["config"], recorded=True)
    name = experiment.data.name
    if own is not None and name != OWN:
        raise ConfigError(
            f"the data {own.name} are given, but the training had data.name {name!r}",
            "conflict",
            key="data.name",
            value=name,
            limit=OWN,
        )
    unsure = unbounded_layers(network, network.steps)
    if not unsure:
        return
    layers = ", ".join(unsure)
    try:
        data = load_configured(experiment.data, "train", experiment.encoding, own)
    except DataError as error:
        _logger.warning(
            "layers %s: some input could overflow u or v, and there are no training samples to "
            "check whether it happens: %s",
            layers,
            error,
        )
        return
    samedata.warn_of_other_data(network.provenance, data)
    data = data.take(min(RANGE_SAMPLES, len(data)))
    overflows = simulate(network, data.spikes(experiment.encoding)).overflows
    faults = [
        Fault(
            f"layer {layer}: u wrapped {seen.u_wraps} times, v clipped {seen.v_clips} times, and "
            f"sums of convolutions wrapped {seen.sum_wraps} times on {len(data)} samples of "
            f"{data.name}, which training does not model; use smaller weights or fewer steps",
            "limit",
            value=sum(seen),
            limit=0,
            layer=layer,
        )
        for layer, seen in overflows.items()
        if any(seen)
    ]
    if faults:
        raise LimitError.of(faults)
    _logger.warning(
        "layers %s: some input could overflow u or v, but none of %d training samples of %s did",
        layers,
        len(data),
        data.name,
    )
