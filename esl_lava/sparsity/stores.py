"""The two ways a layer keeps its connections: a mask on a dense weight, or only those that exist.

The evolver, which decides what moves, sees either through the same few methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from esl_lava.errors import ConfigError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.arrays import count, keep, list_true, set_zero
from esl_lava.sparsity.growth import Scores, Site
from esl_lava.sparsity.layers import Layer
from esl_lava.sparsity.optimizer import MOMENTS, DenseMoments, moments, momentum
from esl_lava.sparsity.records import LayerUpdate
from esl_lava.sparsity.redistribution import Active
from esl_lava.sparsity.sets import Bitmap, Listed, Mask, Record, make_record, read
from esl_lava.sparsity.weights import SparseWeight, carry

ORDER = (
    "the order of calls is optimizer.zero_grad(), loss.backward(), optimizer.step(), "
    "evolver.step(), and gradients are not zeroed before the last"
)
"""What whoever lost gradients has to know."""


@dataclass(eq=False)
class Store(ABC):
    """A sparse layer: its weight, and what the evolver owns for it.

    Attributes:
        layer: where the model has it.
        optimizer: what trains the weight.
        connections: the number it is to have, once it is sparse.
        generator: the layer's own.
        ever: where a connection ever was.
        name: as errors print it.
        size: number of possible connections.
        parameter: what the optimiser trains.
    """

    layer: Layer
    optimizer: torch.optim.Optimizer
    connections: int
    generator: torch.Generator
    where: InitVar[Tensor | None]
    """(connections,) int64 positions to begin with; None for all."""
    ever: Record = field(init=False)

    def __post_init__(self, where: Tensor | None) -> None:
        self.name, self.size = self.layer.name, self.layer.size
        self.parameter = self.layer.parameter

    @property
    @abstractmethod
    def taken(self) -> Mask | Listed:
        """Where a connection is now."""

    @abstractmethod
    def hold(self) -> None:
        """Set weights that are no connection to 0, as optimiser steps do not leave them so.

        Raises:
            ConfigError: when the model's weight is no longer the one it was.
        """

    @abstractmethod
    def held(self) -> Active:
        """The connections now."""

    @abstractmethod
    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """Move connections: weights and optimiser moments of what grows are 0.

        Args:
            drop, grow: int64 flat positions, as `update.move` has checked them.
        """

    @abstractmethod
    def _dense_gradient(self) -> Scores | None:
        """Gradient of the last backward pass at any positions, on this rank."""

    @abstractmethod
    def _dense_momentum(self) -> Scores:
        """As `momentum`, by flat position, where no connection is."""

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's tensors of the parameter's shape; ConfigError for unknown ones."""
        return moments(self.optimizer, self.name, self.parameter)

    def record(self, pruned: int, grown: int) -> LayerUpdate:
        """What an update that moved so many connections did."""
        return LayerUpdate(self.name, self.size, pruned, grown, self.taken.count, self.ever.count)

    def site(self) -> Site:
        """What a growth rule may look at."""
        return Site(
            name=self.name,
            mask=self.taken,
            ever=self.ever,
            generator=self.generator,
            gradient=self.gradient,
            momentum=self._dense_momentum,
        )

    def momentum(self) -> Scores:
        """Momentum scores by place in the parameter (`optimizer.momentum`)."""
        return momentum(self.optimizer, self.name, self.parameter)

    def gradient(self) -> Scores:
        """Gradient by flat position, the mean over all ranks.

        Raises:
            ConfigError: when there is none.
        """
        scores = self._dense_gradient()
        if scores is None:
            raise ConfigError(f"layer {self.name}: its weight has no gradient to grow by; {ORDER}")
        return lambda where: ranks.average(scores(where))


class DenseStore(Store):
    """A mask on a dense weight of any shape."""

    ever: Mask

    def __post_init__(self, where: Tensor | None) -> None:
        super().__post_init__(where)
        weight = self.parameter
        self._taken = Mask(torch.full(weight.shape, where is None, device=weight.device))
        if where is not None:
            self._taken.add(where)
        self.ever = Mask(self._taken.tensor.clone())

    @property
    def taken(self) -> Mask:
        """The mask, the same object for ever."""
        return self._taken

    def hold(self) -> None:
        """One pass over the weight."""
        mask = self.taken.tensor
        self.layer.check(mask.shape, mask.device)
        keep(self.parameter.detach(), mask)

    def held(self) -> Active:
        """Lists the mask."""
        where = list_true(self.taken.tensor)
        return Active(
            values=self.parameter.detach().reshape(-1).index_select(0, where),
            momentum=lambda: self.momentum()(where),
            positions=where,
        )

    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """In place."""
        self.thin(drop)
        self.taken.add(grow)
        self.ever.add(grow)
        for moment in self.moments().values():
            set_zero(moment, grow)

    def thin(self, drop: Tensor) -> None:
        """Take connections away for good."""
        self.taken.remove(drop)
        set_zero(self.parameter.detach(), drop)

    def _dense_gradient(self) -> Scores | None:
        gradient = self.parameter.grad
        if gradient is None:
            return None
        flat = gradient.reshape(-1)
        return lambda where: flat[where]

    def _dense_momentum(self) -> Scores:
        return self.momentum()


class SparseStore(Store):
    """The connections of a `SparseWeight`, which begins with rank 0's initial weights.

    Attributes:
        elsewhere: moments at every position, which `follow` keeps up to date.
    """

    ever: Listed | Bitmap

    def __post_init__(self, where: Tensor | None) -> None:
        super().__post_init__(where)
        assert isinstance(self.layer.weight, SparseWeight)
        assert where is not None  # a dense phase is refused
        self.weight = self.layer.weight
        self.weight.begin(where)
        values = self.parameter.detach()
        values.copy_(ranks.take_first(values, values.device))
        self.ever = make_record(where, self.size)
        self.elsewhere = DenseMoments(self.size)
        self._stepped = False

    @property
    def taken(self) -> Listed:
        """The stored connections, listed at every call."""
        return Listed(self.weight.positions(), self.size)

    def hold(self) -> None:
        """There are no other weights."""
        self.layer.check(self.weight.shape, torch.device("cpu"))

    def held(self) -> Active:
        """As they are stored."""
        return Active(
            values=self.weight.values.detach(),
            momentum=lambda: self.momentum()(slice(None)),
            positions=self.weight.positions(),
        )

    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """Exchanges weights, moments and the record of past connections."""
        before, places = self.moments(), torch.searchsorted(self.weight.positions(), drop)
        dropped = {key: moment[places] for key, moment in before.items()}
        self.elsewhere.exchange(drop, dropped, grow)
        source = self.weight.rewire(drop, grow)
        for key, moment in before.items():
            self.optimizer.state[self.parameter][key] = carry(moment, source)
        self.ever = self.ever.add(grow)

    def note_step(self) -> None:
        """Note that the optimiser made a step, which `follow` is to take in."""
        self._stepped |= self.weight.wants_dense_gradient and self.parameter.grad is not None

    def follow(self) -> None:
        """Let the moments of all positions go on as those of connections did.

        Raises:
            ConfigError: when the layer gave no gradient.
        """
        if self._stepped:
            self._stepped = False
            self.elsewhere.step(self.optimizer, self.parameter, self.gradient())
            self.weight.dense_gradient = None  # which holds what the layer was fed

    def read_moments(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Moments at every position, copied from a state.

        Raises:
            ConfigError: when they are not of this layer and its optimiser.
        """
        for key, tensor in tensors.items():
            known = MOMENTS[type(self.optimizer)]
            if key not in known or tensor.shape != (self.size,) or tensor.dtype != torch.float32:
                raise ConfigError(
                    f"layer {self.name}: the state's moments {key!r} have shape "
                    f"{tuple(tensor.shape)} of {tensor.dtype}, not those of "
                    f"{type(self.optimizer).__name__}, {', '.join(known)}, "
                    f"({self.size},) of torch.float32"
                )
        return {key: tensor.clone() for key, tensor in tensors.items()}

    def read_record(self, tensor: Tensor) -> Listed | Bitmap:
        """Its past connections from a state.

        Raises:
            ConfigError: when they are not its own.
        """
        try:
            record = read(tensor.clone(), self.size)
        except ValueError as error:
            raise ConfigError(f"layer {self.name}: the state's ever {error}") from None
        lost = count(~record.contains(self.weight.positions()))
        if lost:
            raise ConfigError(
                f"layer {self.name}: the state's ever lacks {lost} of the layer's connections "
                "(load the model's state first)"
            )
        return record

    def _dense_gradient(self) -> Scores | None:
        return self.weight.dense_gradient

    def _dense_momentum(self) -> Scores:
        return self.elsewhere.momentum(self.optimizer, self.name, self.parameter)
