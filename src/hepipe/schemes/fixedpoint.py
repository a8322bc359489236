"""Fixed-point integers: the one rounding rule that the exact reference and Paillier share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hepipe.schemes.base import FloatArray

_EXACT_BITS = 62
# A computed integer may exceed its bound by this fraction, and by this many units of its scale: inputs and added
# constants were rounded to the grid after their bounds were stated.
GUARD_SHIFT = 12
GUARD_UNITS = 16


def to_fixed(values: FloatArray, bits: float) -> npt.NDArray[np.object_]:
    """round(values * 2**bits), half to even, as Python integers of any size; the shape is kept."""
    mantissa, exponent = np.frexp(values)
    if np.all(exponent + int(bits) <= _EXACT_BITS):
        return np.rint(np.ldexp(values, int(bits))).astype(np.int64).astype(object)
    # A double is an integer of 53 bits times a power of two: split it, so that nothing is lost however large bits is.
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    shift = exponent.astype(np.int64) - 53 + int(bits)
    fixed = [_shifted(int(w), int(k)) for w, k in zip(whole.flat, shift.flat, strict=True)]
    return np.array(fixed, dtype=object).reshape(values.shape)


def from_fixed(integers: npt.NDArray[np.object_], bits: float) -> FloatArray:
    """integers / 2**bits as float64, correctly rounded."""
    scale = 1 << int(bits)
    return np.array([int(i) / scale for i in integers.flat], dtype=np.float64).reshape(integers.shape)


def magnitude_bits(bound: FloatArray, log_scale: float) -> int:
    """The least l that makes every integer with |integer| <= bound * 2**log_scale, and the guard, less than 2**l."""
    limit = max(int(i) for i in to_fixed(bound, log_scale))
    return (limit + (limit >> GUARD_SHIFT) + GUARD_UNITS).bit_length()


def shift(integers: npt.NDArray[np.object_], bits: int) -> npt.NDArray[np.object_]:
    """floor(integers / 2**bits); a multiple where ``bits`` is negative."""
    moved: npt.NDArray[np.object_] = integers >> bits if bits >= 0 else integers << -bits
    return moved


def _shifted(whole: int, shift: int) -> int:
    if shift >= 0:
        return whole << shift
    half, rest = 1 << (-shift - 1), whole & ((1 << -shift) - 1)
    down = whole >> -shift
    return down + (1 if rest > half or (rest == half and down & 1) else 0)
