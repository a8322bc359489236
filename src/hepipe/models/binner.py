"""The scikit-learn step that puts a tree's thresholds on public grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from hepipe.models.tree_profile import Grids, bin_grid, bin_numbers, check_grids
from hepipe.schemes.base import FloatArray


class Binner(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn step before a tree: values to bin numbers, so that every threshold lies on a public grid.

    bins   points a column at most, for grids made from the quantiles of the training data
    grids  sorted points for each column instead, which publish nothing of the training data
    """

    def __init__(self, bins: int = 31, grids: Grids | None = None) -> None:
        self.bins, self.grids = bins, grids

    def fit(self, X: Any, y: Any = None) -> Binner:
        """Make or take the grids, ``grids_``."""
        array = validate_data(self, X, dtype=np.float64)
        self.grids_ = bin_grid(array, self.bins) if self.grids is None else check_grids(self.grids, array.shape[1])
        return self

    def transform(self, X: Any) -> FloatArray:
        """Bin numbers, float64 of shape (samples, features)."""
        check_is_fitted(self)
        return bin_numbers(validate_data(self, X, dtype=np.float64, reset=False), self.grids_)
