"""What the data owner does before and after: columns whitened, labels folded in, weights mapped back to raw columns.

Gradient descent converges as fast as the columns are alike in scale and uncorrelated, and under encryption every step
is paid for. Whitening makes the covariance the identity, so that one step size fits all directions. It uses the owner's
own data in the clear and never leaves the owner; the weights for raw columns follow from it after decryption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange, ShapeMismatch
from hepipe.schemes.base import FloatArray

_RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> matrix (x - mean): unit covariance, nearest to the standardized columns (ZCA-cor; Kessy et al. 2018).

    mean       per raw column; zeros where the model has no intercept
    matrix     (columns, columns); a direction in which the data do not vary is mapped to 0
    intercept  whether folded rows begin with a 1
    """

    mean: FloatArray
    matrix: FloatArray
    intercept: bool = True

    @classmethod
    def fit(cls, X: FloatArray, *, intercept: bool = True) -> Whitening:
        """From raw columns of shape (rows, columns). OutOfRange if no column varies."""
        mean = X.mean(axis=0) if intercept else np.zeros(X.shape[1])
        # Columns in units of their own spread first, so that "does not vary" means the same for all of them.
        spread = np.sqrt(((X - mean) ** 2).mean(axis=0))
        constant = spread <= _RANK_TOLERANCE * np.abs(X).max(axis=0)
        unit = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, spread))
        standard = (X - mean) * unit
        values, vectors = np.linalg.eigh(standard.T @ standard / len(X))
        kept = values > _RANK_TOLERANCE * max(float(values[-1]), 1.0)
        if not kept.any():
            raise OutOfRange("no column varies: there is nothing to learn from")
        root = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
        return cls(mean, (vectors * root) @ vectors.T * unit, intercept)

    def transform(self, X: FloatArray) -> FloatArray:
        """Whitened columns, after a column of ones where there is an intercept: (rows, columns + intercept)."""
        white = (X - self.mean) @ self.matrix.T
        return np.hstack([np.ones((len(X), 1)), white]) if self.intercept else white

    def fold(self, X: FloatArray, y: npt.NDArray[np.bool_]) -> FloatArray:
        """The rows that are encrypted: +row where y, else -row."""
        if y.shape != (len(X),):
            raise ShapeMismatch(f"{y.shape} labels for {len(X)} rows")
        return np.where(y[:, None], 1.0, -1.0) * self.transform(X)

    def unfold(self, weights: FloatArray) -> tuple[FloatArray, float]:
        """coef_ of shape (columns,) and intercept_ for raw columns."""
        constant, white = (float(weights[0]), weights[1:]) if self.intercept else (0.0, weights)
        coef = white @ self.matrix
        return coef, constant - float(self.mean @ coef)
