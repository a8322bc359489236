"""Linear systems solved without rounding: over the rationals, modulo n, and the way from a residue to its fraction."""

from __future__ import annotations

from collections.abc import Sequence

import gmpy2

from hepipe.errors import IllPosed, OutOfRange
from hepipe.schemes.lanes import Mpz

Matrix = Sequence[Sequence[int]]

_SINGULAR = (
    "the columns of the pooled rows depend on each other, exactly or up to their rounding: leave one out, take a ridge "
    "with alpha > 0, or publish narrower ranges"
)


def solve(matrix: Matrix, right: Sequence[int], least: int = 0) -> tuple[list[Mpz], Mpz]:
    """(numerators, denominator) of the solution of an integer system; the denominator is the determinant up to sign.

    Elimination without fractions (Bareiss, Math. Comp. 22, 1968): every division is exact, and no entry outgrows a
    minor of the matrix. Price: size**3 / 3 products of integers up to the determinant.

    IllPosed if the matrix is singular; or if it is a Gram matrix and some column but the first, once the earlier ones
    are taken out of it, keeps a sum of squares below ``least``.
    """
    rows = [[gmpy2.mpz(value) for value in (*row, b)] for row, b in zip(matrix, right, strict=True)]
    size, previous = len(rows), gmpy2.mpz(1)
    for k in range(size):
        _pivot(rows, k)
        if least and k and rows[k][k] < least * previous:  # the ratio of pivots is that sum of squares
            raise IllPosed(_SINGULAR)
        for i in range(k + 1, size):
            below = [rows[k][k] * rows[i][j] - rows[i][k] * rows[k][j] for j in range(k + 1, size + 1)]
            rows[i][k + 1 :] = [gmpy2.divexact(value, previous) for value in below]
        previous = rows[k][k]
    found: list[Mpz] = [gmpy2.mpz(0)] * size
    for i in reversed(range(size)):
        known = sum((rows[i][j] * found[j] for j in range(i + 1, size)), gmpy2.mpz(0))
        found[i] = gmpy2.divexact(previous * rows[i][size] - known, rows[i][i])
    return found, previous


def solve_modulo(matrix: Matrix, right: Sequence[int], n: Mpz) -> list[Mpz]:
    """The solution of a system modulo n. IllPosed if it is singular. Price: size**3 / 3 products modulo n.

    n may be a product of two large primes: a pivot that shares only one of them would factor n, so none is met.
    """
    rows = [[gmpy2.mpz(value) % n for value in (*row, b)] for row, b in zip(matrix, right, strict=True)]
    size = len(rows)
    for k in range(size):
        _pivot(rows, k)
        inverse = gmpy2.invert(rows[k][k], n)
        rows[k][k:] = [value * inverse % n for value in rows[k][k:]]
        for i in range(size):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i][k:] = [(a - factor * b) % n for a, b in zip(rows[i][k:], rows[k][k:], strict=True)]
    return [row[size] for row in rows]


def _pivot(rows: list[list[Mpz]], k: int) -> None:
    """Swap a row into place k whose entry there is not zero."""
    place = next((i for i in range(k, len(rows)) if rows[i][k]), None)
    if place is None:
        raise IllPosed(_SINGULAR)
    rows[k], rows[place] = rows[place], rows[k]


def rational(residue: int, n: Mpz, numerator: int, denominator: int) -> tuple[Mpz, Mpz]:
    """The one fraction a / b = residue modulo n with |a| <= numerator and 0 < b <= denominator.

    It is unique where 2 * numerator * denominator < n, and half a run of Euclid's algorithm finds it (Wang, Guy and
    Davenport, SIGSAM Bulletin 1982). OutOfRange if there is none, or the bounds are too large for n.
    """
    if 2 * numerator * denominator >= n:
        raise OutOfRange(f"fractions of {(2 * numerator * denominator).bit_length()} bits are not unique modulo n")
    high, low = (n, gmpy2.mpz(0)), (gmpy2.mpz(residue) % n, gmpy2.mpz(1))
    while low[0] > numerator:
        quotient = high[0] // low[0]
        high, low = low, (high[0] - quotient * low[0], high[1] - quotient * low[1])
    a, b = low if low[1] > 0 else (-low[0], -low[1])
    if not 0 < b <= denominator or gmpy2.gcd(a, b) != 1:
        raise OutOfRange("no fraction within its bounds has this residue: a wrong answer, or an altered one")
    return a, b
