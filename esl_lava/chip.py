"""The numbers of the chip's arithmetic: what its integers can hold, and in which units.

Of Loihi 2 as lava-nc 0.10.0 simulates it in fixed point (`lava/proc/lif/models.py`,
`lava/proc/dense/models.py`), and as SLAYER of lava-dl 0.6.0 trains for it.
"""

from __future__ import annotations

DECAY_UNITY = 4096
"""A decay of 4096 forgets everything in one step (12-bit fraction)."""

STATE_SHIFT = 6
"""u and v carry 6 fractional bits below weights, biases and thresholds."""

STATE_LIMIT = 1 << 23
"""u wraps beyond +-2**23, v clips at +-(2**23 - 1)."""

NEVER = 1 << 17
"""A threshold no membrane can exceed: `NEVER << 6` is 2**23, v stops one below."""

MAX_DELAY = 62
"""The largest axonal delay, in steps."""

MAX_REFRACTORY = 1 << 20
"""The longest refractory period, in steps; more than any sample has."""

LOIHI1_REFRACTORY = 63
"""The longest refractory period on Loihi 1, in steps; Loihi 2's neurons are programs."""

WEIGHT_SCALE = 64
"""An integer weight or threshold is a trained one times 64 (SLAYER's `scale`)."""

WEIGHT_RANGE = (-256, 254)
"""Weights are even: signed 8-bit mantissas times 2."""

BIAS_RANGE = (-4096, 4095)
"""A bias is a signed mantissa of 13 bits."""

SPIKE_RANGE = (0, 1)
"""The least and the largest value of an input at one step, where inputs are binary spikes."""

MESSAGE_BITS = 24
"""The size of a graded spike, its sign apart, has at most so many: what Lava's ports say of
themselves (`lava/proc/conv/models.py`, `s_in`), though Lava does not look."""

LAVA_SLIDING = 127
"""Lava's convolution keeps kernel sizes, strides, paddings, dilations and groups in 8 bits."""

LAVA_BIAS_RANGE = (-(1 << 15), (1 << 15) - 1)
"""Lava's simulator holds a bias in 16 bits."""
