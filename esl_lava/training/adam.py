"""torch's Adam with a step in one pass, where torch 2.3 makes ten on a CPU.

It exists because those ten are a large part of a sparse step, and can go when the torch we allow
has a fused Adam for CPUs (`fused=True`, from torch 2.4 on) that is as fast.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esl_lava.engines.threads import in_parts
from esl_lava.kernels import adam

SHORT = 1 << 15
"""Weights a thread moves before another is worth waking."""


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` with its defaults but the learning rate; the same state, rounded apart.

    Args:
        parameters: contiguous float32 tensors on the CPU.
        lr: the learning rate.

    Attributes:
        keeps_state_of: for the mask evolver, which has to know an optimiser's state.
    """

    keeps_state_of = torch.optim.Adam

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients, as torch's, which takes longer than the kernels of a step to start."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; no closure is taken."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, by_parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        own = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])
        if not all(tensor.is_contiguous() for tensor in own):
            raise ValueError(f"weights {tuple(parameter.shape)} or their moments lie apart")
        weights, mean, square = (tensor.numpy().reshape(-1) for tensor in own)
        gradient = by_parameter.numpy().reshape(-1)
        count = state["step"].numpy()
        count += 1
        steps = float(count)
        keep_mean, keep_square = group["betas"]
        size = np.float32(group["lr"] / (1 - keep_mean**steps))
        correction = np.float32(math.sqrt(1 - keep_square**steps))
        arrays = (weights, gradient, mean, square)
        # In double precision, as torch does: 1 - float32(0.999) is a hundred thousandth off.
        betas = (np.float32(1 - keep_mean), np.float32(keep_square), np.float32(1 - keep_square))
        eps = np.float32(group["eps"])
        in_parts(
            lambda a, b: adam.step(*arrays, *betas, size, correction, eps, a, b),
            parameter.numel(),
            SHORT,
        )
