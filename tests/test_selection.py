"""Selection of a leaf: the walked path on every scheme, its price, and what the key holder can see of the tree."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hepipe.circuits.selection import Trees, choose, indicators, path_costs, weighted_leaves
from hepipe.errors import OutOfRange, ShapeMismatch, Unsupported
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.rounds import answer_masked_factors
from hepipe.schemes.base import CipherTensor, KeySet, PublicBundle
from hepipe.schemes.ckks import CkksScheme
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import HEADER_BYTES
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, CkksParameters, ClearParameters, PaillierParameters
from hepipe.schemes.wire import pack_tensor

WIDTH = 9
LANE = dataclasses.replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=5, log_scale=20, log_plain_scale=20)
SHORT = dataclasses.replace(LANE, modulus_bits=256, lane_bits=254)
"""For 10^4 blindings of full length in seconds; at LANE's length fewer show that the length is the modulus's."""
EXACT = ClearParameters(LANE.depth, LANE.log_scale, LANE.log_plain_scale, exact=True)
CKKS = CkksParameters(1024, (50, 40, 40, 40, 40, 50), 40.0, insecure=True)
RNG = np.random.default_rng(8)


def random_trees(depth: int, count: int = 1, seed: int = 0) -> Trees:
    rng = np.random.default_rng(seed)
    columns = tuple(rng.integers(0, WIDTH, count << level) for level in range(depth))
    return Trees(columns, rng.integers(-400, 400, count << depth) / 16)


def bits_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (rows, WIDTH)).astype(float)


def walked(trees: Trees, bits: np.ndarray) -> np.ndarray:
    """The sum over the trees of the leaf that each row reaches, by walking."""
    total = np.zeros((len(bits), 1))
    for row, value in enumerate(bits):
        for tree in range(trees.count):
            path = 0
            for level, columns in enumerate(trees.columns):
                path |= int(value[columns[tree + trees.count * path]] == 0) << level
            total[row] += trees.values[tree + trees.count * path]
    return total


def clear(parameters: ClearParameters) -> tuple[Any, Any, Any]:
    scheme = ClearScheme(parameters)
    keys = scheme.keygen()
    return scheme.encryptor(keys.secret), scheme.evaluator(keys), scheme.decryptor(keys.secret)


@cache
def paillier_keys(parameters: PaillierParameters) -> KeySet:
    return PaillierScheme(parameters).keygen()


@cache
def paillier(parameters: PaillierParameters) -> tuple[Any, Any, Any]:
    scheme, keys = PaillierScheme(parameters), paillier_keys(parameters)
    return scheme.encryptor(keys.secret), scheme.evaluator(keys), scheme.decryptor(keys.secret)


def modulus(parameters: PaillierParameters) -> int:
    return int(paillier_keys(parameters).public.n)


@cache
def bundle() -> PublicBundle:
    return PublicBundle(LANE, paillier_keys(LANE).public, paillier_keys(LANE).evaluation)


def interactive() -> tuple[Interactive, LocalLink]:
    encryptor, evaluator, decryptor = paillier(LANE)
    link = LocalLink(lambda request: answer_masked_factors(request, bundle(), encryptor, decryptor))
    return Interactive(evaluator, link, bundle()), link


tree_cases = given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))


@settings(max_examples=60, deadline=None)
@tree_cases
def test_weighted_leaves_is_the_walked_path(depth: int, count: int, seed: int) -> None:
    trees, bits = random_trees(depth, count, seed), bits_of(8, seed)
    encryptor, ev, decryptor = clear(ClearParameters())
    result = weighted_leaves(ev, encryptor.encrypt(bits, 1.0), trees)
    found = decryptor.decrypt(result)
    assert np.abs(found - walked(trees, bits)).max() < 1e-9
    largest = np.abs(trees.values.reshape(-1, count)).max(axis=0).sum()
    assert result.bound.tolist() == [largest]


@settings(max_examples=60, deadline=None)
@tree_cases
def test_exactly_the_leaf_reached_costs_nothing(depth: int, count: int, seed: int) -> None:
    trees, bits = random_trees(depth, count, seed), bits_of(8, seed)
    encryptor, ev, decryptor = clear(ClearParameters())
    costs = decryptor.decrypt(path_costs(ev, encryptor.encrypt(bits, 1.0), trees.columns))
    reached = costs == 0
    assert (reached.sum(axis=1) == count).all()
    assert (reached @ trees.values[:, None] == walked(trees, bits)).all()
    assert np.abs(costs).max() < 2**depth


@settings(max_examples=60, deadline=None)
@tree_cases
def test_indicators_are_one_where_the_path_goes(depth: int, count: int, seed: int) -> None:
    trees, bits = random_trees(depth, count, seed), bits_of(8, seed)
    encryptor, ev, decryptor = clear(ClearParameters())
    x = encryptor.encrypt(bits, 1.0)
    reached = decryptor.decrypt(path_costs(ev, x, trees.columns)) == 0
    signs = [(-1) ** (leaf // count).bit_count() for leaf in range(count << depth)]
    assert (decryptor.decrypt(indicators(ev, x, trees.columns)) == reached * signs).all()


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_paillier_selects_exactly(depth: int, seed: int) -> None:
    trees, bits = random_trees(depth, 1, seed), bits_of(3, seed)
    encryptor, ev, decryptor = paillier(LANE)
    y = ev.rerandomize(choose(ev, encryptor.encrypt(bits, 1.0), trees))
    assert y.blinded == 1
    assert y.shape == (3, 2**depth)
    assert (decryptor.decrypt(y) == walked(trees, bits)).all()
    mirror, reference, reader = clear(EXACT)
    expected = reader.decrypt_integers(choose(reference, mirror.encrypt(bits, 1.0), trees))
    assert (decryptor.decrypt_integers(y) == expected).all()


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 4), st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_paillier_weighs_leaves_by_rounds_exactly(depth: int, count: int, seed: int) -> None:
    trees, bits = random_trees(depth, count, seed), bits_of(2, seed)
    encryptor, _, decryptor = paillier(LANE)
    ev, link = interactive()
    y = weighted_leaves(ev, encryptor.encrypt(bits, 1.0), trees)
    assert y.shape == (2, 1)
    assert not y.blinded
    mirror, reference, reader = clear(EXACT)
    expected = reader.decrypt_integers(weighted_leaves(reference, mirror.encrypt(bits, 1.0), trees))
    assert (decryptor.decrypt_integers(y) == expected).all()
    assert (decryptor.decrypt(y) == walked(trees, bits)).all()
    assert link.transcript.rounds == [0, 1, 2, 3][depth - 1]


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("count", [1, 3])
def test_ckks_selects_within_the_error_of_the_dry_run(depth: int, count: int) -> None:
    trees, bits = random_trees(depth, count, depth), bits_of(512, depth)
    scheme = CkksScheme(CKKS)
    keys = scheme.keygen()
    dry = DryEvaluator(CKKS)
    limit = dry.error_bound(choose(dry, dry.fresh(bits.shape, 1.0), trees))
    y = choose(scheme.evaluator(keys), scheme.encryptor(keys.secret).encrypt(bits, 1.0), trees)
    assert np.abs(scheme.decryptor(keys.secret).decrypt(y) - walked(trees, bits)).max() < limit < 1e-4


@pytest.mark.parametrize(
    ("depth", "levels", "rounds", "products"),
    [(1, 1, 0, 0), (2, 2, 1, 2), (3, 2, 2, 6), (4, 3, 3, 14), (5, 3, 3, 38), (6, 4, 4, 70)],
)
def test_price_of_weighted_leaves_by_depth(depth: int, levels: int, rounds: int, products: int) -> None:
    trees = random_trees(depth, 2)
    ckks, masked = DryEvaluator(CKKS), DryEvaluator(LANE)
    for ev in (ckks, masked):
        weighted_leaves(ev, ev.fresh((1, WIDTH), 1.0), trees)
        assert ev.parameters.depth - ev.lowest_level == levels
        assert ev.operations["mul"] == 2 * products
    assert (ckks.rounds, masked.rounds) == (0, rounds)


def test_one_tree_on_paillier_takes_no_round_and_one_blinding_a_leaf() -> None:
    ev = DryEvaluator(LANE)
    choose(ev, ev.fresh((7, WIDTH), 1.0), random_trees(4))
    assert (ev.rounds, ev.lowest_level, ev.operations["blind"], ev.operations["mul"]) == (0, LANE.depth, 7 * 16, 0)


def test_lanes_that_share_a_blinding_are_refused() -> None:
    scheme = PaillierScheme(dataclasses.replace(TEST_INSECURE_PAILLIER, lanes=2, lane_bits=500))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(bits_of(2), 1.0)
    with pytest.raises(Unsupported, match="lanes=1"):
        choose(scheme.evaluator(keys), x, random_trees(2))


@pytest.mark.parametrize("sizes", [[], [0], [1], [1, 2, 3], [2, 2, 4], [1, 2, 4, 4]])
def test_incomplete_trees_are_refused(sizes: list[int]) -> None:
    *levels, leaves = sizes or [0]
    with pytest.raises(ShapeMismatch, match="complete"):
        Trees(tuple(np.zeros(size, dtype=np.int64) for size in levels), np.zeros(leaves))


def test_a_bit_that_is_none_selects_nothing_and_is_refused_at_decryption() -> None:
    encryptor, ev, decryptor = paillier(LANE)
    y = choose(ev, encryptor.encrypt(np.full((1, WIDTH), 2.0), 2.0), random_trees(2))
    with pytest.raises(OutOfRange, match="0 values where one is selected"):
        decryptor.decrypt(y)


# What the key holder sees: the plaintexts of all leaves, in the order in which they came.

PRIMES = (2, 3, 5, 7, 11, 13)
QUERIES, DEPTH = 10_000, 2


def seen(trees: Trees, bits: np.ndarray, parameters: PaillierParameters = SHORT) -> tuple[np.ndarray, np.ndarray]:
    """(the blinded plaintexts, the place of the selected one) of each row."""
    encryptor, ev, decryptor = paillier(parameters)
    y = choose(ev, encryptor.encrypt(bits, 1.0), trees)
    plaintexts = np.array([[int(decryptor._plaintext(c)) for c in row] for row in y.data], dtype=object)
    answers = decryptor.decrypt_integers(y) % modulus(parameters)
    places = (plaintexts == answers).argmax(axis=1)
    others = [
        [value for place, value in enumerate(row) if place != at] for row, at in zip(plaintexts, places, strict=True)
    ]
    return np.array(others, dtype=object), places


def uniform(counts: np.ndarray) -> float:
    """The p-value of equal probabilities."""
    return float(stats.chisquare(counts).pvalue)


def smallest_p_value(values: np.ndarray, n: int) -> float:
    """Whether integers are uniform modulo small primes, and modulo n in their leading digit."""
    tests = [uniform(np.bincount((values.ravel() % p).astype(int), minlength=p)) for p in PRIMES]
    leading = [int(16 * value // n) for value in values.ravel()]
    return min(*tests, uniform(np.bincount(leading, minlength=16)))


@cache
def transcripts() -> list[tuple[np.ndarray, np.ndarray]]:
    """The same 10^4 identical queries to two trees that agree on them and on nothing else."""
    bits = np.repeat(bits_of(1, 3), QUERIES, axis=0)
    first = random_trees(DEPTH, 1, 1)
    answer = walked(first, bits[:1])[0, 0]
    candidates = (random_trees(DEPTH, 1, seed) for seed in range(2, 99))
    second = next(trees for trees in candidates if _reached(trees, bits) != _reached(first, bits))
    values = second.values.copy()
    values[_reached(second, bits)] = answer
    return [seen(first, bits), seen(Trees(second.columns, values), bits)]


def _reached(trees: Trees, bits: np.ndarray) -> int:
    return int(walked(Trees(trees.columns, np.arange(len(trees.values), dtype=float)), bits[:1])[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("model", [0, 1])
def test_what_was_not_selected_is_uniform(model: int) -> None:
    others, _ = transcripts()[model]
    assert others.shape == (QUERIES, 2**DEPTH - 1)
    assert len(set(others.ravel())) == others.size
    assert smallest_p_value(others, modulus(SHORT)) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("model", [0, 1])
def test_the_place_of_the_answer_is_uniform(model: int) -> None:
    _, places = transcripts()[model]
    assert uniform(np.bincount(places, minlength=2**DEPTH)) > 1e-6


@pytest.mark.slow
def test_two_trees_with_the_same_answers_look_the_same() -> None:
    """KS at level 1e-6 on 10^4 values a side sees a distance of 0.038; each place is also looked at by itself."""
    (first, _), (second, _) = transcripts()
    for columns in (slice(None), *range(first.shape[1])):
        left, right = ([int(v) / modulus(SHORT) for v in values[:, columns].flat] for values in (first, second))
        assert stats.ks_2samp(left, right).pvalue > 1e-6


def test_blindings_are_as_long_as_the_modulus_whatever_its_length() -> None:
    """Exponents no longer than the short modulus would pass above; here their multiples are short, which is seen."""
    others, _ = seen(random_trees(DEPTH, 1, 1), np.repeat(bits_of(1, 3), 50, axis=0), LANE)
    assert smallest_p_value(others, modulus(LANE)) > 1e-6


def test_the_same_statistics_convict_short_blinding_and_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from hepipe.schemes import paillier_evaluator

    paillier(SHORT), paillier(LANE)  # a key is never made of patched randomness: that search would not end
    monkeypatch.setattr(paillier_evaluator.secrets, "randbelow", lambda _: int(RNG.integers(1, 2**40)))
    monkeypatch.setattr(paillier_evaluator, "_SHUFFLER", type("Fixed", (), {"shuffle": staticmethod(lambda _: None)}))
    for parameters in (SHORT, LANE):
        others, places = seen(random_trees(DEPTH, 1, 1), np.repeat(bits_of(1, 3), 50, axis=0), parameters)
        assert smallest_p_value(others, modulus(parameters)) < 1e-6
        assert uniform(np.bincount(places, minlength=2**DEPTH)) < 1e-6


def test_two_answers_have_the_same_header_but_for_the_ciphertexts() -> None:
    encryptor, ev, _ = paillier(LANE)
    x = encryptor.encrypt(bits_of(2), 1.0)

    def head(seed: int) -> bytes:
        y: CipherTensor = ev.rerandomize(choose(ev, x, random_trees(DEPTH, 1, seed)))
        frame = pack_tensor(y.with_bound(np.array([32.0])), bundle())
        return frame[: HEADER_BYTES - 32] + frame[HEADER_BYTES:][: 2 * 2**DEPTH]

    assert head(1) == head(2)
