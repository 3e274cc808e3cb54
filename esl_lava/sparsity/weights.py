"""Weights of a fully connected layer of which only the existing connections are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Ints
from esl_lava.sparsity.arrays import are_positions
from esl_lava.trained import LARGEST, faulty_sparse


def carry(old: Tensor, source: Tensor) -> Tensor:
    """One number a connection after a rewiring: 0 where a connection grew.

    Args:
        old: (connections before,), any dtype.
        source: what `SparseWeight.rewire` returned.
    """
    padded = np.append(old.numpy(), old.new_zeros(1).numpy())  # which -1 is the index of
    return torch.from_numpy(padded[source.numpy()])


class SparseWeight(nn.Module):
    """The weights of the connections that exist, in ascending order of position.

    The flat position of a connection is post * n_pre + pre. There is none at first: `begin`
    makes them, `rewire` changes them, loading a state dict replaces them. Each of the three
    exchanges `values.data`, sets `values.grad` and `dense_gradient` to None, and forgets
    what `by_pre` made. On the CPU only.

    A state dict holds `values`, `starts`, `pre` and `sides`, and may be of another number of
    connections than the module it is loaded into.

    Args:
        n_pre, n_post: input and output neurons.
        initial: (k,) int64 positions, ascending -> (k,) float32 weights to begin with.
        kernel: lengths of a convolution's kernel; its places count among the inputs,
            n_pre = channels * product of the lengths, the channel outermost.

    Attributes:
        values: (connections,) float32 parameter, the same object for ever.
        starts: (n_post + 1,) int64; connections starts[j] to starts[j + 1] lead to neuron j.
        pre: (connections,) int32 input neurons, ascending within an output neuron.
        sides: (2,) int64, n_post and n_pre, so that a state dict says them.
        dense_gradient: what gives the gradient of the last backward pass at a slice or an
            int64 tensor of flat positions, float32, of connections that do not exist too.
            The layer's backward pass sets it where `wants_dense_gradient`.
        wants_dense_gradient: whether somebody will ask for it after the next backward pass.

    Raises:
        ValueError: when a side is empty or larger than `LARGEST`.
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
                f"{n_pre} inputs and {n_post} outputs: each is to be within 1..{LARGEST}"
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
        """(n_post, n_pre), or of kernels (n_post, channels, *kernel, 1) as SLAYER has them."""
        if not self.kernel:
            return torch.Size((self.n_post, self.n_pre))
        return torch.Size((self.n_post, self.n_pre // math.prod(self.kernel), *self.kernel, 1))

    @property
    def size(self) -> int:
        """Number of possible connections."""
        return self.n_pre * self.n_post

    def positions(self) -> Tensor:
        """(connections,) int64 flat positions, ascending; made anew at every call."""
        return torch.from_numpy(self._row_starts(self.starts) + self.pre.numpy())

    def by_pre(self) -> tuple[Tensor, Tensor, Tensor]:
        """The connections by input neuron; made once, until they change.

        Returns:
            starts, (n_pre + 1,) int64: connections starts[i] to starts[i + 1] come from
            neuron i; their output neurons, (connections,) int32, ascending within an input
            neuron; their indices into `values`, (connections,) int32.
        """
        if self._columns is None:
            ordered, order = self.pre.sort(stable=True)
            starts = torch.searchsorted(ordered, torch.arange(self.n_pre + 1, dtype=torch.int32))
            rows = np.repeat(np.arange(self.n_post, dtype=np.int32), self.starts.diff().numpy())
            self._columns = starts, torch.from_numpy(rows)[order], order.to(torch.int32)
        return self._columns

    def had_no_samples(self) -> None:
        """Let `dense_gradient` be 0: of a rank whose share of the batch was empty."""
        zeros = torch.zeros(1).expand(self.size)
        self.dense_gradient = lambda where: zeros[where]

    @torch.no_grad()
    def begin(self, positions: Tensor) -> None:
        """Have exactly these connections, with initial weights.

        Args:
            positions: (connections,) int64, strictly ascending, within the layer.

        Raises:
            ValueError: when they are not, or when they are more than `LARGEST`.
        """
        if positions.numel() > LARGEST or not are_positions(positions, self.size):
            raise ValueError(
                f"{positions.numel()} positions are not strictly ascending "
                f"within 0..{self.size - 1}"
            )
        starts, pre = self._rows(positions)
        values = self.initial(positions).to(torch.float32, copy=True).contiguous()
        if values.shape != pre.shape:
            raise ValueError(f"{values.numel()} initial weights for {pre.numel()} connections")
        self._exchange(values, starts, pre)

    @torch.no_grad()
    def rewire(self, drop: Tensor, grow: Tensor) -> Tensor:
        """Drop some connections and grow others, with weight 0.0; the rest keep theirs.

        Args:
            drop: int64 flat positions of connections, strictly ascending.
            grow: int64 flat positions, strictly ascending, where no connection is, not
                even one that is dropped.

        Returns:
            (connections,) int64 index of each into those before, -1 where one grew: `carry`
            moves optimiser moments alike.

        Raises:
            ValueError: when `drop` or `grow` is not like that. Nothing is changed then.
        """
        before, number = self.positions().numpy(), self.pre.numel()
        places = np.searchsorted(before, drop.numpy())
        both = np.append(before, grow.numpy())
        order = np.argsort(both, kind="stable")  # finds the two runs and merges them
        sound = (
            number - drop.numel() + grow.numel() <= LARGEST
            and are_positions(drop, self.size)
            and are_positions(grow, self.size)
            and np.array_equal(np.append(before, -1)[places], drop.numpy())
            and bool((np.diff(both[order]) > 0).all())
        )
        if not sound:
            raise ValueError(
                f"of {number} connections {drop.numel()} to drop and "
                f"{grow.numel()} to grow are not ascending, or not among the existing and "
                "the free ones"
            )
        stays = np.ones(both.size, bool)
        stays[places] = False
        order = order[stays[order]]
        kept = torch.from_numpy(np.where(order < number, order, -1))
        values = carry(self.values.detach(), kept)
        self._exchange(values, *self._rows(torch.from_numpy(both[order])))
        return kept

    def extra_repr(self) -> str:
        """What printing a model shows."""
        return f"n_pre={self.n_pre}, n_post={self.n_post}, connections={self.pre.numel()}"

    def _row_starts(self, starts: Tensor) -> Ints:
        """(connections,) flat position where the row of each connection begins."""
        return np.repeat(np.arange(self.n_post) * self.n_pre, starts.diff().numpy())

    def _rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`starts` and `pre` of flat positions."""
        rows = torch.arange(self.n_post + 1) * self.n_pre
        starts = torch.searchsorted(positions, rows)
        pre = positions.numpy() - self._row_starts(starts)
        return starts, torch.from_numpy(pre.astype(np.int32))

    def _exchange(self, values: Tensor, starts: Tensor, pre: Tensor) -> None:
        self.values.grad = None
        if values.shape != self.values.shape:
            # While a graph of the last step is alive, so is autograd's node that takes the
            # gradient, and it knows the shape it had; another dtype makes torch forget it.
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
        found = [state_dict.get(prefix + name) for name in ("values", "starts", "pre", "sides")]
        tensors = [tensor for tensor in found if isinstance(tensor, Tensor)]
        if len(tensors) == len(found):
            arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
            if broken := faulty_sparse(self.n_post, self.n_pre, *arrays):
                error_msgs.append(f"{prefix.removesuffix('.') or 'sparse weight'}: {broken}")
                return
            # Room for what torch then copies.
            values, starts, pre = (torch.empty_like(tensor, device="cpu") for tensor in tensors[:3])
            self._exchange(values, starts, pre)
        super()._load_from_state_dict(  # type: ignore[no-untyped-call]
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
