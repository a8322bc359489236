"""Training and test rows of a data set: the split comes first, imputing and scaling are fitted inside the fold."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pandas as pd
from sklearn.model_selection import train_test_split

from hepipe.errors import DataError
from hepipe.study.datasets import Dataset

TUTORIAL_SEED = 73
TUTORIAL_TEST_SHARE = 0.3
TUTORIAL_DROPPED = ("education", "currentSmoker", "BPMeds", "diabetes", "diaBP", "BMI")


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test part of the features and of the target; the index is that of the data set.

    ``standardise_before_split`` tells that the features were standardised with the statistics of *all* rows, so that
    the test rows leaked into the training (a little); it is there only to reproduce figures of others.
    """

    X_train: pd.DataFrame = field(repr=False)
    X_test: pd.DataFrame = field(repr=False)
    y_train: pd.Series = field(repr=False)
    y_test: pd.Series = field(repr=False)
    standardise_before_split: bool = False


def split(dataset: Dataset, *, test_size: float = 0.2, seed: int = 0) -> Split:
    """Split at random, stratified by the class where the target is one; values stay raw, missing ones included."""
    strata = dataset.y if dataset.target.dtype == "bool" else None
    parts = train_test_split(dataset.X, dataset.y, test_size=test_size, random_state=seed, stratify=strata)
    return Split(*parts)


def balanced_tutorial_split(dataset: Dataset, *, standardise_before_split: bool = False) -> Split:
    """Return the balanced CHD subset of TenSEAL's first tutorial, also used by earlier systems, row for row.

    Complete rows only, six columns dropped, as many healthy rows as diseased ones, 70 to 30: 780 training and 334 test
    rows of the real file. A subset this small and chosen this way is for comparison with those systems only: another
    draw of it moves the accuracy by about 0.024 (one standard deviation).

    The features come back raw. With ``standardise_before_split`` they are standardised over all 1114 rows as the
    tutorial does, test rows included.
    """
    if dataset.name != "chd":
        raise DataError(f"the tutorial's subset is one of the data set 'chd', not of {dataset.name!r}")
    X, y = _balanced(dataset)
    if standardise_before_split:
        X = (X - X.mean()) / X.std()
    order = list(range(len(y)))
    random.Random(TUTORIAL_SEED).shuffle(order)
    cut = int(len(order) * TUTORIAL_TEST_SHARE)
    test, train = order[:cut], order[cut:]
    return Split(X.iloc[train], X.iloc[test], y.iloc[train], y.iloc[test], standardise_before_split)


def _balanced(dataset: Dataset) -> tuple[pd.DataFrame, pd.Series]:
    complete = dataset.X.dropna()
    y = dataset.y.loc[complete.index]
    size = int(y.value_counts().min())
    # Each class is drawn with a fresh seed: one draw over the grouped rows would pick others than the tutorial did.
    rows = pd.concat([y[y == label].sample(size, random_state=TUTORIAL_SEED) for label in (0, 1)]).index
    return complete.loc[rows].drop(columns=list(TUTORIAL_DROPPED)), y.loc[rows]
