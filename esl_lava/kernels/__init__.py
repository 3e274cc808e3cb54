"""numba kernels, no policy.

They run on numba's own threads: its OpenMP layer would also set the number of threads that
torch has in this process, and the last bits of a training depend on that number. These
threads take one call at a time, so callers hold `LOCK`. `NUMBA_THREADING_LAYER` overrides.
"""

import os
import threading

import numba

LOCK = threading.Lock()
"""To be held around a call of a parallel kernel."""

if "NUMBA_THREADING_LAYER" not in os.environ:
    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]  # set at run time
