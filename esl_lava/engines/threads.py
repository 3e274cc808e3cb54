"""Kernels on torch's own threads, each its own part of the result.

Parts are of one dimension of what is written, so the bits do not depend on their number.

Threads besides torch's would take turns with them: OpenMP's wait busily for their next work,
and waking others costs as much as a kernel takes. So parts are run by the OpenMP that torch
runs on, where that is GNU's (torch's wheels for Linux), and elsewhere by a pool. This module can
go when numba's parallel loops run on torch's OpenMP, or when a training step is long enough that
waking a pool's threads no longer counts in it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _open_mp() -> Any:
    """GOMP_parallel, omp_get_thread_num and omp_get_num_threads; None where torch has none."""
    for path in Path(torch.__path__[0], "lib").glob("libtorch_cpu.*"):
        try:
            # A library gives what those it needs have, too. PyDLL keeps Python's lock.
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


def in_parts(work: Callable[[int, int], T], length: int, multiple: int = 1) -> list[T]:
    """What `work(first, last)` returns for each part of 0..length.

    Args:
        work: a call of kernels that release Python's lock.
        length: of the dimension to divide; 0 is one empty part.
        multiple: parts begin at multiples of it.
    """
    units = -(-length // multiple)
    parts = min(torch.get_num_threads(), units)
    if parts < 2:
        return [work(0, length)]
    edges = [min(length, units * k // parts * multiple) for k in range(parts + 1)]
    if _open_mp() is None:
        return list(_pool(parts).map(work, edges[:-1], edges[1:]))
    parallel, thread, team = _open_mp()
    results: dict[int, T] = {}
    faults: list[BaseException] = []

    def body(_: Any) -> None:
        try:
            for k in range(thread(), parts, team()):  # the team may be smaller than asked
                results[k] = work(edges[k], edges[k + 1])
        except BaseException as fault:  # which C could not pass on
            faults.append(fault)

    parallel(_Body(body), None, parts, 0)
    if faults:
        raise faults[0]
    return [results[k] for k in range(parts)]
