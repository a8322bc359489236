"""Cross-validation that reproduces the reference figures, and spreads that are honest."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hepipe.study.datasets import Dataset, load
from hepipe.study.uncertainty import FOLDS, balanced_draws, cv_summary, metrics, repeated_cv

REAL = pytest.mark.skipif(not os.environ.get("HEPIPE_DATA_DIR"), reason="the real files are named by HEPIPE_DATA_DIR")


def logistic() -> object:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=1000))


@pytest.fixture(scope="module")
def chd() -> Dataset:
    return load("chd", offline=True)


@pytest.fixture(scope="module")
def salary() -> Dataset:
    return load("salary", offline=True)


pytestmark = pytest.mark.filterwarnings("ignore::hepipe.study.datasets.SyntheticDataWarning")


def test_the_first_repeat_is_the_plain_k_fold(salary: Dataset) -> None:
    folds = repeated_cv(LinearRegression(), salary, repeats=2, seed=3)
    assert len(folds) == 2 * FOLDS
    assert list(folds["repeat"]) == [0] * FOLDS + [1] * FOLDS
    expected = []
    for train, test in KFold(FOLDS, shuffle=True, random_state=3).split(salary.X):
        fitted = LinearRegression().fit(salary.X.iloc[train], salary.y.iloc[train])
        expected.append(fitted.score(salary.X.iloc[test], salary.y.iloc[test]))
    np.testing.assert_allclose(folds["R2"][:FOLDS], expected)
    assert not np.allclose(folds["R2"][:FOLDS], folds["R2"][FOLDS:])


def test_classes_are_stratified(chd: Dataset) -> None:
    folds = repeated_cv(logistic(), chd, repeats=1)
    train, test = next(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(chd.X, chd.y))
    fitted = logistic().fit(chd.X.iloc[train], chd.y.iloc[train])  # type: ignore[attr-defined]
    assert folds["accuracy"][0] == pytest.approx(fitted.score(chd.X.iloc[test], chd.y.iloc[test]))
    assert {"accuracy", "AUC", "F1", "balanced accuracy", "average precision", "Brier"} <= set(folds.columns)


@REAL
def test_the_reference_figures_of_chd(chd: Dataset) -> None:
    found = cv_summary(repeated_cv(logistic(), chd, repeats=1)).set_index("metric")
    means = found["mean"].round(4).to_dict()
    assert means == {
        "accuracy": 0.8542, "F1": 0.1438, "balanced accuracy": 0.5368, "AUC": 0.7267, "average precision": 0.3564,
        "Brier": 0.1165,
    }  # fmt: skip
    assert found.loc["accuracy", "sd of folds"] == pytest.approx(0.0035, abs=1e-4)


@REAL
def test_the_reference_figures_of_salaries(salary: Dataset) -> None:
    found = cv_summary(repeated_cv(LinearRegression(), salary, repeats=1)).set_index("metric")
    assert found.loc["R2", "mean"] == pytest.approx(0.8564, abs=5e-5)
    assert found.loc["MAE", "mean"] == pytest.approx(247.29, abs=5e-3)
    assert found.loc["RMSE", "mean"] == pytest.approx(399.80, abs=5e-3)


def test_the_summary_is_corrected_for_shared_rows() -> None:
    values = np.arange(10.0)
    folds = pd.DataFrame({"repeat": [0] * 5 + [1] * 5, "fold": [*range(5)] * 2, "R2": values})
    row = cv_summary(folds).iloc[0]
    assert row["mean"] == 4.5
    assert row["mean of first repeat"] == 2.0
    assert row["standard error"] == pytest.approx(values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4))
    assert row["standard error"] > values.std(ddof=1) / np.sqrt(10)


def test_metrics_of_a_perfect_model(salary: Dataset) -> None:
    class Oracle:
        def predict(self, X: pd.DataFrame) -> pd.Series:
            return salary.y.loc[X.index]

    assert metrics(Oracle(), salary.X, salary.y, classes=False) == {"R2": 1.0, "MAE": 0.0, "RMSE": 0.0}


def test_draws_of_the_balanced_subset_repeat_with_their_seed(chd: Dataset) -> None:
    simple = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    first, again, other = (balanced_draws(simple, chd, 3, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    assert list(first.columns) == ["accuracy", "AUC"]
    assert first["accuracy"].between(0.5, 0.85).all()
