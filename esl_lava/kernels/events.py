"""From a row of spikes to the list of those who spike."""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from esl_lava.arrays import Array

MARGIN = 8
"""Entries a list needs beyond the number of neurons."""

_SET_BITS = np.array(
    [
        sum(bit << 8 * n for n, bit in enumerate(b for b in range(8) if byte >> b & 1))
        for byte in range(256)
    ],
    np.uint64,
)
"""For each byte the numbers of its set bits, one in each byte."""

_HOW_MANY = np.array([bin(byte).count("1") for byte in range(256)], np.uint64)

_GATHER = np.uint64(0x0102040810204080)
"""Multiplied by it, eight bytes of 0 and 1 become the bits of the product's first byte."""


@intrinsic
def _eight_bytes(typing_context: Any, address: Any) -> Any:
    """The eight bytes at an address, whatever its alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.uintp), generate


@intrinsic
def _store_eight(typing_context: Any, address: Any, packed: Any, base: Any) -> Any:
    """Store eight uint32 at an address: `base` plus each byte of `packed`, in one go."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, packed, base = arguments
        lanes = ir.VectorType(ir.IntType(32), 8)
        small = builder.bitcast(packed, ir.VectorType(ir.IntType(8), 8))
        single = builder.insert_element(ir.Constant(lanes, ir.Undefined), base, ir.IntType(32)(0))
        repeated = builder.shuffle_vector(
            single, ir.Constant(lanes, ir.Undefined), ir.Constant(lanes, [0] * 8)
        )
        values = builder.add(builder.zext(small, lanes), repeated)
        builder.store(values, builder.inttoptr(address, lanes.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uint64, types.uint32), generate


@njit(cache=True, nogil=True)
def list_spikes(row: Array, spiking: Array) -> np.uint64:
    """Write the indices of what is not 0 in `row` into `spiking`; how many there are.

    Args:
        row: (n,) uint8 of 0 and 1, or wider integers; contiguous.
        spiking: (n + MARGIN,) uint32; beyond the number returned it holds rubbish.
    """
    count = np.uint64(0)
    done = 0
    if row.itemsize == 1:
        source = np.uint64(row.ctypes.data)
        target = np.uint64(spiking.ctypes.data)
        done = row.size // 8 * 8
        for i in range(0, done, 8):
            # mypy takes the typing context, which numba fills in, for an argument.
            eight: np.uint64 = _eight_bytes(source + np.uint64(i))  # type: ignore[call-arg]
            byte = (eight * _GATHER) >> np.uint64(56)
            _store_eight(target + np.uint64(4) * count, _SET_BITS[byte], np.uint32(i))
            count += _HOW_MANY[byte]
    for i in range(done, row.size):
        spiking[count] = i
        count += np.uint64(row[i] != 0)
    return count
