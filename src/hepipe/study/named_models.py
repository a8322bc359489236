"""Models that can be planned by name, or from a file that holds numbers only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hepipe.errors import HepipeError, UnsupportedModel
from hepipe.models.importers import from_sklearn
from hepipe.models.linear import LinearModel, linear_regression, logit_model
from hepipe.models.logistic import SigmoidModel, with_sigmoid
from hepipe.models.schema import Column, Schema
from hepipe.study.datasets import load
from hepipe.study.splits import split

Model = LinearModel | SigmoidModel

_FORM = (
    'expected {"kind": "linear" | "logistic", "coef": [numbers, or one list for each output], "intercept": number or '
    'list, "columns": [[name, low, high], ...]}, for raw inputs in these ranges'
)


def named_model(name: str) -> Model:
    """A model of the suite, fitted on the training rows of its data set: one of NAMED_MODELS."""
    if name not in NAMED_MODELS:
        raise UnsupportedModel(f"no model is called {name!r}: use one of {list(NAMED_MODELS)}")
    return NAMED_MODELS[name]()


def model_from_json(path: Path) -> Model:
    """A linear or logistic regression from a file of coefficients; UnsupportedModel names what is wrong with it.

    ``{"kind": "linear", "coef": [1.5, -2], "intercept": 3, "columns": [["age", 18, 70], ["hours", 0, 60]]}``: for raw
    inputs, whose ranges are published. Nothing in the file is executed.
    """
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        schema = Schema(tuple(Column(str(name), float(low), float(high)) for name, low, high in text["columns"]))
        return _from_numbers(text["kind"], text["coef"], text["intercept"], schema)
    except (OSError, ValueError, KeyError, TypeError, HepipeError) as error:
        reason = f"{error!s} is missing" if isinstance(error, KeyError) else str(error)
        raise UnsupportedModel(f"{path}: {reason}; {_FORM}") from error


def _from_numbers(kind: str, coef: Any, intercept: Any, schema: Schema) -> Model:
    rows = coef if coef and isinstance(coef[0], list) else [coef]
    if not schema.columns:
        raise UnsupportedModel("there is no column")
    if not (np.isfinite(np.asarray(rows, float)).all() and np.isfinite(np.asarray(intercept, float)).all()):
        raise UnsupportedModel("not a finite number among coef and intercept")
    if any(len(row) != len(schema.columns) for row in rows):
        raise UnsupportedModel(f"coef has not one number for each of the {len(schema.columns)} columns")
    if kind == "linear":
        return linear_regression(rows, intercept, schema)
    if kind == "logistic":
        classes = tuple(range(max(len(rows), 2)))
        return logit_model(rows, intercept, classes, schema)
    raise UnsupportedModel(f"kind is {kind!r}")


def _salary() -> Model:
    data = load("salary")
    parts = split(data)
    return cast(LinearModel, from_sklearn(LinearRegression().fit(parts.X_train, parts.y_train), data.schema))


def _chd() -> LinearModel:
    return _fitted_chd()[0]


def _chd_sigmoid() -> Model:
    model, X_train = _fitted_chd()
    return with_sigmoid(model, X_train, degree=3)


def _fitted_chd() -> tuple[LinearModel, Any]:
    data = load("chd")
    parts = split(data)
    estimator = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=1000))
    return cast(LinearModel, from_sklearn(estimator.fit(parts.X_train, parts.y_train), data.schema)), parts.X_train


NAMED_MODELS: dict[str, Callable[[], Model]] = {
    "salary-linear": _salary,
    "chd-logistic": _chd,
    "chd-logistic-sigmoid3": _chd_sigmoid,
}
"""What ``named_model`` knows."""
