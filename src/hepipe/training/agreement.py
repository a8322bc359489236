"""What data owners publish before they pool their rows: columns, ranges, sizes; from it every width is derived.

A row becomes the integers (1, z, t): each column minus the middle of its published range, divided by a power of two
that covers it, at ``fraction_bits``. Whole numbers in narrow ranges become integers without any rounding. The Gram
matrix of those rows, a sum over rows and so over owners, is all that a linear regression needs (the normal equations).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LinearRegression, Ridge

from hepipe.errors import AgreementBroken, InsecureParameters, OutOfRange, ShapeMismatch
from hepipe.models.schema import Column, Schema
from hepipe.schemes.base import FloatArray, Samples
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.lanes import Mpz
from hepipe.schemes.paillier_checks import IntegerArray
from hepipe.schemes.parameters import MODULUS_BITS, PaillierParameters

MIN_OWNERS = 3
"""With two, each could take its own part off the sum and hold the other's."""
MIN_ROWS_PER_COLUMN = 10
"""Fewer rows in all, and the sums come close to determining the rows themselves."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A linear model of the pooled rows: prediction = x @ coef + intercept, for raw columns.

    The exact rational solution for the rows as they were rounded to the agreed grid, each number rounded once more
    to float64. ``rows`` is how many there were in all.
    """

    names: tuple[str, ...]
    coef: FloatArray
    intercept: float
    alpha: float
    rows: int

    def estimator(self) -> LinearRegression | Ridge:
        """The fitted scikit-learn estimator with these weights, which ``hepipe.from_sklearn`` takes."""
        fitted = Ridge(alpha=self.alpha) if self.alpha else LinearRegression()
        fitted.coef_, fitted.intercept_ = self.coef.copy(), self.intercept
        fitted.n_features_in_ = len(self.names)
        fitted.feature_names_in_ = np.array(self.names, dtype=object)
        return fitted


@dataclass(frozen=True)
class Agreement:
    """What all parties know, and hold to: a contribution under any other agreement is refused by its digest.

    schema, target  the columns, and the one to predict, each with its published range
    owners          their names; MIN_OWNERS of them at least, and all must contribute
    rows            the most rows one owner may have; how many it has is told to the aggregator
    alpha           the penalty of ridge regression on the raw weights, as scikit-learn's; the intercept has none
    masked          False: the key holder learns the pooled sums and the model. True: it learns neither, the
                    aggregator learns the model
    fraction_bits   of a value in its range: it is rounded by at most 2**-(fraction_bits + 1) of that range
    security_bits   128, 192 or 256 by the modulus of Paillier, 112 is 2048 bits; 0 is for tests and insecure

    AgreementBroken for fewer than three owners; OutOfRange for numbers that cannot be, or, where masked, a modulus
    that does not hold the exact solution; InsecureParameters for another security.
    """

    schema: Schema
    target: Column
    owners: tuple[str, ...]
    rows: int
    alpha: float = 0.0
    masked: bool = False
    fraction_bits: int = 40
    security_bits: int = 128

    def __post_init__(self) -> None:
        if len(set(self.owners)) < MIN_OWNERS or len(set(self.owners)) != len(self.owners):
            raise AgreementBroken(
                f"{len(set(self.owners))} different owners in {len(self.owners)}: a sum of fewer than {MIN_OWNERS} "
                "shows one owner's part to another; find more owners"
            )
        if not (1 <= self.rows < 1 << 32 and 1 <= self.fraction_bits <= 52 and 0 <= self.alpha < math.inf):
            raise OutOfRange("rows must be 1 to 2**32 - 1, fraction_bits 1 to 52, alpha a finite number from 0 up")
        if self.security_bits not in MODULUS_BITS:
            raise InsecureParameters(f"security_bits={self.security_bits}: use one of {sorted(MODULUS_BITS)}")
        if self.masked:
            self._check_room()
        _ = self.parameters

    @property
    def insecure(self) -> bool:
        """Whether the keys are of a size for tests only."""
        return self.security_bits == 0

    @property
    def modulus_bits(self) -> int:
        """Of the Paillier modulus."""
        return MODULUS_BITS[self.security_bits]

    @property
    def features(self) -> int:
        """Columns without the target."""
        return len(self.schema.columns)

    @property
    def min_rows(self) -> int:
        """Rows that all owners together must have."""
        return MIN_ROWS_PER_COLUMN * self.features

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the agreement as canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(b"hepipe.agreement.v1\0" + text.encode()).digest()

    @cached_property
    def parameters(self) -> PaillierParameters:
        """Lanes just wide enough for the pooled sums; one number a ciphertext where they are to be masked."""
        room = self.modulus_bits - 2
        # log2 of one owner's bound is rounded up on the wire; then the owners, the sign, a guard, a strict comparison.
        wanted = room if self.masked else round(math.log2(self.bound)) + (len(self.owners) - 1).bit_length() + 3
        if wanted > room:
            raise OutOfRange(f"one sum takes {wanted} bits, the modulus has {room}: use a larger one, or fewer bits")
        return PaillierParameters(
            self.modulus_bits, log_scale=0, log_plain_scale=0, lane_bits=wanted, lanes=room // wanted, depth=0,
            insecure=self.insecure,
        )  # fmt: skip

    @property
    def bound(self) -> float:
        """|entry| of one owner's Gram matrix, up to a power of two."""
        return 2.0 ** (2 * self.fraction_bits + (self.rows - 1).bit_length())

    @cached_property
    def entries(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Rows and columns of the Gram matrix that travel: its upper triangle, without t't where it has no use."""
        upper = np.triu_indices(self.features + 2)
        size = len(upper[0]) - self.masked
        return upper[0][:size], upper[1][:size]

    def integers(self, X: Samples, y: npt.ArrayLike | pd.Series) -> IntegerArray:
        """The rows (1, z, t) as integers, shape (samples, features + 2). OutOfRange outside the published ranges."""
        array, published = self.schema.to_array(X), Schema((self.target,))
        if np.shape(y) != (len(array),):
            raise ShapeMismatch(f"{len(array)} rows with targets of shape {np.shape(y)}: give one a row")
        target = published.to_array(np.asarray(y)[:, None])
        self.schema.check(array)
        published.check(target)
        shifted = np.ldexp(np.hstack([array, target]) - self._centres, -self._exponents)
        return np.column_stack([np.full(len(array), 1, dtype=object), to_fixed(shifted, self.fraction_bits)])

    def contribution(self, X: Samples, y: npt.ArrayLike | pd.Series) -> IntegerArray:
        """The sums of one owner's rows that travel, shape (entries, 1). Price: samples * features**2 / 2 products."""
        rows = self.integers(X, y)
        gram = [sum(rows[:, i] * rows[:, j]) for i, j in zip(*self.entries, strict=True)]
        return np.array(gram, dtype=object)[:, None]

    def system(self, sums: list[int]) -> tuple[list[list[int]], list[int]]:
        """(matrix, right side) of the normal equations in the integers, penalty included, from the pooled sums."""
        size = self.features + 1
        gram: dict[tuple[int, int], int] = {}
        for i, j, value in zip(*(each.tolist() for each in self.entries), sums, strict=True):
            gram[i, j] = gram[j, i] = value
        for j, penalty in enumerate(self.penalties):
            gram[j + 1, j + 1] += penalty
        return [[gram[i, j] for j in range(size)] for i in range(size)], [gram[i, size] for i in range(size)]

    @cached_property
    def penalties(self) -> list[int]:
        """alpha for each integer column: |w|**2 of the raw weights, rounded to the integers of the Gram matrix."""
        # Column j in raw units is 2**(exponent - fraction_bits) of its integers.
        grid = 2 * (self.fraction_bits - self._exponents[:-1])
        return [round(Fraction(self.alpha) * Fraction(2) ** int(bits)) for bits in grid]

    @cached_property
    def solution_bounds(self) -> tuple[int, int]:
        """(numerator, denominator) bounds of every weight in the integer system, by Hadamard's inequality.

        The determinant of a Gram matrix is at most the product of its diagonal. By Cramer's rule and Cauchy-Binet a
        numerator is at most that product, with the root of one factor, |u_j|**2, replaced by the target's |t|: at
        most 2**fraction_bits more, since |t| <= 2**fraction_bits * |1|.
        """
        rows = len(self.owners) * self.rows
        denominator = rows * math.prod((rows << 2 * self.fraction_bits) + penalty for penalty in self.penalties)
        return denominator << self.fraction_bits, denominator

    def unscaled(self, weights: list[tuple[Mpz, Mpz]], rows: int) -> Solution:
        """The model for raw columns from the integer system's solution, fractions (numerator, denominator)."""
        exact = [Fraction(int(a), int(b)) for a, b in weights]
        *scales, up = (Fraction(2) ** int(exponent) for exponent in self._exponents)
        *centres, middle = (Fraction(float(centre)) for centre in self._centres)
        coef = [weight * up / scale for weight, scale in zip(exact[1:], scales, strict=True)]
        shift = sum((w * c for w, c in zip(coef, centres, strict=True)), Fraction(0))
        intercept = middle + exact[0] * up / 2**self.fraction_bits - shift
        values = np.array([float(weight) for weight in coef])
        return Solution(self.schema.names, values, float(intercept), self.alpha, rows)

    @cached_property
    def _ends(self) -> FloatArray:
        columns = (*self.schema.columns, self.target)
        return np.array([[column.low for column in columns], [column.high for column in columns]])

    @cached_property
    def _centres(self) -> FloatArray:
        return np.asarray(self._ends.sum(axis=0) / 2)

    @cached_property
    def _exponents(self) -> npt.NDArray[Any]:
        half = np.abs(self._ends - self._centres).max(axis=0)
        return np.asarray(np.ceil(np.log2(half)), dtype=np.int64)

    def _check_room(self) -> None:
        numerator, denominator = self.solution_bounds
        need, room = (2 * numerator * denominator).bit_length(), self.modulus_bits - 1
        if need > room:
            spare = -(-(need - room) // (4 * self.features + 1))
            raise OutOfRange(
                f"the exact solution takes {need} bits, the modulus holds {room}: use fraction_bits of at most "
                f"{self.fraction_bits - spare}, fewer columns, or more security_bits, whose modulus is larger"
            )
