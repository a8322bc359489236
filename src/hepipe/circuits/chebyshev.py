"""Chebyshev series at the least depth, ceil(log2(degree + 1)), for high degrees on levelled schemes.

On |x| <= 1 every T_k lies in [-1, 1], where powers would drown in their noise. A block of the series is split at the
largest power of two h, as high * T_h + low (Paterson and Stockmeyer's division, by 2 T_h T_j = T_{h+j} + T_{h-j}). Only
the leading blocks have no level to spare and go down to T_1: the others end as weighted sums of the T_k at hand (the
idea of Lattigo's polynomial evaluator: Bossuat et al., EUROCRYPT 2021, section 3). Every block is born at the scale of
its sum, so that no level is spent on scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.polynomial import Chebyshev

from hepipe.errors import BudgetExhausted, OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray


def depth(degree: int) -> int:
    """Levels that a series of this degree takes."""
    return math.ceil(math.log2(degree + 1))


def evaluate(ev: Evaluator, x: CipherTensor, series: Chebyshev) -> CipherTensor:
    """The series at x, every feature alike, for |x| <= 1. Price depth(degree) levels; levelled schemes only.

    An odd series of degree 3, 7, 15, 31 takes 2, 5, 8, 13 products. Reveals nothing but the result. BudgetExhausted if
    x has fewer levels, OutOfRange if its bound is above 1, Unsupported on an additive scheme.
    """
    coefficients = np.asarray(np.trim_zeros(series.coef, "b"), dtype=np.float64)
    degree, limit = len(coefficients) - 1, float(x.bound.max())
    if not ev.parameters.rescale_bits(ev.parameters.depth):
        raise Unsupported("a Chebyshev series takes a levelled scheme: use circuits.polynomial on an additive one")
    if degree < 1 or limit > 1:
        raise OutOfRange(f"degree {degree} on |x| <= {limit:.4g}: needs degree >= 1, and x scaled to |x| <= 1 before")
    if x.level < depth(degree):
        raise BudgetExhausted(
            f"a Chebyshev series of degree {degree} needs {depth(degree)} levels, {x.level} left: "
            f"plan with depth >= {ev.parameters.depth + depth(degree) - x.level}"
        )
    return _block(ev, _Basis(ev, x), coefficients, x.level - depth(degree), ev.parameters.log_scale)


@dataclass
class _Basis:
    """T_k of x for k = 3 and the powers of two, made when first asked for, at level x.level - ceil(log2(k))."""

    ev: Evaluator
    x: CipherTensor
    made: dict[int, CipherTensor] = field(default_factory=dict)

    def __getitem__(self, k: int) -> CipherTensor:
        if k == 1:
            return self.x
        if k not in self.made:
            self.made[k] = (self._third() if k == 3 else self._doubled(self[k // 2])).with_bound(np.array([1.0]))
        return self.made[k]

    def _doubled(self, half: CipherTensor) -> CipherTensor:
        """T_2k = 2 T_k**2 - 1."""
        square = self.ev.mul(half, half)
        return self.ev.sub(self.ev.add(square, square), 1.0)

    def _third(self) -> CipherTensor:
        """T_3 = T_1 (2 T_2 - 1): one product, and no scale to adjust."""
        second = self[2]
        return self.ev.mul(self.x, self.ev.sub(self.ev.add(second, second), 1.0))

    def level(self, k: int) -> int:
        """The level of T_k."""
        return self.x.level - depth(k - 1)


def _block(ev: Evaluator, basis: _Basis, coefficients: FloatArray, level: int, log_scale: float) -> CipherTensor:
    """The series with these coefficients, at ``level`` or above and at ``log_scale``."""
    terms = _terms(coefficients)
    if _affordable(basis, terms, level):
        return _weighted_sum(ev, basis, terms, coefficients, log_scale)
    split, high, low = _divided(coefficients)
    product = _product(ev, basis, high, split, level, log_scale)
    if _terms(low):
        return ev.add(product, _block(ev, basis, low, level, log_scale))
    return ev.add(product, float(low[0])) if low[0] else product


def _product(ev: Evaluator, basis: _Basis, high: FloatArray, split: int, level: int, log_scale: float) -> CipherTensor:
    """high * T_split."""
    power = basis[split]
    if not _terms(high):
        return ev.mul_plain(power, float(high[0]), log_scale=log_scale)
    divided_by = ev.parameters.rescale_bits(_made_at(basis, high, split, level))
    return ev.mul(_block(ev, basis, high, level + 1, log_scale - power.log_scale + divided_by), power)


def _made_at(basis: _Basis, high: FloatArray, split: int, level: int) -> int:
    """The level at which high * T_split is multiplied, so that it ends at ``level`` or above."""
    return min(_ends_at(basis, high, level + 1), basis.level(split)) if _terms(high) else basis.level(split)


def _ends_at(basis: _Basis, coefficients: FloatArray, level: int) -> int:
    """Where ``_block`` leaves these coefficients."""
    terms = _terms(coefficients)
    if _affordable(basis, terms, level):
        return min(basis.level(k) for k in terms) - 1
    split, high, low = _divided(coefficients)
    product = _made_at(basis, high, split, level) - 1
    return min(product, _ends_at(basis, low, level)) if _terms(low) else product


def _affordable(basis: _Basis, terms: list[int], level: int) -> bool:
    """Whether a weighted sum of these T_k, one level below the lowest of them, still ends at ``level``."""
    return terms[-1] <= 3 and min(basis.level(k) for k in terms) > level


def _weighted_sum(
    ev: Evaluator, basis: _Basis, terms: list[int], coefficients: FloatArray, log_scale: float
) -> CipherTensor:
    first, *others = [ev.mul_plain(basis[k], float(coefficients[k]), log_scale=log_scale) for k in terms]
    total = reduce(ev.add, others, first)
    return ev.add(total, float(coefficients[0])) if coefficients[0] else total


def _terms(coefficients: FloatArray) -> list[int]:
    """Which T_k there are, the constant T_0 apart."""
    return [int(k) for k in np.flatnonzero(coefficients) if k]


def _divided(coefficients: FloatArray) -> tuple[int, FloatArray, FloatArray]:
    """(h, high, low) of series = high * T_h + low, for the largest power of two h up to the degree."""
    split = 1 << (_terms(coefficients)[-1].bit_length() - 1)
    high, low = np.trim_zeros(coefficients[split:], "b"), coefficients[:split].copy()
    low[split - len(high) + 1 :] -= high[:0:-1]
    return split, np.append(high[:1], 2 * high[1:]), low
