"""Models from torch: nn.Sequential of Linear and activations; Square and Cubic are activations trained as such.

torch is an optional extra (``pip install hepipe[torch]``) and imported only when something here is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits.activation import IDENTITY, SQUARE, Activation, on_request, power_series
from hepipe.circuits.functions import RELU, SIGMOID, TANH
from hepipe.errors import UnsupportedModel
from hepipe.models.mlp import MlpModel, mlp, network_profile
from hepipe.models.schema import Schema, is_frame
from hepipe.schemes.base import FloatArray, Samples

SILU_SERIES = (0.0, 0.5, 0.25, 0.0)
"""z * sigmoid(z) to third order at 0: where a trainable Cubic starts."""
_FUNCTIONS = {"ReLU": on_request(RELU), "Sigmoid": on_request(SIGMOID), "Tanh": on_request(TANH), "Square": SQUARE}
_PASSED = ("Identity", "Dropout", "Flatten")
_READ_BY_THE_CLIENT = ("Sigmoid", "Softmax", "LogSoftmax")
"""Monotone ends of a classifier: the label needs none of them."""
_KNOWN = ("Linear", *_FUNCTIONS, "Cubic", *_PASSED)

Map = tuple[FloatArray, FloatArray, Activation]


def from_torch(
    module: Any,
    schema: Schema | None = None,
    X_train: Samples | None = None,
    *,
    classes: Sequence[Any] | None = None,
    fill: npt.ArrayLike | None = None,
    slope: npt.ArrayLike = 1.0,
    offset: npt.ArrayLike = 0.0,
    degree: int | None = None,
) -> MlpModel:
    """The model of an nn.Sequential of Linear with Square, Cubic, ReLU, Sigmoid or Tanh between them.

    schema         the published range of each raw column; without it only |x| <= 2**16 is promised
    X_train        raw training rows, which record the range of the pre-activations
    classes        of a classifier, in the order of its outputs; of two, one output may be the logit of the second.
                   Without it the network is a regression
    fill           per column, what replaces a missing value (published)
    slope, offset  the module was trained on slope * raw + offset
    degree         of the polynomials for ReLU, Sigmoid and Tanh under policy "polynomial"

    Dropout and Identity are passed over. The weights are copied: later training does not change the model.
    UnsupportedModel for any other layer.
    """
    maps = _maps(module, classes is not None)
    first, last = maps[0][0], maps[-1][0]
    if schema is None:
        names = list(X_train.columns) if is_frame(X_train) else None
        schema = Schema.unknown(len(first), names=names)
    filled = None if fill is None else np.asarray(fill, dtype=np.float64)
    profile = network_profile(schema, last.shape[1], classes, filled)
    return mlp(profile, maps, X_train, degree, slope, offset)


def _maps(module: Any, classifier: bool) -> list[Map]:
    parts = [part for part in _parts(module) if type(part).__name__ not in _PASSED]
    if classifier and parts and type(parts[-1]).__name__ in _READ_BY_THE_CLIENT:
        parts.pop()
    maps: list[Map] = []
    for place, part in enumerate(parts):
        kind = type(part).__name__
        if kind == "Linear":
            maps.append((*_affine(part), IDENTITY))
        elif kind in _FUNCTIONS or kind == "Cubic":
            maps.append(_activated(maps, kind, part, place))
        else:
            known = ", ".join(_KNOWN)
            raise UnsupportedModel(f"layer {place}, {kind}, cannot be evaluated on encrypted data: use {known}")
    if not maps:
        raise UnsupportedModel("a network needs at least one Linear")
    return maps


def _parts(module: Any) -> list[Any]:
    """The layers in order, nested Sequentials opened; a bare Linear is a network of one."""
    if type(module).__name__ == "Linear":
        return [module]
    if type(module).__name__ != "Sequential":
        raise UnsupportedModel(f"{type(module).__name__} is no nn.Sequential: its forward cannot be read from outside")
    nested = [_parts(part) if type(part).__name__ == "Sequential" else [part] for part in module]
    return [part for parts in nested for part in parts]


def _affine(part: Any) -> tuple[FloatArray, FloatArray]:
    weights = _array(part.weight).T
    return weights, np.zeros(weights.shape[1]) if part.bias is None else _array(part.bias)


def _activated(maps: list[Map], kind: str, part: Any, place: int) -> Map:
    if not maps or maps[-1][2] is not IDENTITY:
        raise UnsupportedModel(f"layer {place}, {kind}, does not follow a Linear")
    weights, intercept, _ = maps.pop()
    if kind == "Cubic":
        return weights, intercept, power_series("cubic", tuple(_array(part.coefficients).tolist()))
    return weights, intercept, _FUNCTIONS[kind]


def _array(tensor: Any) -> FloatArray:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float64)


@lru_cache(maxsize=1)
def _modules() -> dict[str, Any]:
    """The activations as torch modules, under the names by which torch saves and loads them."""
    torch: Any = import_module("torch")
    base: Any = torch.nn.Module

    class Square(base):  # type: ignore[misc]
        """z**2: one level, or one masked round; reveals nothing."""

        __qualname__ = "Square"

        def forward(self, z: Any) -> Any:
            """The square of each value."""
            return z * z

    class Cubic(base):  # type: ignore[misc]
        """c0 + c1 z + c2 z**2 + c3 z**3, trained with the network or fixed: two levels, or two masked rounds."""

        __qualname__ = "Cubic"

        def __init__(self, coefficients: Sequence[float] = SILU_SERIES, trainable: bool = True) -> None:
            super().__init__()
            if len(coefficients) != 4:
                raise UnsupportedModel(f"{len(coefficients)} coefficients: a cubic has 4, that of z**0 first")
            values = torch.tensor([float(c) for c in coefficients])
            self.coefficients = torch.nn.Parameter(values, requires_grad=trainable)

        def forward(self, z: Any) -> Any:
            """The cubic of each value."""
            c0, c1, c2, c3 = self.coefficients
            return c0 + z * (c1 + z * (c2 + z * c3))

    return {"Square": Square, "Cubic": Cubic}


def __getattr__(name: str) -> Any:
    if name in ("Square", "Cubic"):
        return _modules()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
