"""One small model of every class, fitted on made-up rows, for the tests of bundles and of the service."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from hepipe.circuits.activation import IDENTITY, SQUARE, power_series
from hepipe.models.binner import Binner
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import with_sigmoid
from hepipe.models.mlp import mlp
from hepipe.models.profile import Profile
from hepipe.models.quantizer import Quantizer
from hepipe.models.schema import Column, Schema

RNG = np.random.default_rng(5)
SCHEMA = Schema((Column("age", 16, 70), Column("healthy", 0, 10), Column("active", 0, 10)))
FRAME = pd.DataFrame(
    {"age": RNG.uniform(18, 64, 80), "healthy": RNG.integers(0, 11, 80), "active": RNG.integers(0, 11, 80)}
)
TARGET = 0.1 * FRAME["age"] + FRAME["healthy"] - 0.5 * FRAME["active"]
LABEL = np.where(TARGET.median() < TARGET, "high", "low")
THREE = pd.qcut(TARGET, 3, labels=[1, 2, 3]).astype(int)


def _fitted(*steps: Any, y: Any = TARGET, **more: Any) -> Any:
    return from_sklearn(make_pipeline(*steps).fit(FRAME, y), SCHEMA, **more)


def _network(activation: Any) -> Any:
    maps = [(RNG.normal(size=(3, 2)) / 40, np.array([0.1, -0.2]), activation), ([[0.5], [1.0]], np.zeros(1), IDENTITY)]
    return mlp(Profile.of("regression", SCHEMA, 1), maps, FRAME)


def _small_tree() -> Any:
    return DecisionTreeClassifier(max_depth=2, random_state=0)


_HIDDEN = {"hidden_layer_sizes": (2,), "max_iter": 30, "random_state": 0}

MAKERS = {
    "linear": lambda: _fitted(LinearRegression()),
    "imputed": lambda: _fitted(SimpleImputer(), StandardScaler(), LogisticRegression(), y=LABEL),
    "three": lambda: _fitted(StandardScaler(), LogisticRegression(), y=THREE),
    "sigmoid": lambda: with_sigmoid(_fitted(StandardScaler(), LogisticRegression(), y=LABEL), FRAME, degree=3),
    "monomials": lambda: _fitted(PolynomialFeatures(2), LinearRegression(), powers="client"),
    "powers": lambda: _fitted(PolynomialFeatures(3), LinearRegression(), powers="server"),
    "square": lambda: _network(SQUARE),
    "cubic": lambda: _network(power_series("cubic", (0.1, 0.5, -0.25, 0.125))),
    "relu": lambda: _fitted(StandardScaler(), MLPRegressor(**_HIDDEN), X_train=FRAME, degree=3),
    "tanh": lambda: _fitted(StandardScaler(), MLPClassifier(activation="tanh", **_HIDDEN), y=LABEL, X_train=FRAME),
    "tree": lambda: _fitted(Binner(4), _small_tree(), y=LABEL),
    "index": lambda: _fitted(StandardScaler(), KMeans(3, random_state=0), gap_bits=4),
    "distances": lambda: _fitted(StandardScaler(), KMeans(3, random_state=0), reveal="distances"),
    "bits": lambda: _fitted(Quantizer(4), _small_tree(), y=LABEL, comparison="bits"),
    "sign": lambda: _fitted(Quantizer(4), _small_tree(), y=LABEL, comparison="sign"),
    "forest": lambda: _fitted(Binner(4), RandomForestRegressor(2, max_depth=2, random_state=0)),
}  # fmt: skip


@cache
def made(name: str) -> Any:
    """The model of this name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MAKERS[name]()


def schemes_of(name: str) -> tuple[str, ...]:
    """The schemes that it can be evaluated on."""
    return {"bits": ("paillier",), "sign": ("ckks",)}.get(name, ("paillier", "ckks"))


def policy_of(name: str) -> str:
    """The policy under which it can be evaluated."""
    return "client" if name == "tanh" else "polynomial"
