"""How long an additive mask must be."""

from __future__ import annotations

import math

from hepipe.schemes.base import FloatArray
from hepipe.schemes.ledger import log2_bound
from hepipe.schemes.parameters import STATISTICAL_BITS


def masked_bound(bound: FloatArray, log_scale: float, mask_bits: int) -> FloatArray:
    """A bound on |value| once a mask of ``mask_bits`` at ``log_scale`` was added; infinite beyond doubles."""
    exponent = mask_bits - int(log_scale)
    return bound + (math.ldexp(1.0, exponent) if exponent < 1024 else math.inf)


def mask_bits_for(bound: FloatArray, log_scale: float) -> int:
    """The least number of bits of masks that hide values of this bound: their own size and 80 more."""
    return math.ceil(max(log2_bound(bound) + log_scale, 0.0)) + STATISTICAL_BITS
