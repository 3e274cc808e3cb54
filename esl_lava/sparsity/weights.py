"""Weights of a layer that stores only its connections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Ints
from esl_lava.sparsity.arrays import are_positions
from esl_lava.trained import LARGEST, find_sparse_fault


def carry_over(old: Tensor, source: Tensor) -> Tensor:
    """Carry one number per connection through a rewiring; a grown connection gets 0.

    Args:
        old: (connections before the rewiring,), any dtype.
        source: the indices that `SparseWeight.rewire` returned.

    Returns:
        (connections after the rewiring,), of the dtype of `old`.
    """
    padded = np.append(old.numpy(), old.new_zeros(1).numpy())  # the index -1 selects the 0
    return torch.from_numpy(padded[source.numpy()])


class SparseWeight(nn.Module):
    """The weights of the connections of a layer, in ascending order of position.

    The flat position of a connection is post * n_pre + pre. A new module has no connections:
    `begin` creates them, `rewire` changes them, and loading a state dict replaces them. Each of
    the three replaces `values.data`, sets `values.grad` and `dense_gradient` to None, and
    discards the result of `by_pre`. The module works on the CPU only.

    A state dict contains `values`, `starts`, `pre` and `sides`. Its number of connections may
    differ from that of the module that loads it.

    Args:
        n_pre, n_post: number of input and output neurons.
        initial: (k,) int64 positions, ascending -> (k,) float32 initial weights.
        kernel: lengths of the kernel of a convolution. The elements of the kernel count as
            inputs: n_pre = channels * product of the lengths, with the channel outermost.

    Attributes:
        values: (connections,) float32 parameter, always the same object.
        starts: (n_post + 1,) int64; connections starts[j] to starts[j + 1] lead to neuron j.
        pre: (connections,) int32 input neurons, ascending within an output neuron.
        sides: (2,) int64, n_post and n_pre, for the state dict.
        dense_gradient: returns the float32 gradient of the last backward pass at a slice or an
            int64 tensor of flat positions, free positions included. The backward pass of the
            layer sets it if `wants_dense_gradient` is true.
        wants_dense_gradient: whether the evolver needs `dense_gradient` after the next backward
            pass.

    Raises:
        ValueError: if n_pre or n_post is below 1 or above `LARGEST`.
    """

    starts: Tensor
    pre: Tensor
    sides: Tensor

    def __init__(
        self,
        n_pre: int,
        n_post: int,
        initial: Callable[[Tensor], Tensor],
        kernel: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if not 0 < min(n_pre, n_post) <= max(n_pre, n_post) <= LARGEST:
            raise ValueError(
                f"{n_pre} inputs and {n_post} outputs: each number must be within 1..{LARGEST}"
            )
        self.n_pre = n_pre
        self.n_post = n_post
        self.initial = initial
        self.kernel = kernel
        self.values = nn.Parameter(torch.empty(0, dtype=torch.float32))
        self.register_buffer("starts", torch.zeros(n_post + 1, dtype=torch.int64))
        self.register_buffer("pre", torch.empty(0, dtype=torch.int32))
        self.register_buffer("sides", torch.tensor([n_post, n_pre]))
        self.dense_gradient: Callable[[slice | Tensor], Tensor] | None = None
        self.wants_dense_gradient = False
        self._columns: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def shape(self) -> torch.Size:
        """(n_post, n_pre), or (n_post, channels, *kernel, 1) with a kernel, as in SLAYER."""
        if not self.kernel:
            return torch.Size((self.n_post, self.n_pre))
        return torch.Size((self.n_post, self.n_pre // math.prod(self.kernel), *self.kernel, 1))

    @property
    def size(self) -> int:
        """Number of positions, which are the elements of the dense weight."""
        return self.n_pre * self.n_post

    def positions(self) -> Tensor:
        """Return the (connections,) int64 flat positions, ascending, in a new tensor."""
        return torch.from_numpy(self._row_starts(self.starts) + self.pre.numpy())

    def by_pre(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the connections by input neuron. The result is cached until they change.

        Returns:
            (n_pre + 1,) int64 starts: connections starts[i] to starts[i + 1] come from neuron
            i; (connections,) int32 output neurons, ascending within an input neuron;
            (connections,) int32 indices into `values`.
        """
        if self._columns is None:
            ordered, order = self.pre.sort(stable=True)
            starts = torch.searchsorted(ordered, torch.arange(self.n_pre + 1, dtype=torch.int32))
            rows = np.repeat(np.arange(self.n_post, dtype=np.int32), self.starts.diff().numpy())
            self._columns = starts, torch.from_numpy(rows)[order], order.to(torch.int32)
        return self._columns

    def zero_dense_gradient(self) -> None:
        """Set `dense_gradient` to 0 everywhere, on a rank whose share of the batch was empty."""
        zeros = torch.zeros(1).expand(self.size)
        self.dense_gradient = lambda where: zeros[where]

    @torch.no_grad()
    def begin(self, positions: Tensor) -> None:
        """Create the connections, with initial weights.

        Args:
            positions: (connections,) int64, strictly ascending, within the layer.

        Raises:
            ValueError: if the positions are invalid or more than `LARGEST`, or `initial` returns
                another number of weights.
        """
        if positions.numel() > LARGEST or not are_positions(positions, self.size):
            raise ValueError(
                f"{positions.numel()} positions cannot become connections: at most {LARGEST} are "
                f"possible, and they must strictly ascend within 0..{self.size - 1}"
            )
        starts, pre = self._rows(positions)
        values = self.initial(positions).to(torch.float32, copy=True).contiguous()
        if values.shape != pre.shape:
            raise ValueError(
                f"there are {values.numel()} initial weights, but {pre.numel()} connections"
            )
        self._replace(values, starts, pre)

    @torch.no_grad()
    def rewire(self, drop: Tensor, grow: Tensor) -> Tensor:
        """Drop connections and grow others with weight 0.0. The rest keep their weights.

        Args:
            drop: int64 flat positions of connections, strictly ascending.
            grow: int64 flat positions that were free before the call, strictly ascending.

        Returns:
            (connections,) int64 index of each connection among the old connections; -1 for a
            grown connection. `carry_over` rearranges optimiser moments with these indices.

        Raises:
            ValueError: if `drop` or `grow` is invalid. In this case nothing is changed.
        """
        before, number = self.positions().numpy(), self.pre.numel()
        indices = np.searchsorted(before, drop.numpy())
        both = np.append(before, grow.numpy())
        order = np.argsort(both, kind="stable")  # detects the two ascending runs and merges them
        valid = (
            number - drop.numel() + grow.numel() <= LARGEST
            and are_positions(drop, self.size)
            and are_positions(grow, self.size)
            and np.array_equal(np.append(before, -1)[indices], drop.numpy())
            and bool((np.diff(both[order]) > 0).all())
        )
        if not valid:
            raise ValueError(
                f"cannot drop {drop.numel()} of {number} connections and grow {grow.numel()}: "
                f"positions must strictly ascend within 0..{self.size - 1}, dropped positions must "
                f"be connections, grown positions must be free before the call, and at most "
                f"{LARGEST} connections may result"
            )
        stays = np.ones(both.size, bool)
        stays[indices] = False
        order = order[stays[order]]
        kept = torch.from_numpy(np.where(order < number, order, -1))
        values = carry_over(self.values.detach(), kept)
        self._replace(values, *self._rows(torch.from_numpy(both[order])))
        return kept

    def extra_repr(self) -> str:
        """Return the text that printing the model shows."""
        return f"n_pre={self.n_pre}, n_post={self.n_post}, connections={self.pre.numel()}"

    def _row_starts(self, starts: Tensor) -> Ints:
        """Return the (connections,) flat position at which the row of each connection begins."""
        return np.repeat(np.arange(self.n_post) * self.n_pre, starts.diff().numpy())

    def _rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return `starts` and `pre` of flat positions."""
        rows = torch.arange(self.n_post + 1) * self.n_pre
        starts = torch.searchsorted(positions, rows)
        pre = positions.numpy() - self._row_starts(starts)
        return starts, torch.from_numpy(pre.astype(np.int32))

    def _replace(self, values: Tensor, starts: Tensor, pre: Tensor) -> None:
        self.values.grad = None
        if values.shape != self.values.shape:
            # While a graph of the last step is alive, autograd's node that accumulates the
            # gradient remembers the old shape. Another dtype makes torch replace the node.
            self.values.data = torch.empty(0, dtype=torch.float64)
        self.values.data = values
        self.starts = starts
        self.pre = pre
        self.dense_gradient = None
        self._columns = None

    @torch.no_grad()
    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, object],
        prefix: str,
        local_metadata: Mapping[str, object],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        entries = [state_dict.get(prefix + name) for name in ("values", "starts", "pre", "sides")]
        tensors = [entry for entry in entries if isinstance(entry, Tensor)]
        if len(tensors) == len(entries):
            arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
            if fault := find_sparse_fault(self.n_post, self.n_pre, *arrays):
                error_msgs.append(f"{prefix.removesuffix('.') or 'sparse weight'}: {fault}")
                return
            # torch copies the state into these tensors.
            values, starts, pre = (torch.empty_like(tensor, device="cpu") for tensor in tensors[:3])
            self._replace(values, starts, pre)
        super()._load_from_state_dict(  # type: ignore[no-untyped-call]
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
