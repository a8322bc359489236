"""CKKS on SEAL: one feature column per ciphertext, explicit levels and exact scales.

The key owner encrypts symmetrically, so that one polynomial travels as a 64-byte seed. Plaintext factors are encoded
at the scale of the prime that rescaling will drop, which restores the operand's scale exactly; sums of products are
rescaled once. A CKKS decryption must never be published: two of them give away the secret key (Li and Micciancio,
eprint 2020/1533).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi

from hepipe.errors import OutOfRange, Unsupported
from hepipe.schemes import seal
from hepipe.schemes.base import CipherTensor, Feature, FloatArray, KeySet, blocks
from hepipe.schemes.checks import row_features
from hepipe.schemes.ckks_ciphertexts import Product, Stream, expand, to_slots, waits
from hepipe.schemes.ckks_holder import CkksDecryptor, CkksEncryptor
from hepipe.schemes.ckks_keys import CkksEvaluationKeys, CkksPublicKey, CkksSecretKey, generate
from hepipe.schemes.coefficients import Integers, Masks, added, random_integers, scaled, to_words
from hepipe.schemes.ledger import Ledger
from hepipe.schemes.mask_room import MaskRoom
from hepipe.schemes.parameters import CkksParameters


class CkksScheme:
    """CKKS with fixed parameters."""

    name = "ckks"

    def __init__(self, parameters: CkksParameters | None = None) -> None:
        self.parameters = parameters or CkksParameters()
        linear = Feature.ADD | Feature.MUL_PLAIN
        self.features = linear if self.parameters.complex_slots else linear | Feature.MUL
        self.features |= row_features(self.parameters)

    def keygen(self) -> KeySet:
        """Fresh keys: the secret key, the public one, and what switches keys (``parameters.rotations``)."""
        return generate(self.parameters)

    def encryptor(self, key: CkksSecretKey | CkksPublicKey) -> CkksEncryptor:
        """Symmetric and seeded for the key owner, public-key (twice the bytes, 2 to 3 bits more noise) for others."""
        return CkksEncryptor(self.parameters, key)

    def decryptor(self, secret: CkksSecretKey) -> CkksDecryptor:
        """A decryptor for tensors under this key."""
        return CkksDecryptor(secret)

    def evaluator(self, keys: KeySet) -> CkksEvaluator:
        """An evaluator from public and evaluation keys."""
        return CkksEvaluator(keys.public, keys.evaluation)


class CkksEvaluator(Ledger):
    """SEAL arithmetic under the common bookkeeping; holds public and evaluation keys only."""

    def __init__(self, public: CkksPublicKey, evaluation: CkksEvaluationKeys) -> None:
        self.parameters: CkksParameters = public.parameters
        self.key_id = public.key_id
        self.features = CkksScheme(public.parameters).features
        self._context = seal.context(public.parameters)
        self._seal = self._context.evaluator
        self._zeros = sealapi.Encryptor(self._context.seal, public.handle)
        self._evaluation = evaluation

    def mul(self, x: CipherTensor, y: CipherTensor) -> CipherTensor:
        """x * y, feature by feature, relinearized. Price 1 level. Complex slots refuse: they are linear only."""
        if self.parameters.complex_slots:
            raise Unsupported("complex slots are linear only: use CkksParameters(complex_slots=False) for products")
        return super().mul(x, y)

    def _result(
        self, data: Any, shape: tuple[int, int], level: int, log_scale: float, bound: FloatArray
    ) -> CipherTensor:
        for item in (item for block in data for item in block):
            item.scale = 2.0**log_scale
        return super()._result(data, shape, level, log_scale, bound)

    def _columns(self, x: CipherTensor) -> list[list[Any]]:
        return [[expand(item, self._context) for item in block] for block in x.data]

    def _add(self, x: CipherTensor, y: CipherTensor, sign: int) -> Any:
        operation = self._seal.add if sign > 0 else self._seal.sub
        pairs = zip(x.data, y.data, strict=True)
        return [[self._sum_of(operation, a, b) for a, b in zip(p, q, strict=True)] for p, q in pairs]

    def _sum_of(self, operation: Callable[..., None], a: Any, b: Any) -> Any:
        if waits(a) and waits(b):  # products of one level: relinearized once, after their sum
            return Product(self._into(operation, a.raw, _at_scale(b.raw, a.raw)), a.finish)
        a, b = expand(a, self._context), expand(b, self._context)
        return self._into(operation, a, _at_scale(b, a))

    def _add_plain(self, x: CipherTensor, values: FloatArray) -> Any:
        result = []
        for block, rows in zip(self._columns(x), blocks(x.shape[0], self.parameters.slots), strict=True):
            parts = values if values.ndim == 1 else values[rows].T
            count = rows.stop - rows.start
            if values.ndim == 1 and self.parameters.sums_samples and count < self.parameters.slots:
                parts = np.repeat(values[:, None], count, axis=1)  # what pads the slots stays zero, for sum_samples
            result.append(
                [
                    self._into(self._seal.add_plain, c, self._addend(v, c, x.level))
                    for c, v in zip(block, parts, strict=True)
                ]
            )
        return result

    def _addend(self, value: Any, ciphertext: Any, level: int) -> Any:
        if np.ndim(value):
            content: Any = to_slots(value, self.parameters)
        else:
            content = complex(value, value) if self.parameters.complex_slots else float(value)
        plain = sealapi.Plaintext()
        self._context.encoder.encode(content, self._context.parms_id(level), ciphertext.scale, plain)
        return plain

    def _mul_plain(self, x: CipherTensor, factors: FloatArray, plain_bits: float) -> Any:
        plains = [self._factor(value, x.level, plain_bits) for value in factors]
        return [[self._dot([c], [p], x) for c, p in zip(block, plains, strict=True)] for block in self._columns(x)]

    def _matmul_plain(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        late = weights.shape[1] < len(weights) and all(waits(item) for block in x.data for item in block)
        level = x.level + late
        plains = [[self._factor(value, level, plain_bits) for value in column] for column in weights.T]
        if late:
            return [[self._late_dot([item.raw for item in block], p, x) for p in plains] for block in x.data]
        return [[self._dot(block, column, x) for column in plains] for block in self._columns(x)]

    def _factor(self, value: float | FloatArray, level: int, plain_bits: float) -> Any:
        plain, room, largest = sealapi.Plaintext(), self.parameters.capacity_bits(level), float(np.max(np.abs(value)))
        if largest * 2.0**plain_bits >= 2.0**room:
            raise OutOfRange(
                f"a factor of {largest:.3g} at {plain_bits:.1f} bits does not fit {room:.1f} bits at level {level}: "
                "scale the inputs up and the factor down"
            )
        content = value.tolist() if isinstance(value, np.ndarray) else float(value)
        self._context.encoder.encode(content, self._context.parms_id(level), 2.0**plain_bits, plain)
        return plain

    def _dot(self, columns: Sequence[Any], plains: Sequence[Any], x: CipherTensor) -> Any:
        """One weighted sum of columns, rescaled once at the end."""
        total = self._weighted_sum(columns, plains)
        return self._zero(x.level - 1) if total is None else self._rescaled(total, x.level)

    def _late_dot(self, products: Sequence[Any], plains: Sequence[Any], x: CipherTensor) -> Any:
        """One weighted sum of products as they came out, one level above x: relinearized once, then rescaled twice."""
        total = self._weighted_sum(products, plains)
        return self._zero(x.level - 1) if total is None else self._rescaled(self._finished(total, x.level + 1), x.level)

    def _weighted_sum(self, columns: Sequence[Any], plains: Sequence[Any]) -> Any:
        """None for a sum of nothing or of what cancels, which SEAL refuses: fresh zeros look like any result."""
        terms = [(c, p) for c, p in zip(columns, plains, strict=True) if not p.is_zero()]
        if not terms:
            return None
        total, term = sealapi.Ciphertext(), sealapi.Ciphertext()
        self._seal.multiply_plain(*terms[0], total)
        for column, plain in terms[1:]:
            self._seal.multiply_plain(column, plain, term)
            with suppress(seal.Transparent):  # the sum is made, and may yet be hidden again
                self._seal.add_inplace(total, term)
        return None if total.is_transparent() else total

    def _rescaled(self, ciphertext: Any, level: int) -> Any:
        if self.parameters.rescale_bits(level):
            self._seal.rescale_to_next_inplace(ciphertext)
        return ciphertext

    def _mul(self, x: CipherTensor, y: CipherTensor) -> Any:
        pairs = zip(self._columns(x), self._columns(y), strict=True)
        return [[self._product(a, b, x.level) for a, b in zip(p, q, strict=True)] for p, q in pairs]

    def _product(self, a: Any, b: Any, level: int) -> Product:
        product = sealapi.Ciphertext()
        if a is b:
            self._seal.square(a, product)
        else:
            self._seal.multiply(a, b, product)
        return Product(product, lambda raw: self._finished(raw, level))

    def _finished(self, product: Any, level: int) -> Any:
        """Two polynomials again, rescaled."""
        self._seal.relinearize_inplace(product, self._evaluation.relin_handle)
        return self._rescaled(product, level)

    def _rotate(self, x: CipherTensor, step: int) -> Any:
        return [[self._rotated(item, step) for item in block] for block in self._columns(x)]

    def _rotated(self, ciphertext: Any, step: int) -> Any:
        result = sealapi.Ciphertext()
        self._seal.rotate_vector(ciphertext, step, self._evaluation.galois_handle, result)
        return result

    def _sum_samples(self, x: CipherTensor) -> Any:
        return [[self._total(self._added(column)) for column in zip(*self._columns(x), strict=True)]]

    def _sum_weighted(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        spans = blocks(x.shape[0], self.parameters.slots)
        plains = [[self._factor(column[rows], x.level, plain_bits) for rows in spans] for column in weights.T]
        columns = zip(*self._columns(x), strict=True)
        return [[self._total(self._dot(column, plain, x)) for column in columns for plain in plains]]

    def _added(self, ciphertexts: Sequence[Any]) -> Any:
        total = ciphertexts[0]
        for ciphertext in ciphertexts[1:]:
            total = self._into(self._seal.add, total, ciphertext)
        return total

    def _total(self, ciphertext: Any) -> Any:
        """The sum of all slots, in every slot: what pads the last block must be zero."""
        for i in range(self.parameters.slots.bit_length() - 1):
            ciphertext = self._into(self._seal.add, ciphertext, self._rotated(ciphertext, 1 << i))
        return ciphertext

    def _drop(self, x: CipherTensor, level: int) -> Any:
        return [[self._switched(item, level) for item in block] for block in self._columns(x)]

    def _switched(self, ciphertext: Any, level: int) -> Any:
        lower = sealapi.Ciphertext()
        self._seal.mod_switch_to(ciphertext, self._context.parms_id(level), lower)
        return lower

    def mask(self, x: CipherTensor, room: MaskRoom) -> tuple[CipherTensor, Masks]:
        """x + r, rerandomized, as it is shown to the key holder at ``room.level``, and the masks r of its coefficients.

        Uniform and independent over all N coefficients, so empty slots and noise are hidden like values. Price: an
        encryption of zero and two transforms a ciphertext.
        """
        self._own(x)
        data, masks = [], []
        for block in self._rerandomized(x, room.level):
            fresh = [random_integers(self.parameters.poly_modulus_degree, room.limit) for _ in block]
            data.append([self._shifted(item, r, room.level, x.log_scale) for item, r in zip(block, fresh, strict=True)])
            masks.append(fresh)
        return replace(x, data=data, level=room.level), masks

    def unmask_refreshed(self, refreshed: CipherTensor, x: CipherTensor, masks: Masks) -> CipherTensor:
        """x at the base scale and the full level, from the key holder's encryption of (x + r) 2**k rounded.

        k is what the base scale has over the scale of x. Error: the noise of a fresh encryption, and one unit of a
        coefficient where k is not 0; none of it grows with the mask.
        """
        self._pair(refreshed, x)
        level, scale = refreshed.level, refreshed.log_scale
        self._room(x.bound, level, scale, "refresh")
        data = [
            [self._shifted(c, -scaled(r, scale - x.log_scale), level, scale) for c, r in zip(block, row, strict=True)]
            for block, row in zip(self._columns(refreshed), masks, strict=True)
        ]
        return replace(refreshed, data=data, bound=x.bound)

    def _shifted(self, ciphertext: Any, integers: Integers, level: int, log_scale: float) -> Stream:
        parts = seal.take_apart(seal.save(ciphertext), self.parameters.poly_modulus_degree)
        moved = added(self._context, parts, to_words(self._context, integers, level), level)
        return Stream(seal.put_together(moved, self._context.parms_id(level), 2.0**log_scale))

    def _rerandomize(self, x: CipherTensor) -> Any:
        return self._rerandomized(x, 0)

    def _rerandomized(self, x: CipherTensor, level: int) -> Any:
        result = []
        for block in self._drop(x, level):
            for item in block:
                zero = self._zero(level)
                zero.scale = item.scale
                self._seal.add_inplace(item, zero)
            result.append(block)
        return result

    def _zero(self, level: int) -> Any:
        zero = sealapi.Ciphertext()
        self._zeros.encrypt_zero(self._context.parms_id(level), zero)
        return zero

    def _into(self, operation: Callable[..., None], left: Any, right: Any) -> Any:
        result = sealapi.Ciphertext()
        try:
            operation(left, right, result)
        except seal.Transparent:
            # x - x: SEAL refuses a ciphertext whose c1 vanished. Zero is the right answer, encrypted afresh.
            zero = sealapi.Ciphertext()
            self._zeros.encrypt_zero(left.parms_id(), zero)
            return zero
        return result


def _at_scale(item: Any, like: Any) -> Any:
    """The ledger found the scales equal to 2**-36; SEAL compares doubles to the ulp."""
    item.scale = like.scale
    return item
