"""Recompute Table 1 of ESL-SNNs (Shen et al., AAAI 2023, arXiv 2306.03693) from counts.

The "FLOPS" of the table are connections of a network 784-800-10 without biases. Its hidden layer
is drawn by Eq. 1 with epsilon = 60, and its output layer is dense. The energies of the table are
connections times one constant per device. The paper does not name these constants. The device
files `v100_paper` and `truenorth_paper` state constants that reproduce the printed digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from esl_lava.devices import load_device
from esl_lava.energy.model import by_connections
from esl_lava.network import Network
from esl_lava.values import Keys, keys

INPUTS, HIDDEN, CLASSES = 784, 800, 10
EPSILON = 60

DENSE_CONNECTIONS = INPUTS * HIDDEN + HIDDEN * CLASSES
SPARSE_CONNECTIONS = EPSILON * (INPUTS + HIDDEN) + HIDDEN * CLASSES
"""The number of hidden connections that Eq. 1 expects, plus the dense output layer."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the table as the paper prints it.

    Attributes:
        model: name of the model.
        accuracy: test accuracy in percent.
        density: connections over possible connections, both layers together.
        operations: the column "FLOPS", in thousands.
        gpu: energy on the GPU in joules.
        truenorth: energy on TrueNorth in joules.
    """

    model: str
    accuracy: str
    density: str
    operations: str
    gpu: str
    truenorth: str


PAPER = (
    PaperRow("SNNs", "96.7", "1.0", "635K", "1.13E-05", "7.95E-06"),
    PaperRow("ESL-SNNs", "96.58", "0.16", "103K", "1.84E-06", "1.29E-06"),
)


@dataclass(frozen=True)
class RecomputedRow:
    """A row of the paper and its recomputation.

    Attributes:
        paper: the row as printed.
        connections: number of connections of the network.
        density: connections over possible connections, both layers together.
        gpu_joules: energy on `v100_paper` in joules.
        truenorth_joules: energy on `truenorth_paper` in joules.
    """

    paper: PaperRow
    connections: int
    density: float
    gpu_joules: float
    truenorth_joules: float


@dataclass(frozen=True)
class Table1:
    """The recomputed table.

    Attributes:
        rows: the dense row, then the sparse row.
        remarks: sentences on inconsistencies of the paper's table.
    """

    rows: tuple[RecomputedRow, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network trained here, for comparison with a row of the paper.

    Attributes:
        method: "dense", "esl" or "small-dense".
        accuracy: test accuracy of the exported integer network, 0..1, mean over seeds.
        loss: the accuracy of the dense network minus this accuracy.
        connections: number of connections of the whole network.
        density: connections over those of the dense network of its size, as in the paper.
        sops: synaptic operations of an inference, mean over all test samples.
        most_sops: the most synaptic operations of a test sample; at most `connections`.
    """

    KEYS: ClassVar[Keys] = keys(
        "method paper accuracy loss connections density gpu truenorth sops most_sops "
        "gpu_by_sops truenorth_by_sops"
    )

    method: str
    accuracy: float
    loss: float
    connections: int
    density: float
    sops: float
    most_sops: int

    @property
    def paper(self) -> PaperRow | None:
        """The row of the paper to compare with, or None if the paper prints none."""
        return dict(zip(("dense", "esl"), PAPER)).get(self.method)

    @property
    def gpu(self) -> float:
        """Joules on the GPU by the paper's convention, from connections."""
        return by_connections(self.connections, load_device("v100_paper"))

    @property
    def truenorth(self) -> float:
        """Joules on TrueNorth by the paper's convention, from connections."""
        return by_connections(self.connections, load_device("truenorth_paper"))

    @property
    def gpu_by_sops(self) -> float:
        """Joules on the GPU from `sops` in place of connections."""
        return self.sops * by_connections(1, load_device("v100_paper"))

    @property
    def truenorth_by_sops(self) -> float:
        """Joules on TrueNorth from `sops` in place of connections."""
        return self.sops * by_connections(1, load_device("truenorth_paper"))


def changes(rows: Sequence[MeasuredNetwork]) -> tuple[str, ...]:
    """Return sentences that compare counts of operations with counts of connections.

    Args:
        rows: networks, among them those of the methods "dense" and "esl".
    """
    by_method = {row.method: row for row in rows}
    dense, sparse = by_method["dense"], by_method["esl"]
    crossed = [100 * row.sops / row.connections for row in (dense, sparse)]
    return (
        f"In an inference, spikes cross {crossed[0]:.1f} % of the connections of the dense network "
        f"and {crossed[1]:.1f} % of those of the sparse one. A sample takes at most "
        f"{dense.most_sops:,} operations in the dense network and {sparse.most_sops:,} in the "
        "sparse one. Neurons fire at most once, so the number of connections is an upper bound on "
        "the operations, as the paper's convention assumes.",
        "Counted by connections, the sparse network takes "
        f"{dense.truenorth / sparse.truenorth:.2f} times less energy than the dense one. Counted "
        f"by operations, it takes {dense.sops / sparse.sops:.2f} times less.",
    )


def compute_table1() -> Table1:
    """Recompute the counts and energies of the table, and list its inconsistencies."""
    gpu, truenorth = load_device("v100_paper"), load_device("truenorth_paper")
    rows = tuple(
        RecomputedRow(
            paper=paper,
            connections=connections,
            density=connections / DENSE_CONNECTIONS,
            gpu_joules=by_connections(connections, gpu),
            truenorth_joules=by_connections(connections, truenorth),
        )
        for paper, connections in zip(PAPER, (DENSE_CONNECTIONS, SPARSE_CONNECTIONS))
    )
    return Table1(rows, _remarks(rows))


def has_its_layers(network: Network) -> bool:
    """Return whether a network has the layers of Table 1, 784-800-10."""
    sizes = (network.inputs, *(layer.neurons for layer in network.layers))
    return sizes == (INPUTS, HIDDEN, CLASSES)


def contradiction() -> str:
    """Return the sentence on the contradiction between the paper's text and its table."""
    dense, sparse = (float(row.gpu) / float(row.truenorth) for row in PAPER)
    return (
        'According to the text of ESL-SNNs, TrueNorth takes "about one order of magnitude" less '
        "energy than the GPU. This contradicts its Table 1, where the energies differ by a factor "
        f"of {dense:.2f} (dense) and {sparse:.2f} (sparse)."
    )


def _remarks(rows: tuple[RecomputedRow, ...]) -> tuple[str, ...]:
    dense, sparse = rows
    measured = by_connections(dense.connections, load_device("truenorth_measured"))
    return (
        'The "FLOPS" column counts connections. It ignores time steps and firing rates, and does '
        "not count multiplications and additions separately. If inputs and neurons fire at most "
        "once, it is an upper bound on the synaptic operations of an inference.",
        contradiction(),
        "The TrueNorth constant is fitted to the table: the paper names no constant, and no "
        "published figure of the chip gives these cells. With the energy per synaptic event "
        "measured on the whole chip (truenorth_measured), the dense network takes "
        f"{measured:.2E} J, compared with {dense.gpu_joules:.2E} J on the GPU.",
        "The GPU column assumes a GPU at its peak rate that skips absent connections. GPUs do "
        "not profit from unstructured sparsity by default. A dense machine spends "
        f"{dense.gpu_joules:.2E} J on either row, not {sparse.gpu_joules:.2E} J.",
    )
