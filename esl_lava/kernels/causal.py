"""Kernels of neurons that fire once: sums over their causal inputs, and the gradient."""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit


@njit(cache=True, nogil=True)
def fire(
    z: Array,
    order: Array,
    weight: Array,
    z_out: Array,
    last: Array,
    slope: Array,
) -> None:
    """Compute the first spike of every neuron.

    The kernel adds the inputs of a sample in the order of their arrival. After all inputs of one
    time it checks for each neuron whether it crosses the threshold before the next input.

    Args:
        z: (samples, n_pre) exp of input times, infinity for no spike.
        order: (samples, n_pre) int64, the inputs of each sample, earliest first.
        weight: (n_pre, n_post), rows contiguous.
        z_out, last, slope: (samples, n_post), filled by the caller with the values of a silent
            neuron: infinity, -infinity and 0. For a neuron that fires the kernel writes exp of
            its spike time, N / (S - 1); z of its last causal input; and 1 / (S - 1). S is the sum
            of the weights of its causal inputs, and N the sum of weight times z.
    """
    samples, n_pre = z.shape
    n_post = weight.shape[1]
    s = np.empty(n_post, weight.dtype)
    n = np.empty(n_post, weight.dtype)
    for sample in range(samples):
        s[:] = -1
        n[:] = 0
        waiting = n_post
        for place in range(n_pre):
            now = z[sample, order[sample, place]]
            if waiting == 0 or now == np.inf:
                break
            w = weight[order[sample, place]]
            for j in range(n_post):
                s[j] += w[j]
                n[j] += w[j] * now
            following = z[sample, order[sample, place + 1]] if place + 1 < n_pre else np.inf
            if following == now:
                continue
            for j in range(n_post):
                if s[j] > 0 and slope[sample, j] == 0 and n[j] <= s[j] * following:
                    z_out[sample, j] = n[j] / s[j]
                    last[sample, j] = now
                    slope[sample, j] = 1 / s[j]
                    waiting -= 1


@njit(cache=True, nogil=True)
def propagate(
    z: Array,
    weight: Array,
    last: Array,
    scaled: Array,
    weighed: Array,
    gradient_z: Array,
    gradient_w: Array,
) -> None:
    """Add each neuron's gradient to the gradients of its causal inputs and of their weights.

    Args:
        z, weight: see `fire`.
        last: the array that `fire` has filled.
        scaled: (samples, n_post) gradient of z_out times slope; ignored for silent neurons.
        weighed: `scaled` times z_out.
        gradient_z: like `z`; the kernel adds to it.
        gradient_w: like `weight`; the kernel adds to it.
    """
    samples, n_pre = z.shape
    n_post = weight.shape[1]
    for sample in range(samples):
        for i in range(n_pre):
            now = z[sample, i]
            total = gradient_z[sample, i]
            for j in range(n_post):
                if now <= last[sample, j]:
                    total += scaled[sample, j] * weight[i, j]
                    gradient_w[i, j] += scaled[sample, j] * now - weighed[sample, j]
            gradient_z[sample, i] = total
