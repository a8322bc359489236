"""The published half of a tree with secret thresholds anywhere: whole numbers on a published step, for each column.

Between two whole numbers a threshold keeps a distance of half a step from every input, so that a comparison has a gap
it can count on. Low ends and steps are part of the schema and the same for every model on it. Ranges taken from the
training data publish its least and largest values: where that is too much, give ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange, ShapeMismatch, UnsupportedModel
from hepipe.models.tree_profile import LeafProfile
from hepipe.schemes.base import FloatArray, Samples

MOST_BITS = 16
COMPARISONS = ("sign", "bits")


@dataclass(frozen=True, eq=False)
class Steps:
    """Per column the whole number round((x - low) / step), cut to 0 .. 2**bits - 1, of 1 to 16 bits."""

    low: FloatArray
    step: FloatArray
    bits: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if not (self.low.shape == self.step.shape == self.bits.shape and self.bits.ndim == 1):
            raise ShapeMismatch(f"{self.low.shape} low ends, {self.step.shape} steps, {self.bits.shape} bits: one each")
        if not ((self.bits >= 1) & (self.bits <= MOST_BITS) & (self.step > 0)).all():
            raise OutOfRange(f"steps {self.step} of {self.bits} bits: use steps above 0 and 1 to {MOST_BITS} bits")

    @property
    def largest(self) -> FloatArray:
        """The largest number of each column."""
        return np.asarray(2.0**self.bits - 1, dtype=np.float64)

    def numbers(self, X: npt.ArrayLike) -> FloatArray:
        """Whole numbers as float64 of the shape of X."""
        places = (np.asarray(X, dtype=np.float64) - self.low) / self.step
        return np.asarray(np.clip(np.floor(places + 0.5), 0, self.largest))


def steps_of(X: npt.ArrayLike, bits: int = 8, ranges: Sequence[tuple[float, float]] | None = None) -> Steps:
    """Steps that spread 2**bits numbers over the range of each column of X.

    A column of two values gets one bit; one of whole numbers a step of 1 and as few bits as do, where ``bits`` are
    enough for it. OutOfRange unless 1 <= bits <= 16 and each range is an interval that holds its column.
    """
    if not 1 <= bits <= MOST_BITS:
        raise OutOfRange(f"bits={bits}: use 1 to {MOST_BITS}")
    columns = np.asarray(X, dtype=np.float64).T
    if ranges is not None and len(ranges) != len(columns):
        raise UnsupportedModel(f"{len(ranges)} ranges for {len(columns)} columns: give one a column")
    taken = [(column.min(), column.max()) for column in columns] if ranges is None else ranges
    found = [_step(column, float(low), float(high), bits) for column, (low, high) in zip(columns, taken, strict=True)]
    low, step, needed = zip(*found, strict=True)
    return Steps(np.array(low), np.array(step), np.array(needed, dtype=np.int64))


def _step(column: FloatArray, low: float, high: float, bits: int) -> tuple[float, float, int]:
    if not (np.isfinite([low, high]).all() and low <= column.min() and column.max() <= high):
        raise OutOfRange(
            f"the range [{low:g}, {high:g}] does not hold a column from {column.min():g} to {column.max():g}"
        )
    values = np.unique(column)
    if len(values) <= 2:
        return float(values[0]), float(values[-1] - values[0]) or 1.0, 1
    if high - low < 2**bits and (np.append(values, [low, high]) % 1 == 0).all():
        return low, 1.0, int(high - low).bit_length()
    return low, (high - low) / (2**bits - 1), bits


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedProfile(LeafProfile):
    """Raw inputs to whole numbers on published steps, a leaf's value to a prediction.

    comparison  "bits": each number as its bits, least first; "sign": as one value in [-1, 1]
    """

    steps: Steps
    comparison: str

    @property
    def input_bound(self) -> FloatArray:
        """1 for each value."""
        return np.ones(int(self.steps.bits.sum()) if self.comparison == "bits" else len(self.steps.bits))

    def places(self, column: int) -> range:
        """Where the bits of a raw column stand, the least first."""
        start = int(self.steps.bits[:column].sum())
        return range(start, start + int(self.steps.bits[column]))

    def prepare(self, X: Samples) -> FloatArray:
        """Fill, check and quantize: bits (samples, their sum) or values (samples, features)."""
        numbers = self.steps.numbers(self.checked(X))
        if self.comparison == "sign":
            return np.asarray(2 * numbers / self.steps.largest - 1)
        shifts = np.concatenate([np.arange(count) for count in self.steps.bits])
        spread = np.repeat(numbers.astype(np.int64), self.steps.bits, axis=1)
        return np.asarray(spread >> shifts & 1, dtype=np.float64)
