"""Generators that stand in for a data set whose file is not at hand: same columns, ranges and kind of difficulty.

``salary`` follows the exact law of the original. ``chd`` and ``heart`` are look-alikes built from summary figures: they
describe no real person, and no figure from them may be set beside one from the real files.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

CHD_COLUMNS = (
    *("male", "age", "education", "currentSmoker", "cigsPerDay", "BPMeds", "prevalentStroke", "prevalentHyp"),
    *("diabetes", "totChol", "sysBP", "diaBP", "BMI", "heartRate", "glucose", "TenYearCHD"),
)

CHD_MISSING = {
    "education": 0.0248,
    "cigsPerDay": 0.0068,
    "BPMeds": 0.0125,
    "totChol": 0.0118,
    "BMI": 0.0045,
    "heartRate": 0.0002,
    "glucose": 0.0916,
}
"""Share of missing values in each column of the original that has any."""

CHD_LOGIT = {
    "age": 0.53,
    "sysBP": 0.31,
    "cigsPerDay": 0.25,
    "male": 0.25,
    "glucose": 0.15,
    "prevalentHyp": 0.11,
    "totChol": 0.08,
    "prevalentStroke": 0.07,
}
"""Change of the log-odds of disease for one standard deviation of each column."""

CHD_INTERCEPT = -1.976

HEART_STEPS: dict[str, tuple[float, dict[int, float]]] = {
    "sex": (0.46, {0: 0.32, 1: 0.68}),
    "cp": (0.60, {1: 0.08, 2: 0.16, 3: 0.28, 4: 0.48}),
    "fbs": (0.04, {0: 0.85, 1: 0.15}),
    "restecg": (0.27, {0: 0.50, 1: 0.01, 2: 0.49}),
    "exang": (0.68, {0: 0.67, 1: 0.33}),
    "slope": (0.50, {1: 0.47, 2: 0.46, 3: 0.07}),
    "ca": (0.67, {0: 0.59, 1: 0.22, 2: 0.12, 3: 0.07}),
    "thal": (0.76, {3: 0.55, 6: 0.06, 7: 0.39}),
    "num": (0.95, {0: 0.54, 1: 0.18, 2: 0.12, 3: 0.12, 4: 0.04}),
}
"""Columns of codes: how far each follows the illness, and the share of every code."""

HEART_SCALES: dict[str, tuple[float, float, float, float, float]] = {
    "age": (0.29, 54.4, 9.0, 29, 77),
    "trestbps": (0.20, 131.7, 17.6, 94, 200),
    "chol": (0.11, 246.7, 51.0, 126, 564),
    "thalach": (-0.55, 149.6, 22.9, 71, 202),
    "oldpeak": (0.60, 0.70, 1.58, 0, 6.2),
}
"""Measured columns: how far each follows the illness, mean and deviation before the cut, lowest and highest value."""

HEART_COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal"),
    "num",
)

HEART_MISSING = {"ca": 0.0132, "thal": 0.0066}
"""Share of missing values in each column of the original that has any."""


def salary_law(healthy_eating: npt.ArrayLike, active_lifestyle: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The salary that belongs to two scores: exact on every row of the original file."""
    eating, active = np.asarray(healthy_eating, float), np.asarray(active_lifestyle, float)
    return np.rint(550.00649 + np.abs(581.32468 * eating - 231.94805 * active)).astype(np.int64)


def salary(rows: int, seed: int) -> pd.DataFrame:
    """Draw ``rows`` employees; their salaries follow :func:`salary_law` without noise.

    Independent draws: age uniform over 18..64; healthy_eating and active_lifestyle normal with means 4.94 and 5.68 and
    standard deviation 2.03, rounded and clipped to 0..10; Gender a fair coin.
    """
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 65, rows)
    eating, active = (_whole(rng.normal(mean, 2.03, rows), 0, 10) for mean in (4.94, 5.68))
    gender = rng.integers(0, 2, rows)
    scores = {"age": age, "healthy_eating": eating, "active_lifestyle": active, "Gender": gender}
    return pd.DataFrame({**scores, "salary": salary_law(eating, active)})


def chd(rows: int, seed: int) -> pd.DataFrame:
    """Draw ``rows`` people with the columns of the Framingham set, about one in seven with some value missing."""
    rng = np.random.default_rng(seed)
    people = pd.DataFrame({"male": _coin(rng, np.full(rows, 0.43))})
    people["age"] = _whole(32 + 38 * rng.beta(1.8, 2.1, rows), 32, 70)
    people["education"] = rng.choice([1, 2, 3, 4], rows, p=[0.42, 0.30, 0.17, 0.11])
    _add_smoking(people, rng)
    _add_blood_pressure(people, rng)
    _add_metabolism(people, rng)
    z = (people - people.mean()) / people.std(ddof=0).replace(0.0, 1.0)
    logit = CHD_INTERCEPT + z[list(CHD_LOGIT)].to_numpy() @ np.array(list(CHD_LOGIT.values()))
    people["TenYearCHD"] = _coin(rng, _sigmoid(logit))
    return _with_gaps(people[list(CHD_COLUMNS)], CHD_MISSING, rng)


def _add_smoking(people: pd.DataFrame, rng: np.random.Generator) -> None:
    """Men and the young smoke more."""
    men, years = people["male"].to_numpy(), people["age"].to_numpy() - 49.6
    people["currentSmoker"] = _coin(rng, _sigmoid(-0.37 + 0.8 * men - 0.05 * years))
    a_day = _whole(rng.gamma(2.6, 5.5 + 3.0 * men), 1, 70)
    people["cigsPerDay"] = people["currentSmoker"] * a_day


def _add_blood_pressure(people: pd.DataFrame, rng: np.random.Generator) -> None:
    """Pressure rises with age, skewed upwards; hypertension, drugs and stroke follow from it."""
    years, rows = people["age"].to_numpy() - 49.6, len(people)
    systolic = 128 * np.exp(0.0073 * years + rng.normal(0.0, 0.14, rows))
    diastolic = 82.9 + 0.42 * (systolic - 132) + rng.normal(0.0, 7.4, rows)
    high = (systolic >= 140) | (diastolic >= 90)
    hypertensive = _coin(rng, 0.04 + 0.76 * high)
    people["sysBP"] = (2 * systolic).round().clip(160, 590) / 2
    people["diaBP"] = (2 * diastolic).round().clip(92, 290) / 2
    people["prevalentHyp"] = hypertensive
    people["BPMeds"] = _coin(rng, 0.095 * hypertensive)
    people["prevalentStroke"] = _coin(rng, 0.003 + 0.01 * hypertensive)


def _add_metabolism(people: pd.DataFrame, rng: np.random.Generator) -> None:
    """Diabetes raises glucose; cholesterol and weight rise a little with age and pressure."""
    years, pressure, rows = people["age"].to_numpy() - 49.6, people["sysBP"].to_numpy() - 132, len(people)
    diabetes = _coin(rng, _sigmoid(-3.9 + 0.06 * years))
    glucose = 79.5 + 0.1 * years + rng.normal(0.0, 12.9, rows) + diabetes * rng.gamma(1.2, 75.0, rows)
    people["diabetes"] = diabetes
    people["glucose"] = _whole(glucose, 40, 395)
    people["totChol"] = _whole(232 * np.exp(0.005 * years + rng.normal(0.0, 0.18, rows)), 107, 690)
    people["BMI"] = (25.4 * np.exp(0.002 * pressure + rng.normal(0.0, 0.145, rows))).clip(15.5, 57).round(2)
    people["heartRate"] = _whole(75.5 + 0.1 * pressure + rng.normal(0.0, 11.7, rows), 44, 143)


def heart(rows: int, seed: int) -> pd.DataFrame:
    """Draw ``rows`` people with the columns of the Cleveland set, about one in fifty with some value missing.

    One factor: every column follows a hidden illness, normal with mean 0 and deviation 1, as closely as its table says,
    and has noise of its own for the rest.
    """
    rng = np.random.default_rng(seed)
    illness = rng.normal(size=rows)
    people = pd.DataFrame(index=range(rows))
    for name, (loading, shares) in HEART_STEPS.items():
        edges = [NormalDist().inv_cdf(share) for share in np.cumsum(list(shares.values()))[:-1]]
        people[name] = np.array(list(shares))[np.digitize(_following(illness, loading, rng), edges)]
    for name, (loading, mean, deviation, low, high) in HEART_SCALES.items():
        values = (mean + deviation * _following(illness, loading, rng)).clip(low, high)
        people[name] = values.round(1) if name == "oldpeak" else _whole(values, low, high)
    return _with_gaps(people[list(HEART_COLUMNS)], HEART_MISSING, rng)


def _following(factor: Floats, loading: float, rng: np.random.Generator) -> Floats:
    """Standard normal values with the correlation ``loading`` to ``factor``."""
    return np.asarray(loading * factor + np.sqrt(1 - loading**2) * rng.normal(size=len(factor)))


def _with_gaps(people: pd.DataFrame, missing: dict[str, float], rng: np.random.Generator) -> pd.DataFrame:
    """Blank values completely at random, each column at its own rate."""
    for name, share in missing.items():
        people = people.assign(**{name: people[name].astype("float64").mask(rng.random(len(people)) < share)})
    return people


def _whole(values: Floats, low: float, high: float) -> npt.NDArray[np.int64]:
    return np.rint(values).clip(low, high).astype(np.int64)


def _coin(rng: np.random.Generator, chance: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """One toss for each chance of a 1."""
    return (rng.random(len(chance)) < chance).astype(np.int64)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


GENERATORS: dict[str, Callable[[int, int], pd.DataFrame]] = {"salary": salary, "chd": chd, "heart": heart}
"""By the name of the data set: ``(rows, seed)`` to a table with the columns of the original file."""
