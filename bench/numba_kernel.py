"""expoflow's loop written in numba: a contender of bench/kernel.py, bit for bit the same.

numba has no fused multiply-add and no float16 on a CPU. So an intrinsic is used, and bits are
converted by hand. Bits of bf16 are uint16 here and those of fp16 int16, which lets numba
distinguish them. There are no closures, since numba would compile them again in every process.
"""

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

FAST = {"nogil": True, "cache": True, "error_model": "numpy"}
PIECE = 512  # elements per piece; several outputs use the same differences
SCALE = np.float32(2.0**112)  # the difference of the exponents of float32 and float16
HALF = np.float32(0.5)
TYPES = {"BF16": (np.uint16, np.float32), "F16": (np.int16, np.float32), "F32": (np.float32, np.float64)}


@intrinsic
def fma(context, x, y, z):
    return x(x, x, x), lambda _, builder, signature, arguments: builder.fma(*arguments)


def read(value):
    """Return an element as the number for the arithmetic."""


def write(value, old):
    """Return a float32 rounded to the type of `old`."""


@overload(read)
def _read(value):
    def bf16(value):
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    def f16(value):
        size = np.uint32(np.uint32(value) & np.uint32(0x7FFF))
        finite = np.float32(np.uint32(size << np.uint32(13)).view(np.float32) * SCALE).view(np.uint32)
        positive = np.uint32(finite | np.uint32(0x7F800000)) if size >= np.uint32(0x7C00) else finite
        sign = np.uint32(np.uint32(np.uint32(value) & np.uint32(0x8000)) << np.uint32(16))
        return np.uint32(positive | sign).view(np.float32)

    def f32(value):
        return np.float64(value)

    return {types.uint16: bf16, types.int16: f16, types.float32: f32}[value]


@overload(write)
def _write(value, old):
    def bf16(value, old):
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16(np.uint32(bits + np.uint32(odd + np.uint32(0x7FFF))) >> np.uint32(16))

    def f16(value, old):
        bits = np.float32(value).view(np.uint32)
        size = np.uint32(bits & np.uint32(0x7FFFFFFF))
        tiny = np.uint32(np.float32(size.view(np.float32) + HALF).view(np.uint32) - np.uint32(0x3F000000))
        odd = np.uint32(size >> np.uint32(13)) & np.uint32(1)
        normal = np.uint32(np.uint32(size + np.uint32(odd + np.uint32(0xC8000FFF))) >> np.uint32(13))
        rounded = tiny if size < np.uint32(0x38800000) else normal
        return np.int16(rounded | np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000)))

    def f32(value, old):
        return value

    return {types.uint16: bf16, types.int16: f16, types.float32: f32}[old]


@njit
def size_of(value):
    return np.uint32(np.float32(value).view(np.uint32) & np.uint32(0x7FFFFFFF))


@njit(**FAST)
def single(out, a, b, weight, from_b):
    """Compute one output; return the bits of its largest absolute value."""
    most = np.uint32(0)
    for i in range(len(out)):
        one, other = read(a[i]), read(b[i])
        value = np.float32(fma(weight, other - one, other if from_b else one))
        out[i] = write(value, out[i])
        most = max(most, size_of(value))
    return most


@njit(**FAST)
def widen(one, other, delta, a, b):
    for i in range(len(a)):
        one[i], other[i] = read(a[i]), read(b[i])
        delta[i] = other[i] - one[i]


@njit(**FAST)
def add(out, base, delta, weight):
    most = np.uint32(0)
    for i in range(len(out)):
        value = np.float32(fma(weight, delta[i], base[i]))
        out[i] = write(value, out[i])
        most = max(most, size_of(value))
    return most


@njit(**FAST)
def several(outs, a, b, weights, from_b, memory):
    most = np.uint32(0)
    one, other, delta = memory
    for first in range(0, len(a), PIECE):
        last = min(first + PIECE, len(a))
        widen(one, other, delta, a[first:last], b[first:last])
        for n in range(len(outs)):
            base = other if from_b[n] else one
            most = max(most, add(outs[n][first:last], base, delta, weights[n]))
    return most


def extrapolated(outs, a, b, weights, from_b, wide):
    """Compute all outputs in one pass, with the weights in the precision of the sum."""
    weights = tuple(map(wide, weights))
    if len(outs) == 1:
        return single(outs[0], a, b, weights[0], from_b[0])
    memory = tuple(np.empty(PIECE, wide) for _ in range(3))
    return several(outs, a, b, weights, from_b, memory)
