"""The bookkeeping every evaluator shares: key, shape, level, scale and bound are checked before any arithmetic.

Each scheme subclasses Ledger and supplies only the arithmetic. So a dry run counts exactly what a real run does, and
an operation that one scheme refuses is refused by all, with the same message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import KeyMismatch, ScaleMismatch, ShapeMismatch, Unsupported
from hepipe.schemes.base import CipherTensor, Feature, FloatArray, Plain, not_supported
from hepipe.schemes.checks import check_factors, check_numbers, check_room, check_rotation, check_weights
from hepipe.schemes.parameters import Parameters, spend

SCALE_TOLERANCE = 2.0**-36
"""Two log_scales closer than this are the same scale: the relative error of the value is below 2**-36."""


_NO_SUMS = {
    "ckks": "a sum over samples rotates by every power of two below the slots: give CkksParameters those rotations",
    "paillier": "samples share a ciphertext as lanes, which cannot be moved: plan with lanes=1, or sum at the client",
}


class Ledger:
    """Checks and bookkeeping; subclasses fulfil the ``_kernel`` methods, which see only valid operands."""

    parameters: Parameters
    key_id: str
    features = Feature.ADD | Feature.MUL_PLAIN
    policy = "polynomial"

    def add(self, x: CipherTensor, y: CipherTensor | Plain) -> CipherTensor:
        """x + y for a tensor or an array (scalar, per feature, or per sample and feature). Price 0 / 0."""
        return self._sum(x, y, 1)

    def sub(self, x: CipherTensor, y: CipherTensor | Plain) -> CipherTensor:
        """x - y, as ``add``. x - x is a valid encryption of zero. Price 0 / 0."""
        return self._sum(x, y, -1)

    def mul_plain(self, x: CipherTensor, p: Plain, log_scale: float | None = None) -> CipherTensor:
        """x * p for a scalar or one factor per feature, never one per sample. Price 1 / 0.

        ``log_scale`` asks for the scale of the result, so that it can be added to another term exactly.
        """
        self._own(x)
        factors = check_factors(p, x.shape[1])
        plain_bits, level, scale = self._plain_product(x, log_scale, "mul_plain")
        bound = x.bound * (np.abs(factors) + 2.0 ** -(plain_bits + 1))
        self._room(bound, x.level, x.log_scale + plain_bits, "mul_plain")
        return self._result(self._mul_plain(x, factors, plain_bits), x.shape, level, scale, bound)

    def matmul_plain(self, x: CipherTensor, w: npt.ArrayLike, log_scale: float | None = None) -> CipherTensor:
        """x @ w for w of shape (features, outputs): one weighted sum of columns an output. Price 1 / 0."""
        self._own(x)
        weights = check_numbers(w)
        if weights.ndim != 2 or weights.shape[0] != x.shape[1]:
            raise ShapeMismatch(
                f"weights of shape {weights.shape} do not fit {x.shape[1]} features: use (features, outputs)"
            )
        plain_bits, level, scale = self._plain_product(x, log_scale, "matmul_plain")
        bound = x.bound @ (np.abs(weights) + 2.0 ** -(plain_bits + 1))
        self._room(bound, x.level, x.log_scale + plain_bits, "matmul_plain")
        shape = (x.shape[0], weights.shape[1])
        return self._result(self._matmul_plain(x, weights, plain_bits), shape, level, scale, bound)

    def rotate(self, x: CipherTensor, k: int) -> CipherTensor:
        """Row p of the result is row (p + k) mod samples; nothing happens for k = 0. Price 0 / 0, one key switch.

        On CKKS the samples must fill the slots (ShapeMismatch), and k be one of ``parameters.rotations`` modulo the
        slots (Unsupported). Reveals nothing.
        """
        self._own(x)
        step = check_rotation(self.parameters, x.shape[0], k)
        return self._result(self._rotate(x, step), x.shape, x.level, x.log_scale, x.bound) if step else x

    def sum_samples(self, x: CipherTensor, weights: npt.ArrayLike | None = None) -> CipherTensor:
        """The sum over all samples, shape (1, features). Price 0 / 0.

        With public ``weights`` of shape (samples, k), shape (1, features * k): column f * k + j is the sum over p of
        weights[p, j] x[p, f]. Price 1 / 0. On CKKS log2(slots) key switches a column. Reveals nothing.
        """
        self._own(x)
        if Feature.SUM_SAMPLES not in self.features:
            raise Unsupported(_NO_SUMS[self.parameters.name])
        if weights is not None:
            return self._weighted_sums(x, check_weights(weights, x.shape[0]))
        if x.shape[0] == 1:
            return x
        bound = x.bound * x.shape[0]
        self._room(bound, x.level, x.log_scale, "sum_samples")
        return self._result(self._sum_samples(x), (1, x.shape[1]), x.level, x.log_scale, bound)

    def _weighted_sums(self, x: CipherTensor, weights: FloatArray) -> CipherTensor:
        plain_bits, level, scale = self._plain_product(x, None, "sum_samples")
        bound = np.outer(x.bound, (np.abs(weights) + 2.0 ** -(plain_bits + 1)).sum(axis=0)).ravel()
        self._room(bound, x.level, x.log_scale + plain_bits, "sum_samples")
        return self._result(self._sum_weighted(x, weights, plain_bits), (1, len(bound)), level, scale, bound)

    def mul(self, x: CipherTensor, y: CipherTensor) -> CipherTensor:
        """x * y, feature by feature. Price 1 / 1."""
        self._pair(x, y)
        x, y = self._level_with(x, y)
        level = spend(x.level, self.parameters.depth, "mul")
        bound = x.bound * y.bound
        self._room(bound, x.level, x.log_scale + y.log_scale, "mul")
        scale = x.log_scale + y.log_scale - self.parameters.rescale_bits(x.level)
        return self._result(self._mul(x, y), x.shape, level, scale, bound)

    def mul_pairs(self, pairs: Sequence[tuple[CipherTensor, CipherTensor]]) -> list[CipherTensor]:
        """Independent products; on an additive scheme they share one round. Price 1 / 1."""
        return [self.mul(x, y) for x, y in pairs]

    def rerandomize(self, x: CipherTensor) -> CipherTensor:
        """x as it may leave this party: lowest level, fresh randomness. Price: what is left of the levels."""
        self._same_key(x)
        self._room(x.bound, 0, x.log_scale, "rerandomize")
        return replace(x, data=self._rerandomize(x), level=0)

    def take(self, x: CipherTensor, columns: Sequence[int]) -> CipherTensor:
        """The columns with these indices, in this order, repeats allowed. Price 0 / 0."""
        self._own(x)
        picked = [int(column) for column in columns]
        if not picked or not all(0 <= column < x.shape[1] for column in picked):
            raise ShapeMismatch(f"columns {picked[:8]} of {x.shape[1]} features: give some, each below that")
        return replace(x, data=self._take(x, picked), shape=(x.shape[0], len(picked)), bound=x.bound[picked])

    def join(self, tensors: Sequence[CipherTensor]) -> CipherTensor:
        """Tensors of one scale side by side, at the lowest of their levels. Price 0 / 0."""
        first, level = tensors[0], min(x.level for x in tensors)
        for x in tensors:
            self._own(x)
            if x.shape[0] != first.shape[0]:
                raise ShapeMismatch(f"{x.shape[0]} and {first.shape[0]} samples cannot stand side by side")
            self._same_scale(first, x)
        parts = [self._at(x, level) for x in tensors]
        shape, bound = (first.shape[0], sum(x.shape[1] for x in parts)), np.concatenate([x.bound for x in parts])
        return replace(parts[0], data=self._join(parts), shape=shape, bound=bound)

    select = not_supported("this scheme selects by products of indicators: see circuits.selection")
    at_most = negative = not_supported("this scheme compares by sign polynomials: see circuits.sign")
    refresh = not_supported("refresh takes a round with the key holder: wrap the evaluator in Interactive")
    ask = not_supported("ask takes a round with the key holder: wrap the evaluator in Interactive")

    # What a scheme supplies.
    def _add(self, x: CipherTensor, y: CipherTensor, sign: int) -> Any:
        raise NotImplementedError

    def _add_plain(self, x: CipherTensor, values: FloatArray) -> Any:
        raise NotImplementedError

    def _mul_plain(self, x: CipherTensor, factors: FloatArray, plain_bits: float) -> Any:
        raise NotImplementedError

    def _matmul_plain(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        raise NotImplementedError

    def _mul(self, x: CipherTensor, y: CipherTensor) -> Any:
        raise NotImplementedError

    def _rotate(self, x: CipherTensor, step: int) -> Any:
        raise NotImplementedError

    def _sum_samples(self, x: CipherTensor) -> Any:
        raise NotImplementedError

    def _sum_weighted(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        raise NotImplementedError

    def _drop(self, x: CipherTensor, level: int) -> Any:
        return x.data

    def _take(self, x: CipherTensor, columns: list[int]) -> Any:
        return [[row[column] for column in columns] for row in x.data]

    def _join(self, tensors: Sequence[CipherTensor]) -> Any:
        return [[item for x in tensors for item in x.data[block]] for block in range(len(tensors[0].data))]

    def _rerandomize(self, x: CipherTensor) -> Any:
        raise NotImplementedError

    # The checks.
    def _sum(self, x: CipherTensor, y: CipherTensor | Plain, sign: int) -> CipherTensor:
        if not isinstance(y, CipherTensor):
            return self._sum_plain(x, sign * check_numbers(y))
        self._pair(x, y)
        self._same_scale(x, y)
        x, y = self._level_with(x, y)
        bound = x.bound + y.bound
        self._room(bound, x.level, x.log_scale, "add")
        return self._result(self._add(x, y, sign), x.shape, x.level, x.log_scale, bound)

    def _sum_plain(self, x: CipherTensor, y: FloatArray) -> CipherTensor:
        self._own(x)
        if y.ndim > 2 or y.shape not in {(), (1,), (x.shape[1],), x.shape}:
            raise ShapeMismatch(f"cannot add an array of shape {y.shape} to {x.shape}")
        values = np.broadcast_to(y, (x.shape[1],) if y.ndim < 2 else x.shape)
        bound = x.bound + np.abs(values).reshape(-1, x.shape[1]).max(axis=0)
        self._room(bound, x.level, x.log_scale, "add")
        return self._result(self._add_plain(x, values), x.shape, x.level, x.log_scale, bound)

    def _plain_product(self, x: CipherTensor, log_scale: float | None, operation: str) -> tuple[float, int, float]:
        level = spend(x.level, self.parameters.depth, operation)
        dropped = self.parameters.rescale_bits(x.level)
        if log_scale is None:
            plain_bits = self.parameters.plain_bits(x.level)
            return plain_bits, level, x.log_scale + plain_bits - dropped
        plain_bits = log_scale - x.log_scale + dropped
        if plain_bits < 1:
            raise ScaleMismatch(
                f"{operation} to log_scale {log_scale:.1f} would encode the factor with {plain_bits:.1f} bits: "
                f"ask for at least {x.log_scale - dropped + 1:.1f}"
            )
        return plain_bits, level, log_scale

    def _own(self, x: CipherTensor) -> None:
        if x.blinded:
            raise Unsupported("a selected value hides among random ones until decrypted: select last")
        self._same_key(x)

    def _same_key(self, x: CipherTensor) -> None:
        if x.key_id != self.key_id:
            raise KeyMismatch(
                f"ciphertext of key {x.key_id[:8]} given to an evaluator of key {self.key_id[:8]}: "
                "encrypt with the public key it holds"
            )

    def _pair(self, x: CipherTensor, y: CipherTensor) -> None:
        self._own(x)
        self._own(y)
        if x.shape != y.shape:
            raise ShapeMismatch(f"shapes {x.shape} and {y.shape} differ")

    def _same_scale(self, x: CipherTensor, y: CipherTensor) -> None:
        if abs(x.log_scale - y.log_scale) > SCALE_TOLERANCE:
            raise ScaleMismatch(
                f"log_scale {x.log_scale:.4f} and {y.log_scale:.4f} differ: their sum would be a wrong number; "
                "bring one to the other with mul_plain(x, 1, log_scale=...)"
            )

    def _level_with(self, x: CipherTensor, y: CipherTensor) -> tuple[CipherTensor, CipherTensor]:
        level = min(x.level, y.level)
        return self._at(x, level), self._at(y, level)

    def _at(self, x: CipherTensor, level: int) -> CipherTensor:
        return x if x.level == level else replace(x, data=self._drop(x, level), level=level)

    def _answers(self, data: Any, shape: tuple[int, int]) -> CipherTensor:
        """What comparisons return: 0 and 1, fresh; whole numbers where scales only ever grow."""
        depth = self.parameters.depth
        scale = self.parameters.log_scale if self.parameters.rescale_bits(depth) else 0.0
        return self._result(data, shape, depth, scale, np.ones(shape[1]))

    def _room(self, bound: FloatArray, level: int, log_scale: float, operation: str) -> None:
        check_room(self.parameters, bound, level, log_scale, operation)

    def _result(
        self, data: Any, shape: tuple[int, int], level: int, log_scale: float, bound: FloatArray
    ) -> CipherTensor:
        return CipherTensor(data, shape, level, log_scale, bound, self.key_id)
