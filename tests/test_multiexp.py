"""Weighted sums: products of powers for any weights, by work that depends on nothing but the largest one's size."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from types import SimpleNamespace
from typing import Any, ClassVar

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepipe.schemes import multiexp
from hepipe.schemes.multiexp import WeightedSums


@st.composite
def weighted_sums(draw: st.DrawFn) -> list[list[int]]:
    features, outputs = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    weight = st.one_of(st.integers(-(2**40), 2**40), st.sampled_from([0, 1, -1, 2, -2]))
    column = st.lists(weight, min_size=features, max_size=features)
    return draw(st.lists(column, min_size=outputs, max_size=outputs))


@given(weighted_sums(), st.randoms(use_true_random=False))
def test_weighted_sums_are_products_of_powers(weights: list[list[int]], random: Any) -> None:
    modulus = gmpy2.mpz(2**127 - 1)
    bases = [gmpy2.mpz(random.randrange(2, 2**126)) for _ in weights[0]]
    results = WeightedSums.of(weights).run(bases, modulus)
    for column, result in zip(weights, results, strict=True):
        expected = 1
        for base, weight in zip(bases, column, strict=True):
            expected = expected * gmpy2.powmod(base, weight, modulus) % modulus
        assert result == expected


def test_all_zero_weights_give_exactly_one() -> None:
    assert WeightedSums.of([[0, 0, 0]]).run([gmpy2.mpz(5)] * 3, gmpy2.mpz(101)) == [1]


def test_a_plan_shares_its_tables_between_outputs() -> None:
    one, many = WeightedSums.of([[2**28 - 1] * 15]), WeightedSums.of([[2**28 - 1] * 15] * 64)
    assert len(one.groups) > len(many.groups)
    # A quarter of the products of one per set bit of each weight, before counting the squarings saved.
    assert sum(map(len, one.ladders[0])) <= 28 * 15 / 3


class Counted(int):
    """An integer whose products are written down: each by the sizes of its factors, in eighths of the modulus."""

    seen: ClassVar[list[tuple[int, ...]]] = []

    def __mul__(self, other: int) -> Counted:
        self.seen.append(tuple(sorted(min(8 * int(f).bit_length() // MODULUS.bit_length(), 7) for f in (self, other))))
        return Counted(int(self) * int(other))

    def __mod__(self, other: int) -> Counted:
        return Counted(int(self) % int(other))


def invert(value: int, modulus: int) -> Counted:
    Counted.seen.append(())
    return Counted(pow(int(value), -1, int(modulus)))


MODULUS = (2**521 - 1) ** 2
BASES = [secrets.randbelow(MODULUS) | 1 for _ in range(15)]
LARGEST = 2**28 - 1
ALIKE = {
    "dense": [LARGEST] * 15,
    "sparse": [2**27] + [0] * 14,
    "small": [LARGEST] + [3] * 14,
    "negative": [-LARGEST] * 15,
    "mixed": [(-1) ** i * (LARGEST >> i) for i in range(15)],
}


def work(columns: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, ...]]:
    """The products and inversions of one run, by size."""
    monkeypatch.setattr(multiexp, "gmpy2", SimpleNamespace(mpz=Counted, invert=invert))
    Counted.seen.clear()
    results = WeightedSums.of(columns).run([Counted(base) for base in BASES], MODULUS)
    for column, result in zip(columns, results, strict=True):
        powers = (pow(base, weight, MODULUS) for base, weight in zip(BASES, column, strict=True))
        assert result == math.prod(powers) % MODULUS
    return Counter(Counted.seen)


@pytest.mark.parametrize("name", ALIKE)
def test_the_work_is_the_same_for_weights_of_any_size_sign_and_density(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = work([ALIKE[name]], monkeypatch)
    assert found == work([ALIKE["dense"]], monkeypatch)
    assert found[()] == 1
    assert found.total() < 28 * 15


def test_only_the_largest_weight_of_all_outputs_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros, ones = [0] * 15, [1] * 15
    dense = work([ALIKE["dense"], ALIKE["mixed"], ALIKE["sparse"]], monkeypatch)
    assert work([ALIKE["sparse"], zeros, ones], monkeypatch) == dense
    assert work([[2 * LARGEST] * 15, zeros, ones], monkeypatch) != dense
