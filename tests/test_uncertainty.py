"""Cross-validation that reproduces the reference figures, and spreads that are honest."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hepipe.study.datasets import Dataset, load
from hepipe.study.uncertainty import FOLDS, balanced_draws, cv_gaps, cv_summary, metrics, repeated_cv

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


def folds_of(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"repeat": np.arange(10) // FOLDS, "fold": np.arange(10) % FOLDS, "AUC": values})


def test_a_gap_is_one_only_beyond_the_spread_of_the_paired_folds() -> None:
    rng = np.random.default_rng(0)
    base, noise = rng.normal(0.7, 0.02, 10), rng.normal(0, 0.004, 10)
    noise -= noise.mean()
    shifts = {"base": 0.0, "same": 0.001, "far": 0.02, "below": -0.02}
    folds = {name: folds_of(base + shift + noise * (name != "base")) for name, shift in shifts.items()}
    found = cv_gaps(folds, "base", ["AUC"]).set_index("model")
    assert found["gap"].to_dict() == {"base": "none", "same": "none", "far": "higher", "below": "lower"}
    np.testing.assert_allclose(found["minus base"], list(shifts.values()), atol=1e-15)
    error = noise.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    np.testing.assert_allclose(found["standard error"], [0, error, error, error], atol=1e-15)
    # paired: the spread of the folds themselves, five times as large, would hide all three
    assert error < 0.3 * base.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    assert found.loc["far", "p"] == pytest.approx(2 * t.sf(0.02 / error, 9))


def test_models_that_agree_on_every_fold_have_no_gap_and_a_constant_shift_is_one() -> None:
    folds = {"base": folds_of(np.full(10, 0.5)), "same": folds_of(np.full(10, 0.5)), "up": folds_of(np.full(10, 0.75))}
    assert list(cv_gaps(folds, "base", ["AUC"])["gap"]) == ["none", "none", "higher"]


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
