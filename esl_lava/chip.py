"""Constants of the chip's integer arithmetic: ranges and units.

They are those of Loihi 2 as lava-nc 0.10.0 simulates it in fixed point
(`lava/proc/lif/models.py`, `lava/proc/dense/models.py`), and as SLAYER of lava-dl 0.6.0 trains
for it.
"""

from __future__ import annotations

DECAY_UNITY = 4096
"""A decay of 4096 removes the whole state in one step (12-bit fraction)."""

STATE_SHIFT = 6
"""u and v have 6 more fractional bits than weights, biases and thresholds."""

STATE_LIMIT = 1 << 23
"""u wraps outside -2**23 + 1..2**23; v clips at +-(2**23 - 1)."""

NEVER = 1 << 17
"""A threshold that no membrane can exceed: `NEVER << 6` is 2**23, and v clips one below."""

MAX_DELAY = 62
"""The largest axonal delay, in steps."""

MAX_REFRACTORY = 1 << 20
"""The longest refractory period, in steps. It is longer than any sample."""

LOIHI1_REFRACTORY = 63
"""The longest refractory period on Loihi 1, in steps.

Neurons of Loihi 2 are programs and have no such limit.
"""

WEIGHT_SCALE = 64
"""An integer weight or threshold is the trained one times 64 (SLAYER's `scale`)."""

WEIGHT_RANGE = (-256, 254)
"""Weights are even numbers: signed 8-bit mantissas times 2."""

BIAS_RANGE = (-4096, 4095)
"""A bias is a signed mantissa of 13 bits."""

SPIKE_RANGE = (0, 1)
"""The least and the largest value of an input in one step, where inputs are binary spikes."""

MESSAGE_BITS = 24
"""The largest number of bits in the absolute value of a graded spike.

Lava's ports declare this number (`lava/proc/conv/models.py`, `s_in`), but Lava does not check it.
"""

LAVA_SLIDING = 127
"""Lava's convolution stores kernel sizes, strides, paddings, dilations and groups in 8 bits."""

LAVA_BIAS_RANGE = (-(1 << 15), (1 << 15) - 1)
"""Lava's simulator stores a bias in 16 bits."""
