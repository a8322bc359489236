"""The primes of CKKS, as SEAL chooses them."""

from __future__ import annotations

import gmpy2

from hepipe.errors import OutOfRange


def ntt_primes(degree: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """For each size the primes p = 1 (mod 2N) just below 2**size, the smallest of those needed first.

    OutOfRange where there are not so many of a size.
    """
    found = {size: _largest_primes(2 * degree, size, sizes.count(size)) for size in set(sizes)}
    return tuple(found[size].pop() for size in sizes)


def _largest_primes(step: int, size: int, count: int) -> list[int]:
    primes: list[int] = []
    candidate = ((1 << size) - 1) // step * step + 1
    while len(primes) < count:
        if candidate < 1 << (size - 1):
            raise OutOfRange(
                f"there are only {len(primes)} primes of {size} bits that are 1 modulo {step}, {count} were asked for: "
                "use larger sizes, or a smaller ring"
            )
        if candidate < 1 << size and gmpy2.is_prime(candidate):
            primes.append(candidate)
        candidate -= step
    return primes
