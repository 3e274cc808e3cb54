"""Stores of a sparse layer: a mask on a dense weight, or the connections alone.

The evolver decides which connections move. It uses both stores through the same methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from esl_lava.errors import ConfigError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.arrays import apply_mask, count, list_true, set_zero
from esl_lava.sparsity.growth import Scores, Site
from esl_lava.sparsity.layers import Layer
from esl_lava.sparsity.optimizer import MOMENTS, DenseMoments, moments, momentum
from esl_lava.sparsity.records import LayerUpdate
from esl_lava.sparsity.redistribution import ActiveWeights
from esl_lava.sparsity.sets import Bitmap, Mask, PositionList, Record, make_record, read
from esl_lava.sparsity.weights import SparseWeight, carry_over

CALL_ORDER = (
    "call optimizer.zero_grad(), loss.backward(), optimizer.step() and evolver.step() in this "
    "order, and do not zero gradients before evolver.step()"
)
"""Advice in errors about missing gradients."""


@dataclass(eq=False)
class Store(ABC):
    """A sparse layer: its weight, and the state of the evolver for it.

    Attributes:
        layer: the layer in the model.
        optimizer: the optimiser that trains the weight.
        connections: the number of connections once the layer is sparse.
        generator: the random generator of the layer.
        ever: the positions that were ever a connection.
        name: the name of the layer.
        size: the number of positions.
        parameter: the parameter that the optimiser trains.
    """

    layer: Layer
    optimizer: torch.optim.Optimizer
    connections: int
    generator: torch.Generator
    positions: InitVar[Tensor | None]
    """(connections,) int64 positions of the first connections; None for all positions."""
    ever: Record = field(init=False)

    def __post_init__(self, positions: Tensor | None) -> None:
        self.name, self.size = self.layer.name, self.layer.size
        self.parameter = self.layer.parameter

    @property
    @abstractmethod
    def active(self) -> Mask | PositionList:
        """The positions of the connections."""

    @abstractmethod
    def apply_mask(self) -> None:
        """Set the weights at free positions to 0, which an optimiser step may have changed.

        Raises:
            ConfigError: if another tensor has replaced the weight of the model.
        """

    @abstractmethod
    def active_weights(self) -> ActiveWeights:
        """Return the weights of the connections, with their positions and momentum."""

    @abstractmethod
    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """Move connections. The weights and optimiser moments of grown connections are 0.

        Args:
            drop, grow: int64 flat positions, which `update.move` has checked.
        """

    @abstractmethod
    def _dense_gradient(self) -> Scores | None:
        """Return this rank's last gradient at any position, or None if there is none."""

    @abstractmethod
    def _dense_momentum(self) -> Scores:
        """Return the momentum scores of free positions, by flat position."""

    def moments(self) -> dict[str, Tensor]:
        """Return the optimiser's tensors of the parameter's shape (`optimizer.moments`)."""
        return moments(self.optimizer, self.name, self.parameter)

    def record(self, pruned: int, grown: int) -> LayerUpdate:
        """Return the record of an update that pruned and grew so many connections."""
        return LayerUpdate(self.name, self.size, pruned, grown, self.active.count, self.ever.count)

    def site(self) -> Site:
        """Return what a growth rule needs to know about the layer."""
        return Site(
            name=self.name,
            mask=self.active,
            ever=self.ever,
            generator=self.generator,
            gradient=self.gradient,
            momentum=self._dense_momentum,
        )

    def momentum(self) -> Scores:
        """Return the momentum scores by index in the parameter (`optimizer.momentum`)."""
        return momentum(self.optimizer, self.name, self.parameter)

    def gradient(self) -> Scores:
        """Return the gradient by flat position, the mean over all ranks.

        Raises:
            ConfigError: if there is no gradient.
        """
        scores = self._dense_gradient()
        if scores is None:
            raise ConfigError(
                f"layer {self.name}: its weight has no gradient, which growth needs; {CALL_ORDER}",
                "missing",
                layer=self.name,
            )
        return lambda where: ranks.average(scores(where))


class DenseStore(Store):
    """A mask on a dense weight of any shape."""

    ever: Mask

    def __post_init__(self, positions: Tensor | None) -> None:
        super().__post_init__(positions)
        weight = self.parameter
        self._active = Mask(torch.full(weight.shape, positions is None, device=weight.device))
        if positions is not None:
            self._active.add(positions)
        self.ever = Mask(self._active.tensor.clone())

    @property
    def active(self) -> Mask:
        """The mask. It is always the same object."""
        return self._active

    def apply_mask(self) -> None:
        """Set the weights at free positions to 0, in one pass over the weight."""
        mask = self.active.tensor
        self.layer.check(mask.shape, mask.device)
        apply_mask(self.parameter.detach(), mask)

    def active_weights(self) -> ActiveWeights:
        """Return the weights at the true positions of the mask, with positions and momentum."""
        positions = list_true(self.active.tensor)
        return ActiveWeights(
            values=self.parameter.detach().reshape(-1).index_select(0, positions),
            momentum=lambda: self.momentum()(positions),
            positions=positions,
        )

    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """Move connections, in place."""
        self.prune(drop)
        self.active.add(grow)
        self.ever.add(grow)
        for moment in self.moments().values():
            set_zero(moment, grow)

    def prune(self, drop: Tensor) -> None:
        """Remove connections, in place."""
        self.active.remove(drop)
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
    """The connections of a `SparseWeight`, which starts with the initial weights of rank 0.

    Attributes:
        dense_moments: moments at every position, which `update_dense_moments` updates.
    """

    ever: PositionList | Bitmap

    def __post_init__(self, positions: Tensor | None) -> None:
        super().__post_init__(positions)
        assert isinstance(self.layer.weight, SparseWeight)
        assert positions is not None  # `construction.check_layers` refuses a dense phase
        self.weight = self.layer.weight
        self.weight.begin(positions)
        values = self.parameter.detach()
        values.copy_(ranks.broadcast_first(values, values.device))
        self.ever = make_record(positions, self.size)
        self.dense_moments = DenseMoments(self.size)
        self._stepped = False

    @property
    def active(self) -> PositionList:
        """The positions of the stored connections, in a new list at every call."""
        return PositionList(self.weight.positions(), self.size)

    def apply_mask(self) -> None:
        """Check the layer. There are no weights at free positions."""
        self.layer.check(self.weight.shape, torch.device("cpu"))

    def active_weights(self) -> ActiveWeights:
        """Return the stored weights, with their positions and momentum."""
        return ActiveWeights(
            values=self.weight.values.detach(),
            momentum=lambda: self.momentum()(slice(None)),
            positions=self.weight.positions(),
        )

    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """Move connections: replace stored weights and moments, and add to the record `ever`."""
        before, indices = self.moments(), torch.searchsorted(self.weight.positions(), drop)
        dropped = {key: moment[indices] for key, moment in before.items()}
        self.dense_moments.exchange(drop, dropped, grow)
        source = self.weight.rewire(drop, grow)
        for key, moment in before.items():
            self.optimizer.state[self.parameter][key] = carry_over(moment, source)
        self.ever = self.ever.add(grow)

    def note_optimizer_step(self) -> None:
        """Remember that the optimiser made a step, so that `update_dense_moments` repeats it."""
        self._stepped |= self.weight.wants_dense_gradient and self.parameter.grad is not None

    def update_dense_moments(self) -> None:
        """Repeat the last step of the optimiser for the moments of all positions.

        Raises:
            ConfigError: if the layer gave no gradient.
        """
        if self._stepped:
            self._stepped = False
            self.dense_moments.step(self.optimizer, self.parameter, self.gradient())
            self.weight.dense_gradient = None  # frees the layer input that it refers to

    def read_moments(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of the moments of all positions in a snapshot, after a check.

        Raises:
            ConfigError: if they do not fit this layer and its optimiser.
        """
        for key, tensor in tensors.items():
            known = MOMENTS[type(self.optimizer)]
            if key not in known or tensor.shape != (self.size,) or tensor.dtype != torch.float32:
                raise ConfigError(
                    f"layer {self.name}: the moments {key!r} of the state have the shape "
                    f"{tuple(tensor.shape)} of {tensor.dtype}; {type(self.optimizer).__name__} has "
                    f"the moments {', '.join(known)} of shape ({self.size},) of torch.float32",
                    "mismatch",
                    key="moments",
                    value=key,
                    limit=known,
                    layer=self.name,
                )
        return {key: tensor.clone() for key, tensor in tensors.items()}

    def read_record(self, tensor: Tensor) -> PositionList | Bitmap:
        """Return the positions in a snapshot that were ever a connection, after a check.

        Raises:
            ConfigError: if they do not fit this layer.
        """
        try:
            record = read(tensor.clone(), self.size)
        except ValueError as error:
            raise ConfigError(
                f"layer {self.name}: part 'ever' of the state {error}",
                "mismatch",
                key="ever",
                layer=self.name,
            ) from None
        missing = count(~record.contains(self.weight.positions()))
        if missing:
            raise ConfigError(
                f"layer {self.name}: part 'ever' of the state lacks {missing} connections of the "
                "layer; load the state of the model first",
                "mismatch",
                key="ever",
                value=missing,
                layer=self.name,
            )
        return record

    def _dense_gradient(self) -> Scores | None:
        return self.weight.dense_gradient

    def _dense_momentum(self) -> Scores:
        return self.dense_moments.momentum(self.optimizer, self.name, self.parameter)
