"""numba kernels, no policy. Each runs in the thread that calls it, and lets others run."""
