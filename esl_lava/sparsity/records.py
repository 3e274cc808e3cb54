"""Records of updates of the masks, and snapshots of an evolver, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from esl_lava.values import Keys, keys

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import NotRequired


class State(TypedDict):
    """A snapshot of an evolver.

    Attributes:
        iteration: number of completed optimiser iterations.
        masks, ever: as the attributes of `MaskEvolver`.
        generators: layer name -> (n,) uint8 state of its generator.
        history: one record per update, as `Update.plain` returns it.
        waiting: whether an update waits for finite gradients; older snapshots omit it.
        moments: layer name -> moments at every position (`optimizer.DenseMoments`). It exists
            only before `t_end`, if layers that store only connections grow by momentum.
    """

    iteration: int
    masks: dict[str, Tensor]
    ever: dict[str, Tensor]
    generators: dict[str, Tensor]
    history: list[list[object]]
    waiting: NotRequired[bool]
    moments: NotRequired[dict[str, dict[str, Tensor]]]


@dataclass(frozen=True)
class LayerUpdate:
    """Record of one update of one layer.

    Attributes:
        name: the name of the layer.
        size: its number of positions.
        pruned, grown: number of connections that the update pruned and grew. Their sums over
            all layers are equal; without redistribution they are equal in each layer. At the end
            of a dense phase nothing is grown.
        connections: number of connections after the update.
        ever: number of positions that were ever a connection, including this update.
    """

    name: str
    size: int
    pruned: int
    grown: int
    connections: int
    ever: int

    @property
    def density(self) -> float:
        """Number of connections divided by number of positions."""
        return self.connections / self.size

    @property
    def exploration(self) -> float:
        """Exploration rate R_s: share of the positions that were ever a connection."""
        return self.ever / self.size


@dataclass(frozen=True)
class CountedUpdate:
    """Record of one update of one layer, with the number of silent neurons if it was counted."""

    KEYS: ClassVar[Keys] = keys(
        "layer.pruned layer.grown layer.connections layer.density layer.exploration silent_neurons"
    )

    layer: LayerUpdate
    silent_neurons: int | None


@dataclass(frozen=True)
class Update:
    """Record of one update.

    Attributes:
        iteration: number of completed optimiser iterations, at least 1.
        fraction: the fraction of the schedule at this iteration. At the end of a dense phase it
            is the share of the connections that were pruned.
        layers: one record per sparse layer, in the order of the model.
        silent: layer name -> number of neurons without a spike in a batch after the update, if
            the training counted them (`MaskEvolver.record_silent`).
    """

    KEYS: ClassVar[Keys] = keys("iteration fraction exploration layers=by_name")

    iteration: int
    fraction: float
    layers: tuple[LayerUpdate, ...]
    silent: Mapping[str, int] | None = None

    @property
    def exploration(self) -> float:
        """Exploration rate R_s of all sparse layers together."""
        return sum(layer.ever for layer in self.layers) / sum(layer.size for layer in self.layers)

    @property
    def by_name(self) -> dict[str, CountedUpdate]:
        """Layer name -> its record."""
        silent = self.silent or {}
        return {layer.name: CountedUpdate(layer, silent.get(layer.name)) for layer in self.layers}

    def plain(self) -> list[object]:
        """Return [iteration, fraction, [[pruned, grown, connections, ever], ...], silent]."""
        layers = [[r.pruned, r.grown, r.connections, r.ever] for r in self.layers]
        silent = None if self.silent is None else dict(self.silent)
        return [self.iteration, self.fraction, layers, silent]

    @staticmethod
    def from_plain(values: Sequence[Any], sizes: Mapping[str, int]) -> Update:
        """Restore the record that `plain` returned, for layers of these names and sizes."""
        iteration, fraction, layers, silent = values
        return Update(
            iteration,
            fraction,
            tuple(LayerUpdate(*named, *numbers) for named, numbers in zip(sizes.items(), layers)),
            silent,
        )
