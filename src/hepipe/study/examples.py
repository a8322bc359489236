"""The smallest model of every kind that can be predicted encrypted, each fitted on twelve made-up rows.

They stand for their kind where only the shape of a circuit matters: the support table, and tests over all models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.tree import DecisionTreeClassifier

from hepipe.circuits.activation import IDENTITY, SQUARE, Activation, on_request, power_series
from hepipe.circuits.functions import RELU
from hepipe.models.binner import Binner
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import with_sigmoid
from hepipe.models.mlp import MlpModel, mlp
from hepipe.models.profile import Profile
from hepipe.models.quantizer import Quantizer
from hepipe.models.schema import Column, Schema

SCHEMA = Schema((Column("a", -1.0, 1.0), Column("b", -1.0, 1.0)))
X = np.array([[a, b] for a in (-1.0, -0.4, 0.4, 1.0) for b in (-0.9, 0.1, 0.8)])
SALARY = 2 * X[:, 0] - X[:, 1] + np.abs(X[:, 0])
RISK = (SALARY.mean() < SALARY).astype(int)


def _regression(**kind: Any) -> Any:
    pipeline = make_pipeline(PolynomialFeatures(3), LinearRegression())
    return from_sklearn(pipeline.fit(X, SALARY), SCHEMA, **kind)


def _logistic() -> Any:
    return from_sklearn(LogisticRegression().fit(X, RISK), SCHEMA)


def _network(activation: Activation, degree: int | None = None) -> MlpModel:
    weights = np.array([[0.5, -0.25], [0.25, 0.5]])
    maps = [(weights, np.array([0.1, 0.2]), activation), (weights[:, :1], np.zeros(1), IDENTITY)]
    return mlp(Profile.of("regression", SCHEMA, 1), maps, X, degree)


def _tree(estimator: Any) -> Any:
    return from_sklearn(make_pipeline(Binner(3), estimator).fit(X, RISK), SCHEMA)


def _thresholds(comparison: str) -> Any:
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    return from_sklearn(make_pipeline(Quantizer(4), tree).fit(X, RISK), SCHEMA, comparison=comparison)


def _clusters(reveal: str) -> Any:
    return from_sklearn(KMeans(3, n_init=1, random_state=0).fit(X), SCHEMA, reveal=reveal)


EXAMPLES: dict[str, Callable[[], Any]] = {
    "linear regression": lambda: from_sklearn(LinearRegression().fit(X, SALARY), SCHEMA),
    "logistic regression": _logistic,
    "logistic regression, sigmoid of degree 3": lambda: with_sigmoid(_logistic(), X, degree=3),
    "polynomial of degree 3, powers at the client": _regression,
    "polynomial of degree 3, powers at the server": lambda: _regression(powers="server"),
    "network, square": lambda: _network(SQUARE),
    "network, cubic": lambda: _network(power_series("cubic", (0.0, 0.5, 0.2, 0.1))),
    "network, ReLU of degree 3": lambda: _network(on_request(RELU), degree=3),
    "decision tree on public bins": lambda: _tree(DecisionTreeClassifier(max_depth=4, random_state=0)),
    "forest of 3 trees on public bins": lambda: _tree(RandomForestClassifier(3, max_depth=3, random_state=0)),
    "decision tree with secret thresholds of 4 bits, by bits": lambda: _thresholds("bits"),
    "decision tree with secret thresholds of 4 bits, by sign": lambda: _thresholds("sign"),
    "k-means with 3 clusters": lambda: _clusters("index"),
    "k-means with 3 clusters, distances": lambda: _clusters("distances"),
}
"""What ``support.model_table`` has a row for."""
