"""Signed lanes of one Paillier plaintext: many fixed-point values in one integer.

A plaintext is sum_i v_i * 2**(i * lane_bits), taken modulo n as a signed number. A negative lane borrows from the one
above it; adding 2**(lane_bits - 1) to every lane undoes all borrows at once, so both directions are a single shift of
digits (packed additively homomorphic encryption: Ge and Zdonik, VLDB 2007).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import gmpy2

from hepipe.errors import OutOfRange

Mpz = Any
"""A gmpy2.mpz; the package carries no type information."""


@lru_cache(maxsize=1024)
def repunit(lane_bits: int, count: int) -> Mpz:
    """The plaintext with a one in each of the lowest ``count`` lanes: times v it is v in each of them."""
    return ((gmpy2.mpz(1) << (lane_bits * count)) - 1) // ((gmpy2.mpz(1) << lane_bits) - 1)


def pack(column: Iterable[int], lane_bits: int) -> Mpz:
    """One signed plaintext of the integers, the first in the lowest lane.

    OutOfRange unless every value v has -2**(lane_bits - 1) <= v < 2**(lane_bits - 1). Price: a microsecond for ten
    lanes. Reduce modulo n before use.
    """
    half = 1 << (lane_bits - 1)
    shifted = [int(value) + half for value in column]
    if not shifted:
        return gmpy2.mpz(0)
    if min(shifted) < 0 or max(shifted) >= 2 * half:
        raise OutOfRange(f"a value does not fit a signed lane of {lane_bits} bits: lower the bound, or use wider lanes")
    return gmpy2.pack(shifted, lane_bits) - half * repunit(lane_bits, len(shifted))


def unpack(plaintext: Mpz, n: Mpz, lane_bits: int, count: int) -> list[int]:
    """The signed integers in the lowest ``count`` lanes of a plaintext modulo n.

    OutOfRange if anything is left above those lanes: a lane has overflowed, or the key was a wrong one.
    """
    half = 1 << (lane_bits - 1)
    shifted = signed(plaintext, n) + half * repunit(lane_bits, count)
    if shifted < 0 or shifted.bit_length() > lane_bits * count:
        raise OutOfRange(f"the plaintext has more than {count} lanes of {lane_bits} bits: an overflow, or a wrong key")
    lanes = [int(lane) - half for lane in gmpy2.unpack(shifted, lane_bits)[:count]]
    return lanes + [-half] * (count - len(lanes))


def signed(plaintext: Mpz, n: Mpz) -> Mpz:
    """The representative of a residue modulo n that lies in (-n/2, n/2]."""
    residue = gmpy2.mpz(plaintext) % n
    return residue - n if 2 * residue > n else residue
