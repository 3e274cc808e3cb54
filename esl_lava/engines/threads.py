"""Run kernels on torch's own threads. Each thread computes a part of the result.

The parts divide one dimension of the output, so the bits do not depend on the number of threads.

Other threads would compete with torch's, because OpenMP threads wait busily for their next work.
Also, waking other threads takes as long as a kernel. So the OpenMP library that torch uses runs the
parts if it is GNU's (torch's wheels for Linux). Otherwise a pool of threads runs them. This module
can be deleted when numba's parallel loops use torch's OpenMP, or when a training step is so long
that the time to wake the threads of a pool does not matter.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _open_mp() -> tuple[Callable[..., None], Callable[[], int], Callable[[], int]] | None:
    """Return GOMP_parallel, omp_get_thread_num and omp_get_num_threads of torch, if it has them."""
    for path in Path(torch.__path__[0], "lib").glob("libtorch_cpu.*"):
        try:
            # A library also offers the symbols of its dependencies. PyDLL keeps Python's lock.
            parallel = ctypes.CDLL(str(path)).GOMP_parallel
            quick = ctypes.PyDLL(str(path))
            numbers = quick.omp_get_thread_num, quick.omp_get_num_threads
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel, *numbers
    return None


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


def run_in_parts(work: Callable[[int, int], T], length: int, multiple: int = 1) -> list[T]:
    """Call `work(first, end)` for each part of range(length), and return the results in order.

    Args:
        work: function that calls kernels, which release Python's lock.
        length: length of the dimension to divide; 0 is one empty part.
        multiple: parts begin at multiples of this number.
    """
    units = -(-length // multiple)
    parts = min(torch.get_num_threads(), units)
    if parts < 2:
        return [work(0, length)]
    edges = [min(length, units * k // parts * multiple) for k in range(parts + 1)]
    open_mp = _open_mp()
    if open_mp is None:
        return list(_pool(parts).map(work, edges[:-1], edges[1:]))
    parallel, thread, team = open_mp
    results: dict[int, T] = {}
    faults: list[BaseException] = []

    def body(_: object) -> None:
        try:
            for k in range(thread(), parts, team()):  # OpenMP may give fewer threads
                results[k] = work(edges[k], edges[k + 1])
        except BaseException as fault:  # C cannot pass it on
            faults.append(fault)

    parallel(_Body(body), None, parts, 0)
    if faults:
        raise faults[0]
    return [results[k] for k in range(parts)]
