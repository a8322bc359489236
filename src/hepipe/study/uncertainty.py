"""How far a figure moves when only the rows are drawn anew: below that, a difference is called none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, train_test_split
from threadpoolctl import threadpool_limits

from hepipe.study.datasets import Dataset
from hepipe.study.splits import TUTORIAL_DROPPED, TUTORIAL_TEST_SHARE

FOLDS = 5
TEST_SHARE = 1 / FOLDS
SIGNIFICANCE = 0.05
"""A gap whose p-value is not below this is called none."""

Scores = dict[str, float]
_LABELS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "F1": f1_score,
    "balanced accuracy": balanced_accuracy_score,
}
_PROBABILITIES: dict[str, Callable[..., float]] = {
    "AUC": roc_auc_score,
    "average precision": average_precision_score,
    "Brier": brier_score_loss,
}
_VALUES: dict[str, Callable[..., float]] = {
    "R2": r2_score,
    "MAE": mean_absolute_error,
    "RMSE": root_mean_squared_error,
}


def repeated_cv(estimator: BaseEstimator, dataset: Dataset, repeats: int = 10, seed: int = 0) -> pd.DataFrame:
    """Metrics of 5-fold cross-validation, ``repeats`` times over: a row a fold, stratified where the target is a class.

    The estimator, a pipeline with its imputer and scaler, is fitted anew inside each fold. The folds of the first
    repeat are those of StratifiedKFold or KFold(5, shuffle=True, random_state=seed).
    """
    classes = dataset.target.dtype == "bool"
    folds = (RepeatedStratifiedKFold if classes else RepeatedKFold)(
        n_splits=FOLDS, n_repeats=repeats, random_state=seed
    )
    X, y, rows = dataset.X, dataset.y, []
    with threadpool_limits(1):  # on matrices this small, threads cost a factor of 7
        for number, (train, test) in enumerate(folds.split(X, y)):
            fitted = clone(estimator).fit(X.iloc[train], y.iloc[train])
            scores = metrics(fitted, X.iloc[test], y.iloc[test], classes)
            rows.append({"repeat": number // FOLDS, "fold": number % FOLDS, **scores})
    return pd.DataFrame(rows)


def metrics(fitted: Any, X: pd.DataFrame, y: npt.ArrayLike, classes: bool) -> Scores:
    """The metrics of a fitted estimator in the clear: of labels and probabilities, or of predicted values."""
    found = fitted.predict(X)
    if not classes:
        return {name: float(score(y, found)) for name, score in _VALUES.items()}
    chance = fitted.predict_proba(X)[:, 1]
    of_labels = {name: float(score(y, found)) for name, score in _LABELS.items()}
    return of_labels | {name: float(score(y, chance)) for name, score in _PROBABILITIES.items()}


def cv_summary(folds: pd.DataFrame) -> pd.DataFrame:
    """Of each metric in ``repeated_cv``: mean, sd over the folds, and the standard error of the mean.

    Folds share training rows, so sd / sqrt(folds) would be too small; the error is corrected for it (Nadeau and Bengio,
    Machine Learning 52, 2003). The last column is the mean of the first repeat, which is a plain 5-fold.
    """
    values = folds.drop(columns=["repeat", "fold"])
    return pd.DataFrame(
        {
            "metric": values.columns,
            "mean": values.mean().to_numpy(),
            "sd of folds": values.std(ddof=0).to_numpy(),
            "standard error": _shared_rows(len(values)) * values.std(ddof=1).to_numpy(),
            "mean of first repeat": values[folds["repeat"] == 0].mean().to_numpy(),
        }
    )


def _shared_rows(folds: int) -> float:
    """What turns the deviation of the folds into the standard error of their mean: training rows are shared."""
    return math.sqrt(1 / folds + TEST_SHARE / (1 - TEST_SHARE))


def cv_gaps(
    folds: Mapping[str, pd.DataFrame], baseline: str, names: Sequence[str] = ("accuracy", "AUC")
) -> pd.DataFrame:
    """Whether models differ from ``baseline`` by more than chance: paired by fold, a row for each model and metric.

    folds  by model, ``repeated_cv`` of the same data, repeats and seed, so that fold for fold the rows are the same
    names  of the metrics

    p is that of the corrected resampled t-test (Nadeau and Bengio); ``gap`` is "none" where it is not below 0.05.
    """
    rows = []
    for model, metric in product(folds, names):
        difference = (folds[model][metric] - folds[baseline][metric]).to_numpy()
        mean, error = float(difference.mean()), _shared_rows(len(difference)) * float(difference.std(ddof=1))
        p_value = 2 * float(t.sf(abs(mean) / error, len(difference) - 1)) if error else float(mean == 0)
        gap = "none" if p_value >= SIGNIFICANCE else "higher" if mean > 0 else "lower"
        found = {"mean": float(folds[model][metric].mean()), f"minus {baseline}": mean, "standard error": error}
        rows.append({"model": model, "metric": metric, **found, "p": p_value, "gap": gap})
    return pd.DataFrame(rows)


def balanced_draws(estimator: BaseEstimator, dataset: Dataset, draws: int = 200, seed: int = 0) -> pd.DataFrame:
    """Accuracy and AUC over fresh draws of what the tutorial drew once: a balanced CHD subset, split 70 to 30.

    A row a draw. Their spread is what a figure of one such split is uncertain by.
    """
    complete = dataset.X.dropna().drop(columns=list(TUTORIAL_DROPPED))
    y = dataset.y.loc[complete.index]
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):
        return pd.DataFrame([_draw(estimator, complete, y, rng) for _ in range(draws)])


def _draw(estimator: BaseEstimator, X: pd.DataFrame, y: pd.Series, rng: np.random.Generator) -> Scores:
    size = int(y.value_counts().min())
    parts = [rng.choice(y.index[y == label], size, replace=False) for label in (0, 1)]
    rows = rng.permutation(np.concatenate(parts))
    train, test = train_test_split(rows, test_size=TUTORIAL_TEST_SHARE, random_state=int(rng.integers(2**31)))
    fitted = clone(estimator).fit(X.loc[train], y.loc[train])
    scores = metrics(fitted, X.loc[test], y.loc[test], classes=True)
    return {name: scores[name] for name in ("accuracy", "AUC")}
