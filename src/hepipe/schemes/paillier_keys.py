"""Paillier keys with a certified generator, and the fixed-base table it makes possible.

A key holder can draw r**n modulo n**2 twenty times faster from a fixed base, but that is the same distribution only
if the base generates ALL n-th residues. So p - 1 = 2ab is built from known factors, and the generator is tested
against each of them; no assumption is added to the decisional composite residuosity that Paillier (EUROCRYPT 1999)
rests on. The same keys are fit for short-exponent randomness by Damgard, Jurik and Nielsen (2010), which needs
p = q = 3 (mod 4) and gcd(p - 1, q - 1) = 2.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import gmpy2
import phe

from hepipe.errors import InsecureParameters, MalformedFrame, OutOfRange
from hepipe.schemes.lanes import Mpz
from hepipe.schemes.secret import SecretKey

COFACTOR_BITS = 24
"""Bits of a in p = 2ab + 1, about: small enough to factor at sight, so that every factor of p - 1 is known."""
SMALLEST_FACTOR = 65537
PRIME_ROUNDS = 40
_TAG = b"hepipe.paillier.public.v1\0"


@dataclass(frozen=True)
class PaillierPublicKey:
    """The modulus n; the generator is n + 1."""

    n: Mpz

    @cached_property
    def n_squared(self) -> Mpz:
        """The modulus of ciphertexts."""
        return self.n * self.n

    @cached_property
    def key_id(self) -> str:
        """The first 32 hex digits of SHA-256 over a tag, the length of n in bytes, and n, big-endian."""
        size = (int(self.n).bit_length() + 7) // 8
        return hashlib.sha256(_TAG + size.to_bytes(4, "big") + int(self.n).to_bytes(size, "big")).hexdigest()[:32]

    def to_phe(self) -> Any:
        """The same key as a phe.PaillierPublicKey."""
        return phe.PaillierPublicKey(int(self.n))

    def __repr__(self) -> str:
        return f"<PublicKey {self.key_id[:8]}, {int(self.n).bit_length()} bits>"


def check_public(n: int, modulus_bits: int) -> PaillierPublicKey:
    """The public key of an n received from a peer, after every check that needs no proof (protocols.md 3.5).

    MalformedFrame if n is not an odd number of exactly ``modulus_bits``; InsecureParameters if it has a prime factor
    up to 65537, is a prime, or a perfect power. Price: about 10 ms at 3072 bits, once a key. A modulus can pass and
    still be badly made: that gcd(n, phi(n)) = 1 takes a proof by its owner, see paillier_proof.
    """
    if int(n).bit_length() != modulus_bits or n < 0:
        size = int(n).bit_length()
        raise MalformedFrame(f"the modulus has {size} bits, {modulus_bits} were agreed: send the right key")
    if n % 2 == 0:
        raise MalformedFrame("the modulus is even: it is not a product of two large primes")
    return _checked(int(n))


@lru_cache(maxsize=64)
def _checked(n: int) -> PaillierPublicKey:
    value = gmpy2.mpz(n)
    if gmpy2.gcd(value, _small_primes()) > 1:
        raise InsecureParameters(f"the modulus has a prime factor up to {SMALLEST_FACTOR}: generate a new key")
    if gmpy2.is_prime(value, 1):  # one round tells a composite for certain, which is all that a peer must show
        raise InsecureParameters("the modulus is a prime, so everyone can decrypt: generate a new key")
    if gmpy2.is_power(value):
        raise InsecureParameters("the modulus is a perfect power, so everyone can factor it: generate a new key")
    return PaillierPublicKey(value)


@lru_cache(maxsize=1)
def _small_primes() -> Mpz:
    return gmpy2.primorial(SMALLEST_FACTOR)


class PaillierSecretKey(SecretKey):
    """The primes p = 2ab + 1 and q likewise, with a generator of all n-th residues modulo p**2 and q**2.

    It refuses to be pickled, copied or turned into bytes, and its repr shows only the key id. ``expose_factors`` is
    the one way out, for a key store that encrypts them. Construction validates everything: InsecureParameters if the
    factors are not those of a sound key.
    """

    __slots__ = ("a", "b", "generator_p", "generator_q", "p", "p_squared", "public", "q", "q_squared")

    def __init__(self, p: Prime, q: Prime) -> None:
        _check_pair(p, q)
        self.p, self.q = p.value, q.value
        self.a, self.b = (p.a, q.a), (p.b, q.b)
        self.p_squared, self.q_squared = self.p**2, self.q**2
        self.generator_p = gmpy2.powmod_sec(p.generator(), self.p, self.p_squared)
        self.generator_q = gmpy2.powmod_sec(q.generator(), self.q, self.q_squared)
        self.public = PaillierPublicKey(self.p * self.q)
        super().__init__(self.public.key_id)

    def expose_factors(self) -> dict[str, int]:
        """The secret itself, {a_p, b_p, a_q, b_q}: for a key store, and nothing else."""
        return {"a_p": int(self.a[0]), "b_p": int(self.b[0]), "a_q": int(self.a[1]), "b_q": int(self.b[1])}

    @classmethod
    def from_factors(cls, factors: Mapping[str, int]) -> PaillierSecretKey:
        """The key whose ``expose_factors`` these are; everything is validated again.

        MalformedFrame if the names are others; InsecureParameters if the numbers are not a sound key's.
        """
        if set(factors) != {"a_p", "b_p", "a_q", "b_q"}:
            raise MalformedFrame(f"a Paillier secret key has the parts a_p, b_p, a_q, b_q, got {sorted(factors)}")
        a_p, b_p, a_q, b_q = (gmpy2.mpz(factors[name]) for name in ("a_p", "b_p", "a_q", "b_q"))
        return cls(Prime(a_p, b_p), Prime(a_q, b_q))

    def to_phe(self) -> Any:
        """The same key as a phe.PaillierPrivateKey, which is a plain object: it no longer guards its content."""
        return phe.PaillierPrivateKey(self.public.to_phe(), int(self.p), int(self.q))

    def _material(self) -> bytes:
        return json.dumps({name: hex(value) for name, value in self.expose_factors().items()}).encode()


@dataclass(frozen=True, repr=False)
class Prime:
    """A prime 2ab + 1 that says why: b prime, a odd and small. InsecureParameters if it is not one."""

    a: Mpz
    b: Mpz

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.a % 2 and self.a.bit_length() <= COFACTOR_BITS + 2):
            raise InsecureParameters("the cofactor of p - 1 must be a small odd number: generate a new key")
        if not (self.b > 2 and _is_prime(self.b) and _is_prime(self.value)):
            raise InsecureParameters("b and p = 2ab + 1 must both be prime: generate a new key")

    @property
    def value(self) -> Mpz:
        """The prime p."""
        return 2 * self.a * self.b + 1

    def generator(self) -> Mpz:
        """The least generator of the whole group modulo p, certified against 2, b and every prime factor of a."""
        p = self.value
        cofactors = [(p - 1) // factor for factor in {2, self.b, *prime_factors(int(self.a))}]
        return next(h for h in itertools.count(2) if all(gmpy2.powmod_sec(h, c, p) != 1 for c in cofactors))


def generate_secret_key(modulus_bits: int) -> PaillierSecretKey:
    """A fresh key with n of exactly ``modulus_bits``, from the operating system's randomness.

    Price: 0.2 to 0.6 s at 3072 bits. Whether the size is secure is for PaillierParameters to say.
    """
    if modulus_bits % 2 or modulus_bits < 256:
        raise OutOfRange(f"modulus_bits must be even and at least 256, got {modulus_bits}")
    p = random_prime(modulus_bits // 2)
    while True:
        q = random_prime(modulus_bits // 2, coprime_to=p.a * p.b)
        if abs(p.value - q.value).bit_length() > modulus_bits // 2 - 100:
            return PaillierSecretKey(p, q)


def random_prime(bits: int, coprime_to: Mpz = 1) -> Prime:
    """A random prime p = 2ab + 1 of ``bits`` with its two top bits set, (p - 1) / 2 coprime to ``coprime_to``.

    b is uniform among the primes of bits - 25 bits, a among the odd numbers that bring p to its size; two such primes
    have a product of exactly 2 * bits.
    """
    while True:
        b = _random_number(bits - COFACTOR_BITS - 1)
        if not gmpy2.is_prime(b):
            continue
        low, high = (3 << (bits - 2)) // (2 * b) + 1, ((1 << bits) - 1) // (2 * b)
        for _ in range(16 * bits):
            a = (low + secrets.randbelow(int(high - low + 1))) | 1
            candidate = 2 * a * b + 1
            if a <= high and gmpy2.gcd(a * b, coprime_to) == 1 and gmpy2.is_prime(candidate):
                return Prime(a, b)


def prime_factors(number: int) -> set[int]:
    """The prime factors of a small odd number, by trial division."""
    factors, divisor = set(), 3
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.add(divisor)
            number //= divisor
        divisor += 2
    return factors | ({number} if number > 1 else set())


class FixedBase:
    """All powers of one base, by products only: ``table[i][d]`` is base**(d * 2**(window * i)).

    Brickell, Gordon, McCurley and Wilson (EUROCRYPT 1992), with the power of every digit stored. Price of a power:
    ``exponent_bits / window`` products. Of the table: 2**window times as many products, and numbers to keep; at 3072
    bits with window 8, 19 MB and 0.15 s for each prime.
    """

    def __init__(self, base: Mpz, modulus: Mpz, exponent_bits: int, window: int = 8) -> None:
        self.modulus, self.window = gmpy2.mpz(modulus), window
        self.exponent_bits = -(-exponent_bits // window) * window
        self._rows: list[list[Mpz]] = []
        for _ in range(self.exponent_bits // window):
            row = self._row(gmpy2.mpz(base))
            self._rows.append(row)
            base = row[-1] * base % self.modulus

    def power(self, exponent: int) -> Mpz:
        """base**exponent modulo the modulus; OutOfRange unless 0 <= exponent < 2**exponent_bits."""
        if exponent < 0 or int(exponent).bit_length() > self.exponent_bits:
            raise OutOfRange(f"the table covers exponents of {self.exponent_bits} bits: build it for larger ones")
        result, modulus = gmpy2.mpz(1), self.modulus
        digits = gmpy2.unpack(gmpy2.mpz(exponent), self.window)
        for row, digit in zip(self._rows, digits, strict=False):
            result = result * row[digit] % modulus
        return result

    def _row(self, base: Mpz) -> list[Mpz]:
        row = [gmpy2.mpz(1), base]
        while len(row) < 1 << self.window:
            row.append(row[-1] * base % self.modulus)
        return row


def _check_pair(p: Prime, q: Prime) -> None:
    bits = p.value.bit_length()
    if bits != q.value.bit_length() or (p.value * q.value).bit_length() != 2 * bits:
        raise InsecureParameters("p and q must have the same size, and n twice as many bits: generate a new key")
    if gmpy2.gcd(p.a * p.b, q.a * q.b) != 1:
        raise InsecureParameters("gcd(p - 1, q - 1) must be 2: generate a new key")
    # FIPS 186-5, A.1.3: closer primes fall to Fermat's factoring.
    if abs(p.value - q.value).bit_length() <= bits - 100:
        raise InsecureParameters("p and q are too close: generate a new key")
    n, phi = p.value * q.value, (p.value - 1) * (q.value - 1)
    if gmpy2.gcd(n, phi) != 1:
        raise InsecureParameters("gcd(n, phi(n)) must be 1: generate a new key")


def _is_prime(value: Mpz) -> bool:
    return bool(gmpy2.is_prime(value, PRIME_ROUNDS))


def _random_number(bits: int) -> Mpz:
    return gmpy2.mpz(secrets.randbits(bits) | 1 << (bits - 1) | 1)
