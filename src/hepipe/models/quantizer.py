"""The scikit-learn step that puts half a step between a tree's thresholds and every value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from hepipe.models.step_profile import steps_of
from hepipe.schemes.base import FloatArray


class Quantizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn step before a tree: values to whole numbers, so that every threshold keeps half a step of distance.

    bits    of a column at most; 16 or less
    ranges  (low, high) for each column instead of those of the training data, which are published otherwise
    """

    def __init__(self, bits: int = 8, ranges: Sequence[tuple[float, float]] | None = None) -> None:
        self.bits, self.ranges = bits, ranges

    def fit(self, X: Any, y: Any = None) -> Quantizer:
        """Choose low ends, steps and bits, ``steps_``."""
        self.steps_ = steps_of(validate_data(self, X, dtype=np.float64), self.bits, self.ranges)
        return self

    def transform(self, X: Any) -> FloatArray:
        """Whole numbers, float64 of shape (samples, features)."""
        check_is_fitted(self)
        return self.steps_.numbers(validate_data(self, X, dtype=np.float64, reset=False))
