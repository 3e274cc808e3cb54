"""Types of numpy arrays, named after their elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""An array of any type."""

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
"""8-bit pixels, or spikes of 0 and 1."""

Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
