"""What the owner of a CKKS key does: encode and encrypt, decrypt and decode, and its half of a round in whole numbers.

A CKKS decryption must never be published: two of them give away the secret key (Li and Micciancio, eprint 2020/1533).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as sealapi

from hepipe.errors import KeyMismatch, OutOfRange, Unsupported
from hepipe.schemes import seal
from hepipe.schemes.base import CipherTensor, FloatArray, Plain, blocks
from hepipe.schemes.checks import check_fresh, check_values
from hepipe.schemes.ckks_ciphertexts import Stream, expand, to_slots
from hepipe.schemes.ckks_keys import CkksPublicKey, CkksSecretKey
from hepipe.schemes.coefficients import Integers, Masks, added, plaintext_words, to_integers, to_words
from hepipe.schemes.parameters import CkksParameters


class CkksEncryptor:
    """Encodes columns into slots and encrypts them."""

    def __init__(self, parameters: CkksParameters, key: CkksSecretKey | CkksPublicKey) -> None:
        self.parameters, self.key_id = parameters, key.key_id
        self._context = seal.context(parameters)
        self._symmetric = isinstance(key, CkksSecretKey)
        self._seal = sealapi.Encryptor(
            self._context.seal, key._handle if isinstance(key, CkksSecretKey) else key.handle
        )

    def encrypt(self, values: npt.ArrayLike, bound: Plain | None = None) -> CipherTensor:
        """Values of shape (samples, features), |v| <= bound (default 2**16), at the full level."""
        array, limits = check_values(values, bound)
        check_fresh(self.parameters, limits)
        data = [
            [self._encrypt(array[rows, feature]) for feature in range(array.shape[1])]
            for rows in blocks(len(array), self.parameters.slots)
        ]
        return CipherTensor(data, array.shape, self.parameters.depth, self.parameters.log_scale, limits, self.key_id)

    def encrypt_integers(self, coefficients: Masks, shape: tuple[int, int], bound: FloatArray) -> CipherTensor:
        """Encrypt whole coefficients, which are at the base scale, at the full level: seeded, by the key owner only."""
        if not self._symmetric:
            raise Unsupported("a round is answered by the owner of the key: make the encryptor from the secret key")
        depth, scale = self.parameters.depth, self.parameters.log_scale
        data = [[self._encrypt_polynomial(c, depth) for c in row] for row in coefficients]
        return CipherTensor(data, shape, depth, scale, bound, self.key_id)

    def _encrypt_polynomial(self, integers: Integers, level: int) -> Stream:
        parms_id = self._context.parms_id(level)
        zero = seal.save(self._seal.encrypt_zero_symmetric(parms_id))
        parts = seal.take_apart(zero, self.parameters.poly_modulus_degree)
        moved = added(self._context, parts, to_words(self._context, integers, level), level)
        return Stream(seal.put_together(moved, parms_id, 2.0**self.parameters.log_scale))

    def _encrypt(self, column: FloatArray) -> Any:
        plain = sealapi.Plaintext()
        scale = 2.0**self.parameters.log_scale
        self._context.encoder.encode(
            to_slots(column, self.parameters), self._context.parms_id(self.parameters.depth), scale, plain
        )
        if self._symmetric:
            return Stream(seal.save(self._seal.encrypt_symmetric(plain)))
        ciphertext = sealapi.Ciphertext()
        self._seal.encrypt(plain, ciphertext)
        return ciphertext


class CkksDecryptor:
    """Decrypts for the key owner only. What it returns must not be published (module docstring)."""

    def __init__(self, secret: CkksSecretKey) -> None:
        self.parameters, self.key_id = secret.parameters, secret.key_id
        self._context = seal.context(secret.parameters)
        self._seal = sealapi.Decryptor(self._context.seal, secret._handle)

    def decrypt(self, x: CipherTensor) -> FloatArray:
        """Values of shape (samples, features); OutOfRange if one lies outside the tensor's stated bound.

        So must every empty slot, which holds what the circuit makes of zeros: under a wrong key all slots are noise as
        wide as the modulus, and a single one within the bound is no rarity.
        """
        self._check_key(x)
        values = np.empty(x.shape)
        limit = x.bound + np.maximum(x.bound, 1.0) * 2.0**-10
        for block, rows in zip(x.data, blocks(x.shape[0], self.parameters.slots), strict=True):
            for feature, item in enumerate(block):
                slots = self._decrypt(item)
                if not (np.abs(slots) <= limit[feature]).all():
                    worst = float(np.abs(slots).max())
                    raise OutOfRange(f"decrypted {worst:.3g}, over the stated bound: an overflow, or another key")
                values[rows, feature] = slots[: rows.stop - rows.start]
        return values

    def decrypt_integers(self, x: CipherTensor) -> Masks:
        """The coefficients of every ciphertext, exact, noise included: for the key holder's half of a round."""
        self._check_key(x)
        count, degree = len(self.parameters.primes_at(x.level)), self.parameters.poly_modulus_degree
        result, plain = [], sealapi.Plaintext()
        for block in x.data:
            row = []
            for item in block:
                self._seal.decrypt(expand(item, self._context), plain)
                row.append(to_integers(self._context, plaintext_words(plain, count, degree), x.level))
            result.append(row)
        return result

    def _check_key(self, x: CipherTensor) -> None:
        if x.key_id != self.key_id:
            raise KeyMismatch(f"a ciphertext of key {x.key_id[:8]} given to the holder of key {self.key_id[:8]}")

    def _decrypt(self, item: Any) -> FloatArray:
        """All slots."""
        plain = sealapi.Plaintext()
        self._seal.decrypt(expand(item, self._context), plain)
        if not self.parameters.complex_slots:
            return np.array(self._context.encoder.decode_double(plain))
        slots = np.array(self._context.encoder.decode_complex(plain))
        return np.concatenate([slots.real, slots.imag])
