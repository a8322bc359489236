"""Paillier: exact fixed-point arithmetic on encrypted lanes (Paillier, EUROCRYPT 1999; generator n + 1).

A ciphertext of m is (1 + m n) r**n modulo n**2. The product of two encrypts the sum, a power encrypts a multiple; a
product of two ciphertexts takes a round with the key holder. All lanes of a plaintext share one scalar, so a block of
samples costs what a single one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import gmpy2
import numpy as np
import numpy.typing as npt

from hepipe.errors import KeyMismatch, OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor, Feature, FloatArray, KeySet, Plain, blocks
from hepipe.schemes.checks import check_values, log2_bound, row_features
from hepipe.schemes.fixedpoint import GUARD_UNITS, from_fixed, to_fixed
from hepipe.schemes.lanes import Mpz, pack, signed, unpack
from hepipe.schemes.paillier_checks import (
    IntegerArray,
    block_spans,
    check_bound,
    check_ciphertexts,
    check_range,
    on_grid,
)
from hepipe.schemes.paillier_evaluator import PaillierEvaluator
from hepipe.schemes.paillier_keys import PaillierPublicKey, PaillierSecretKey, check_public, generate_secret_key
from hepipe.schemes.paillier_randomness import DjnSource, HolderSource, RandomnessPool, Source, UniformSource
from hepipe.schemes.parameters import PaillierParameters

__all__ = [
    "PaillierDecryptor",
    "PaillierEncryptor",
    "PaillierEvaluator",
    "PaillierScheme",
    "RandomnessPool",
    "check_ciphertexts",
]

DEFAULT_BOUND = 2.0**16

Randomness = Literal["uniform", "djn"]


class PaillierScheme:
    """Paillier with fixed parameters; keys come with a certified generator."""

    name = "paillier"
    features = Feature.ADD | Feature.MUL_PLAIN

    def __init__(self, parameters: PaillierParameters | None = None) -> None:
        self.parameters = parameters if parameters is not None else PaillierParameters()
        self.features |= row_features(self.parameters)

    def keygen(self) -> KeySet:
        """Fresh keys; the evaluation key is the public one. Price: 0.2 to 0.6 s at 3072 bits."""
        secret = generate_secret_key(self.parameters.modulus_bits)
        return KeySet(secret, secret.public, secret.public)

    def encryptor(
        self, key: PaillierPublicKey | PaillierSecretKey, randomness: Randomness = "uniform", threads: int = 1
    ) -> PaillierEncryptor:
        """An encryptor: for the secret key 20 times faster, with exactly the same distribution of ciphertexts.

        randomness  for a public key only: "uniform" is r**n; "djn" has short exponents, which adds the assumption
                    stated at ``DjnSource`` and is sound only for keys made by hepipe
        threads     of "uniform"
        """
        if isinstance(key, PaillierSecretKey):
            self._fits(key.public)
            return PaillierEncryptor(self.parameters, key.public, HolderSource(key))
        public = self._fits(key)
        if randomness not in ("uniform", "djn"):
            raise Unsupported(f"randomness {randomness!r} is unknown: use 'uniform', or 'djn'")
        source: Source = DjnSource(public) if randomness == "djn" else UniformSource(public, threads)
        return PaillierEncryptor(self.parameters, public, source)

    def decryptor(self, secret: PaillierSecretKey) -> PaillierDecryptor:
        """The decryptor of this key's ciphertexts."""
        self._fits(secret.public)
        return PaillierDecryptor(self.parameters, secret)

    def evaluator(self, keys: KeySet, threads: int = 1) -> PaillierEvaluator:
        """An evaluator under ``keys.public``; ``threads`` serve its re-randomisation."""
        return PaillierEvaluator(self.parameters, self._fits(keys.public), threads)

    def _fits(self, public: PaillierPublicKey) -> PaillierPublicKey:
        return check_public(int(public.n), self.parameters.modulus_bits)


class PaillierEncryptor:
    """Encodes to fixed point, packs lanes, encrypts. It draws its randomness from ``pool``.

    Price of a ciphertext at 3072 bits, for up to ``lanes`` samples of a feature: 1.3 ms for the key holder after its
    tables stand, 28 ms with a public key, 0.02 ms from a filled pool.
    """

    def __init__(self, parameters: PaillierParameters, public: PaillierPublicKey, source: Source) -> None:
        self.parameters, self.public = parameters, public
        self.pool = RandomnessPool(public, source)

    def prepare(self) -> None:
        """Build the fixed-base tables now (0.3 s at 3072 bits) instead of in the first batch."""
        self.pool.prepare()

    def fill(self, count: int) -> None:
        """Have the randomness of ``count`` ciphertexts ready."""
        self.pool.fill(count)

    def encrypt(self, values: npt.ArrayLike, bound: Plain | None = None) -> CipherTensor:
        """Encrypt (samples, features) with |value| <= bound, one bound or one a feature (default 2**16).

        OutOfRange for a value over its bound, NaN or infinity, or a bound that does not fit the lane; ShapeMismatch
        for other shapes and dtypes. The ciphertexts reveal the shape and the bound, nothing else.
        """
        array, limits = check_values(values, bound, DEFAULT_BOUND)
        return self.encrypt_integers(to_fixed(array, self.parameters.log_scale), limits)

    def encrypt_integers(
        self, integers: IntegerArray, bound: Plain, log_scale: float | None = None, level: int | None = None
    ) -> CipherTensor:
        """Encrypt integers that are already at ``log_scale`` (default: the fresh one), |integer| <= bound * scale.

        For the key holder's half of a round, which must not pass through floats. Errors as ``encrypt``.
        """
        scale = self.parameters.log_scale if log_scale is None else log_scale
        depth = self.parameters.depth if level is None else level
        limits = self._limits(bound, integers.shape[1], scale)
        check_range(integers, limits, scale, "an integer to encrypt is over its bound")
        data = self._encrypt_blocks(integers)
        return CipherTensor(data, (len(integers), len(limits)), depth, scale, limits, self.public.key_id)

    def _limits(self, bound: Plain, features: int, scale: float) -> FloatArray:
        limits = np.broadcast_to(np.asarray(bound, dtype=np.float64), (features,)).copy()
        check_bound(limits)
        need, room = log2_bound(limits) + scale, self.parameters.capacity_bits(0)
        if not need < room:
            raise OutOfRange(
                f"encrypt: |value| up to {limits.max():.3g} at log_scale {scale:.1f} needs {need:.1f} bits, "
                f"the lane holds {room:.1f}: lower the input bound, or plan with it"
            )
        return on_grid(limits, scale)

    def _encrypt_blocks(self, integers: IntegerArray) -> list[list[Mpz]]:
        n, n_squared, lane_bits = self.public.n, self.public.n_squared, self.parameters.lane_bits
        rows: list[list[Mpz]] = []
        for block in blocks(len(integers), self.parameters.lanes):
            plaintexts = [pack(column, lane_bits) % n for column in integers[block].T]
            blinding = self.pool.take_many(len(plaintexts))
            rows.append([(1 + m * n) * r % n_squared for m, r in zip(plaintexts, blinding, strict=True)])
        return rows


class PaillierDecryptor:
    """CRT decryption (Paillier 1999, section 7), with exponents that take the same time whatever they are.

    Price: 9 ms a ciphertext at 3072 bits, for all of its lanes.
    """

    def __init__(self, parameters: PaillierParameters, secret: PaillierSecretKey) -> None:
        self.parameters, self._secret = parameters, secret
        p, q = secret.p, secret.q
        self._scale_p, self._scale_q = gmpy2.invert(-q, p), gmpy2.invert(-p, q)
        self._lift = p * gmpy2.invert(p, q)

    def decrypt(self, x: CipherTensor) -> FloatArray:
        """The values as float64 (samples, features), each correctly rounded from the exact integer."""
        return from_fixed(self.decrypt_integers(x), x.log_scale)

    def decrypt_integers(self, x: CipherTensor) -> IntegerArray:
        """The exact integers value * 2**log_scale as an object array (samples, features).

        KeyMismatch for another key's tensor; OutOfRange if a value is over the tensor's bound, or the plaintext has
        anything above its lanes: an overflow or a wrong key, never a wrong number.
        """
        if x.key_id != self._secret.key_id:
            raise KeyMismatch(
                f"ciphertext of key {x.key_id[:8]} given to the decryptor of key {self._secret.key_id[:8]}: "
                "decrypt it with the key it was encrypted under"
            )
        spans = block_spans(x, self.parameters.lanes)
        if x.blinded:
            return np.array([[self._chosen(row, x)] for row in x.data], dtype=object)
        integers = np.empty(x.shape, dtype=object)
        for span, row in zip(spans, x.data, strict=True):
            for feature, ciphertext in enumerate(row):
                integers[span, feature] = self._lanes(ciphertext, span.stop - span.start)
        check_range(integers, x.bound, x.log_scale, "a decrypted value is over its bound")
        return integers

    def residues(self, ciphertexts: Sequence[Mpz]) -> list[Mpz]:
        """The plaintexts modulo n, whole and unsigned: for protocols over Z_n, where every residue is a value."""
        return [self._plaintext(c) for c in ciphertexts]

    def zeros(self, ciphertexts: list[list[Mpz]]) -> IntegerArray:
        """1 where a plaintext is zero, else 0. Price: half a decryption, 5 ms a ciphertext at 3072 bits.

        Looks modulo p only, so that the time says nothing: a blinded plaintext that is not zero vanishes modulo p with
        probability 1 / p, and who could aim at that could factor n.
        """
        p, square = self._secret.p, self._secret.p_squared
        return np.array(
            [[int(gmpy2.powmod_sec(c % square, p - 1, square) == 1) for c in row] for row in ciphertexts], dtype=object
        )

    def _chosen(self, row: list[Mpz], x: CipherTensor) -> int:
        """What ``select`` selected: the one value of a row that is not random, or the sum of the marked ones.

        A random value is within the bound with probability 2**-2900.
        """
        limit = int(to_fixed(x.bound[:1], x.log_scale)[0]) + GUARD_UNITS
        candidates = [self._plaintext(c) for c in row] if x.blinded == 1 else [self._marked_sum(row, x.blinded)]
        values = [int(signed(value, self._secret.public.n)) for value in candidates]
        found = [value for value in values if abs(value) <= limit]
        if len(found) != 1:
            raise OutOfRange(f"{len(found)} values where one is selected: a malformed input, or another key")
        return found[0]

    def _marked_sum(self, row: list[Mpz], groups: int) -> Mpz:
        """Modulo n, the sum over the groups of the value whose mark is zero."""
        size = len(row) // groups
        members = [row[start : start + size] for start in range(0, len(row), size)]
        marks = self.zeros([group[::2] for group in members])
        if (marks.sum(axis=1) != 1).any():
            raise OutOfRange(f"{marks.sum(axis=1)} values where one a group is selected: a malformed input")
        marked = [group[1 + 2 * int(mark.argmax())] for group, mark in zip(members, marks, strict=True)]
        return sum(map(self._plaintext, marked))

    def _lanes(self, ciphertext: Mpz, count: int) -> list[int]:
        return unpack(self._plaintext(ciphertext), self._secret.public.n, self.parameters.lane_bits, count)

    def _plaintext(self, ciphertext: Mpz) -> Mpz:
        key = self._secret
        m_p = _log(ciphertext, key.p, key.p_squared) * self._scale_p
        m_q = _log(ciphertext, key.q, key.q_squared) * self._scale_q
        return (m_p + (m_q - m_p) * self._lift) % key.public.n


def _log(ciphertext: Mpz, prime: Mpz, square: Mpz) -> Mpz:
    return (gmpy2.powmod_sec(ciphertext % square, prime - 1, square) - 1) // prime
