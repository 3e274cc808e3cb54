"""What updates of the masks did, and snapshots of an evolver, as plain values."""

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
        iteration: optimiser iterations done.
        masks, ever: as the attributes of `MaskEvolver`.
        generators: layer name -> (n,) uint8 state of its generator.
        history: records as `Update.plain`.
        waiting: whether an update waits; older snapshots lack it.
        moments: where stored connections grow by momentum, layer name -> moments at every
            position (`optimizer.DenseMoments`).
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
    """What one update did to one layer.

    Attributes:
        name: the layer's name.
        size: its possible connections.
        pruned, grown: connections dropped and grown by this update; equal in sum over
            all layers, and in each layer without redistribution (but where a dense phase
            ends, nothing is grown).
        connections: connections after it.
        ever: positions that were ever a connection, this update included.
    """

    name: str
    size: int
    pruned: int
    grown: int
    connections: int
    ever: int

    @property
    def density(self) -> float:
        """Connections over possible connections."""
        return self.connections / self.size

    @property
    def exploration(self) -> float:
        """R_s: share of the positions that were ever a connection."""
        return self.ever / self.size


@dataclass(frozen=True)
class CountedUpdate:
    """A layer's update, with the neurons that were silent after it where these were counted."""

    KEYS: ClassVar[Keys] = keys(
        "layer.pruned layer.grown layer.connections layer.density layer.exploration silent_neurons"
    )

    layer: LayerUpdate
    silent_neurons: int | None


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        iteration: optimiser iterations done, from 1.
        fraction: the schedule's, at this iteration; where a dense phase ends, the share of
            the connections that went.
        layers: one record per sparse layer, in the model's order.
        silent: layer name -> neurons without a spike in a batch after the update, where
            the training counted them (`MaskEvolver.record_silent`).
    """

    KEYS: ClassVar[Keys] = keys("iteration fraction exploration layers=by_name")

    iteration: int
    fraction: float
    layers: tuple[LayerUpdate, ...]
    silent: Mapping[str, int] | None = None

    @property
    def exploration(self) -> float:
        """R_s of all sparse layers together."""
        return sum(layer.ever for layer in self.layers) / sum(layer.size for layer in self.layers)

    @property
    def by_name(self) -> dict[str, CountedUpdate]:
        """Layer name -> its record."""
        silent = self.silent or {}
        return {one.name: CountedUpdate(one, silent.get(one.name)) for one in self.layers}

    def plain(self) -> list[object]:
        """[iteration, fraction, [[pruned, grown, connections, ever], ...], silent]."""
        layers = [[r.pruned, r.grown, r.connections, r.ever] for r in self.layers]
        silent = None if self.silent is None else dict(self.silent)
        return [self.iteration, self.fraction, layers, silent]

    @staticmethod
    def from_plain(values: Sequence[Any], sizes: Mapping[str, int]) -> Update:
        """What `plain` returned, for layers of these names and sizes."""
        iteration, fraction, layers, silent = values
        return Update(
            iteration,
            fraction,
            tuple(LayerUpdate(*named, *numbers) for named, numbers in zip(sizes.items(), layers)),
            silent,
        )
