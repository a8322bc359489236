"""Nonlinear functions: the exact form, and polynomials with a stated largest error on a stated domain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from hepipe.errors import OutOfRange
from hepipe.schemes.base import FloatArray


@dataclass(frozen=True)
class Approximation:
    """p(x) = sum coefficients[i] * u**i with u = x / domain, off by at most max_error on |x| <= domain.

    The argument is scaled to |u| <= 1 so that its powers stay small and their noise with them; the factor 1 / domain
    belongs into the linear layer before, where it costs nothing.
    """

    coefficients: tuple[float, ...]
    domain: float
    max_error: float

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return len(self.coefficients) - 1

    @property
    def depth(self) -> int:
        """Levels its evaluation takes: ceil(log2(degree + 1))."""
        return math.ceil(math.log2(self.degree + 1))

    def __call__(self, x: FloatArray) -> FloatArray:
        """The polynomial in the clear."""
        return np.asarray(Polynomial(self.coefficients)(x / self.domain))


@dataclass(frozen=True)
class Function:
    """A function with its exact form; ``polynomial`` approximates it for evaluation under encryption.

    ``bound`` maps a bound of |x| to one of |fn(x)|. Slopes are at most 1, so errors do not grow where a key holder
    computes it.
    """

    name: str
    exact: Callable[[FloatArray], FloatArray]
    bound: Callable[[FloatArray], FloatArray]

    def polynomial(self, degree: int, domain: float) -> Approximation:
        """A least-squares fit at Chebyshev weight on |x| <= domain: near minimax for smooth functions.

        OutOfRange for a degree below 1 or a domain that is not positive and finite.
        """
        if degree < 1 or not (0 < domain < math.inf):
            raise OutOfRange(f"degree {degree} on |x| <= {domain}: needs degree >= 1 and a finite, positive domain")
        return _fit(self, degree, float(domain))


@lru_cache(maxsize=256)
def _fit(function: Function, degree: int, domain: float) -> Approximation:
    nodes = np.cos(np.pi * (np.arange(4096) + 0.5) / 4096)
    fit = Chebyshev.fit(nodes, function.exact(domain * nodes), degree, domain=[-1, 1])
    coefficients = fit.convert(kind=Polynomial).coef
    # An odd function has no even terms but for rounding, and a zero top term would cost depth.
    kept = Polynomial(np.where(np.abs(coefficients) > 1e-12, coefficients, 0.0)).trim()
    grid = np.linspace(-1, 1, 20_001)
    error = float(np.max(np.abs(kept(grid) - function.exact(domain * grid))))
    return Approximation(tuple(float(c) for c in kept.coef), domain, error)


SIGMOID = Function("sigmoid", lambda x: 1.0 / (1.0 + np.exp(-x)), np.ones_like)
RELU = Function("relu", lambda x: np.maximum(x, 0.0), lambda limit: limit)
TANH = Function("tanh", np.tanh, np.ones_like)
ON_OFFER = {fn.name: fn for fn in (SIGMOID, RELU, TANH)}
"""What a key holder who agreed to policy "client" computes when asked."""
