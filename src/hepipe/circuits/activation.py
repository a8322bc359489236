"""One layer of a network under encryption: an affine map and its activation, paid for by the evaluator's policy.

An activation comes out as y with fn(z) = factor * y + constant: the two numbers are folded into the next affine map,
so a polynomial of degree 2 costs one product, whatever its coefficients (its square is completed), and one of degree
1 costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import Polynomial

from hepipe.circuits import polynomial
from hepipe.circuits.functions import Approximation, Function
from hepipe.circuits.linear import affine
from hepipe.errors import UnsupportedModel
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray

_FARTHEST_VERTEX = 8.0
"""A parabola whose vertex lies beyond this many domains is nearly a line: its square would swamp it."""


@dataclass(frozen=True)
class Activation:
    """An activation function and the ways to pay for it.

    name        as tables print it
    exact       what the network was trained with
    bound       maps a bound of |z| to one of |exact(z)|
    polynomial  what stands for it under encryption; None where policy "client" is the only way
    asked       what the key holder is asked for under policy "client"; None where the polynomial is exact anyway
    series      the coefficients of z**i it was trained with, where it is a polynomial; else empty
    """

    name: str
    exact: Callable[[FloatArray], FloatArray]
    bound: Callable[[FloatArray], FloatArray]
    polynomial: Approximation | None = None
    asked: Function | None = None
    series: tuple[float, ...] = ()

    def on(self, domain: float, degree: int | None = None) -> Activation:
        """The same for arguments mostly in |z| <= domain; ``degree`` gives one that is no polynomial its polynomial."""
        if self.asked:
            return self if degree is None else replace(self, polynomial=self.asked.polynomial(degree, domain))
        if self.polynomial is None or self.polynomial.degree <= 2:
            return self  # the one product of a parabola is best made of z itself
        ratio = domain / self.polynomial.domain
        moved = tuple(c * ratio**i for i, c in enumerate(self.polynomial.coefficients))
        return replace(self, polynomial=replace(self.polynomial, coefficients=moved, domain=domain))


@dataclass(frozen=True, eq=False)
class Activated:
    """The outputs of a layer: factor * values + constant."""

    values: CipherTensor
    factor: float = 1.0
    constant: float = 0.0


def power_series(name: str, coefficients: Sequence[float]) -> Activation:
    """A polynomial that the network was trained with, sum coefficients[i] z**i: exact on every z."""
    series = Polynomial(coefficients).trim()
    sizes = Polynomial(np.abs(series.coef))
    terms = tuple(float(c) for c in series.coef)
    terms = terms if len(terms) > 1 else (*terms, 0.0)  # a constant is a line without slope
    return Activation(name, lambda z: np.asarray(series(z)), sizes, Approximation(terms, 1.0, 0.0), series=terms)


SQUARE = power_series("square", (0.0, 0.0, 1.0))
IDENTITY = power_series("identity", (0.0, 1.0))


def on_request(fn: Function) -> Activation:
    """A function that is no polynomial: the key holder's under policy "client", else ``approximated``."""
    return Activation(fn.name, fn.exact, fn.bound, asked=fn)


def layer(ev: Evaluator, x: Activated, weights: FloatArray, intercept: FloatArray, activation: Activation) -> Activated:
    """activation(x @ weights + intercept) for weights of shape (inputs, outputs).

    Price: 1 / 0 for the affine map; then, for a polynomial of degree d, ceil(log2(d + 1)) levels or rounds, but 1 / 1
    for d = 2 and 0 / 0 for d = 1. Policy "client", for what is no polynomial: - / 1, the budget is full again.
    Reveals nothing under "polynomial"; under "client" to the key holder all of x @ weights + intercept, hence the
    weights to whoever asks inputs + 1 queries. UnsupportedModel where the policy offers no way.
    """
    intercept = intercept + x.constant * weights.sum(axis=0)
    weights = x.factor * weights
    if ev.policy == "client" and activation.asked:
        return Activated(ev.ask(activation.asked, affine(ev, x.values, weights, intercept)))
    if activation.polynomial is None:
        raise UnsupportedModel(
            f"{activation.name} is no polynomial: give the importer degree=3 or more and training rows for its range, "
            "train with Square or Cubic instead, or plan with policy='client', which reveals its argument"
        )
    return _polynomial_layer(ev, x.values, weights, intercept, activation.polynomial)


def settled(ev: Evaluator, x: Activated) -> CipherTensor:
    """The outputs themselves, where no affine map follows. Price 0, or 1 / 0 where there is something to fold."""
    values = x.values if x.factor == 1 else ev.mul_plain(x.values, x.factor)
    return ev.add(values, x.constant) if x.constant else values


def _polynomial_layer(
    ev: Evaluator, x: CipherTensor, weights: FloatArray, intercept: FloatArray, fn: Approximation
) -> Activated:
    weights, intercept = weights / fn.domain, intercept / fn.domain
    if fn.degree == 1:
        return Activated(affine(ev, x, weights, intercept), fn.coefficients[1], fn.coefficients[0])
    vertex = _vertex(fn)
    if vertex is None:
        return Activated(polynomial.evaluate(ev, affine(ev, x, weights, intercept), fn))
    # c + b u + a u**2 = a (u - v)**2 + c - a v**2 with v = -b / 2a: the shift costs nothing in the intercept.
    constant, _, leading = fn.coefficients
    u = affine(ev, x, weights, intercept - vertex)
    return Activated(ev.mul(u, u), leading, constant - leading * vertex**2)


def _vertex(fn: Approximation) -> float | None:
    """Where a parabola turns; None for other degrees, and for one that is nearly a line."""
    if fn.degree != 2:
        return None
    _, slope, leading = fn.coefficients
    vertex = -slope / (2 * leading) if leading else np.inf
    return float(vertex) if abs(vertex) <= _FARTHEST_VERTEX else None
