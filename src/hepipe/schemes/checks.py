"""What operands must be before any arithmetic: finite, of the right shape, with room and keys for the operation."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange, ShapeMismatch, Unsupported
from hepipe.schemes.base import CipherTensor, Feature, FloatArray, Plain, Threshold
from hepipe.schemes.parameters import CkksParameters, Parameters


def check_room(parameters: Parameters, bound: FloatArray, level: int, log_scale: float, operation: str) -> None:
    """OutOfRange unless values up to ``bound`` at ``log_scale`` fit a ciphertext at ``level``."""
    bits = log2_bound(bound)
    # However small the values, SEAL takes no scale that the modulus does not hold.
    need = log_scale + (max(bits, 0.0) if parameters.name == "ckks" else bits)
    room = parameters.capacity_bits(level)
    if not need < room:
        largest = float(np.max(bound, initial=0.0))
        raise OutOfRange(
            f"{operation}: |value| up to {largest:.3g} at log_scale {log_scale:.1f} needs {need:.1f} bits, "
            f"the ciphertext holds {room:.1f} at level {level}: lower the input bound, or plan with it"
        )


def log2_bound(bound: FloatArray) -> float:
    """log2 of the largest bound; 0 where all values are zero."""
    largest = float(np.max(bound, initial=0.0))
    return math.log2(largest) if largest > 0 else 0.0


def check_rotation(parameters: Parameters, samples: int, k: int) -> int:
    """The step k modulo the samples; ShapeMismatch or Unsupported where these parameters cannot rotate so."""
    if parameters.name == "paillier":
        raise Unsupported("lanes of a Paillier plaintext cannot be moved: rotate the rows before they are encrypted")
    step = operator.index(k) % samples
    if not isinstance(parameters, CkksParameters):
        return step
    if samples != parameters.slots:
        raise ShapeMismatch(
            f"{samples} samples in {parameters.slots} slots do not rotate: pad to slots, {parameters.slots} rows"
        )
    if step and step not in parameters.rotations:
        raise Unsupported(
            f"no Galois key rotates by {k}: the steps at hand, modulo {samples}, are {list(parameters.rotations)}; "
            "give CkksParameters the rotations that the circuit needs"
        )
    return step


def row_features(parameters: Parameters) -> Feature:
    """What can be done with samples: on CKKS where there are Galois keys for it, on Paillier with one lane."""
    if not isinstance(parameters, CkksParameters):
        rotates, sums = parameters.name == "clear", parameters.name == "clear" or parameters.slots == 1
    else:
        rotates, sums = bool(parameters.rotations), parameters.sums_samples
    return (Feature.ROTATE if rotates else Feature(0)) | (Feature.SUM_SAMPLES if sums else Feature(0))


def check_fresh(parameters: Parameters, bound: FloatArray) -> None:
    """OutOfRange unless a fresh ciphertext holds values up to ``bound``."""
    check_room(parameters, bound, parameters.depth, parameters.log_scale, "encrypt")


def check_values(values: npt.ArrayLike, bound: Plain | None, default: float = 2.0**16) -> tuple[FloatArray, FloatArray]:
    """Values as float64 (samples, features) and their bound per feature; OutOfRange on NaN, infinity or |v| > bound."""
    array = check_numbers(values)
    if array.ndim != 2 or 0 in array.shape:
        raise ShapeMismatch(f"got shape {array.shape}: encrypt takes (samples, features), at least one of each")
    limits = _limits(default if bound is None else bound, array.shape[1])
    over = np.argwhere(np.abs(array) > limits)
    if len(over):
        row, column = (int(i) for i in over[0])
        raise OutOfRange(f"row {row}, feature {column}: |{array[row, column]:g}| is over the bound {limits[column]:g}")
    return array, limits


def _limits(bound: Plain, features: int) -> FloatArray:
    limits = check_numbers(bound)
    if limits.shape not in {(), (1,), (features,)}:
        raise ShapeMismatch(f"a bound of shape {limits.shape}: give one, or one for each of {features} features")
    if (limits < 0).any():
        raise OutOfRange(f"the bound on |value| is {limits.min():g}: give a number that is not negative")
    return np.broadcast_to(limits, (features,)).copy()


def check_numbers(values: npt.ArrayLike) -> FloatArray:
    """Values as float64; ShapeMismatch for other dtypes than real numbers, OutOfRange for NaN and infinity."""
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, (float, int, np.number, np.bool_)) for value in array.flat):
        array = np.array(array.tolist()).reshape(array.shape)  # a DataFrame of several numeric dtypes
    if array.dtype.kind not in "biuf":
        raise ShapeMismatch(f"dtype {array.dtype} cannot be encrypted or multiplied: pass integers, floats or booleans")
    if array.dtype.kind in "iu" and array.size and max(abs(int(array.max())), abs(int(array.min()))) > 2**53:
        raise OutOfRange("an integer over 2**53 is not exact as a float64: scale it down, or split it")
    return _finite(array.astype(np.float64))


def check_choices(costs: CipherTensor, values: npt.ArrayLike, groups: int) -> tuple[FloatArray, FloatArray]:
    """The values of ``select``, one finite number a column, and the bound of a sum of one a group, shape (1,)."""
    array = _finite(np.asarray(values, dtype=np.float64))
    if array.shape != (costs.shape[1],):
        raise ShapeMismatch(f"values of shape {array.shape} for {costs.shape[1]} columns: give one a column")
    if groups < 1 or len(array) % groups:
        raise ShapeMismatch(f"{len(array)} columns do not make {groups} groups of one size")
    return array, np.abs(array).reshape(-1, groups).max(axis=0).sum(keepdims=True)


def check_thresholds(bits: CipherTensor, thresholds: Sequence[Threshold]) -> list[Threshold]:
    """The comparisons of ``at_most``: at least one, each of at least one column of ``bits`` with a whole number."""
    checked = [Threshold([int(column) for column in t.columns], int(t.value)) for t in thresholds]
    if not checked or not all(t.columns and all(0 <= c < bits.shape[1] for c in t.columns) for t in checked):
        raise ShapeMismatch(f"thresholds that name no column of {bits.shape[1]}: give each the columns of its bits")
    if any(t.value != given.value for t, given in zip(checked, thresholds, strict=True)):
        raise OutOfRange("whole numbers are compared with whole thresholds: x <= t is x <= floor(t)")
    return checked


def check_gap(x: CipherTensor, gap: Plain) -> FloatArray:
    """The gaps of ``negative``, one a feature; OutOfRange unless they are positive."""
    gaps = _limits(gap, x.shape[1])
    if (gaps == 0).any():
        raise OutOfRange("a gap of 0 promises nothing: give the least |x| that must be told from zero")
    return gaps


def _finite(array: FloatArray) -> FloatArray:
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise OutOfRange(f"value at {where} is {array[where]}: only finite numbers can be encrypted or multiplied")
    return array


def check_weights(weights: npt.ArrayLike, samples: int) -> FloatArray:
    """The weights of ``sum_samples``: finite, shape (samples, sums)."""
    array = check_numbers(weights)
    if array.ndim != 2 or array.shape[0] != samples or not array.shape[1]:
        raise ShapeMismatch(f"weights of shape {array.shape} for {samples} samples: use (samples, k)")
    return array


def check_factors(p: Plain, features: int) -> FloatArray:
    """The factors of ``mul_plain``: finite, one a feature."""
    factors = check_numbers(p)
    if factors.shape not in {(), (1,), (features,)}:
        raise ShapeMismatch(
            f"mul_plain takes a scalar or one factor per feature ({features}), got shape {factors.shape}: "
            "one ciphertext carries many samples, so a factor per sample is not possible"
        )
    return np.broadcast_to(factors, (features,))
