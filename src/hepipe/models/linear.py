"""Linear models: scores are one weighted sum a output. Levels 1, rounds 0, on every scheme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits.linear import affine
from hepipe.models.profile import ClassificationProfile, Profile
from hepipe.models.schema import Schema
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples


@dataclass(frozen=True, eq=False)
class LinearModel:
    """scores = prepared @ weights + intercept, with weights of shape (features, outputs) for *prepared* inputs.

    Reveals the scores to the client: d + 1 of them are d + 1 equations in the weights, so a linear model is hidden
    from a client only while it asks less (Tramer et al., USENIX Security 2016). The server learns nothing.
    """

    profile: Profile
    weights: FloatArray
    intercept: FloatArray
    name: str = "linear"
    reveals: str = "scores"

    @classmethod
    def of(cls, profile: Profile, raw_weights: npt.ArrayLike, raw_intercept: npt.ArrayLike, **more: Any) -> LinearModel:
        """From weights (features, outputs) and intercept (outputs,) for raw inputs."""
        raw = np.asarray(raw_weights, dtype=np.float64)
        intercept = np.broadcast_to(np.asarray(raw_intercept, dtype=np.float64), (raw.shape[1],))
        return cls(profile, raw * profile.half[:, None], intercept + profile.centre @ raw, **more)

    def prepare(self, X: Samples) -> FloatArray:
        """At the client: see Profile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: the scores. Price 1 / 0."""
        return affine(ev, x, self.weights, self.intercept)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: see Profile.head."""
        return self.profile.head(scores)


def linear_regression(
    coef: npt.ArrayLike, intercept: npt.ArrayLike, schema: Schema, fill: FloatArray | None = None
) -> LinearModel:
    """Linear regression from coefficients for raw inputs, shape (features,) or (outputs, features)."""
    weights = np.atleast_2d(np.asarray(coef, dtype=np.float64)).T
    return LinearModel.of(
        Profile.of("regression", schema, weights.shape[1], fill), weights, intercept, name="linear regression"
    )


def logit_model(
    coef: npt.ArrayLike,
    intercept: npt.ArrayLike,
    classes: tuple[Any, ...],
    schema: Schema,
    fill: FloatArray | None = None,
) -> LinearModel:
    """Logistic regression that returns scores (logits); the label is their sign, or the largest, read by the client.

    The sigmoid is monotone, so the label needs none, and the client can apply it to the score at no cost.
    """
    weights = np.atleast_2d(np.asarray(coef, dtype=np.float64)).T
    profile = ClassificationProfile.of("classification", schema, weights.shape[1], fill, classes=classes)
    return LinearModel.of(profile, weights, intercept, name="logistic regression")
