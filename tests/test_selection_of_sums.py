"""Sums over several trees in one step on Paillier: exact, and the key holder sees the sum and nothing of its terms."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hepipe.circuits.selection import Trees, choose
from hepipe.errors import MalformedFrame, OutOfRange
from hepipe.schemes import paillier_evaluator
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import Kind, parse, tensor_bytes
from hepipe.schemes.paillier_evaluator import _shares_of_zero
from hepipe.schemes.wire import pack_tensor, unpack_tensor
from test_selection import EXACT, LANE, SHORT, WIDTH, bits_of, bundle, clear, modulus, paillier, random_trees, walked

COUNT, DEPTH, QUERIES = 3, 1, 10_000


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_the_sum_is_exact_and_takes_no_round(depth: int, count: int, seed: int) -> None:
    trees, bits = random_trees(depth, count, seed), bits_of(2, seed)
    encryptor, ev, decryptor = paillier(LANE)
    y = unpack_tensor(pack_tensor(ev.rerandomize(choose(ev, encryptor.encrypt(bits, 1.0), trees)), bundle()), bundle())
    assert (y.blinded, y.shape) == (count, (2, 2 * count * 2**depth))
    mirror, reference, reader = clear(EXACT)
    expected = reader.decrypt_integers(choose(reference, mirror.encrypt(bits, 1.0), trees))
    assert (decryptor.decrypt_integers(y) == expected).all()
    assert (decryptor.decrypt(y) == walked(trees, bits)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_the_dry_run_knows_price_bytes_bound_and_error(depth: int, count: int, rows: int, seed: int) -> None:
    trees, ev = random_trees(depth, count, seed), DryEvaluator(LANE)
    y = ev.rerandomize(choose(ev, ev.fresh((rows, WIDTH), 1.0), trees))
    entries = (1 if count == 1 else 2) * count * 2**depth
    assert (ev.rounds, ev.lowest_level, y.shape) == (0, LANE.depth, (rows, entries))
    assert ev.operations["blind"] == ev.operations["rerandomize"] == rows * entries
    assert set(y.bound) == {np.abs(trees.values.reshape(-1, count)).max(axis=0).sum()}
    assert ev.error_bound(y) == count * 2.0 ** -(LANE.log_plain_scale + 1)


def test_a_frame_is_as_long_as_planned() -> None:
    encryptor, ev, _ = paillier(LANE)
    y = ev.rerandomize(choose(ev, encryptor.encrypt(bits_of(2), 1.0), random_trees(1, 2)))
    assert len(pack_tensor(y, bundle())) == tensor_bytes(LANE, y.shape, 0, blinded=y.blinded)


def test_bits_that_are_none_give_no_number() -> None:
    encryptor, ev, decryptor = paillier(LANE)
    y = choose(ev, encryptor.encrypt(np.full((1, WIDTH), 2.0), 2.0), random_trees(1, 2))
    with pytest.raises(OutOfRange, match=r"\[0 0\] values where one a group is selected"):
        decryptor.decrypt(y)
    mirror, reference, _ = clear(EXACT)
    with pytest.raises(OutOfRange, match="without exactly one cost of zero"):
        choose(reference, mirror.encrypt(np.full((1, WIDTH), 2.0), 2.0), random_trees(1, 2))


@pytest.mark.parametrize(
    ("groups", "message"), [(0, "0 groups"), (3, "3 groups"), (16, "16 groups"), (65535, "groups")]
)
def test_a_number_of_groups_that_does_not_fit_is_refused(groups: int, message: str) -> None:
    encryptor, ev, _ = paillier(LANE)
    y = ev.rerandomize(choose(ev, encryptor.encrypt(bits_of(1), 1.0), random_trees(2, 2)))
    frame = parse(pack_tensor(y, bundle()), Kind.TENSOR)
    assert frame.body[:2] == struct.pack(">H", 2)
    forged = replace(frame, body=struct.pack(">H", groups) + frame.body[2:])
    with pytest.raises(MalformedFrame, match=message):
        unpack_tensor(forged.to_bytes(), bundle())
    with pytest.raises(MalformedFrame, match="without its number of groups"):
        unpack_tensor(replace(frame, body=b"\0").to_bytes(), bundle())


# What the key holder sees: marks and summands of all leaves, group by group.


@settings(max_examples=200)
@given(st.integers(2, 2**40), st.integers(1, 9))
def test_shares_sum_to_zero(n: int, count: int) -> None:
    shares = _shares_of_zero(n, count)
    assert len(shares) == count
    assert all(0 <= share < n for share in shares)
    assert sum(shares) % n == 0


def seen(trees: Trees, queries: int = QUERIES) -> dict[str, np.ndarray]:
    """Of repeated identical queries: the selected summand of each tree, and all the other plaintexts."""
    encryptor, ev, decryptor = paillier(SHORT)
    y = choose(ev, encryptor.encrypt(np.repeat(bits_of(1, 3), queries, axis=0), 1.0), trees)
    plain = np.array([[int(decryptor._plaintext(c)) for c in row] for row in y.data], dtype=object)
    pairs = plain.reshape(queries, trees.count, -1, 2)
    hit = np.asarray(pairs[..., 0] == 0, dtype=bool)
    assert (hit.sum(axis=2) == 1).all()
    return {
        "summands": pairs[hit][:, 1].reshape(queries, trees.count),
        "marks": pairs[~hit][:, 0],
        "others": pairs[~hit][:, 1],
        "places": hit.argmax(axis=2),
    }


def digits(values: np.ndarray, base: int = 16) -> np.ndarray:
    """Leading digit modulo n."""
    n = modulus(SHORT)
    return np.array([base * int(value) // n for value in values.ravel()])


def uniform(values: np.ndarray) -> float:
    """The p-value of uniformity modulo n, by the leading digit and by the remainder modulo 11."""
    low = np.bincount((values.ravel() % 11).astype(int), minlength=11)
    return float(min(stats.chisquare(np.bincount(digits(values), minlength=16)).pvalue, stats.chisquare(low).pvalue))


@cache
def transcripts() -> list[dict[str, Any]]:
    """Two forests with the same sum on the query, and in it trees that differ by 1000."""
    first = random_trees(DEPTH, COUNT, 1)
    shift = np.tile([1000.0, -400.0, -600.0], 2**DEPTH)
    return [seen(first), seen(Trees(first.columns, first.values + shift))]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["summands", "marks", "others"])
def test_all_that_is_seen_is_uniform(part: str) -> None:
    for view in transcripts():
        assert uniform(view[part]) > 1e-6
        assert len(set(view[part].ravel())) == view[part].size


@pytest.mark.slow
def test_the_sum_is_the_answer_and_each_part_of_it_is_uniform() -> None:
    n = modulus(SHORT)
    answer = int(walked(random_trees(DEPTH, COUNT, 1), bits_of(1, 3))[0, 0] * 2**LANE.log_plain_scale)
    for view in transcripts():
        assert set(view["summands"].sum(axis=1) % n) == {answer % n}
        for tree in range(COUNT):
            without = np.delete(view["summands"], tree, axis=1)
            assert uniform(without.sum(axis=1) % n) > 1e-6
            pairs = digits(without[:, 0], 4) * 4 + digits(without[:, 1], 4)
            assert stats.chisquare(np.bincount(pairs, minlength=16)).pvalue > 1e-6


@pytest.mark.slow
def test_forests_of_one_sum_look_the_same() -> None:
    n = modulus(SHORT)
    first, second = transcripts()
    for tree in range(COUNT):
        left, right = ([int(v) / n for v in view["summands"][:, tree]] for view in (first, second))
        assert stats.ks_2samp(left, right).pvalue > 1e-6
    assert stats.chisquare(np.bincount(first["places"].ravel(), minlength=2**DEPTH)).pvalue > 1e-6


def single_outputs(view: dict[str, np.ndarray]) -> list[float]:
    """The attack: read each tree's marked entry as that tree's leaf."""
    n = modulus(SHORT)
    mean = [sum(int(v) - n if 2 * int(v) > n else int(v) for v in column) for column in view["summands"].T]
    return [total / len(view["summands"]) / 2**LANE.log_plain_scale for total in mean]


@pytest.mark.slow
def test_single_trees_are_read_without_shares_and_not_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = random_trees(DEPTH, COUNT, 1)
    leaves = [walked(_tree(trees, tree), bits_of(1, 3))[0, 0] for tree in range(COUNT)]
    assert min(abs(guess) for guess in single_outputs(transcripts()[0])) > 2.0**100
    monkeypatch.setattr(paillier_evaluator, "_shares_of_zero", lambda n, count: [0] * count)
    assert single_outputs(seen(trees, 2)) == leaves


def _tree(trees: Trees, tree: int) -> Trees:
    return Trees(tuple(level[tree :: trees.count] for level in trees.columns), trees.values[tree :: trees.count])
