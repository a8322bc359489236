"""Numbers and primes that follow from a label through SHAKE-256: nothing up the sleeve, and the same every time."""

from __future__ import annotations

import hashlib
import math

import gmpy2


def number(label: str, bits: int) -> int:
    """A number of at most `bits` bits that depends on the label alone."""
    digest = hashlib.shake_256(f"hepipe golden paillier {label}".encode()).digest(-(-bits // 8))
    return int.from_bytes(digest) >> -bits % 8


def prime(label: str, bits: int, residue: int | None = 3) -> int:
    """A prime of `bits` bits, the two top ones set, in the residue class modulo 4 asked for."""
    candidate = gmpy2.next_prime(number(label, bits) | 3 << (bits - 2))
    while residue is not None and candidate % 4 != residue:
        candidate = gmpy2.next_prime(candidate)
    return int(candidate)


def below(label: str, n: int) -> int:
    return number(label, n.bit_length() + 64) % n


def of_length(bits: int, *head: int) -> list[int]:
    """These factors, and the prime that makes their product `bits` bits long."""
    target = number(f"cofactor {bits} {sum(head)}", bits) | 3 << (bits - 2)
    return [*head, int(gmpy2.next_prime(target // math.prod(head)))]


def power(bits: int, exponent: int) -> list[int]:
    root = int(gmpy2.iroot(gmpy2.mpz(number(f"power {exponent}", bits) | 3 << (bits - 2)), exponent)[0])
    return [int(gmpy2.next_prime(root))] * exponent


def divides_next(bits: int) -> list[int]:
    """p and q = 2 k p + 1: the shape for which n-th powers are not a group isomorphism."""
    p = prime(f"{bits} divides", bits // 2 - 24)
    k = (3 << (bits - 2)) // (2 * p * p)
    while not gmpy2.is_prime(2 * k * p + 1):
        k += 1
    return [p, 2 * k * p + 1]
