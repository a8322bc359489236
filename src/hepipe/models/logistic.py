"""Logistic regression whose probability is computed under encryption, for whoever must go on computing with it.

For a label or a probability at the client, use the logits: the sigmoid costs nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits import polynomial
from hepipe.circuits.functions import SIGMOID, Approximation
from hepipe.circuits.linear import affine
from hepipe.errors import UnsupportedModel
from hepipe.models.linear import LinearModel
from hepipe.models.profile import ClassificationProfile
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters

HEADROOM = 1.05
"""The domain reaches this much past the largest training score."""


@dataclass(frozen=True, eq=False)
class SigmoidModel:
    """probability = polynomial(score / domain). Levels 1 + depth, rounds depth on an additive scheme.

    Reveals the probabilities to the client, which determine the scores; the server learns nothing.
    """

    logits: LinearModel
    sigmoid: Approximation
    profile: ClassificationProfile
    reveals: str = "probabilities"

    @property
    def name(self) -> str:
        """The model with the degree of its sigmoid."""
        return f"{self.logits.name}, sigmoid of degree {self.sigmoid.degree}"

    def prepare(self, X: Samples) -> FloatArray:
        """At the client: see Profile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: the division by the domain is folded into the weights. Price 1 + depth / depth."""
        domain = self.sigmoid.domain
        u = affine(ev, x, self.logits.weights / domain, self.logits.intercept / domain)
        return polynomial.evaluate(ev, u, self.sigmoid)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: probabilities to labels."""
        return self.profile.head(scores)

    def exact(self, X: Samples) -> FloatArray:
        """The probabilities with the exact sigmoid, shape (samples, outputs): what the polynomial approximates."""
        return SIGMOID.exact(clear_scores(self.logits, X))


def with_sigmoid(model: LinearModel, X_train: Samples, degree: int = 3) -> SigmoidModel:
    """``model`` with its probability under encryption; the domain is chosen from the scores of ``X_train``.

    An input whose score lies beyond it gets a wrong probability; the client refuses those that show it.
    """
    if not isinstance(model.profile, ClassificationProfile) or model.profile.outputs != 1:
        raise UnsupportedModel("a sigmoid under encryption takes a binary logistic regression")
    domain = HEADROOM * float(np.abs(clear_scores(model, X_train)).max())
    sigmoid = SIGMOID.polynomial(degree, domain)
    limits = (-sigmoid.max_error - 1e-3, 1 + sigmoid.max_error + 1e-3)
    return SigmoidModel(model, sigmoid, replace(model.profile, threshold=0.5, limits=limits))


def clear_scores(model: Any, X: Samples, policy: str = "polynomial", *, selects: bool = False) -> FloatArray:
    """The scores in the clear: ``forward`` on the clear evaluator, float64 of shape (samples, outputs).

    selects  by the circuit of a scheme that selects, as Paillier does, where a model has another for those
    """
    scheme = ClearScheme(ClearParameters(depth=64))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.prepare(X), model.profile.input_bound)
    return scheme.decryptor(keys.secret).decrypt(model.forward(scheme.evaluator(keys, policy, selects=selects), x))
