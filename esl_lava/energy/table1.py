"""Table 1 of ESL-SNNs (Shen et al., AAAI 2023, arXiv 2306.03693) by counts.

The table's "FLOPS" are connections: 784-800-10, no biases, the hidden layer drawn by
Eq. 1 with epsilon = 60 and the output layer dense. Its energies are connections times
one constant per device, which the paper does not name; `v100_paper` and
`truenorth_paper` are the constants that print its digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from esl_lava.devices import load_device
from esl_lava.energy.model import by_connections
from esl_lava.values import Keys, keys

INPUTS, HIDDEN, CLASSES = 784, 800, 10
EPSILON = 60

DENSE_CONNECTIONS = INPUTS * HIDDEN + HIDDEN * CLASSES
SPARSE_CONNECTIONS = EPSILON * (INPUTS + HIDDEN) + HIDDEN * CLASSES
"""Eq. 1's expected number of hidden connections, and the dense output layer."""


@dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it.

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
    """A row of the paper beside its recomputation.

    Attributes:
        paper: the row as printed.
        connections: connections of the network.
        density: connections over possible connections, both layers together.
        gpu_joules: energy on `v100_paper`.
        truenorth_joules: energy on `truenorth_paper`.
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
        rows: dense, then sparse.
        remarks: sentences on what does not add up in the paper's table.
    """

    rows: tuple[RecomputedRow, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """A network of ours beside the paper's.

    Attributes:
        method: "dense", "esl" or "small-dense".
        accuracy: test accuracy of the exported integer network, 0..1, mean over seeds.
        loss: by how much that is below the dense network's.
        connections, density: of the whole network; density as the paper counts it, over
            the connections of the dense network of its size.
        sops: synaptic operations of an inference, mean over all test samples.
        most_sops: of any test sample; at most `connections`.
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
        """The row it is to be compared with, if the paper prints one."""
        return dict(zip(("dense", "esl"), PAPER)).get(self.method)

    @property
    def gpu(self) -> float:
        """Joules by the paper's convention, from connections."""
        return by_connections(self.connections, load_device("v100_paper"))

    @property
    def truenorth(self) -> float:
        """The same on TrueNorth."""
        return by_connections(self.connections, load_device("truenorth_paper"))

    @property
    def gpu_by_sops(self) -> float:
        """Joules with `sops` in the place of connections."""
        return self.sops * by_connections(1, load_device("v100_paper"))

    @property
    def truenorth_by_sops(self) -> float:
        """The same on TrueNorth."""
        return self.sops * by_connections(1, load_device("truenorth_paper"))


def changes(rows: Sequence[Measured]) -> tuple[str, ...]:
    """What counting operations changes, in sentences.

    Args:
        rows: with methods "dense" and "esl" among them.
    """
    by_method = {row.method: row for row in rows}
    dense, sparse = by_method["dense"], by_method["esl"]
    crossed = [100 * row.sops / row.connections for row in (dense, sparse)]
    return (
        f"In an inference the dense network crosses {crossed[0]:.1f} % of its connections, the "
        f"sparse one {crossed[1]:.1f} %; no sample takes more than {dense.most_sops:,} and "
        f"{sparse.most_sops:,} operations. Neurons fire at most once, so that connections bound "
        "the operations, as the paper's convention supposes.",
        f"By connections the sparse network takes {dense.truenorth / sparse.truenorth:.2f} times "
        f"less energy than the dense one, by operations {dense.sops / sparse.sops:.2f} times less.",
    )


def compute_table1() -> Table1:
    """Recompute the table's counts and energies, and say what does not add up."""
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


def contradiction() -> str:
    """The sentence on the paper's text against its own table."""
    dense, sparse = (float(row.gpu) / float(row.truenorth) for row in PAPER)
    return (
        'The text of ESL-SNNs puts TrueNorth "about one order of magnitude" below the GPU, which '
        f"contradicts its Table 1: the energies there differ by a factor of {dense:.2f} (dense) "
        f"and {sparse:.2f} (sparse)."
    )


def _remarks(rows: tuple[RecomputedRow, ...]) -> tuple[str, ...]:
    dense, sparse = rows
    measured = by_connections(dense.connections, load_device("truenorth_measured"))
    return (
        'The "FLOPS" column counts connections: no time steps, no firing rates, no separate '
        "multiplication and addition. Where inputs and neurons fire at most once it is an upper "
        "bound on the synaptic operations of an inference.",
        contradiction(),
        "The TrueNorth constant is fitted to the table: the paper names none, and no published "
        "figure of the chip prints these cells. With the energy per synaptic event measured on "
        f"the whole chip (truenorth_measured) the dense network takes {measured:.2E} J, against "
        f"{dense.gpu_joules:.2E} J on the GPU.",
        "The GPU column assumes a GPU at its peak rate that skips absent connections; GPUs do "
        "not profit from unstructured sparsity by default, and a dense machine spends "
        f"{dense.gpu_joules:.2E} J on either row, not {sparse.gpu_joules:.2E}.",
    )
