"""Models of encrypted labels: who trains knows the rows in the clear and the labels as ciphertexts only.

For given rows the ridge solution is linear in the labels, w = P y with P = (X'X + alpha I)^-1 X' on centred columns:
one weighted sum of ciphertexts a weight, no round, and the weights come out encrypted. Logistic regression has the
same form once its loss is taken to second order, sigma(z) = 1/2 + z/4 (Hardy et al., arXiv 1711.10677).

    model = labels_only(X, data.target, alpha=1.0)                  # the trainer, who knows X
    plan = hepipe.plan(model, "paillier", samples=len(X))
    client = hepipe.Client(plan)                                    # the owner of the labels
    server = hepipe.Server(model, client.public())
    fitted = client.profile.estimator(client.decrypt(server.evaluate(client.encrypt(y.to_frame()))))

The trainer learns nothing of the labels; ``server.forward`` leaves it with encrypted weights to go on with. The owner
of the labels learns the weights, so of the rows d + 1 numbers for its labels, and after as many fits as rows, P itself.
It may pass them on under Paillier; a decryption of CKKS must stay with it (SECURITY.md).

Measured on one core at 128 bits for 1,000 rows of 4 columns: Paillier encrypts in 1.4 s, sums in 0.5 s, sends 0.75 MiB;
CKKS takes 0.13 s in all and sends 0.11 MiB up, 0.63 MiB down, and 4.6 MiB of keys once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from hepipe.errors import IllPosed, OutOfRange, ShapeMismatch
from hepipe.models.profile import Profile
from hepipe.models.schema import Column, Schema
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples

Kind = Literal["linear", "logistic"]


@dataclass(frozen=True, eq=False)
class LabelsProfile(Profile):
    """How labels are encrypted, and what the decrypted weights mean; ``names`` are the columns of the rows."""

    names: tuple[str, ...] = ()
    alpha: float = 0.0

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """The weights, shape (features + 1,): coefficients, then the intercept."""
        return np.asarray(scores).reshape(-1)

    def estimator(self, scores: FloatArray) -> Any:
        """The fitted LinearRegression, Ridge or LogisticRegression, which ``hepipe.from_sklearn`` takes."""
        *coef, intercept = self.head(scores).tolist()
        fitted: Any = Ridge(alpha=self.alpha) if self.alpha else LinearRegression()
        fitted.coef_, fitted.intercept_ = np.array(coef), intercept
        if self.kind == "classification":
            fitted = LogisticRegression(C=1 / self.alpha if self.alpha else np.inf)
            fitted.coef_, fitted.intercept_ = np.array([coef]), np.array([intercept])
            fitted.classes_ = np.array([0, 1])
        fitted.n_features_in_, fitted.feature_names_in_ = len(coef), np.array(self.names, dtype=object)
        return fitted


@dataclass(frozen=True, eq=False)
class LabelsModel:
    """weights = labels' @ projection + constant, for prepared labels of shape (samples, 1). Price 1 / 0.

    On Paillier a label a ciphertext and no rounding but that of labels and projection to the plan's scales: integers
    equal to the reference. On CKKS all labels in one ciphertext and log2(slots) rotations a weight; Galois keys.
    """

    profile: LabelsProfile
    projection: FloatArray
    constant: FloatArray
    name: str
    reveals: str = "weights, to the owner of the labels"

    def prepare(self, y: Samples) -> FloatArray:
        """At the owner of the labels: check and scale a column of shape (samples, 1)."""
        return self.profile.prepare(y)

    def forward(self, ev: Evaluator, y: CipherTensor) -> CipherTensor:
        """At the trainer: the encrypted weights, shape (1, features + 1). Price 1 / 0."""
        if y.shape[0] != len(self.projection):
            raise ShapeMismatch(f"{y.shape[0]} labels for {len(self.projection)} rows: encrypt one a row, in order")
        return ev.add(ev.sum_samples(y, self.projection), self.constant)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """The weights, shape (features + 1,)."""
        return self.profile.head(scores)


def labels_only(X: Samples, target: Column, alpha: float = 0.0, kind: Kind = "linear") -> LabelsModel:
    """The model that fits encrypted labels to the rows X of shape (samples, features), known in the clear.

    target  the published range of the labels; of "logistic" it is [0, 1]
    alpha   the penalty of the weights, not of the intercept: Ridge's alpha, or 1 / C of LogisticRegression
    kind    "linear", or "logistic": the loss to second order, whose sigma is off by at most |z|**3 / 48

    IllPosed if the columns depend on each other and alpha is 0; OutOfRange for other labels than 0 and 1 in
    "logistic", or a bad alpha.
    """
    names = tuple(map(str, X.columns)) if isinstance(X, pd.DataFrame) else None
    array = Schema.unknown(np.asarray(X).shape[-1], np.finfo(float).max / 2, names).to_array(X)
    names = names or tuple(f"x{i}" for i in range(array.shape[1]))
    if not 0 <= alpha < np.inf:
        raise OutOfRange(f"alpha={alpha}: a penalty is a finite number from 0 up")
    if kind == "logistic" and (target.low, target.high) != (0, 1):
        raise OutOfRange(f"labels in [{target.low}, {target.high}]: logistic regression takes 0 and 1")
    # sum (1/2 + z/4 - y) x + alpha w = 0 is ridge regression of 4 (y - 1/2) with the penalty 4 alpha.
    times = 4.0 if kind == "logistic" else 1.0
    projection = times * _projection(array, times * alpha)
    profile = LabelsProfile.of(
        "classification" if kind == "logistic" else "regression", Schema((target,)), projection.shape[1],
        names=names, alpha=alpha,
    )  # fmt: skip
    # A constant label is fitted by the intercept alone, so the middle of the range needs no ciphertext.
    constant = np.append(np.zeros(array.shape[1]), 0.0 if kind == "logistic" else profile.centre[0])
    return LabelsModel(profile, projection * profile.half[0], constant, f"{kind} regression of encrypted labels")


def _projection(X: FloatArray, alpha: float) -> FloatArray:
    """P' of shape (samples, features + 1): labels to coefficients and intercept, the latter without penalty."""
    samples, features = X.shape
    mean = X.mean(axis=0)
    spread = np.sqrt(((X - mean) ** 2).mean(axis=0))
    if not (spread > 0).all():
        raise IllPosed(f"column {int(np.flatnonzero(spread == 0)[0])} is constant: leave it out")
    scaled = (X - mean) / spread
    stacked = np.vstack([scaled, np.sqrt(alpha) * np.diag(1 / spread)])
    if np.linalg.matrix_rank(stacked) < features:
        raise IllPosed("the columns depend on each other: leave one out, or take alpha > 0")
    coef = np.linalg.pinv(stacked)[:, :samples].T / spread
    return np.column_stack([coef, 1 / samples - coef @ mean])
