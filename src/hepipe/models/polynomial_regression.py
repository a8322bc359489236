"""Polynomial regression two ways: the powers made at the client, or under encryption at the server.

Both evaluate sum w_p u**p over the monomials u**p of the columns scaled to [-1, 1], so their weights are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import ShapeMismatch, UnsupportedModel
from hepipe.models.linear import LinearModel
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples

MAX_DEGREE = 4
Powers = npt.NDArray[np.int64]
"""Exponents, a monomial a row, a column a column."""


@dataclass(frozen=True, eq=False)
class PolynomialProfile(Profile):
    """Raw inputs to monomials of the scaled columns. Publishes which ones, so the degree; not their weights."""

    powers: Powers = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))

    @property
    def input_bound(self) -> FloatArray:
        """|value| of each monomial."""
        return monomials(super().input_bound[None], self.powers).ravel()

    def prepare(self, X: Samples) -> FloatArray:
        """Fill, check, scale and multiply out: float64 of shape (samples, monomials)."""
        bound = self.input_bound
        return np.asarray(np.clip(monomials((self.checked(X) - self.centre) / self.half, self.powers), -bound, bound))


@dataclass(frozen=True, eq=False)
class PolynomialModel:
    """Powers made under encryption. Price for degree d: 1 + ceil(log2 d) levels / ceil(log2 d) rounds.

    A round multiplies everything that its depth can reach: degree 2 first, then 3 and 4. Reveals the scores to the
    client and the degree; what the client sees of a round is masked. The server learns nothing.

    weights  for each degree from 1 up, (monomials of this degree, outputs)
    products for each degree from 2 up, the monomials as products of two of lower degrees
    """

    profile: Profile
    weights: tuple[FloatArray, ...]
    intercept: FloatArray
    products: tuple[Products, ...]
    name: str
    reveals: str = "scores"

    def __post_init__(self) -> None:
        degrees = [one.left_degree + one.right_degree for one in self.products]
        lowest = min((min(one.left_degree, one.right_degree) for one in self.products), default=1)
        if lowest < 1 or degrees != list(range(2, len(self.weights) + 1)):
            raise ShapeMismatch(f"products of degrees {degrees} for weights of {len(self.weights)}: one from 2 up each")

    def prepare(self, X: Samples) -> FloatArray:
        """At the client: see Profile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: the scores."""
        degrees = [x]
        while len(degrees) < len(self.weights):
            degrees += _next_depth(ev, degrees, self.products[len(degrees) - 1 :])
        *lower, top = zip(degrees, self.weights, strict=True)
        scores = ev.matmul_plain(*top)
        for terms, weights in lower:
            scores = ev.add(scores, ev.matmul_plain(terms, weights, log_scale=scores.log_scale))
        return ev.add(scores, self.intercept)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: see Profile.head."""
        return self.profile.head(scores)


@dataclass(frozen=True)
class Products:
    """The monomials of one degree: first the squares of ``squared``, then left * right, as columns of lower degrees."""

    left_degree: int
    right_degree: int
    squared: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]


def _next_depth(ev: Evaluator, degrees: list[CipherTensor], products: Sequence[Products]) -> list[CipherTensor]:
    """The degrees up to twice the highest one there is, all in one round."""
    reached = products[: len(degrees)]
    pairs = [pair for one in reached for pair in _factors(ev, degrees, one)]
    made = iter(ev.mul_pairs(pairs))
    return [_joined(ev, [next(made) for _ in range(bool(one.squared) + bool(one.left))]) for one in reached]


def _factors(ev: Evaluator, degrees: list[CipherTensor], one: Products) -> list[tuple[CipherTensor, CipherTensor]]:
    pairs = []
    if one.squared:
        root = ev.take(degrees[one.left_degree - 1], one.squared)
        pairs.append((root, root))
    if one.left:
        left, right = degrees[one.left_degree - 1], degrees[one.right_degree - 1]
        pairs.append((ev.take(left, one.left), ev.take(right, one.right)))
    return pairs


def _joined(ev: Evaluator, parts: list[CipherTensor]) -> CipherTensor:
    return ev.join(parts) if len(parts) > 1 else parts[0]


def polynomial_regression(
    exponents: Powers,
    coef: npt.ArrayLike,
    intercept: npt.ArrayLike,
    schema: Schema,
    *,
    fill: FloatArray | None = None,
    slope: npt.ArrayLike = 1.0,
    offset: npt.ArrayLike = 0.0,
    powers: str = "client",
) -> LinearModel | PolynomialModel:
    """The model of a linear regression on monomials of degree 4 at most, in the order of PolynomialFeatures.

    exponents        its ``powers_``
    coef, intercept  of the regression, (monomials,) or (outputs, monomials), and a number or (outputs,)
    slope, offset    what the monomials are made of is slope * raw + offset, a number a column
    powers           "client": monomials in ``prepare``, a linear circuit (1 / 0) with a ciphertext for each of them;
                     "server": a ciphertext for each column, and products (PolynomialModel)

    Monomials of scaled columns are rewritten, by the binomial theorem, as monomials of the columns scaled
    by their published range: exact but for rounding.
    """
    degree = int(exponents.sum(axis=1).max())
    if powers not in ("client", "server") or not 1 <= degree <= MAX_DEGREE:
        raise UnsupportedModel(f"degree {degree}, powers={powers!r}: use 1 to {MAX_DEGREE}, and 'client' or 'server'")
    centre, half = (schema.low + schema.high) / 2, (schema.high - schema.low) / 2
    slopes = np.broadcast_to(np.asarray(slope, dtype=np.float64), half.shape)
    given = np.atleast_2d(np.asarray(coef, dtype=np.float64)).T
    basis, weights = rebased(exponents, given, slopes * half, slopes * centre + np.asarray(offset, dtype=np.float64))
    constant = np.atleast_1d(np.asarray(intercept, dtype=np.float64)) + weights[~basis.any(axis=1)].sum(axis=0)
    weights, basis = weights[basis.any(axis=1)], basis[basis.any(axis=1)]
    if powers == "client":
        profile = PolynomialProfile.of("regression", schema, weights.shape[1], fill, powers=basis)
        return LinearModel(profile, weights, constant, f"polynomial of degree {degree}, powers at the client")
    return _at_server(Profile.of("regression", schema, weights.shape[1], fill), basis, weights, constant)


def rebased(powers: Powers, weights: FloatArray, a: FloatArray, b: FloatArray) -> tuple[Powers, FloatArray]:
    """sum w_p t**p with t = a u + b as monomials of u: their exponents in order of degree, and their weights.

    One column at a time: t**k = sum comb(k, j) a**j b**(k - j) u**j.
    """
    terms = dict(zip(map(tuple, powers.tolist()), weights, strict=True))
    for column, (slope, shift) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        rewritten: dict[tuple[int, ...], FloatArray] = {}
        for exponents, weight in terms.items():
            top = exponents[column]
            for power in range(top + 1):
                key = (*exponents[:column], power, *exponents[column + 1 :])
                part = weight * (comb(top, power) * slope**power * shift ** (top - power))
                rewritten[key] = rewritten.get(key, 0.0) + part
        terms = rewritten
    ordered = sorted(terms, key=lambda exponents: (sum(exponents), [-e for e in exponents]))
    return np.array(ordered, dtype=np.int64), np.stack([terms[exponents] for exponents in ordered])


def monomials(values: FloatArray, powers: Powers) -> FloatArray:
    """The products of powers of the columns of ``values``: (samples, monomials)."""
    result = np.ones((len(values), len(powers)))
    for column, exponents in enumerate(powers.T):
        result *= values[:, column, None] ** exponents
    return result


def _at_server(profile: Profile, basis: Powers, weights: FloatArray, intercept: FloatArray) -> PolynomialModel:
    """Every degree's monomials as products of two of lower degrees, its squares first.

    Columns that no monomial has and products that only serve others have weight zero.
    """
    wanted = dict(zip(map(tuple, basis.tolist()), weights, strict=True))
    by_degree = _needed(list(wanted), basis.shape[1])
    columns = [{monomial: place for place, monomial in enumerate(terms)} for terms in by_degree]
    nothing = np.zeros(weights.shape[1])
    return PolynomialModel(
        profile,
        tuple(np.stack([wanted.get(monomial, nothing) for monomial in terms]) for terms in by_degree),
        intercept,
        tuple(_products(terms, columns) for terms in by_degree[1:]),
        f"polynomial of degree {len(by_degree)}, powers at the server",
    )


Monomial = tuple[int, ...]


def _needed(wanted: list[Monomial], features: int) -> list[list[Monomial]]:
    """For each degree from 1 up the monomials to make: those wanted and their factors; squares first."""
    highest = max(map(sum, wanted))
    first = [tuple(int(i == j) for j in range(features)) for i in range(features)]
    degrees: list[set[Monomial]] = [set() for _ in range(highest)]
    for monomial in wanted:
        degrees[sum(monomial) - 1].add(monomial)
    for terms in degrees[:0:-1]:
        for monomial in terms:
            for factor in _halves(monomial):
                degrees[sum(factor) - 1].add(factor)
    return [first, *(sorted(terms, key=lambda m: (len(set(_halves(m))) > 1, m)) for terms in degrees[1:])]


def _products(terms: list[Monomial], columns: list[dict[Monomial, int]]) -> Products:
    halves = [_halves(monomial) for monomial in terms]
    left, right = sum(halves[0][0]), sum(halves[0][1])
    places = [(columns[left - 1][a], columns[right - 1][b]) for a, b in halves]
    squares = tuple(a for (a, _), (one, other) in zip(places, halves, strict=True) if one == other)
    others = places[len(squares) :]
    return Products(left, right, squares, tuple(a for a, _ in others), tuple(b for _, b in others))


def _halves(monomial: Monomial) -> tuple[Monomial, Monomial]:
    """Two factors, the first of the largest power of two below the degree; equal ones where there are such."""
    degree = sum(monomial)
    size = 1 << (degree - 1).bit_length() - 1
    if size * 2 == degree and not any(exponent % 2 for exponent in monomial):
        half = tuple(exponent // 2 for exponent in monomial)
        return half, half
    left, missing = [], size
    for exponent in monomial:
        left.append(min(exponent, missing))
        missing -= left[-1]
    return tuple(left), tuple(whole - part for whole, part in zip(monomial, left, strict=True))
