"""CKKS plaintexts as polynomials with whole coefficients of any size, exact where slots of doubles are not.

A double has 53 bits, so a value under a mask of 40 bits would keep 13. The coefficients are integers: a mask added to
them is taken off without a trace, and a plaintext decrypted at one modulus is encrypted again at another. The
number-theoretic transforms are SEAL's.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import gmpy2
import numpy as np
import numpy.typing as npt
import tenseal.sealapi as sealapi

from hepipe.schemes import seal
from hepipe.schemes.seal import Polynomials, Residues

Integers = npt.NDArray[np.object_]
"""N coefficients."""
Masks = list[list[Integers]]
"""The coefficients of a polynomial for every ciphertext, by block and feature."""


def to_integers(context: seal.Context, words: Residues, level: int) -> Integers:
    """The coefficients, in (-q/2, q/2], of a transformed polynomial of shape (primes, N) at ``level``."""
    # SEAL transforms ciphertexts only, and refuses one whose second polynomial is zero.
    parts = np.stack([words, np.ones_like(words)])
    pair = _load(context, parts, level, transformed=True)
    context.evaluator.transform_from_ntt_inplace(pair)
    residues = seal.take_apart(seal.save(pair), words.shape[-1]).residues[0]
    primes = context.parameters.primes_at(level)
    modulus = math.prod(primes)
    terms = [row.astype(object) * _unit(prime, modulus) for row, prime in zip(residues, primes, strict=True)]
    total: Integers = np.sum(terms, axis=0) % modulus
    return np.where(total > modulus // 2, total - modulus, total)


def to_words(context: seal.Context, integers: Integers, level: int) -> Residues:
    """The transform modulo each prime at ``level``, shape (primes, N)."""
    words = np.stack([(integers % prime).astype(np.uint64) for prime in context.parameters.primes_at(level)])
    pair = _load(context, np.stack([words, np.ones_like(words)]), level, transformed=False)
    context.evaluator.transform_to_ntt_inplace(pair)
    transformed: Residues = seal.take_apart(seal.save(pair), len(integers)).residues[0]
    return transformed


def random_integers(count: int, limit: int) -> Integers:
    """Uniform in [-limit, limit), from the operating system's randomness."""
    return np.array([secrets.randbelow(2 * limit) - limit for _ in range(count)], dtype=object)


def scaled(integers: Integers, bits: float) -> Integers:
    """round(integers * 2**bits), linear but for one unit."""
    # MPFR rounds 2**bits correctly, so two machines agree: a last bit between them would be multiplied by the mask.
    mantissa, exponent = gmpy2.exp2(gmpy2.mpfr(bits)).as_mantissa_exp()
    product, dropped = integers * int(mantissa), -int(exponent)
    half = 1 << dropped - 1 if dropped > 0 else 0
    rounded: Integers = product + half >> dropped if dropped > 0 else product << -dropped
    return rounded


def added(context: seal.Context, parts: Polynomials, words: Residues, level: int) -> Polynomials:
    """A ciphertext taken apart, with a transformed polynomial added to the one that carries its message."""
    primes = np.array(context.parameters.primes_at(level), dtype=np.uint64)[:, None]
    residues = parts.residues.copy()
    residues[0] = (residues[0] + words) % primes
    return Polynomials(residues, parts.seed)


def plaintext_words(plain: Any, primes: int, degree: int) -> Residues:
    """The words of SEAL's transformed plaintext, shape (primes, N)."""
    words = np.frombuffer(seal.save(plain)[-8 * primes * degree :], dtype="<u8")
    return words.reshape(primes, degree).astype(np.uint64)


def _load(context: seal.Context, parts: Residues, level: int, *, transformed: bool) -> Any:
    body = seal.put_together(Polynomials(parts), context.parms_id(level), 1.0, transformed=transformed)
    return seal.load(sealapi.Ciphertext(), context.seal, body)


def _unit(prime: int, modulus: int) -> int:
    """1 modulo ``prime``, 0 modulo the other primes."""
    rest = modulus // prime
    return rest * pow(rest, -1, prime)
