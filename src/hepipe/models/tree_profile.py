"""The published half of a tree: public grids, and the client's bits [x <= g] on them.

A grid is part of the schema and the same for every model on it; thresholds are places on it and stay with the server.
A grid made from quantiles of the training data publishes those quantiles: where that is too much, give grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange, UnsupportedModel
from hepipe.models.profile import Profile
from hepipe.schemes.base import FloatArray, Samples

Grids = tuple[FloatArray, ...]


def bin_grid(X: npt.ArrayLike, bins: int = 31) -> Grids:
    """Per column of X at most ``bins`` sorted points: its values but the largest, or their quantiles if there are more.

    A column of two values gets one point, a constant one none. OutOfRange for bins < 1.
    """
    if bins < 1:
        raise OutOfRange(f"bins={bins}: a grid needs at least one point")
    return tuple(_points(column, bins) for column in np.asarray(X, dtype=np.float64).T)


def _points(column: FloatArray, bins: int) -> FloatArray:
    values = np.unique(column)
    if len(values) > bins + 1:
        points = np.quantile(column, np.arange(1, bins + 1) / (bins + 1), method="lower")
        return np.unique(points[points < values[-1]])
    return values[:-1]


def bin_numbers(X: npt.ArrayLike, grids: Grids) -> FloatArray:
    """How many points of its column's grid a value exceeds: float64 of the shape of X."""
    columns = np.asarray(X, dtype=np.float64).T
    return np.column_stack([np.searchsorted(grid, column) for grid, column in zip(grids, columns, strict=True)]) * 1.0


def check_grids(grids: Any, features: int) -> Grids:
    """The grids as arrays; UnsupportedModel unless there is one a feature, each finite and strictly rising."""
    checked = tuple(np.asarray(grid, dtype=np.float64) for grid in grids)
    if len(checked) != features:
        raise UnsupportedModel(f"{len(checked)} grids for {features} columns: give one a column")
    for place, grid in enumerate(checked):
        if grid.ndim != 1 or not np.isfinite(grid).all() or not (np.diff(grid) > 0).all():
            raise UnsupportedModel(f"the grid of column {place} is not a strictly rising sequence of finite numbers")
    return checked


@dataclass(frozen=True, eq=False)
class LeafProfile(Profile):
    """A leaf's value to a prediction.

    classes  of a classifier, whose score is the index of one, or the probability of the second of two
    """

    classes: tuple[Any, ...] = ()

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """Predictions, shape (samples,): the score itself, or the class of the nearest index, a tie going down."""
        if not self.classes:
            return super().head(scores)
        index = np.ceil(scores[:, 0] - 0.5).clip(0, len(self.classes) - 1).astype(int)
        return np.asarray(np.asarray(self.classes)[index])


@dataclass(frozen=True, eq=False)
class BinProfile(LeafProfile):
    """Raw inputs to thermometer bits, a leaf's value to a prediction.

    grids  per raw column its points; column (f, g) of what is encrypted is [x_f <= grids[f][g]]
    """

    grids: Grids = ()

    @property
    def input_bound(self) -> FloatArray:
        """1 for each bit."""
        return np.ones(sum(map(len, self.grids)))

    @property
    def first_columns(self) -> npt.NDArray[np.int64]:
        """Per raw column, where its bits begin."""
        return np.cumsum([0, *map(len, self.grids)])[:-1]

    def prepare(self, X: Samples) -> FloatArray:
        """Fill, check and compare with the grids: bits as float64 (samples, sum of grid sizes)."""
        array = self.checked(X)
        bits = [column[:, None] <= grid for column, grid in zip(array.T, self.grids, strict=True)]
        return np.concatenate(bits, axis=1).astype(np.float64)
