"""Where the blinding factors of Paillier ciphertexts come from: three sources, and a pool that is filled ahead.

A blinding factor is an encryption of zero; for the uniform laws it is a uniform n-th residue r**n modulo n**2.
"""

from __future__ import annotations

import secrets
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import gmpy2

from hepipe.errors import InsecureParameters
from hepipe.schemes.lanes import Mpz
from hepipe.schemes.paillier_keys import FixedBase, PaillierPublicKey, PaillierSecretKey

TABLE_PAYS_AFTER = 48
"""Draws after which a fixed-base table has cost less than the exponentiations it replaces."""


class Source(Protocol):
    """Draws blinding factors; ``prepare`` does what can be done ahead for all of them."""

    def prepare(self) -> None:
        """Build the tables, if this source has any."""
        ...

    def draw(self, count: int) -> list[Mpz]:
        """``count`` independent blinding factors."""
        ...


class UniformSource:
    """r**n with r uniform in the units modulo n: needs only the public key, adds no assumption.

    Price: an exponentiation modulo n**2 each, 28 ms at 3072 bits. ``threads`` run truly in parallel.
    """

    def __init__(self, public: PaillierPublicKey, threads: int = 1) -> None:
        self.public, self.threads = public, threads

    def prepare(self) -> None:
        """Nothing can be prepared: every base is new."""

    def draw(self, count: int) -> list[Mpz]:
        """``count`` uniform n-th residues."""
        units = [_random_unit(self.public.n) for _ in range(count)]
        if self.threads == 1:
            return self._powers(units)
        parts = [units[i :: self.threads] for i in range(self.threads)]
        with ThreadPoolExecutor(self.threads) as threads:
            return [power for powers in threads.map(self._powers, parts) for power in powers]

    def _powers(self, units: list[Mpz]) -> list[Mpz]:
        powers: list[Mpz] = gmpy2.powmod_base_list(units, self.public.n, self.public.n_squared)
        return powers


class HolderSource:
    """The very same law for the holder of p and q: full uniform exponents of a certified generator, then CRT.

    The n-th residues modulo p**2 are the cyclic group of order p - 1 that the key's generator generates; e uniform in
    [0, p - 1) therefore gives the exact distribution of r**n. Price at 3072 bits: 1.3 ms with the tables (38 MB),
    which are built in 0.3 s on ``prepare`` or once enough was drawn to pay for them; 9 ms before.
    """

    def __init__(self, secret: PaillierSecretKey) -> None:
        self._secret = secret
        self._lift = secret.p_squared * gmpy2.invert(secret.p_squared, secret.q_squared)
        self._tables: tuple[FixedBase, FixedBase] | None = None
        self._drawn = 0

    def prepare(self) -> None:
        """Build the two tables now."""
        if self._tables is None:
            key = self._secret
            self._tables = (
                FixedBase(key.generator_p, key.p_squared, key.p.bit_length()),
                FixedBase(key.generator_q, key.q_squared, key.q.bit_length()),
            )

    def draw(self, count: int) -> list[Mpz]:
        """``count`` uniform n-th residues."""
        self._drawn += count
        if self._drawn > TABLE_PAYS_AFTER:
            self.prepare()
        return [self._one() for _ in range(count)]

    def _one(self) -> Mpz:
        key = self._secret
        e_p, e_q = secrets.randbelow(int(key.p - 1)), secrets.randbelow(int(key.q - 1))
        if self._tables is not None:
            u_p, u_q = self._tables[0].power(e_p), self._tables[1].power(e_q)
        else:
            u_p = _power(key.generator_p, e_p, key.p_squared)
            u_q = _power(key.generator_q, e_q, key.q_squared)
        return (u_p + (u_q - u_p) * self._lift) % key.public.n_squared


class DjnSource:
    """Short exponents by Damgard, Jurik and Nielsen (2010): h**(n e), h = -x**2, e of |n| / 2 bits.

    It ADDS an assumption: that half-length powers of h look like uniform ones, which Goldreich and Rosen (2003) derive
    from factoring, in the subgroup of Jacobi symbol 1 of a Blum modulus. So it is sound only for keys made by hepipe
    (p = q = 3 mod 4, gcd(p - 1, q - 1) = 2), and never for answers to the key holder, who could test guessed weights
    against the randomness. InsecureParameters if n shows that it was made otherwise (n = 3 mod 4; half of such n do).
    Price at 3072 bits: 1.6 ms with the table (38 MB, 0.4 s), 20 ms before.
    """

    def __init__(self, public: PaillierPublicKey) -> None:
        if public.n % 4 != 1:
            raise InsecureParameters("short exponents need a Blum modulus, n = 1 mod 4: use randomness='uniform'")
        self.public, self.exponent_bits = public, int(public.n).bit_length() // 2
        h = -(_random_unit(public.n) ** 2) % public.n
        self._base = gmpy2.powmod(h, public.n, public.n_squared)
        self._table: FixedBase | None = None
        self._drawn = 0

    def prepare(self) -> None:
        """Build the table now."""
        if self._table is None:
            self._table = FixedBase(self._base, self.public.n_squared, self.exponent_bits)

    def draw(self, count: int) -> list[Mpz]:
        """``count`` powers of the base with independent short exponents."""
        self._drawn += count
        if self._drawn > TABLE_PAYS_AFTER:
            self.prepare()
        exponents = [secrets.randbits(self.exponent_bits) for _ in range(count)]
        if self._table is not None:
            return [self._table.power(e) for e in exponents]
        return [_power(self._base, e, self.public.n_squared) for e in exponents]


class RandomnessPool:
    """Blinding factors made ahead, so that the online work of an encryption is one product.

    Each value is handed out once. A pool belongs to one key; an empty pool draws on demand.

    late  how many values were drawn on demand so far
    """

    def __init__(self, public: PaillierPublicKey, source: Source | None = None) -> None:
        self.public = public
        self._source = source if source is not None else UniformSource(public)
        self._ready: deque[Mpz] = deque()
        self.late = 0

    def __len__(self) -> int:
        return len(self._ready)

    def prepare(self) -> None:
        """Build the tables of the source, if it has any."""
        self._source.prepare()

    def fill(self, count: int) -> None:
        """Have ``count`` values ready, and draw those that are missing now: offline work."""
        self._ready.extend(self._source.draw(max(count - len(self._ready), 0)))

    def take(self) -> Mpz:
        """One value, never handed out before."""
        return self.take_many(1)[0]

    def take_many(self, count: int) -> list[Mpz]:
        """``count`` values: from the pool first, the others drawn now."""
        taken: list[Mpz] = []
        while len(taken) < count:
            try:
                # popleft is atomic: two threads never get the same value.
                taken.append(self._ready.popleft())
            except IndexError:
                missing = count - len(taken)
                self.late += missing
                return taken + self._source.draw(missing)
        return taken


def _power(base: Mpz, exponent: int, modulus: Mpz) -> Mpz:
    return gmpy2.powmod_sec(base, exponent, modulus) if exponent else gmpy2.mpz(1)


def _random_unit(n: Mpz) -> Mpz:
    while True:
        r = gmpy2.mpz(1 + secrets.randbelow(int(n) - 1))
        if gmpy2.gcd(r, n) == 1:
            return r
