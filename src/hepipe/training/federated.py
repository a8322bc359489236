"""A scikit-learn face for the fit of several owners: all parties in one process, each with what it may know."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from hepipe.errors import ShapeMismatch
from hepipe.models.schema import DEFAULT_BOUND, Column, Schema
from hepipe.schemes.base import FloatArray, Samples
from hepipe.training.aggregate import Aggregator, DataOwner, KeyHolder
from hepipe.training.agreement import Agreement, Solution
from hepipe.training.masked import MaskedKeyHolder, MaskingAggregator

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """One party's work: wall-clock milliseconds, and the bytes of the message it sends."""

    party: str
    work: str
    milliseconds: float
    size: int


class FederatedRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Linear regression, ridge where alpha > 0, on the rows of several owners; ``groups`` says whose row is whose.

    alpha          penalty of the raw weights, as of Ridge; 0 is LinearRegression
    masked         False: the key holder learns the pooled sums and the model. True: the aggregator learns the model, it
                   learns neither; see training.masked for the price
    schema         the published range of each column; None is |x| <= 2**16
    target         the published range of y; None is |y| <= 2**16
    fraction_bits  of a value in its range
    security_bits  128, 192 or 256; 112 is Paillier at 2048 bits; 0 is for tests and insecure

    After ``fit``: coef_, intercept_, estimator_ (a fitted LinearRegression or Ridge, for ``hepipe.from_sklearn``),
    agreement_ (what was published) and steps_ (who did what, how long, how many bytes). Equal to scikit-learn's fit on
    the pooled rows up to the rounding of the rows to ``fraction_bits``.
    """

    def __init__(
        self,
        alpha: float = 0.0,
        masked: bool = False,
        schema: Schema | None = None,
        target: Column | None = None,
        fraction_bits: int = 40,
        security_bits: int = 128,
    ) -> None:
        self.alpha, self.masked, self.schema, self.target = alpha, masked, schema, target
        self.fraction_bits, self.security_bits = fraction_bits, security_bits

    def fit(self, X: Samples, y: npt.ArrayLike, groups: npt.ArrayLike) -> Self:
        """Let the owner of each group contribute its rows, and solve.

        X (samples, features), y (samples,), groups (samples,): the owner of each row. AgreementBroken for fewer than
        three owners or ten rows a column; OutOfRange beyond a published range; IllPosed for dependent columns.
        """
        owned = np.asarray(groups).astype(str)
        targets = np.asarray(y, dtype=np.float64)
        if owned.shape != targets.shape:
            raise ShapeMismatch(f"groups of shape {owned.shape} for {targets.shape} targets: give one owner a row")
        self.steps_: list[Step] = []
        self.agreement_ = self._agreement(X, owned)
        names = self.agreement_.owners
        rows = {name: np.flatnonzero(owned == name) for name in names}
        parts = {name: (_taken(X, at), targets[at]) for name, at in rows.items()}
        solution = self._masked(parts) if self.masked else self._pooled(parts)
        self.estimator_ = solution.estimator()
        self.coef_, self.intercept_ = solution.coef, solution.intercept
        self.n_features_in_ = self.agreement_.features
        return self

    def predict(self, X: Samples) -> FloatArray:
        """Predictions in the clear, shape (samples,); to predict encrypted, serve ``estimator_``."""
        check_is_fitted(self)
        return np.asarray(self.agreement_.schema.to_array(X) @ self.coef_ + self.intercept_)

    def _agreement(self, X: Any, owned: npt.NDArray[np.str_]) -> Agreement:
        owners, counts = np.unique(owned, return_counts=True)
        names = list(X.columns) if isinstance(X, pd.DataFrame) else None
        schema = self.schema or Schema.unknown(np.asarray(X).shape[1], names=names)
        target = self.target or Column("y", -DEFAULT_BOUND, DEFAULT_BOUND)
        # A power of two tells less of the largest owner than its number of rows.
        most = 1 << (int(counts.max(initial=1)) - 1).bit_length()
        return Agreement(
            schema, target, tuple(owners.tolist()), most, self.alpha, self.masked, self.fraction_bits,
            self.security_bits,
        )  # fmt: skip

    def _pooled(self, parts: dict[str, tuple[Any, FloatArray]]) -> Solution:
        holder = self._timed("key holder", "make keys", lambda: KeyHolder(self.agreement_))
        public = self._timed("key holder", "publish the key", holder.public)
        aggregator = Aggregator(self.agreement_, public)
        self._contribute(parts, aggregator, public)
        pooled = self._timed("aggregator", "add and re-randomise", aggregator.release)
        return self._timed("key holder", "decrypt and solve", lambda: holder.solve(pooled))

    def _masked(self, parts: dict[str, tuple[Any, FloatArray]]) -> Solution:
        holder = self._timed("key holder", "make keys", lambda: MaskedKeyHolder(self.agreement_))
        public = self._timed("key holder", "publish the key", holder.public)
        aggregator = MaskingAggregator(self.agreement_, public)
        self._contribute(parts, aggregator, public)
        self._timed("aggregator", "make randomness ahead", aggregator.fill)
        system = self._timed("aggregator", "add, mask and re-randomise", aggregator.release)
        answer = self._timed("key holder", "decrypt and solve masked", lambda: holder.answer(system))
        return self._timed("aggregator", "take off the masks", lambda: aggregator.finish(answer))

    def _contribute(self, parts: dict[str, tuple[Any, FloatArray]], aggregator: Aggregator, public: bytes) -> None:
        for name, (rows, targets) in parts.items():
            owner = DataOwner(name, self.agreement_, public)
            work = f"add up {len(targets)} rows and encrypt"
            frame = self._timed(name, work, partial(owner.contribute, rows, targets))
            self._timed("aggregator", f"check the sums of {name}", partial(aggregator.receive, frame))

    def _timed(self, party: str, work: str, run: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = run()
        size = len(result) if isinstance(result, bytes) else 0
        self.steps_.append(Step(party, work, 1e3 * (time.perf_counter() - start), size))
        return result


def _taken(X: Any, rows: npt.NDArray[np.intp]) -> Any:
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else np.asarray(X)[rows]
