"""Kernels on as many threads as torch has, each its own part of the result.

Parts are of one dimension of what is written, so the bits do not depend on their number.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


def in_parts(work: Callable[[int, int], T], length: int, multiple: int = 1) -> list[T]:
    """What `work(first, last)` returns for each part of 0..length.

    Args:
        work: a call of a kernel that releases Python's lock.
        length: of the dimension to divide; 0 is one empty part.
        multiple: parts begin at multiples of it.
    """
    threads = torch.get_num_threads()
    units = -(-length // multiple)
    parts = min(threads, units)
    if parts < 2:
        return [work(0, length)]
    edges = [min(length, units * k // parts * multiple) for k in range(parts + 1)]
    waiting = [_pool(threads).submit(work, *edge) for edge in itertools.pairwise(edges[1:])]
    return [work(0, edges[1]), *(future.result() for future in waiting)]
