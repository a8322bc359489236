"""Multilayer perceptrons: affine maps with activations between them, written once for every scheme and policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits.activation import IDENTITY, Activated, Activation, layer, settled
from hepipe.errors import UnsupportedModel
from hepipe.models.profile import ClassificationProfile, Profile
from hepipe.models.schema import Schema
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples

HEADROOM = 1.05
"""A polynomial's domain reaches this much past the largest pre-activation of the training rows."""


@dataclass(frozen=True, eq=False)
class Layer:
    """activation(x @ weights + intercept).

    weights    (inputs, outputs)
    intercept  (outputs,)
    recorded   the largest pre-activation of the training rows; None where no rows were given
    bound      the largest that any input inside the published ranges can cause: guaranteed, since the client
               encrypts no other
    """

    weights: FloatArray
    intercept: FloatArray
    activation: Activation = IDENTITY
    recorded: float | None = None
    bound: float = np.inf

    def pre_activations(self, x: FloatArray) -> FloatArray:
        """x @ weights + intercept in the clear."""
        return x @ self.weights + self.intercept

    def limits(self, x: FloatArray) -> FloatArray:
        """Per output a bound on |pre-activation|, from one on |x| per input."""
        return x @ np.abs(self.weights) + np.abs(self.intercept)


@dataclass(frozen=True, eq=False)
class MlpModel:
    """A network for *prepared* inputs. Price, under policy "polynomial": circuits.activation.layer for each layer.

    A hidden layer with a square costs 2 / 1, with a cubic 3 / 2. Reveals the scores to the client; under policy
    "client" it sees the pre-activations of every layer that is no polynomial as well, which give that layer's weights
    away. The server learns nothing.
    """

    profile: Profile
    layers: tuple[Layer, ...]
    reveals: str = "scores"

    @property
    def name(self) -> str:
        """The widths and the activations: "15-16-1 network, square"."""
        widths = [len(self.layers[0].weights), *(len(one.intercept) for one in self.layers)]
        activations = dict.fromkeys(one.activation.name for one in self.layers if one.activation is not IDENTITY)
        return f"{'-'.join(map(str, widths))} network, {' and '.join(activations) or 'linear'}"

    def prepare(self, X: Samples) -> FloatArray:
        """At the client: see Profile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: the scores, shape (samples, outputs)."""
        state = Activated(x)
        for one in self.layers:
            state = layer(ev, state, one.weights, one.intercept, one.activation)
        return settled(ev, state)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: see Profile.head."""
        return self.profile.head(scores)

    def exact(self, X: Samples) -> FloatArray:
        """The scores of the network as it was trained, in float64: what the polynomials approximate."""
        x = self.prepare(X)
        for one in self.layers:
            x = one.activation.exact(one.pre_activations(x))
        return x

    def rescaled(self, factor: npt.ArrayLike, offset: npt.ArrayLike = 0.0) -> MlpModel:
        """The same network with outputs factor * y + offset, for one trained on a standardised target: no cost."""
        *hidden, last = self.layers
        if last.activation is not IDENTITY:
            raise UnsupportedModel(f"outputs after {last.activation.name} are not rescaled: end in an affine map")
        scale, shift = np.asarray(factor, dtype=np.float64), np.asarray(offset, dtype=np.float64)
        scaled = replace(last, weights=last.weights * scale, intercept=last.intercept * scale + shift)
        return replace(self, layers=(*hidden, scaled))


def mlp(
    profile: Profile,
    maps: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, Activation]],
    X_train: Samples | None = None,
    degree: int | None = None,
    slope: npt.ArrayLike = 1.0,
    offset: npt.ArrayLike = 0.0,
) -> MlpModel:
    """A network from (weights (inputs, outputs), intercept, activation) of each layer.

    slope, offset  what the first layer expects is slope * raw + offset: scaling of the inputs, folded into its weights
    X_train        raw training rows: they record the range of the pre-activations
    degree         of the polynomials that stand for ReLU, sigmoid and tanh under policy "polynomial", on the recorded
                   range (or, without X_train, on the guaranteed one). An input that leaves the recorded range gets a
                   wrong score, but never an overflow: the plan reserves room for all inputs in the published ranges
    """
    layers = _on_prepared(_merged(maps), profile, np.asarray(slope, float), np.asarray(offset, float))
    seen = None if X_train is None else profile.prepare(X_train)
    limits, done = profile.input_bound, []
    for one in layers:
        limits = one.limits(limits)
        z = None if seen is None else one.pre_activations(seen)
        recorded = None if z is None else float(np.abs(z).max())
        bounded = replace(one, bound=float(limits.max()), recorded=recorded)
        done.append(_placed(bounded, degree))
        limits = one.activation.bound(limits)
        seen = None if z is None else one.activation.exact(z)
    return MlpModel(profile, tuple(done))


def _placed(one: Layer, degree: int | None) -> Layer:
    """The layer with its polynomial on the range it will see: the recorded one, else the guaranteed one."""
    domain = one.bound if one.recorded is None else HEADROOM * one.recorded
    return replace(one, activation=one.activation.on(domain, degree)) if domain > 0 else one


def _merged(maps: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, Activation]]) -> list[Layer]:
    """One layer for each activation: affine maps with nothing between them are one map."""
    merged: list[Layer] = []
    for weights, intercept, activation in maps:
        w, b = np.asarray(weights, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
        if merged and merged[-1].activation is IDENTITY:
            before = merged.pop()
            w, b = before.weights @ w, before.intercept @ w + b
        merged.append(Layer(w, b, activation))
    if not all(np.isfinite(one.weights).all() and np.isfinite(one.intercept).all() for one in merged):
        raise UnsupportedModel("a weight is NaN or infinite: the training diverged")
    return merged


def _on_prepared(layers: list[Layer], profile: Profile, slope: FloatArray, offset: FloatArray) -> list[Layer]:
    """The first layer for prepared inputs u, where raw = centre + half u."""
    first = layers[0]
    if len(first.weights) != len(profile.centre):
        raise UnsupportedModel(f"the network takes {len(first.weights)} inputs, the schema has {len(profile.centre)}")
    intercept = first.pre_activations(slope * profile.centre + offset)
    weights = first.weights * np.broadcast_to(slope * profile.half, len(first.weights))[:, None]
    return [replace(first, weights=weights, intercept=intercept), *layers[1:]]


def network_profile(
    schema: Schema, outputs: int, classes: Sequence[Any] | None, fill: FloatArray | None = None
) -> Profile:
    """Regression without ``classes``; with them one output for two, or one for each."""
    if classes is None:
        return Profile.of("regression", schema, outputs, fill)
    if len(classes) < 2 or outputs not in ({1, 2} if len(classes) == 2 else {len(classes)}):
        raise UnsupportedModel(f"{outputs} outputs, {len(classes)} classes: give one a class, or one for two classes")
    return ClassificationProfile.of("classification", schema, outputs, fill, classes=tuple(classes))
