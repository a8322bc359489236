"""scikit-learn estimators whose predictions run encrypted: fitted in the clear, asked through ciphertexts.

    clf = EncryptedClassifier(make_pipeline(StandardScaler(), LogisticRegression()), scheme="ckks")
    clf.fit(X_train, y_train)                                 # in the clear, by the owner of the model
    clf.plan_.levels, clf.plan_.rounds, clf.plan_.reveals     # known before any key is made
    clf.predict(X_test)                                       # keys at the first call, then reused
    cross_val_score(clf, X, y)                                # as any estimator: Pipeline, GridSearchCV, clone, pickle

Both parties live in one process here, which is for study. Across machines use Client and Server.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.cluster import KMeans
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from hepipe.errors import OutOfRange, UnsupportedModel
from hepipe.models.importers import GAP_BITS, from_sklearn
from hepipe.models.profile import ClassificationProfile
from hepipe.models.schema import Column, Schema
from hepipe.models.tree_importer import FORESTS, TREES
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.base import FloatArray, Samples, blocks
from hepipe.study.plan import PRECISION_BITS, Plan, plan

try:
    from sklearn.callback import CallbackSupportMixin, ProgressBar, with_callbacks
except ImportError:  # scikit-learn before 1.9 has no callbacks
    CallbackSupportMixin, ProgressBar, with_callbacks = object, (), lambda method: method

BATCH = 64
"""Rows that are planned and evaluated together, rounded up to whole ciphertexts: a round, and a step of progress."""


@dataclass(eq=False)
class Parties:
    """Client and server of one plan in one process, made when first needed and then kept.

    A pickle or a copy carries model and plan, never keys: the other one makes its own.
    """

    model: Any
    plan: Plan
    _pair: tuple[Client, Server] | None = None

    @property
    def client(self) -> Client:
        """The only holder of the secret key."""
        return self._made()[0]

    @property
    def server(self) -> Server:
        """The holder of the model; of the keys it has the public ones."""
        return self._made()[1]

    def scores(self, X: FloatArray) -> FloatArray:
        """Encrypted, evaluated and decrypted: float64 of shape (samples, outputs). Price: the plan's."""
        client, server = self._made()
        return client.decrypt(server.evaluate(client.encrypt(X), client.link()))

    def _made(self) -> tuple[Client, Server]:
        if self._pair is None:
            client, insecure = Client(self.plan), self.plan.parameters.insecure
            server = Server(self.model, client.public(), self.plan.policy, allow_insecure=insecure)
            self._pair = client, server  # both at once, so that two threads never mix the keys of two pairs
        return self._pair

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pair": None}


class _Encrypted(MetaEstimatorMixin, BaseEstimator, CallbackSupportMixin):  # type: ignore[misc]
    """What the three estimators share."""

    _default: Callable[[], Any]
    _kind: str

    def __init__(
        self,
        estimator: Any = None,
        scheme: str = "ckks",
        policy: str = "polynomial",
        security_bits: int = 128,
        precision_bits: float | None = None,
        schema: Schema | None = None,
        input_bound: float | Literal["training"] | None = "training",
    ) -> None:
        self.estimator, self.scheme, self.policy = estimator, scheme, policy
        self.security_bits, self.precision_bits = security_bits, precision_bits
        self.schema, self.input_bound = schema, input_bound

    def predict(self, X: Samples) -> npt.NDArray[Any]:
        """Predictions, shape (samples,) or (samples, outputs). Price and what the client learns: ``plan_``.

        ValueError, as everywhere in scikit-learn, for NaN, infinity or a wrong shape; OutOfRange, naming row and
        column, beyond the published ranges.
        """
        scores = self._scores(X)
        return np.asarray(self.model_.profile.head(scores))

    def _estimator(self) -> Any:
        return type(self)._default() if self.estimator is None else self.estimator

    def _fit(self, X: Any, y: Any, fit_params: dict[str, Any]) -> Self:
        """Train in the clear, import, plan: whatever cannot be evaluated encrypted is refused here."""
        inner = clone(self._estimator())
        if get_tags(inner).estimator_type != self._kind:
            raise UnsupportedModel(f"{type(self).__name__} takes a {self._kind}, not {type(inner).__name__}")
        names = getattr(self, "feature_names_in_", None)
        # The importer matches a schema by name, and validation has stripped the names.
        self.estimator_ = self._train(inner, X if names is None else pd.DataFrame(X, columns=names), y, fit_params)
        self.model_ = self._imported(self._schema(X, names), X)
        self.plan_ = self._plan(y)
        self.parties_ = Parties(self.model_, self.plan_)
        return self

    def _imported(self, schema: Schema | None, X: FloatArray) -> Any:
        return from_sklearn(self.estimator_, schema, comparison="bits" if self.scheme == "paillier" else "sign")

    def _schema(self, X: FloatArray, names: Any) -> Schema | None:
        if self.schema is not None or self.input_bound is None:
            return self.schema
        wide = Schema.unknown(X.shape[1], 1.0, names)
        bounds = _training_bounds(X) if self.input_bound == "training" else np.full(X.shape[1], self.input_bound)
        return Schema(tuple(Column(*each) for each in zip(wide.names, -bounds, bounds, strict=True)))

    def _plan(self, y: Any) -> Plan:
        bound = None if self.input_bound == "training" else self.input_bound
        return plan(self.model_, self.scheme, BATCH, self.policy, bound, self._precision(y), self.security_bits)

    def _precision(self, y: Any) -> float | None:
        """What was asked for; else that of ``plan``, of predicted numbers relative to the largest of training."""
        if self.precision_bits is not None or self._kind != "regressor":
            return self.precision_bits
        return PRECISION_BITS - math.ceil(math.log2(np.max(np.abs(y), initial=1.0)))

    def _in_range(self, X: FloatArray) -> FloatArray:
        """X, all of it inside the published ranges before any of it is encrypted."""
        try:
            self.plan_.profile.checked(X)
        except OutOfRange as error:
            raise OutOfRange(f"{error}, or fit with wider ranges: a schema, or a larger input_bound") from error
        return X

    def _parts(self, X: FloatArray) -> list[FloatArray]:
        """As many rows at a time as the ciphertexts of the plan hold: BATCH of them would cost the same."""
        slots = self.plan_.parameters.slots
        return [X[rows] for rows in blocks(len(X), slots * math.ceil(BATCH / slots))]

    @with_callbacks  # type: ignore[untyped-decorator]
    def _train(self, inner: Any, X: Any, y: Any, fit_params: dict[str, Any]) -> Any:
        """``inner`` fitted; callbacks of scikit-learn are handed on to it."""
        data = (X,) if y is None else (X, y)
        if not hasattr(self, "_init_callback_context"):
            return inner.fit(*data, **fit_params)
        context = self._init_callback_context(max_subtasks=1).call_on_fit_task_begin(estimator=self)
        step = context.subcontext("train in the clear")
        with step.propagate_callback_context(inner) if hasattr(inner, "set_callbacks") else nullcontext():
            step.call_on_fit_task_begin(estimator=self)
            inner.fit(*data, **fit_params)
            step.call_on_fit_task_end(estimator=self)
        context.call_on_fit_task_end(estimator=self)
        return inner

    def _scores(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        parts = self._parts(self._in_range(self._validated(X, reset=False)))
        bars = [each for each in getattr(self, "_skl_callbacks", ()) if isinstance(each, ProgressBar)]
        if not bars or hasattr(self, "_parent_callback_ctx"):
            return np.concatenate([self.parties_.scores(part) for part in parts])
        # On a copy, since callbacks leave traces in what they watch while they do.
        return np.concatenate(copy.copy(self).set_callbacks(*bars)._watched_scores(parts))

    @with_callbacks  # type: ignore[untyped-decorator]
    def _watched_scores(self, parts: list[FloatArray]) -> list[FloatArray]:
        """scikit-learn's progress bar is made for ``fit``, but here the long work is ``predict``."""
        context = self._init_callback_context("predict", max_subtasks=len(parts))
        context.call_on_fit_task_begin(estimator=self)
        scores = []
        for part in parts:
            step = context.subcontext("batch").call_on_fit_task_begin(estimator=self)
            scores.append(self.parties_.scores(part))
            step.call_on_fit_task_end(estimator=self)
        context.call_on_fit_task_end(estimator=self)
        return scores

    def _validated(self, *data: Any, **checks: Any) -> Any:
        """Data as float64; missing values only where an imputer comes first."""
        finite = "allow-nan" if _imputes(self._estimator()) else True
        return validate_data(self, *data, dtype=np.float64, ensure_all_finite=finite, **checks)

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self._estimator())
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        tree = isinstance(_last(self._estimator()), (*TREES, *FORESTS))
        tags.target_tags.multi_output = self._kind == "regressor" and inner.target_tags.multi_output and not tree
        # Fresh noise in every ciphertext: two predictions differ by up to twice plan_.error_bound.
        tags.non_deterministic = inner.non_deterministic or self.scheme == "ckks"
        tags.input_tags.allow_nan = _imputes(self._estimator())
        return tags


def _training_bounds(X: FloatArray) -> FloatArray:
    """Per column the power of two that is at least twice its largest |x|, so that little of the data is published."""
    largest = np.nanmax(np.abs(X), axis=0, initial=2.0**-64)
    return np.asarray(2.0 ** np.ceil(np.log2(largest) + 1))


def _imputes(estimator: Any) -> bool:
    return isinstance(estimator, Pipeline) and isinstance(estimator.steps[0][1], SimpleImputer)


def _last(estimator: Any) -> Any:
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _one_vs_rest(estimator: Any) -> bool:
    """How scikit-learn before 1.8 could train several classes."""
    return getattr(estimator, "multi_class", "") == "ovr" or getattr(estimator, "solver", "") == "liblinear"


def _logits(name: str) -> Callable[[Any], bool]:
    """Whether the inner estimator has ``name`` and, once imported, its scores are logits."""

    def offered(self: Any) -> bool:
        getattr(getattr(self, "estimator_", self._estimator()), name)  # its AttributeError says what is missing
        model = getattr(self, "model_", None)
        return model is None or (isinstance(model.profile, ClassificationProfile) and model.profile.threshold == 0)

    return offered


class EncryptedClassifier(ClassifierMixin, _Encrypted):  # type: ignore[misc]
    """A scikit-learn classifier that is fitted in the clear and predicts on encrypted rows.

    estimator       what ``from_sklearn`` takes; None is LogisticRegression()
    scheme          "ckks", "paillier" or "clear"
    policy          "polynomial", or "client", which reveals pre-activations to the key holder
    security_bits   128, 192 or 256; 112 is Paillier at 2048 bits; 0 is for tests and insecure
    precision_bits  -log2 of the largest error of a score; None is 20, of a regressor 20 below its largest |y|
    schema          the published ranges of the columns: rows beyond them are refused, so that nothing wraps
    input_bound     without a schema, |x| of every column: "training" (default) is twice the largest |x| of the column
                    in training, rounded up to a power of two, which PUBLISHES that much of the training data; a number
                    publishes nothing; None is 2**16, which leaves CKKS no room for 20 bits of most linear models
                    (Unsupported, at ``fit``). With a schema, which publishes nothing either, a number narrows it

    After ``fit``: estimator_ (the clear one), model_, plan_, parties_ (client and server), classes_. A pickle carries
    all but the keys, so whoever loads it holds the model. The client learns the scores of its rows (``plan_.reveals``),
    of a tree the leaf only; the server learns nothing. ``sample_weight`` and the like are passed to the inner ``fit``.
    scikit-learn's ProgressBar (1.9, experimental), set by ``set_callbacks``, shows ``fit`` and ``predict``.
    """

    _default, _kind = LogisticRegression, "classifier"

    def fit(self, X: Samples, y: npt.ArrayLike, **fit_params: Any) -> Self:
        """Train in the clear and plan. UnsupportedModel or Unsupported for what cannot be evaluated encrypted."""
        X, y = self._validated(X, y, ensure_min_samples=2)
        self._fit(X, y, fit_params)
        self.classes_ = self.estimator_.classes_
        return self

    def predict(self, X: Samples) -> npt.NDArray[Any]:
        """Labels, shape (samples,). Price and what the client learns: ``plan_``."""
        return super().predict(X).astype(self.classes_.dtype, copy=False)

    @available_if(_logits("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Samples) -> FloatArray:
        """The decrypted logits, shape (samples,) for two classes, else (samples, classes). Reveals no more."""
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    @available_if(_logits("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Samples) -> FloatArray:
        """Sigmoid, softmax or shares of the logits, made by the client: (samples, classes). Reveals no more."""
        scores = self._scores(X)
        if scores.shape[1] == 1:
            return np.asarray(expit(np.hstack([-scores, scores])))
        if _one_vs_rest(_last(self.estimator_)):
            shares = expit(scores)
            return np.asarray(shares / shares.sum(axis=1, keepdims=True))
        return np.asarray(softmax(scores, axis=1))


class EncryptedRegressor(RegressorMixin, _Encrypted):  # type: ignore[misc]
    """A scikit-learn regressor that is fitted in the clear and predicts on encrypted rows.

    Parameters, attributes, pickles and progress as of EncryptedClassifier; None is LinearRegression(). The client
    learns the predictions: of a linear model d + 1 of them determine the weights.
    """

    _default, _kind = LinearRegression, "regressor"

    def fit(self, X: Samples, y: npt.ArrayLike, **fit_params: Any) -> Self:
        """Train in the clear and plan. UnsupportedModel or Unsupported for what cannot be evaluated encrypted."""
        several = get_tags(self).target_tags.multi_output
        X, y = self._validated(X, y, y_numeric=True, multi_output=several, ensure_min_samples=2)
        return self._fit(X, y, fit_params)


class EncryptedClusterer(ClusterMixin, _Encrypted):  # type: ignore[misc]
    """A scikit-learn KMeans or MiniBatchKMeans, alone or last in a Pipeline, that assigns encrypted rows.

    Parameters, pickles and progress as of EncryptedClassifier; None is KMeans().

    gap_bits  fineness of the gap, see models.kmeans.KMeansModel. It is a part of the range: ``model_.ties_within`` says
              how many of the training rows lie within it, and with input_bound=None nearly all do

    After ``fit``: labels_, of the training rows and made in the clear with them; else as EncryptedClassifier. The
    client learns the cluster of each row. There is no ``transform``: distances would give the centroids away.
    """

    _default, _kind = KMeans, "clusterer"

    def __init__(
        self,
        estimator: Any = None,
        scheme: str = "ckks",
        policy: str = "polynomial",
        security_bits: int = 128,
        precision_bits: float | None = None,
        schema: Schema | None = None,
        input_bound: float | Literal["training"] | None = "training",
        gap_bits: float = GAP_BITS,
    ) -> None:
        super().__init__(estimator, scheme, policy, security_bits, precision_bits, schema, input_bound)
        self.gap_bits = gap_bits

    def fit(self, X: Samples, y: None = None, **fit_params: Any) -> Self:
        """Train in the clear and plan. UnsupportedModel or Unsupported for what cannot be evaluated encrypted."""
        X = self._validated(X, ensure_min_samples=2)
        self._fit(X, None, fit_params)
        self.labels_ = _last(self.estimator_).labels_
        return self

    def fit_predict(self, X: Samples, y: None = None, **fit_params: Any) -> npt.NDArray[Any]:
        """``fit``, then ``labels_``: nothing of it is encrypted."""
        return np.asarray(self.fit(X, **fit_params).labels_)

    def _imported(self, schema: Schema | None, X: FloatArray) -> Any:
        names = getattr(self, "feature_names_in_", None)
        rows = X if names is None else pd.DataFrame(X, columns=names)
        return from_sklearn(self.estimator_, schema, X_train=rows, gap_bits=self.gap_bits)
