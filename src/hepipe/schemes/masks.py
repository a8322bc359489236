"""How long an additive mask must be, and the room that the product of two masked factors takes at the key holder."""

from __future__ import annotations

import math

from hepipe.errors import OutOfRange
from hepipe.schemes.base import CipherTensor, FloatArray
from hepipe.schemes.checks import log2_bound
from hepipe.schemes.parameters import STATISTICAL_BITS, Parameters


def masked_bound(bound: FloatArray, log_scale: float, mask_bits: int) -> FloatArray:
    """A bound on |value| once a mask of ``mask_bits`` at ``log_scale`` was added; infinite beyond doubles."""
    exponent = mask_bits - int(log_scale)
    return bound + (math.ldexp(1.0, exponent) if exponent < 1024 else math.inf)


def mask_bits_for(bound: FloatArray, log_scale: float) -> int:
    """The least number of bits of masks that hide values of this bound: their own size and 80 more."""
    return math.ceil(max(log2_bound(bound) + log_scale, 0.0)) + STATISTICAL_BITS


def check_masked_product(parameters: Parameters, x: CipherTensor, y: CipherTensor) -> None:
    """OutOfRange unless one plaintext holds (x + r)(y + s), which the key holder encrypts, for the least masks r and s.

    It has up to 160 bits more than x y.
    """
    masks = [mask_bits_for(factor.bound, factor.log_scale) for factor in (x, y)]
    room = parameters.capacity_bits(0) - 1
    if sum(masks) > room:
        raise OutOfRange(
            f"a masked product: factors under masks of {masks[0]} and {masks[1]} bits, {STATISTICAL_BITS} over their "
            f"own size, need {sum(masks)} bits, the plaintext holds {room:.0f}: lower precision_bits or the input "
            "bound, or take a longer modulus"
        )
