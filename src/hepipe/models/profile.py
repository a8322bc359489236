"""The published half of a model: what the client does before encryption and after decryption."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange
from hepipe.models.schema import Column, Schema
from hepipe.schemes.base import FloatArray, Samples


@dataclass(frozen=True, eq=False)
class Profile:
    """How raw inputs become what is encrypted, and what decrypted scores mean. Everything here is public.

    Columns are scaled by their *published* range, not by training statistics, so a profile tells nothing of the
    training data; the model's weights absorb the scaling.

    kind      "regression" or "classification"
    schema    the columns, their order and range; inputs outside are refused
    centre    per column, what is subtracted
    half      per column, what is divided by
    fill      per column, the value a missing one is replaced with (published too), or None where none may be missing
    outputs   scores a sample
    """

    kind: str
    schema: Schema
    centre: FloatArray
    half: FloatArray
    outputs: int
    fill: FloatArray | None = None

    @classmethod
    def of(cls, kind: str, schema: Schema, outputs: int, fill: FloatArray | None = None, **more: Any) -> Self:
        """The profile that maps each column's range to [-1, 1]."""
        centre, half = (schema.low + schema.high) / 2, (schema.high - schema.low) / 2
        return cls(kind, schema, centre, half, outputs, fill, **more)

    @property
    def input_bound(self) -> FloatArray:
        """|value| of each prepared feature."""
        ends = np.stack([self.schema.low, self.schema.high])
        return np.asarray(np.abs((ends - self.centre) / self.half).max(axis=0))

    def narrowed(self, bound: float) -> Profile:
        """The same map for inputs with |x| <= bound: a tighter promise, so smaller parameters."""
        columns = tuple(Column(name, -bound, bound) for name in self.schema.names)
        return replace(self, schema=Schema(columns))

    def prepare(self, X: Samples) -> FloatArray:
        """Fill, check and scale: float64 of shape (samples, features). OutOfRange names row and column."""
        bound = self.input_bound
        # Scaling may round an end point a hair over its bound.
        return np.asarray(np.clip((self.checked(X) - self.centre) / self.half, -bound, bound))

    def checked(self, X: Samples) -> FloatArray:
        """The raw columns in order, filled, inside their ranges; OutOfRange names row and column."""
        array = self.schema.to_array(X)
        if self.fill is not None:
            array = np.where(np.isnan(array), self.fill, array)
        self.schema.check(array)
        return array

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """Scores as the estimator returns its predictions: one output flat, several as columns."""
        return scores[:, 0] if scores.shape[1] == 1 else scores


@dataclass(frozen=True, eq=False)
class ClassificationProfile(Profile):
    """Scores to labels: the sign (or the probability's side of one half), or the largest of several scores.

    threshold  what a single score is compared with
    limits     what a score can be, where it is a polynomial's value: one outside shows an input beyond its domain
    """

    classes: tuple[Any, ...] = (0, 1)
    threshold: float = 0.0
    limits: tuple[float, float] = (-np.inf, np.inf)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """Labels, shape (samples,)."""
        low, high = self.limits
        outside = ~((scores >= low) & (scores <= high)).all(axis=1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise OutOfRange(
                f"row {row}: a probability of {scores[row]} lies outside [{low:.3g}, {high:.3g}]: the input is "
                "beyond the polynomial's domain; take a wider domain, or the score instead of the probability"
            )
        single = scores.shape[1] == 1
        index = (scores[:, 0] > self.threshold).astype(int) if single else scores.argmax(axis=1)
        return np.asarray(np.asarray(self.classes)[index])
