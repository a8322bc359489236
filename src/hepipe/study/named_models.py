"""Models that can be planned by name, or from a file that holds numbers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hepipe.errors import HepipeError, UnsupportedModel
from hepipe.models.linear import LinearModel, linear_regression, logit_model
from hepipe.models.schema import Column, Schema
from hepipe.study.fitted_models import FITTED_MODELS

_FORM = (
    'expected {"kind": "linear" | "logistic", "coef": [numbers, or one list for each output], "intercept": number or '
    'list, "columns": [[name, low, high], ...]}, for raw inputs in these ranges'
)


def named_model(name: str) -> Any:
    """A model of the suite, fitted on the training rows of its data set: one of FITTED_MODELS."""
    if name not in FITTED_MODELS:
        raise UnsupportedModel(f"no model is called {name!r}: use one of {list(FITTED_MODELS)}")
    return FITTED_MODELS[name]()


def model_from_json(path: Path) -> LinearModel:
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


def _from_numbers(kind: str, coef: Any, intercept: Any, schema: Schema) -> LinearModel:
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
