"""Products of powers: one digit plan for a weight column, run on the columns of every block.

prod_i c_i**w_i for signed w_i of L bits is one interleaved ladder (Straus 1964; Handbook of Applied Cryptography,
algorithm 14.88). Two changes. The c_i are taken in groups of k with a table of all subset products, so a bit position
costs one product a group. And the weights are written in two's complement, w = low - s * 2**L, so that all negative
weights together cost ONE inversion, at the top of the same ladder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import gmpy2

from hepipe.schemes.lanes import Mpz

MAX_GROUP = 8


@dataclass(frozen=True)
class ColumnPlan:
    """The ladder of one output: table entries for the negative weights, then for each bit from the highest down."""

    negative: tuple[int, ...]
    bits: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class WeightedSums:
    """The plan for all outputs of integer weights; build it once with ``of``, run it for every block.

    Price of a run, in products modulo the modulus: about (features / k) * 2**k for the tables, then per output
    L * (features / k + 1), and one inversion if it has a negative weight. The count depends on the size of the
    largest weight and, slightly, on digits that are zero: timing is not hidden from a local observer.
    """

    groups: tuple[range, ...]
    columns: tuple[ColumnPlan, ...]

    @classmethod
    def of(cls, columns: Sequence[Sequence[int]]) -> WeightedSums:
        """The plan for ``columns[output][feature]``."""
        features = len(columns[0])
        bits = [max(abs(weight).bit_length() for weight in column) for column in columns]
        groups = _groups(features, _best_group(features, bits))
        return cls(groups, tuple(_plan(column, size, groups) for column, size in zip(columns, bits, strict=True)))

    def run(self, bases: Sequence[Mpz], modulus: Mpz) -> list[Mpz]:
        """prod_i bases[i]**weights[i] modulo ``modulus`` for every output; exactly 1 where all weights are zero."""
        table: list[Mpz] = []
        for group in self.groups:
            table += _subset_products([bases[i] for i in group], modulus)
        return [_ladder(column, table, modulus) for column in self.columns]


def _best_group(features: int, bits: list[int]) -> int:
    def price(size: int) -> float:
        tables, ladder = (1 << size) - size - 1, sum(bits) * (1 - math.ldexp(1.0, -size))
        return -(-features // size) * (tables + ladder)

    return min(range(1, min(features, MAX_GROUP) + 1), key=price)


def _groups(features: int, size: int) -> tuple[range, ...]:
    count = -(-features // size)
    edges = [features * i // count for i in range(count + 1)]
    return tuple(range(low, high) for low, high in itertools.pairwise(edges))


def _plan(column: Sequence[int], bits: int, groups: tuple[range, ...]) -> ColumnPlan:
    low = [weight & ((1 << bits) - 1) for weight in column]
    negative = _entries([int(weight < 0) for weight in column], groups)
    return ColumnPlan(negative, tuple(_entries([v >> bit & 1 for v in low], groups) for bit in reversed(range(bits))))


def _entries(digits: list[int], groups: tuple[range, ...]) -> tuple[int, ...]:
    entries, offset = [], 0
    for group in groups:
        subset = sum(digits[i] << place for place, i in enumerate(group))
        if subset:
            entries.append(offset + subset)
        offset += 1 << len(group)
    return tuple(entries)


def _subset_products(bases: list[Mpz], modulus: Mpz) -> list[Mpz]:
    table = [gmpy2.mpz(1)]
    for base in bases:
        table += [base, *(entry * base % modulus for entry in table[1:])]
    return table


def _ladder(plan: ColumnPlan, table: list[Mpz], modulus: Mpz) -> Mpz:
    result = gmpy2.mpz(1)
    for entry in plan.negative:
        result = result * table[entry] % modulus
    if plan.negative:
        result = gmpy2.invert(result, modulus)
    for entries in plan.bits:
        result = result * result % modulus
        for entry in entries:
            result = result * table[entry] % modulus
    return result
