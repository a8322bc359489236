"""Logistic regression trained on encrypted rows, as a scikit-learn estimator.

    clf = EncryptedTrainer(LogisticRegression(C=10), steps=3).fit(X, y)
    clf.plan_.levels, clf.plan_.rounds, clf.plan_.reveals, clf.transcript_.rounds
    clf.coef_, clf.intercept_                                       # for raw columns, decrypted by their owner
    clf.predict_proba(X_test)                                       # in the clear
    EncryptedClassifier(clf).fit(X, y).predict(X_test)              # trained and asked encrypted

Both parties live in one process here, which is for study: see training.parties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from hepipe.errors import DataError, Unsupported, UnsupportedModel
from hepipe.models.importers import from_sklearn
from hepipe.models.schema import Schema
from hepipe.schemes.base import FloatArray
from hepipe.study.progress import steps as progressing
from hepipe.training.checkpoint import Checkpoint
from hepipe.training.descent import Descent
from hepipe.training.parties import Owner, Trainer
from hepipe.training.plan import TrainingPlan, plan_training
from hepipe.training.rehearsal import largest_rate, row_bound
from hepipe.training.whitening import Whitening

RATE = 4.0
"""The step size where none is asked for: whitened columns have a curvature of at most 1/4."""


class EncryptedTrainer(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A binary logistic regression whose gradient steps run on encrypted rows, labels and weights.

    estimator       LogisticRegression; its C and fit_intercept count. None is C=inf. The penalty is on the weights of
                    whitened columns, intercept included
    scheme          "ckks", "paillier" (slow: rows * columns masked products a step) or "clear"
    steps           gradient steps. Without refresh CKKS affords 4 of degree 3 at N = 16384 and 6 at 32768
    refresh         None, or "client": a masked round with the key holder where levels end, so that steps are unlimited
    degree          3, 5 or 7 of the sigmoid's polynomial on |z| <= 8
    rate            step size; None takes 4, or the largest below it that keeps every score within the domain
    momentum        Nesterov's steps instead of plain ones
    security_bits   128, 192 or 256; 112 is Paillier at 2048 bits; 0 is for tests and insecure
    precision_bits  -log2 of plan_.error_estimate, at least; None is 5
    schema          published ranges of the columns, for ``model_``
    checkpoint      a folder. A fit that finds one of its own there goes on from it, any other is refused
    passphrase      called for the passphrase that seals the owner's keys beside the folder (<checkpoint>.keys)
    progress        "auto" or "off"

    After ``fit``: coef_, intercept_, classes_, estimator_ (a fitted LogisticRegression), model_, plan_, transcript_ (of
    the rounds; the owner's one decryption of the weights comes besides) and rate_. Nothing of it is a key.

    OutOfRange, before anything is encrypted, for a rate that could leave the domain. The trainer learns how many rows
    and columns there are, a power of two over the whitened values, and the step size; the owner learns the weights.
    SECURITY.md says what it means to publish weights that CKKS computed.
    """

    def __init__(
        self,
        estimator: Any = None,
        scheme: str = "ckks",
        steps: int = 3,
        refresh: Literal["client"] | None = None,
        degree: int = 3,
        rate: float | None = None,
        momentum: bool = False,
        security_bits: int = 128,
        precision_bits: float | None = None,
        schema: Schema | None = None,
        checkpoint: str | None = None,
        passphrase: Callable[[], str] | None = None,
        progress: Literal["auto", "off"] = "auto",
    ) -> None:
        self.estimator, self.scheme, self.steps, self.refresh = estimator, scheme, steps, refresh
        self.degree, self.rate, self.momentum = degree, rate, momentum
        self.security_bits, self.precision_bits, self.schema = security_bits, precision_bits, schema
        self.checkpoint, self.passphrase, self.progress = checkpoint, passphrase, progress

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Whiten, encrypt, descend, decrypt. Price: ``plan_``. ValueError for NaN or other than two classes."""
        X, labels = self._validated(X, y)
        inner = clone(LogisticRegression(C=np.inf) if self.estimator is None else self.estimator)
        whitening = Whitening.fit(X, intercept=_intercept(inner))
        rows = whitening.fold(X, labels)
        descent = self._descent(inner, rows)
        self.plan_ = plan_training(
            descent, rows.shape[1], self.scheme, row_bound(rows), self.precision_bits, self.security_bits
        )
        coef, intercept = whitening.unfold(self._trained(self.plan_, rows))
        self.rate_ = descent.rate
        self.estimator_ = _fitted(inner, coef, intercept, self.classes_, self)
        self.coef_, self.intercept_ = self.estimator_.coef_, self.estimator_.intercept_
        self.model_ = from_sklearn(self, self.schema)
        return self

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:
        """The logits in the clear, shape (samples,)."""
        return np.asarray(self.as_sklearn().decision_function(self._checked(X)))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Labels in the clear, shape (samples,)."""
        return np.asarray(self.as_sklearn().predict(self._checked(X)))

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Probabilities in the clear, shape (samples, 2)."""
        return np.asarray(self.as_sklearn().predict_proba(self._checked(X)))

    def as_sklearn(self) -> LogisticRegression:
        """The trained model as scikit-learn's own; ``from_sklearn`` asks for it."""
        check_is_fitted(self)
        return self.estimator_

    def _validated(self, X: Any, y: Any) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        if type_of_target(y, input_name="y") != "binary":
            raise ValueError("Only binary classification is supported: the target has more than two classes")
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError("a classifier needs two classes, the target has one class")
        return X, y == self.classes_[1]

    def _checked(self, X: Any) -> Any:
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _descent(self, inner: Any, rows: FloatArray) -> Descent:
        if self.refresh not in (None, "client"):
            raise Unsupported(f"refresh={self.refresh!r}: use None or 'client'")
        asked = Descent(
            len(rows), self.steps, RATE if self.rate is None else self.rate, self.degree, self.momentum,
            _penalty(inner) / len(rows), self.refresh == "client",
        )  # fmt: skip
        return asked if self.rate is not None else replace(asked, rate=largest_rate(asked, rows))

    def _trained(self, plan: TrainingPlan, rows: FloatArray) -> FloatArray:
        owner, trainer = self._parties(plan, rows)
        link, folder = owner.link(), Checkpoint(self.checkpoint) if self.checkpoint else None
        run = trainer.run(link if plan.rounds else None, folder)
        left = range(trainer.step, plan.descent.steps)
        for _ in progressing(left, "training step", self.progress, lambda _: f"{len(rows)} encrypted rows"):
            next(run)
        self.transcript_ = link.transcript
        return owner.weights(trainer.result())

    def _parties(self, plan: TrainingPlan, rows: FloatArray) -> tuple[Owner, Trainer]:
        insecure = plan.parameters.insecure
        if self.checkpoint is None:
            owner, trainer = Owner(plan), None
        else:
            owner = self._stored_owner(plan, Path(f"{self.checkpoint}.keys"))
            trainer = Trainer.resumed(plan, Checkpoint(self.checkpoint), allow_insecure=insecure)
        if trainer is None:
            trainer = Trainer(plan, owner.public_bytes(), allow_insecure=insecure)
            trainer.receive(owner.encrypt(rows), owner.tag(rows))
        elif trainer.tag != owner.tag(rows):
            raise DataError(f"{self.checkpoint} was begun with other rows or labels: remove it to train on these")
        return owner, trainer

    def _stored_owner(self, plan: TrainingPlan, keys: Path) -> Owner:
        if self.passphrase is None:
            raise Unsupported(
                "a checkpoint outlives this process, so the keys must: give passphrase, to seal them with"
            )
        if keys.exists():
            return Owner.load(plan, keys, self.passphrase())
        owner = Owner(plan)
        owner.save(keys, self.passphrase())
        return owner

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.non_deterministic = self.scheme == "ckks"  # fresh noise in every ciphertext
        return tags


def _intercept(inner: Any) -> bool:
    if not isinstance(inner, LogisticRegression):
        raise UnsupportedModel(f"{type(inner).__name__} is not trained encrypted here: use LogisticRegression")
    if getattr(inner, "penalty", None) in ("l1", "elasticnet") or getattr(inner, "l1_ratio", None):
        raise UnsupportedModel("an L1 penalty is not a polynomial: use L2, or none")
    if inner.class_weight is not None:
        raise UnsupportedModel("class_weight is not trained encrypted: weigh the rows by repeating them")
    return bool(inner.fit_intercept)


def _penalty(inner: Any) -> float:
    """scikit-learn minimizes |w|**2 / 2 + C * sum of losses."""
    return 0.0 if getattr(inner, "penalty", "l2") is None else 1.0 / float(inner.C)


def _fitted(inner: Any, coef: FloatArray, intercept: float, classes: Any, like: Any) -> Any:
    """``inner`` as its own ``fit`` would have left it."""
    inner.coef_, inner.intercept_, inner.classes_ = coef[None, :], np.array([intercept]), classes
    inner.n_features_in_, inner.n_iter_ = like.n_features_in_, np.array([like.steps])
    return inner
