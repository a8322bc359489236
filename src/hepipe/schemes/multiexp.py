"""Products of powers: one digit plan for a weight column, run on the columns of every block.

prod_i c_i**w_i for signed w_i of L bits is one interleaved ladder (Straus 1964; Handbook of Applied Cryptography,
algorithm 14.88), with the c_i in groups of k that have a table of all subset products, so that a bit position costs
one product a group. Its shape is constant: the work depends on the number of weights and on L, never on their values.
The digits are those of w_i + 2**L, from 1 to 2**(L + 1), so that no sign shows; and a group's first base stands once
more in every entry of its table, so that an empty subset is a product like all others. ONE inversion for all outputs
takes off both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import gmpy2

from hepipe.schemes.lanes import Mpz

MAX_GROUP = 8

Ladder = tuple[tuple[int, ...], ...]
"""For each bit, from the highest down, one table entry a group."""


@dataclass(frozen=True)
class WeightedSums:
    """The plan for all outputs of integer weights; build it once with ``of``, run it for every block.

    Price of a run, in products modulo the modulus: (features / k) * 2**k for the tables, then per output
    (L + 1) * features / k + L + 1, and one inversion. Of the weights that tells L, the bits of the largest, only.
    """

    groups: tuple[range, ...]
    ladders: tuple[Ladder, ...]

    @classmethod
    def of(cls, columns: Sequence[Sequence[int]]) -> WeightedSums:
        """The plan for ``columns[output][feature]``."""
        features = len(columns[0])
        bits = max(abs(weight).bit_length() for column in columns for weight in column)
        groups = _groups(features, _best_group(features, len(columns) * (bits + 1)))
        return cls(
            groups, tuple(_ladder([weight + (1 << bits) for weight in column], bits, groups) for column in columns)
        )

    def run(self, bases: Sequence[Mpz], modulus: Mpz) -> list[Mpz]:
        """prod_i bases[i]**weights[i] modulo ``modulus`` for every output; exactly 1 where all weights are zero.

        The bases must be units, as ciphertexts are.
        """
        table: list[Mpz] = []
        first = whole = gmpy2.mpz(1)
        for group in self.groups:
            entries = _subset_products([bases[i] for i in group], modulus)
            first = first * entries[0] % modulus
            whole = whole * entries[-1] % modulus
            table += entries
        # Of the exponents 2**L is too much, and 2**(L + 1) - 1 for the first base of each group: the L squarings of a
        # ladder make the start of it, and the last product gives back the 1.
        start = gmpy2.invert(whole * first % modulus, modulus)
        return [_climbed(ladder, table, start, modulus) * first % modulus for ladder in self.ladders]


def _best_group(features: int, digits: int) -> int:
    def price(size: int) -> int:
        return -(-features // size) * ((1 << size) + digits)

    return min(range(1, min(features, MAX_GROUP) + 1), key=price)


def _groups(features: int, size: int) -> tuple[range, ...]:
    count = -(-features // size)
    edges = [features * i // count for i in range(count + 1)]
    return tuple(range(low, high) for low, high in itertools.pairwise(edges))


def _ladder(shifted: list[int], bits: int, groups: tuple[range, ...]) -> Ladder:
    return tuple(_entries([value >> bit & 1 for value in shifted], groups) for bit in reversed(range(bits + 1)))


def _entries(digits: list[int], groups: tuple[range, ...]) -> tuple[int, ...]:
    entries, offset = [], 0
    for group in groups:
        entries.append(offset + sum(digits[i] << place for place, i in enumerate(group)))
        offset += 1 << len(group)
    return tuple(entries)


def _subset_products(bases: list[Mpz], modulus: Mpz) -> list[Mpz]:
    """The first base times the product of each subset of the bases."""
    table = [bases[0]]
    for base in bases:
        table += [entry * base % modulus for entry in table]
    return table


def _climbed(ladder: Ladder, table: list[Mpz], start: Mpz, modulus: Mpz) -> Mpz:
    result = start
    for place, entries in enumerate(ladder):
        if place:
            result = result * result % modulus
        for entry in entries:
            result = result * table[entry] % modulus
    return result
