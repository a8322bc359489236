"""The reference scheme: no encryption at all, full bookkeeping of level, scale and bound, the same errors.

With ``ClearParameters(exact=True)`` it computes with scaled Python integers, rounded as Paillier rounds them: the
integer reference that a Paillier result must equal bit for bit. Otherwise it computes with float64.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import KeyMismatch, OutOfRange, ScaleMismatch
from hepipe.schemes.base import CipherTensor, Exact, Feature, FloatArray, KeySet, Plain, Threshold
from hepipe.schemes.checks import check_choices, check_fresh, check_gap, check_thresholds, check_values
from hepipe.schemes.fixedpoint import from_fixed, shift, to_fixed
from hepipe.schemes.ledger import Ledger
from hepipe.schemes.parameters import ClearParameters


@dataclass(frozen=True)
class ClearKey:
    """A name for who may read; it protects nothing."""

    key_id: str


class ClearScheme:
    """No security: values travel in the clear, and every table says so."""

    name = "clear"
    features = Feature.ADD | Feature.MUL_PLAIN | Feature.MUL | Feature.SUM_SAMPLES | Feature.ROTATE

    def __init__(self, parameters: ClearParameters | None = None) -> None:
        self.parameters = parameters or ClearParameters()

    def keygen(self) -> KeySet:
        """One name in three roles."""
        key = ClearKey(secrets.token_hex(16))
        return KeySet(key, key, key)

    def encryptor(self, key: ClearKey) -> ClearEncryptor:
        """An encryptor that only scales."""
        return ClearEncryptor(self.parameters, key)

    def decryptor(self, secret: ClearKey) -> ClearDecryptor:
        """A decryptor that only unscales."""
        return ClearDecryptor(self.parameters, secret)

    def evaluator(self, keys: KeySet, policy: str = "polynomial", *, selects: bool = False) -> ClearEvaluator:
        """The reference evaluator; with policy "client" it computes what a key holder would be asked for.

        selects  take the circuits of a scheme that selects, as Paillier does; the integer reference always does
        """
        return ClearEvaluator(self.parameters, keys.public.key_id, policy, selects)


class ClearEncryptor:
    """Checks and scales as the real schemes do."""

    def __init__(self, parameters: ClearParameters, key: ClearKey) -> None:
        self.parameters, self.key_id = parameters, key.key_id

    def encrypt(self, values: npt.ArrayLike, bound: Plain | None = None) -> CipherTensor:
        """Values of shape (samples, features), |v| <= bound (default 2**16)."""
        array, limits = check_values(values, bound)
        check_fresh(self.parameters, limits)
        data = to_fixed(array, self.parameters.log_scale) if self.parameters.exact else array
        return CipherTensor(data, array.shape, self.parameters.depth, self.parameters.log_scale, limits, self.key_id)


class ClearDecryptor:
    """Reads what was never hidden, but only under its own name."""

    def __init__(self, parameters: ClearParameters, key: ClearKey) -> None:
        self.parameters, self.key_id = parameters, key.key_id

    def decrypt(self, x: CipherTensor) -> FloatArray:
        """Values of shape (samples, features)."""
        if x.key_id != self.key_id:
            raise KeyMismatch(f"a tensor of key {x.key_id[:8]} given to the holder of key {self.key_id[:8]}")
        return from_fixed(x.data, x.log_scale) if self.parameters.exact else x.data.copy()

    def decrypt_integers(self, x: CipherTensor) -> npt.NDArray[Any]:
        """The scaled integers themselves; only with ``exact``."""
        self.decrypt(x)
        return np.asarray(x.data)


class ClearEvaluator(Ledger):
    """NumPy arithmetic under the common bookkeeping."""

    def __init__(
        self, parameters: ClearParameters, key_id: str, policy: str = "polynomial", selects: bool = False
    ) -> None:
        self.parameters: ClearParameters = parameters
        self.key_id, self.policy = key_id, policy
        self.features = ClearScheme.features | (Feature.SELECT if parameters.exact or selects else Feature(0))

    def ask(self, fn: Exact, x: CipherTensor) -> CipherTensor:
        """fn(x) at the full budget, as a key holder would answer; under policy "client" only. Price 0 / 0."""
        if self.policy != "client":
            return super().ask(fn, x)  # type: ignore[no-any-return]
        self._own(x)
        bound, scale = fn.bound(x.bound), self.parameters.log_scale
        values = fn.exact(from_fixed(x.data, x.log_scale) if self.parameters.exact else x.data)
        return self._result(self._encode(values, scale), x.shape, self.parameters.depth, scale, bound)

    def refresh(self, x: CipherTensor) -> CipherTensor:
        """x at the full level and the base scale, without a round: there is nobody to hide it from. Price 0 / 0."""
        self._own(x)
        depth, scale = self.parameters.depth, self.parameters.log_scale
        if not self.parameters.exact:
            return self._result(x.data, x.shape, depth, scale, x.bound)
        data = shift(x.data, int(x.log_scale - scale))
        return self._result(data, x.shape, depth, scale, x.bound + 2.0**-scale)

    def select(self, costs: CipherTensor, values: npt.ArrayLike, groups: int = 1) -> CipherTensor:
        """The values of the columns of cost zero, where it stands for Paillier's: see ``ClearScheme.evaluator``."""
        if Feature.SELECT not in self.features:
            return super().select(costs, values)  # type: ignore[no-any-return]
        self._own(costs)
        (array, bound), scale = check_choices(costs, values, groups), self.parameters.log_plain_scale
        reached = np.asarray(costs.data == 0, dtype=bool)
        if (reached.reshape(len(reached), -1, groups).sum(axis=1) != 1).any():
            raise OutOfRange("a row without exactly one cost of zero in each group: what was encrypted are no bits")
        data = (reached * self._one) @ self._encode(array, scale)[:, None]
        return self._result(data, (costs.shape[0], 1), costs.level, scale, bound)

    def at_most(self, bits: CipherTensor, thresholds: Sequence[Threshold]) -> CipherTensor:
        """[number <= threshold], a column a threshold. Price 0 / 0."""
        self._own(bits)
        unit = 2 ** int(bits.log_scale) if self.parameters.exact else 1
        columns = []
        for places, value in check_thresholds(bits, thresholds):
            number = sum(bits.data[:, place] * 2**i for i, place in enumerate(places))
            columns.append(number <= value * unit)
        return self._answers(np.column_stack(columns) * self._one, (bits.shape[0], len(columns)))

    def negative(self, x: CipherTensor, gap: Plain) -> CipherTensor:
        """[x < 0], also within the gap. Price 0 / 0."""
        self._own(x)
        check_gap(x, gap)
        return self._answers((x.data < 0) * self._one, x.shape)

    @property
    def _one(self) -> Any:
        return np.array(1, dtype=object) if self.parameters.exact else 1.0

    def _take(self, x: CipherTensor, columns: list[int]) -> Any:
        return x.data[:, columns]

    def _join(self, tensors: Sequence[CipherTensor]) -> Any:
        return np.concatenate([x.data for x in tensors], axis=1)

    def _encode(self, values: FloatArray, bits: float) -> Any:
        if self.parameters.exact and bits != int(bits):
            raise ScaleMismatch(
                f"a scale of {bits} bits: those of the integer reference are whole, ask for {round(bits)}"
            )
        return to_fixed(values, bits) if self.parameters.exact else values

    def _add(self, x: CipherTensor, y: CipherTensor, sign: int) -> Any:
        return x.data + y.data if sign > 0 else x.data - y.data

    def _add_plain(self, x: CipherTensor, values: FloatArray) -> Any:
        return x.data + self._encode(values, x.log_scale)

    def _mul_plain(self, x: CipherTensor, factors: FloatArray, plain_bits: float) -> Any:
        return x.data * self._encode(factors, plain_bits)

    def _matmul_plain(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        return x.data @ self._encode(weights, plain_bits)

    def _mul(self, x: CipherTensor, y: CipherTensor) -> Any:
        return x.data * y.data

    def _rotate(self, x: CipherTensor, step: int) -> Any:
        return np.roll(x.data, -step, axis=0)

    def _sum_samples(self, x: CipherTensor) -> Any:
        return x.data.sum(axis=0, keepdims=True)

    def _sum_weighted(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        return (x.data.T @ self._encode(weights, plain_bits)).reshape(1, -1)

    def _rerandomize(self, x: CipherTensor) -> Any:
        return x.data
