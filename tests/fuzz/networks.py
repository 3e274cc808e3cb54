"""Mutants of `net.h5`: bytes, HDF5's own structures, and everything that h5py can change."""

from __future__ import annotations

import io
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np

from esl_lava import netfile
from esl_lava.errors import UserError
from esl_lava.netfile import reader
from esl_lava.network import Convolution, Injection, Network
from tests.fuzz import checksums, hdf5, plain_netx
from tests.fuzz.content import fingerprint
from tests.fuzz.damage import damaged
from tests.fuzz.format import Chooser, Format, Mutant
from tests.netfile.networks import random_network
from tests.netfile.test_netfile import example

OURS = (11, 16, 3, 7, 21)
"""Seeds of random networks: feature maps, skips, recurrence, delays, injected input."""
FOREIGN = (2, 9, 12, 20, 31)
"""Seeds of random networks that netx can express."""
FIXTURES = Path(__file__).parents[1] / "netfile" / "fixtures"


def seeds() -> list[bytes]:
    """Return files of ours, an older one, and files without our group, as others write them."""
    ours = [_written(network) for network in (example(), *map(random_network, OURS))]
    older = [(FIXTURES / "mlp.h5").read_bytes()]
    networks = (example(), *(random_network(seed, netx=True) for seed in FOREIGN))
    return ours + older + [_foreign(_written(network)) for network in networks]


def _written(network: Network) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.h5")
        netfile.write(network, path)
        return path.read_bytes()


def _foreign(raw: bytes) -> bytes:
    """Return the part of a file that netx reads, in the structures of old releases of HDF5."""
    made = io.BytesIO()
    with (
        h5py.File(io.BytesIO(raw), "r") as source,
        h5py.File(made, "w", libver="earliest") as file,
    ):
        file.create_group("layer")
        for name in source["layer"]:
            source.copy(f"layer/{name}", file["layer"])
        for index, name in enumerate(file["layer"]):
            if index % 2:  # texts of variable length, as lava-dl writes them
                text = file[f"layer/{name}/type"][0].decode()
                del file[f"layer/{name}/type"]
                file[f"layer/{name}/type"] = text
    return made.getvalue()


def read(path: Path) -> str:
    """Read a network, and return a digest of its meaning."""
    return meaning(netfile.read(path))


def meaning(network: Network) -> str:
    """Return a digest of all that a network means."""
    layers = [
        {
            "name": layer.name,
            "shape": layer.shape,
            "inputs": [
                {
                    "source": one.source,
                    "connections": _connections(one.connections),
                    "delays": _wide(one.delays),
                    "origin": None
                    if one.origin is None
                    else (one.origin.name, one.origin.weights, one.origin.positions),
                }
                for one in layer.inputs
            ],
            "neuron": [
                _wide(np.repeat(values, layer.neurons // np.size(values)))
                for values in map(
                    np.asarray,
                    (
                        layer.neuron.current_decay,
                        layer.neuron.voltage_decay,
                        layer.neuron.threshold,
                    ),
                )
            ],
            "refractory": layer.neuron.refractory,
            "bias": _wide(layer.bias),
        }
        for layer in network.layers
    ]
    facts = {"steps": network.steps, "range": tuple(network.input_range)}
    return fingerprint({**facts, "provenance": dict(network.provenance), "layers": layers})


def _connections(c: Any) -> Any:
    if isinstance(c, Injection):
        return ("injection", tuple(c.out_shape))
    if isinstance(c, Convolution):
        numbers = (c.in_shape, c.stride, c.padding, c.dilation, c.groups)
        return ("kernel", _wide(c.kernel), c.mask(), *numbers)
    dense = np.zeros((c.n_post, c.n_pre), np.int64)
    mask = np.zeros((c.n_post, c.n_pre), bool)
    rows = np.repeat(np.arange(c.n_post), np.diff(c.indptr))
    dense[rows, c.indices], mask[rows, c.indices] = c.weights, True
    return ("matrix", dense, mask)


def _wide(values: Any) -> Any:
    return None if values is None else np.ascontiguousarray(np.asarray(values).astype(np.int64))


def agrees(path: Path, sound: bytes, found: str) -> bool:
    """Return whether h5py alone finds the same network in the file."""
    return fingerprint(plain_netx.read(path)) == found


# --- Mutants. --------------------------------------------------------------------------------


@cache
def _is_ours(raw: bytes) -> bool:
    """Return whether a file has our digest, and says so. Those of older releases do not say so."""
    with h5py.File(io.BytesIO(raw), "r") as file:
        return "esl_lava" in file["layer"].attrs


def _any_bytes(rng: random.Random, raw: bytes) -> Mutant:
    changed, names = damaged(rng, raw)
    return Mutant(changed, f"bytes: {names}", _is_ours(raw))


def _structures(rng: random.Random, raw: bytes) -> Mutant:
    """Damage HDF5's own structures, and repair their checksums."""
    places = checksums.find(raw)
    if not places:  # the structures of old releases have none
        return _old_structures(rng, raw)
    start, end = rng.choice(places)
    piece, names = damaged(rng, raw[start:end])
    piece = piece[: end - start].ljust(end - start, b"\0")
    changed = checksums.repaired(raw, raw[:start] + piece + raw[end:])
    return Mutant(changed, f"structure at {start}: {names}", _is_ours(raw))


SIGNATURES = (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"\x89HDF", b"\1\0")


def _old_structures(rng: random.Random, raw: bytes) -> Mutant:
    """Damage the bytes that follow a signature."""
    signature = rng.choice(SIGNATURES)
    found = []
    place = raw.find(signature)
    while place >= 0:
        found.append(place)
        place = raw.find(signature, place + 1)
    if not found:
        return _any_bytes(rng, raw)
    start = rng.choice(found) + len(signature)
    length = rng.choice([16, 40, 120])
    piece, names = damaged(rng, raw[start : start + length])
    piece = piece[:length].ljust(min(length, len(raw) - start), b"\0")
    changed = raw[:start] + piece + raw[start + length :]
    return Mutant(changed, f"{signature!r} at {start}: {names}", _is_ours(raw))


def _content(rng: random.Random, raw: bytes) -> Mutant:
    """Change the file by h5py, and leave our digest as it was."""
    changed, change = hdf5.changed(rng, raw, hdf5.ALL)
    return Mutant(changed, change, _is_ours(raw))


def _forged(rng: random.Random, raw: bytes) -> Mutant:
    """Change the file by h5py, and write the digest that it should have."""
    changed, change = hdf5.changed(rng, raw, hdf5.ALL)
    return Mutant(with_digest(changed), f"forged: {change}")


class _Found(BaseException):
    """Ends the reader, with the network that it has found."""


def with_digest(raw: bytes) -> bytes:
    """Return a file of ours with the digest of what it holds, if anything can be read from it."""

    def end(network: Network) -> str:
        raise _Found(netfile.digest(network))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.h5")
        path.write_bytes(raw)
        try:
            with mock.patch.object(reader, "digest", end):
                netfile.read(path)
        except _Found as found:
            with h5py.File(path, "r+") as file:
                file["esl_lava"].attrs["digest"] = np.bytes_(str(found).encode())
            return path.read_bytes()
        except UserError:
            pass
    return raw


mutate = Chooser((15, _any_bytes), (25, _structures), (35, _content), (25, _forged))

FORMAT = Format("net.h5", seeds, mutate, read, agrees)
