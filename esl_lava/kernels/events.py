"""Kernel that lists the neurons that spike in a row of spikes."""

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.base import BaseContext
from numba.extending import intrinsic

from esl_lava.arrays import Array
from esl_lava.kernels import njit

MARGIN = 8
"""Entries that a list needs beyond the number of neurons."""

_SET_BITS = np.array(
    [
        sum(bit << 8 * n for n, bit in enumerate(b for b in range(8) if byte >> b & 1))
        for byte in range(256)
    ],
    np.uint64,
)
"""For each byte: the indices of its set bits, one in each byte of the entry."""

_BIT_COUNTS = np.array([bin(byte).count("1") for byte in range(256)], np.uint64)
"""For each byte: the number of its set bits."""

_GATHER = np.uint64(0x0102040810204080)
"""Factor that turns eight bytes of 0 and 1 into the bits of the product's highest byte."""


@intrinsic
def _eight_bytes(typing_context: object, address: object) -> tuple[object, object]:
    """Load the eight bytes at an address of any alignment."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: object, arguments: list[ir.Value]
    ) -> ir.Value:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.uintp), generate


@intrinsic
def _store_eight(
    typing_context: object, address: object, packed: object, base: object
) -> tuple[object, object]:
    """Store eight uint32 at an address with one instruction: `base` plus each byte of `packed`."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: object, arguments: list[ir.Value]
    ) -> ir.Value:
        address, packed, base = arguments
        lanes = ir.VectorType(ir.IntType(32), 8)
        small = builder.bitcast(packed, ir.VectorType(ir.IntType(8), 8))
        single = builder.insert_element(ir.Constant(lanes, ir.Undefined), base, ir.IntType(32)(0))
        repeated = builder.shuffle_vector(
            single, ir.Constant(lanes, ir.Undefined), ir.Constant(lanes, [0] * 8)
        )
        values = builder.add(builder.zext(small, lanes), repeated)
        builder.store(values, builder.inttoptr(address, lanes.as_pointer()), align=4)
        return context.get_dummy_value()  # type: ignore[no-untyped-call]

    return types.void(types.uintp, types.uint64, types.uint32), generate


@njit(cache=True, nogil=True)
def list_spikes(row: Array, spiking: Array) -> np.uint64:
    """Write the indices of the non-zero entries of `row` into `spiking`.

    Args:
        row: (n,) uint8 of 0 and 1, or wider integers; contiguous.
        spiking: (n + MARGIN,) uint32, written; entries behind the indices are undefined.

    Returns:
        Number of indices.
    """
    count = np.uint64(0)
    listed = 0
    if row.itemsize == 1:
        source = np.uint64(row.ctypes.data)
        target = np.uint64(spiking.ctypes.data)
        listed = row.size // 8 * 8
        for i in range(0, listed, 8):
            # numba supplies the typing context, which mypy takes for an argument.
            eight: np.uint64 = _eight_bytes(source + np.uint64(i))  # type: ignore[call-arg]
            byte = (eight * _GATHER) >> np.uint64(56)
            _store_eight(target + np.uint64(4) * count, _SET_BITS[byte], np.uint32(i))
            count += _BIT_COUNTS[byte]
    for i in range(listed, row.size):
        spiking[count] = i
        count += np.uint64(row[i] != 0)
    return count
