"""Models as JSON and arrays, and back: classes of an explicit list, each field checked against its declared type.

A dataclass becomes {"class": name, field: value ...}, a tuple a list, an array a reference into an ``Arrays``. Nothing
of a file is executed, and no class can be named that is not listed here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from typing import Any, Protocol, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from hepipe.circuits.activation import IDENTITY, Activation, on_request, power_series
from hepipe.circuits.functions import ON_OFFER, Approximation
from hepipe.circuits.selection import Trees
from hepipe.errors import HepipeError, MalformedBundle, UnsupportedModel
from hepipe.models.kmeans import ClusterProfile, KMeansModel
from hepipe.models.linear import LinearModel
from hepipe.models.logistic import SigmoidModel
from hepipe.models.mlp import Layer, MlpModel
from hepipe.models.polynomial_regression import PolynomialModel, PolynomialProfile, Products
from hepipe.models.profile import ClassificationProfile, Profile
from hepipe.models.schema import Column, Schema
from hepipe.models.step_profile import QuantizedProfile, Steps
from hepipe.models.threshold_tree import ThresholdTreeModel
from hepipe.models.tree import DecisionTreeModel
from hepipe.models.tree_profile import BinProfile
from hepipe.schemes.base import FloatArray
from hepipe.schemes.frames import MAX_FEATURES

MODELS = (LinearModel, SigmoidModel, PolynomialModel, MlpModel, DecisionTreeModel, ThresholdTreeModel, KMeansModel)
"""What a bundle may hold."""
PROFILES = (Profile, ClassificationProfile, PolynomialProfile, BinProfile, QuantizedProfile, ClusterProfile)
"""The published halves."""
_PARTS = (Approximation, Column, Layer, Products, Schema, Steps, Trees)


@dataclasses.dataclass(frozen=True)
class _Activation:
    """An activation as it is written: a series, or the name of a function on offer, and its polynomial."""

    name: str
    series: tuple[float, ...]
    polynomial: Approximation | None


_BY_NAME: dict[str, Any] = {kind.__name__: kind for kind in (*MODELS, *PROFILES, *_PARTS, _Activation)}
_WRITTEN: dict[Any, Any] = {Activation: _Activation}
_INFINITIES = {"inf": math.inf, "-inf": -math.inf}


def digest_of(fields: dict[str, Any]) -> str:
    """The SHA-256 of an object of JSON, written with its names in order and no space between."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_object(text: bytes | str) -> dict[str, Any]:
    """The object of a JSON text; ValueError for anything else, and for a name that stands twice in one object.

    Of two values under one name readers keep the first or the last, so what one of them checked another may not use.
    """
    try:
        fields = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(fields, dict):
        raise ValueError("no object")
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name that stands twice in one object")
    return fields


class Arrays(Protocol):
    """Where the arrays of a model are kept."""

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Keep an array; what stands for it in JSON."""
        ...

    def get(self, reference: Any) -> npt.NDArray[Any]:
        """The array again, float64 or int64; MalformedBundle where there is none."""
        ...


class Inline:
    """Arrays as nested lists, for the published half of a model."""

    def put(self, array: npt.NDArray[Any]) -> Any:
        """The array itself."""
        return array.tolist()

    def get(self, reference: Any) -> npt.NDArray[Any]:
        """The array again; an empty list is an empty array of one dimension."""
        try:
            array = np.array(reference)
        except (ValueError, TypeError, OverflowError) as error:
            raise MalformedBundle(f"an array that is none: {error}") from error
        if array.size == 0:
            return array.astype(np.float64)
        if array.dtype not in (np.float64, np.int64):
            raise MalformedBundle(f"an array of {array.dtype}, expected numbers")
        return array


def encode(value: Any, arrays: Arrays) -> Any:
    """What stands for ``value`` in JSON; UnsupportedModel for a class that is not listed, or a number not finite."""
    if isinstance(value, Activation):
        value = _Activation(value.name, value.series, value.polynomial)
    if type(value).__name__ in _BY_NAME and isinstance(value, _BY_NAME[type(value).__name__]):
        fields = dataclasses.fields(value)
        return {"class": type(value).__name__} | {f.name: encode(getattr(value, f.name), arrays) for f in fields}
    if isinstance(value, np.ndarray):
        if value.dtype not in (np.float64, np.int64) or not np.isfinite(value).all():
            raise UnsupportedModel(f"an array of {value.dtype} with values that are not all finite cannot be saved")
        return {"array": arrays.put(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return [encode(each, arrays) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": _infinity(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UnsupportedModel(f"{type(value).__name__} cannot be saved: bundles hold {', '.join(_BY_NAME)}")


def _infinity(value: float) -> str:
    if math.isnan(value):
        raise UnsupportedModel("a NaN in a model cannot be saved: the training diverged")
    return "inf" if value > 0 else "-inf"


def decode(hint: Any, node: Any, arrays: Arrays) -> Any:
    """The value of type ``hint`` that ``node`` stands for; MalformedBundle for anything else."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _WRITTEN:
        return _activation(decode(_WRITTEN[hint], node, arrays))
    if dataclasses.is_dataclass(hint):
        return _object(hint, node, arrays)
    if origin is np.ndarray:
        return _array(node, get_args(arguments[1])[0], arrays)
    if origin is tuple:
        return _tuple(arguments, node, arrays)
    if origin in (Union, types.UnionType):
        (kind,) = [each for each in arguments if each is not type(None)]
        return None if node is None else decode(kind, node, arrays)
    return _scalar(hint, node)


def check_profile(profile: Profile) -> FloatArray:
    """A row in the middle of the published ranges, prepared; MalformedBundle if the profile does not fit together."""
    try:
        with np.errstate(all="ignore"):  # a number that is not finite is refused below
            prepared = profile.prepare((profile.schema.low / 2 + profile.schema.high / 2)[None, :])
            bound = profile.input_bound
        if prepared.shape != bound[None].shape or not 1 <= profile.outputs <= MAX_FEATURES:
            raise MalformedBundle(f"prepared inputs of shape {prepared.shape}, {profile.outputs} outputs")
        if not (np.isfinite(prepared).all() and np.isfinite(bound).all()):
            raise MalformedBundle("inputs within their ranges are prepared to numbers that are not finite")
        if profile.head(np.zeros((1, profile.outputs))).shape[0] != 1:
            raise MalformedBundle("a head that does not keep rows apart")
    except (HepipeError, ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise MalformedBundle(f"the profile does not fit together: {error}") from error
    return prepared


def _object(hint: Any, node: Any, arrays: Arrays) -> Any:
    name = node.get("class") if isinstance(node, dict) else None
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None or not issubclass(kind, hint):
        raise MalformedBundle(f"a {hint.__name__} was expected, found {_shown(node)}")
    hints = get_type_hints(kind)
    if set(node) != {"class", *hints}:
        raise MalformedBundle(f"{kind.__name__} has the fields {sorted(hints)}, found {sorted(set(node) - {'class'})}")
    values = {name: decode(each, node[name], arrays) for name, each in hints.items()}
    try:
        return kind(**values)
    except (HepipeError, ValueError, TypeError) as error:
        raise MalformedBundle(f"{kind.__name__}: {error}") from error


def _activation(written: _Activation) -> Activation:
    if written == _Activation(IDENTITY.name, IDENTITY.series, IDENTITY.polynomial):
        return IDENTITY  # networks recognise it by being this very object
    if written.series:
        return dataclasses.replace(power_series(written.name, written.series), polynomial=written.polynomial)
    if written.name not in ON_OFFER:
        raise MalformedBundle(f"no activation is called {written.name!r}: known are {sorted(ON_OFFER)}")
    return dataclasses.replace(on_request(ON_OFFER[written.name]), polynomial=written.polynomial)


def _array(node: Any, dtype: Any, arrays: Arrays) -> npt.NDArray[Any]:
    if not isinstance(node, dict) or set(node) != {"array"}:
        raise MalformedBundle(f"an array was expected, found {_shown(node)}")
    array = arrays.get(node["array"])
    if array.size and not (np.can_cast(array.dtype, dtype, "safe") or dtype == np.float64):
        raise MalformedBundle(f"an array of {array.dtype} where {np.dtype(dtype)} belongs")
    if not np.isfinite(array).all():
        raise MalformedBundle("an array with a number that is not finite")
    return array.astype(dtype)


def _tuple(arguments: tuple[Any, ...], node: Any, arrays: Arrays) -> tuple[Any, ...]:
    if not isinstance(node, list):
        raise MalformedBundle(f"a list was expected, found {_shown(node)}")
    kinds = [arguments[0]] * len(node) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(node):
        raise MalformedBundle(f"a list of {len(kinds)} was expected, found {len(node)}")
    return tuple(decode(kind, each, arrays) for kind, each in zip(kinds, node, strict=True))


def _scalar(hint: Any, node: Any) -> Any:
    if hint is float and isinstance(node, dict) and set(node) == {"float"} and node["float"] in list(_INFINITIES):
        return _INFINITIES[node["float"]]
    allowed = {float: (float, int), Any: (str, int, float, bool)}.get(hint, (hint,))
    if type(node) not in allowed or (isinstance(node, float) and not math.isfinite(node)):
        raise MalformedBundle(f"a {getattr(hint, '__name__', 'scalar')} was expected, found {_shown(node)}")
    try:
        return float(node) if hint is float else node
    except OverflowError as error:
        raise MalformedBundle("a number beyond the range of a double") from error


def _shown(node: Any) -> str:
    return repr(node)[:60]
