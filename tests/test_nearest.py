"""The least of several numbers: every order and every tie, by ranks and by indicators, at the price stated."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.circuits import comparison, sign
from hepipe.circuits.comparison import LARGEST, index, losses, nearest
from hepipe.errors import ShapeMismatch
from hepipe.protocol.comparison import answer_masked_numbers, answer_zero_tests
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.frames import Kind, kind_of
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, ClearParameters, PaillierParameters

GAP = 2.0**-6
LANE = PaillierParameters(1024, 8, 8, lane_bits=1022, lanes=1, depth=1, insecure=True)
EXACT = ClearParameters(1, 8, 8, exact=True)
FLOAT = ClearParameters(40)


def in_clear(parameters: ClearParameters, values: np.ndarray, bound: float = 1.0) -> tuple[Any, Any, Any]:
    """(evaluator, encrypted values, decryptor)."""
    scheme = ClearScheme(parameters)
    keys = scheme.keygen()
    return scheme.evaluator(keys), scheme.encryptor(keys.secret).encrypt(values, bound), scheme.decryptor(keys.secret)


@cache
def paillier() -> tuple[Any, Any, Any]:
    """(evaluator by rounds, encryptor, decryptor)."""
    scheme = PaillierScheme(LANE)
    keys = scheme.keygen()
    bundle = PublicBundle(LANE, keys.public, keys.evaluation)
    holder = bundle, scheme.encryptor(keys.secret), scheme.decryptor(keys.secret)

    def answer(frame: bytes) -> bytes:
        return (answer_zero_tests if kind_of(frame) == Kind.ZERO_TESTS else answer_masked_numbers)(frame, *holder)

    ev = Interactive(scheme.evaluator(KeySet(None, keys.public, keys.evaluation)), LocalLink(answer), bundle)
    return ev, holder[1], holder[2]


def wins_of(rows: np.ndarray) -> np.ndarray:
    """Per pair i < j whether number j is strictly less."""
    pairs = itertools.combinations(range(rows.shape[1]), 2)
    return np.column_stack([rows[:, j] < rows[:, i] for i, j in pairs]).astype(float)


def all_orders(count: int) -> np.ndarray:
    """Every row of numbers up to what comparisons see: all orders, with all ties."""
    return np.array(list(itertools.product(range(count), repeat=count)), dtype=float)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_one_number_loses_to_none_whatever_the_order_and_the_ties(count: int) -> None:
    rows = all_orders(count)
    ev, wins, decryptor = in_clear(EXACT, wins_of(rows))
    found = decryptor.decrypt(losses(ev, wins, count))
    # The lower of equal numbers is the nearer one.
    expected = [[sum((b, o) < (a, j) for o, b in enumerate(row)) for j, a in enumerate(row)] for row in rows]
    assert (np.abs(found) == expected).all()
    assert ((found == 0).sum(axis=1) == 1).all()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_indicators_sum_to_the_index_whatever_the_order_and_the_ties(count: int) -> None:
    rows = all_orders(count)
    ev, wins, decryptor = in_clear(FLOAT, wins_of(rows))
    found = index(ev, wins, count)
    assert (decryptor.decrypt(found)[:, 0] == rows.argmin(axis=1)).all()
    assert FLOAT.depth - found.level == int(np.ceil(np.log2(count - 1)))


@settings(max_examples=100)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_no_indicators_between_0_and_1_leave_the_range_of_indices(count: int, seed: int) -> None:
    wins = np.random.default_rng(seed).uniform(0, 1, (50, count * (count - 1) // 2))
    ev, x, decryptor = in_clear(FLOAT, wins)
    found = decryptor.decrypt(index(ev, x, count))
    assert (found > -1e-12).all()
    assert (found < count - 1 + 1e-12).all()


@settings(max_examples=100)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_the_error_of_the_polynomials_leaves_every_index_right(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.permuted(np.tile(np.arange(count), (50, 1)), axis=1)
    off = rng.choice([-1, 1], (50, count * (count - 1) // 2)) * 2.0 ** -comparison._error_bits(count)
    ev, x, decryptor = in_clear(FLOAT, wins_of(rows) + off, 2.0)
    assert np.abs(decryptor.decrypt(index(ev, x, count))[:, 0] - rows.argmin(axis=1)).max() < 0.27


def spread(count: int, rows: int, seed: int) -> np.ndarray:
    """Distances no two of which are further apart than allowed."""
    return np.random.default_rng(seed).uniform(0, LARGEST - GAP, (rows, count))


def least_two(distances: np.ndarray) -> np.ndarray:
    ordered = np.sort(distances, axis=1)
    return np.asarray(ordered[:, 1] - ordered[:, 0])


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_float64_finds_the_least_away_from_ties(count: int, seed: int) -> None:
    distances = spread(count, 500, seed)
    ev, x, decryptor = in_clear(FLOAT, distances)
    found = decryptor.decrypt(nearest(ev, x, GAP))[:, 0]
    clear = least_two(distances) >= GAP
    assert (np.rint(found) == distances.argmin(axis=1))[clear].all()
    assert (np.abs(found - (count - 1) / 2) <= (count - 1) / 2 + 0.3).all()


@settings(max_examples=4, deadline=None)
@given(st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_paillier_finds_the_least_of_the_integers_ties_included(count: int, seed: int) -> None:
    distances = spread(count, 3, seed)
    distances[1] = distances[1, 0]  # all equal
    distances[2, -1] = distances[2, 0]
    ev, encryptor, decryptor = paillier()
    found = decryptor.decrypt(nearest(ev, encryptor.encrypt(distances, 1.0), GAP))[:, 0]
    assert (found == to_fixed(distances, 8).astype(int).argmin(axis=1)).all()
    ev, x, decryptor = in_clear(EXACT, distances)
    assert (decryptor.decrypt(nearest(ev, x, GAP))[:, 0] == found).all()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_price(count: int) -> None:
    pairs = count * (count - 1) // 2
    dry = DryEvaluator(LANE)
    y = nearest(dry, dry.fresh((2, count), 1.0), GAP)
    assert (dry.rounds, dry.lowest_level) == (2, LANE.depth)
    # Below LARGEST and 16 units of guard: 9 bits at a scale of 8.
    assert dry.operations["blind"] == 2 * (pairs * (9 + 1) + count)
    assert y.bound.tolist() == [count - 1.0] * count
    levels = DryEvaluator(FLOAT)
    nearest(levels, levels.fresh((2, count), 1.0), GAP)
    products = int(np.ceil(np.log2(count - 1)))
    assert FLOAT.depth - levels.lowest_level == sign.price(6, comparison._error_bits(count)) + products
    assert levels.rounds == 0


def test_one_number_is_no_question() -> None:
    ev, x, _ = in_clear(EXACT, np.zeros((1, 1)))
    with pytest.raises(ShapeMismatch, match="give at least two"):
        nearest(ev, x, GAP)


def test_lanes_are_refused() -> None:
    from hepipe.errors import Unsupported

    dry = DryEvaluator(TEST_INSECURE_PAILLIER)
    with pytest.raises(Unsupported, match="plan with lanes=1"):
        nearest(dry, dry.fresh((2, 2), 1.0), GAP)
