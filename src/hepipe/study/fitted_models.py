"""The models of the suite by name, one of every kind, each fitted on the training rows of its data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from hepipe.models.binner import Binner
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import with_sigmoid
from hepipe.models.quantizer import Quantizer
from hepipe.models.torch_importer import from_torch
from hepipe.study.datasets import load
from hepipe.study.splits import split
from hepipe.study.torch_estimators import TorchClassifier, TorchRegressor


def _fitted(name: str, *steps: Any, **kind: Any) -> Any:
    data = load(name)
    parts = split(data)
    fill = [SimpleImputer(strategy="median")] * bool(data.X.isna().any(axis=None))
    estimator = make_pipeline(*fill, *steps).fit(parts.X_train, parts.y_train)
    if isinstance(steps[-1], KMeans):
        kind["X_train"] = parts.X_train
    return from_sklearn(estimator, data.schema, **kind)


def _logistic() -> Any:
    return _fitted("chd", StandardScaler(), LogisticRegression(max_iter=1000))


def _polynomial(degree: int, powers: str) -> Any:
    features = PolynomialFeatures(degree, include_bias=False)
    return _fitted("salary", StandardScaler(), features, LinearRegression(), powers=powers)


def _salary_network() -> Any:
    from torch import nn

    from hepipe.models.torch_importer import Square

    data = load("salary")
    X, y = (part := split(data)).X_train, part.y_train
    network = TorchRegressor(nn.Sequential(nn.Linear(4, 4), Square(), nn.Linear(4, 1))).fit(X, y)
    return from_torch(network.module_, data.schema, X_train=X)


def _chd_network(activation: str) -> Any:
    from torch import nn

    from hepipe.models.torch_importer import Cubic, Square

    data = load("chd")
    X, y = (part := split(data)).X_train, part.y_train
    middle = {"square": Square, "cubic": Cubic, "relu": nn.ReLU}[activation]()
    network = TorchClassifier(nn.Sequential(nn.Linear(15, 16), middle, nn.Linear(16, 1)), alpha=150.0, max_iter=100)
    fit = make_pipeline(SimpleImputer(strategy="median"), network).fit(X, y)
    given = {"X_train": X, "classes": (0, 1), "fill": fit[0].statistics_}
    return from_torch(fit[-1].module_, data.schema, degree=3 if activation == "relu" else None, **given)


def _thresholds(comparison: str) -> Any:
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    return _fitted("heart", Quantizer(7), tree, comparison=comparison)


def _clusters(reveal: str) -> Any:
    return _fitted("salary", KMeans(3, n_init=10, random_state=0), reveal=reveal)


FITTED_MODELS: dict[str, Callable[[], Any]] = {
    "salary-linear": lambda: _fitted("salary", LinearRegression()),
    "salary-polynomial2": lambda: _polynomial(2, "client"),
    "salary-polynomial3-server": lambda: _polynomial(3, "server"),
    "salary-network-square": _salary_network,
    "salary-clusters": lambda: _clusters("index"),
    "salary-clusters-distances": lambda: _clusters("distances"),
    "chd-logistic": _logistic,
    "chd-logistic-sigmoid3": lambda: with_sigmoid(_logistic(), split(load("chd")).X_train, degree=3),
    "chd-network-square": lambda: _chd_network("square"),
    "chd-network-cubic": lambda: _chd_network("cubic"),
    "chd-network-relu": lambda: _chd_network("relu"),
    "chd-tree": lambda: _fitted("chd", Binner(15), DecisionTreeClassifier(max_depth=4, random_state=0)),
    "heart-forest": lambda: _fitted("heart", Binner(15), RandomForestClassifier(5, max_depth=3, random_state=0)),
    "heart-tree-bits": lambda: _thresholds("bits"),
    "heart-tree-sign": lambda: _thresholds("sign"),
}
"""The comparison by bits is for Paillier, that by the sign for CKKS; the network with ReLU is exact under policy
"client" and a polynomial under "polynomial"."""
