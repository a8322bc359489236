"""Models and rows whose numbers are like no others, so that they are known where they are met."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

from hepipe.circuits.activation import IDENTITY, SQUARE
from hepipe.models.binner import Binner
from hepipe.models.importers import from_sklearn
from hepipe.models.linear import linear_regression
from hepipe.models.mlp import mlp
from hepipe.models.profile import Profile
from hepipe.models.quantizer import Quantizer
from served_models import FRAME, SCHEMA, TARGET

ROWS = pd.DataFrame(
    {
        "age": [41.737251, 58.264917, 23.918463],
        "healthy": [6.283917, 2.719364, 8.154739],
        "active": [3.914753, 7.365182, 1.628495],
    }
)
_RNG = np.random.default_rng(11)
_MAKERS = {
    "linear": lambda: linear_regression([0.1387421, 0.9173652, -0.5289143], 7.3148629, SCHEMA),
    "square": lambda: mlp(
        Profile.of("regression", SCHEMA, 1),
        [
            (_RNG.normal(size=(3, 2)) / 40, _RNG.normal(size=2), SQUARE),
            (_RNG.normal(size=(2, 1)), np.zeros(1), IDENTITY),
        ],
        FRAME,
    ),
    "tree": lambda: _tree(Binner(4)),
    "bits": lambda: _tree(Quantizer(4), comparison="bits"),
}
MODELS = tuple(_MAKERS)


@cache
def odd(name: str) -> Any:
    """The model of this name."""
    return _MAKERS[name]()


def schemes_of(name: str) -> tuple[str, ...]:
    """The schemes that it can be evaluated on."""
    return ("paillier",) if name == "bits" else ("paillier", "ckks")


CASES = [(name, scheme) for name in _MAKERS for scheme in schemes_of(name)]


def _tree(steps: Any, **more: Any) -> Any:
    fitted = make_pipeline(steps, DecisionTreeRegressor(max_depth=2, random_state=0)).fit(FRAME, TARGET)
    return from_sklearn(fitted, SCHEMA, **more)
