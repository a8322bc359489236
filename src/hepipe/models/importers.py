"""Models from fitted scikit-learn estimators, alone or last in a pipeline of an imputer and scalers.

Of ``models/`` the importers and the two steps for trees load scikit-learn, and nothing else: a worker of the service
starts without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge, RidgeCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from hepipe.circuits.activation import IDENTITY, on_request
from hepipe.circuits.comparison import LARGEST
from hepipe.circuits.functions import RELU, SIGMOID, TANH
from hepipe.errors import UnsupportedModel
from hepipe.models.binner import Binner
from hepipe.models.kmeans import REVEALS, ClusterProfile, KMeansModel
from hepipe.models.linear import LinearModel, linear_regression, logit_model
from hepipe.models.mlp import MlpModel, mlp, network_profile
from hepipe.models.polynomial_regression import PolynomialModel, polynomial_regression
from hepipe.models.quantizer import Quantizer
from hepipe.models.schema import Column, Schema
from hepipe.models.step_profile import steps_of
from hepipe.models.threshold_tree import ThresholdTreeModel
from hepipe.models.tree import DecisionTreeModel
from hepipe.models.tree_importer import FORESTS, TREES, threshold_tree_from_sklearn, tree_from_sklearn
from hepipe.schemes.base import FloatArray, Samples

REGRESSORS = (LinearRegression, Ridge, RidgeCV, Lasso, ElasticNet)
CLUSTERERS = (KMeans, MiniBatchKMeans)
SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
GAP_BITS = 10.0
_UNITS = {"identity": IDENTITY, "logistic": on_request(SIGMOID), "tanh": on_request(TANH), "relu": on_request(RELU)}


def from_sklearn(
    estimator: BaseEstimator,
    schema: Schema | None = None,
    *,
    X_train: Samples | None = None,
    degree: int | None = None,
    powers: str = "client",
    reveal: str = "index",
    gap_bits: float = GAP_BITS,
    comparison: str = "sign",
) -> LinearModel | PolynomialModel | MlpModel | DecisionTreeModel | ThresholdTreeModel | KMeansModel:
    """The model of a fitted estimator, alone or last in a Pipeline of an imputer and scalers.

    A linear or logistic regression; a linear regression after PolynomialFeatures; MLPClassifier or MLPRegressor; a tree
    or a forest after a Binner, a tree after a Quantizer, with an imputer before it or not; KMeans or MiniBatchKMeans.

    schema           the published range of each column, matched by name where the estimator knows names; without it
                     only |x| <= 2**16 is promised, which costs 16 bits of room. Imputer fills are published; scalers
                     are not: they are folded into the weights
    X_train, degree  for networks: see models.mlp.mlp; powers for PolynomialFeatures: see polynomial_regression
    reveal, gap_bits  for k-means, with X_train: see kmeans_from_sklearn
    comparison       for a tree after a Quantizer, or on raw values with X_train: "sign" for CKKS, "bits" for Paillier;
                     see models.tree_importer.threshold_tree_from_sklearn

    UnsupportedModel for anything else, sklearn's NotFittedError before ``fit``.
    """
    check_is_fitted(estimator)
    *steps, last = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    last = last.as_sklearn() if hasattr(last, "as_sklearn") else last  # of EncryptedTrainer: what it learnt
    features = int(estimator.n_features_in_)
    if isinstance(last, (*TREES, *FORESTS)):
        return _tree(steps, last, _schema(estimator, schema, features), comparison, X_train)
    if not isinstance(last, (*REGRESSORS, LogisticRegression, MLPClassifier, MLPRegressor, *CLUSTERERS)):
        raise UnsupportedModel(
            f"{type(last).__name__} cannot be evaluated on encrypted data here: use a linear or logistic regression, a "
            "network or k-means, alone or in a Pipeline of an imputer and scalers, or a tree or forest after a Binner"
        )
    exponents = steps.pop().powers_ if steps and isinstance(steps[-1], PolynomialFeatures) else None
    fill, slope, offset = _folded(steps, features)
    published = _schema(estimator, schema, features)
    before: dict[str, Any] = {"fill": fill, "slope": slope, "offset": offset}
    if exponents is not None and isinstance(last, REGRESSORS):
        return polynomial_regression(exponents, last.coef_, last.intercept_, published, **before, powers=powers)
    if exponents is not None:
        raise UnsupportedModel(f"PolynomialFeatures before {type(last).__name__}: use them before a linear regression")
    if isinstance(last, CLUSTERERS):
        return kmeans_from_sklearn(last, published, **before, reveal=reveal, gap_bits=gap_bits, X_train=X_train)
    if isinstance(last, (MLPClassifier, MLPRegressor)):
        return mlp_from_sklearn(last, published, **before, X_train=X_train, degree=degree)
    return _linear(last, published, fill, slope, offset)


def _linear(last: Any, schema: Schema, fill: FloatArray | None, slope: FloatArray, offset: FloatArray) -> LinearModel:
    coef = np.atleast_2d(last.coef_)
    # last(slope * x + offset) written as one linear map of x
    intercept = np.atleast_1d(last.intercept_) + coef @ offset
    if isinstance(last, LogisticRegression):
        return logit_model(coef * slope, intercept, tuple(last.classes_.tolist()), schema, fill)
    return linear_regression(coef * slope, intercept, schema, fill)


def mlp_from_sklearn(
    estimator: Any,
    schema: Schema,
    *,
    fill: FloatArray | None = None,
    slope: npt.ArrayLike = 1.0,
    offset: npt.ArrayLike = 0.0,
    X_train: Samples | None = None,
    degree: int | None = None,
) -> MlpModel:
    """The model of a fitted MLPClassifier or MLPRegressor; the other arguments as ``mlp``.

    A classifier returns its logits: its last sigmoid or softmax is monotone, so the client needs none for the label.
    """
    check_is_fitted(estimator)
    if not isinstance(estimator, (MLPClassifier, MLPRegressor)) or estimator.activation not in _UNITS:
        raise UnsupportedModel(f"{type(estimator).__name__} is no MLPClassifier or MLPRegressor with known units")
    hidden = _UNITS[estimator.activation]
    activations = [*[hidden] * (len(estimator.coefs_) - 1), IDENTITY]
    profile = network_profile(schema, len(estimator.intercepts_[-1]), _classes(estimator), fill)
    maps = list(zip(estimator.coefs_, estimator.intercepts_, activations, strict=True))
    return mlp(profile, maps, X_train, degree, slope, offset)


def _classes(estimator: Any) -> Sequence[Any] | None:
    if not isinstance(estimator, MLPClassifier):
        return None
    if estimator._label_binarizer.y_type_.startswith("multilabel"):
        raise UnsupportedModel("a multilabel network has no one label a row: fit one network for each label")
    return list(estimator.classes_.tolist())


def kmeans_from_sklearn(
    estimator: Any,
    schema: Schema,
    *,
    fill: FloatArray | None = None,
    slope: FloatArray | float = 1.0,
    offset: FloatArray | float = 0.0,
    reveal: str = "index",
    gap_bits: float = GAP_BITS,
    X_train: Samples | None = None,
) -> KMeansModel:
    """The model of a fitted KMeans or MiniBatchKMeans that was trained on slope * x + offset.

    schema    of the raw columns, in the estimator's order; the narrower its ranges, the finer the gap
    reveal    "index", or "distances", which is cheap and gives the centroids away
    gap_bits  fineness of the gap: each bit costs about a level of CKKS, and two bits of every comparison on Paillier
    X_train   raw rows of which ``ties_within`` is counted

    UnsupportedModel for one cluster, or for two centroids that coincide; sklearn's NotFittedError before ``fit``.
    """
    check_is_fitted(estimator)
    centroids = np.asarray(estimator.cluster_centers_, dtype=np.float64)
    if reveal not in REVEALS:
        raise UnsupportedModel(f"reveal={reveal!r}: use one of {list(REVEALS)}")
    if not gap_bits >= 1:
        raise UnsupportedModel(f"gap_bits={gap_bits}: a gap is a part of the range, half of it at most")
    profile = ClusterProfile.of(
        "classification", schema, 1 if reveal == "index" else len(centroids), fill, reveal=reveal, count=len(centroids)
    )
    constants = (centroids * (centroids - 2 * offset)).sum(axis=1)
    linear = LinearModel.of(profile, -2 * (slope * centroids).T, constants)
    if reveal == "distances":
        return KMeansModel(profile, linear.weights, linear.intercept, name="k-means, distances")
    gap = 2.0**-gap_bits
    weights, intercept = _scaled(linear.weights, linear.intercept, LARGEST - gap)
    model = KMeansModel(profile, weights, intercept, gap)
    if X_train is None:
        return model
    return KMeansModel(profile, weights, intercept, gap, float(model.near_a_tie(X_train).mean()))


def _scaled(weights: FloatArray, intercept: FloatArray, spread: float) -> tuple[FloatArray, FloatArray]:
    """Distances whose differences have the bound ``spread``, less the mean over the clusters, which decides nothing."""
    pairs = list(itertools.combinations(range(len(intercept)), 2))
    if not pairs:
        raise UnsupportedModel("one cluster: every row belongs to it, and nothing needs to be computed")
    bounds = [np.abs(weights[:, i] - weights[:, j]).sum() + abs(intercept[i] - intercept[j]) for i, j in pairs]
    if min(bounds) == 0:
        raise UnsupportedModel("two centroids coincide: their rows tie everywhere; fit with fewer clusters")
    factor = spread / max(bounds)
    return factor * (weights - weights.mean(axis=1, keepdims=True)), factor * (intercept - intercept.mean())


def _tree(
    steps: list[Any], last: Any, schema: Schema, comparison: str, X_train: Any
) -> DecisionTreeModel | ThresholdTreeModel:
    *before, points = steps if steps and isinstance(steps[-1], (Binner, Quantizer)) else [*steps, None]
    fill, _, _ = _folded(before, len(schema.columns))
    if not all(isinstance(step, SimpleImputer) or step == "passthrough" for step in before):
        raise UnsupportedModel("a scaler before a tree changes nothing: leave it out")
    if isinstance(points, Binner):
        return tree_from_sklearn(last, schema, points.grids_, on_bins=True, fill=fill)
    if isinstance(points, Quantizer):
        return threshold_tree_from_sklearn(last, schema, points.steps_, comparison=comparison, fill=fill)
    if X_train is None:
        raise UnsupportedModel(
            "a tree compares with published points or steps: put hepipe's Binner right before it, or for secret "
            "thresholds its Quantizer; or give X_train, if its thresholds keep their distance from it"
        )
    rows = schema.to_array(X_train)
    rows = rows if fill is None else np.where(np.isnan(rows), fill, rows)
    found = steps_of(rows, ranges=[(column.low, column.high) for column in schema.columns])
    return threshold_tree_from_sklearn(last, schema, found, comparison=comparison, fill=fill, X_train=rows)


def _folded(steps: list[Any], features: int) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """(fill, slope, offset): what the imputer fills in, and the scalers as one affine map a column."""
    fill, slope, offset = None, np.ones(features), np.zeros(features)
    for place, step in enumerate(steps):
        if isinstance(step, SimpleImputer) and place == 0 and not step.add_indicator:
            fill = np.asarray(step.statistics_, dtype=np.float64)
        elif isinstance(step, SCALERS) and not getattr(step, "clip", False):
            at_zero, at_one = np.asarray(step.transform(_ends(step, features)))
            slope, offset = slope * (at_one - at_zero), offset * (at_one - at_zero) + at_zero
        elif step != "passthrough":
            raise UnsupportedModel(
                f"a pipeline step {type(step).__name__} cannot be folded into the model: use SimpleImputer first, then "
                f"any of {', '.join(kind.__name__ for kind in SCALERS)} without clipping"
            )
    return fill, slope, offset


def _ends(step: Any, features: int) -> Any:
    """The inputs 0 and 1 of every column, which tell an affine map; with names where the step was fitted on them."""
    ends = np.stack([np.zeros(features), np.ones(features)])
    names = getattr(step, "feature_names_in_", None)
    return ends if names is None else pd.DataFrame(ends, columns=names)


def _schema(estimator: Any, schema: Schema | None, features: int) -> Schema:
    names = getattr(estimator, "feature_names_in_", None)
    if schema is None:
        return Schema.unknown(features, names=None if names is None else list(names))
    if names is None:
        chosen: tuple[Column, ...] = schema.columns
    else:
        by_name = {column.name: column for column in schema.columns}
        missing = [str(name) for name in names if name not in by_name]
        if missing:
            raise UnsupportedModel(f"the schema has no column {missing}: the estimator was fitted on {list(names)}")
        chosen = tuple(by_name[str(name)] for name in names)
    if len(chosen) != features:
        raise UnsupportedModel(f"the estimator takes {features} columns, the schema has {len(chosen)}")
    return Schema(chosen)
