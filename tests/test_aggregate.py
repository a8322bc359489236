"""Rows of several owners: the exact fit from encrypted sums, masked or not, who learns what, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import types
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import gmpy2
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression, Ridge

import hepipe
from hepipe.errors import (
    AgreementBroken,
    HepipeError,
    IllPosed,
    InsecureParameters,
    KeyMismatch,
    MalformedFrame,
    OutOfRange,
    ShapeMismatch,
)
from hepipe.models.schema import Column, Schema
from hepipe.schemes.frames import Kind, parse
from hepipe.schemes.lanes import unpack
from hepipe.training.aggregate import Aggregator, DataOwner, KeyHolder
from hepipe.training.agreement import Agreement
from hepipe.training.exact import rational, solve, solve_modulo
from hepipe.training.federated import FederatedRidge
from hepipe.training.masked import MaskedKeyHolder, MaskingAggregator

NAMES = ("north", "south", "west")
TARGET = Column("pay", -400.0, 600.0)
RNG = np.random.default_rng(8)


def schema(features: int) -> Schema:
    return Schema(tuple(Column(f"x{i}", -3.0 - i, 5.0) for i in range(features)))


def agreement(features: int = 2, owners: tuple[str, ...] = NAMES, **more: Any) -> Agreement:
    settings = {"rows": 64, "security_bits": 0} | more
    return Agreement(schema(features), TARGET, owners, **settings)


def rows_of(features: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3, 5, (samples, features))
    return X, X @ rng.normal(0, 5, features) + 20 + rng.normal(0, 3, samples)


@cache
def holder(masked: bool = False) -> KeyHolder:
    return (MaskedKeyHolder if masked else KeyHolder)(agreement(masked=masked))


def holder_again(masked: bool = False) -> Any:
    """The same keys for another test: a key answers once."""
    holder(masked)._answered = False
    return holder(masked)


@cache
def contributions(masked: bool = False, seed: int = 0) -> tuple[bytes, ...]:
    X, y = rows_of(2, 60, seed)
    agreed, public = agreement(masked=masked), holder(masked).public()
    parts = zip(NAMES, np.split(np.arange(60), 3), strict=True)
    return tuple(DataOwner(name, agreed, public).contribute(X[at], y[at]) for name, at in parts)


def aggregator(masked: bool = False, frames: tuple[bytes, ...] | None = None) -> Any:
    made = (MaskingAggregator if masked else Aggregator)(agreement(masked=masked), holder(masked).public())
    for frame in contributions(masked) if frames is None else frames:
        made.receive(frame)
    return made


# --- exact systems ---------------------------------------------------------------------------------------------------

integers = st.integers(-(2**90), 2**90)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.integers(1, 5))
def test_integer_systems_are_solved_exactly(data: st.DataObject, size: int) -> None:
    row = st.lists(integers | st.just(0), min_size=size, max_size=size)
    matrix, right = data.draw(st.lists(row, min_size=size, max_size=size)), data.draw(row)
    try:
        numerators, denominator = solve(matrix, right)
    except IllPosed:
        assert round(np.linalg.matrix_rank(np.array(matrix, dtype=float))) < size
        return
    found = [Fraction(int(a), int(denominator)) for a in numerators]
    assert [sum(Fraction(a) * w for a, w in zip(line, found, strict=True)) for line in matrix] == right
    n = gmpy2.mpz(2**127 - 1)
    residues = solve_modulo(matrix, right, n)
    assert all(sum(a * w for a, w in zip(line, residues, strict=True)) % n == b % n for line, b in zip(
        matrix, right, strict=True))  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**60), 2**60), st.integers(1, 2**60))
def test_a_fraction_comes_back_from_its_residue(a: int, b: int) -> None:
    n = 2**127 - 1
    fraction = Fraction(a, b)
    residue = a * pow(b, -1, n) % n
    assert rational(residue, gmpy2.mpz(n), 2**60, 2**60) == (fraction.numerator, fraction.denominator)


def test_residues_of_no_fraction_and_bounds_too_wide_are_refused() -> None:
    n = gmpy2.mpz(2**127 - 1)
    with pytest.raises(OutOfRange, match="no fraction within its bounds"):
        rational(2**70 + 3, n, 2**20, 2**20)
    with pytest.raises(OutOfRange, match="not unique modulo n"):
        rational(1, n, 2**64, 2**64)


def test_singular_systems_are_refused() -> None:
    for matrix in ([[1, 2], [2, 4]], [[0, 0], [0, 1]], [[0]]):
        right = [1] * len(matrix)
        with pytest.raises(IllPosed, match="alpha > 0"):
            solve(matrix, right)
        with pytest.raises(IllPosed, match="alpha > 0"):
            solve_modulo(matrix, right, gmpy2.mpz(101))
    assert solve([[0, 1], [1, 0]], [3, 5]) == ([5, 3], 1)


# --- the fit ---------------------------------------------------------------------------------------------------------


def reference(X: np.ndarray, y: np.ndarray, alpha: float) -> Any:
    return (Ridge(alpha=alpha) if alpha else LinearRegression()).fit(X, y)


@settings(max_examples=12, deadline=None)
@given(
    features=st.integers(1, 4),
    owners=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from([0.0, 0.1, 3.0]),
    masked=st.booleans(),
)
def test_the_fit_is_that_of_the_pooled_rows(features: int, owners: int, seed: int, alpha: float, masked: bool) -> None:
    X, y = rows_of(features, 15 * features + owners, seed)
    groups = np.arange(len(X)) % owners
    # 1024 bits hold the exact solution of four columns at 28 bits a value.
    bits = 28 if masked and features == 4 else 40
    fitted = FederatedRidge(alpha, masked, schema(features), TARGET, bits, 0).fit(X, y, groups)
    expected = reference(X, y, alpha)
    limit = 1e-9 if bits == 40 else 1e-5
    assert np.abs(fitted.coef_ - expected.coef_).max() < limit
    assert abs(fitted.intercept_ - expected.intercept_) < 20 * limit
    assert np.abs(fitted.predict(X) - expected.predict(X)).max() < 20 * limit
    assert (
        np.abs(fitted.estimator_.predict(pd.DataFrame(X, columns=schema(features).names)) - fitted.predict(X)).max()
        < 1e-9
    )


def test_fifty_owners_fit_one_model() -> None:
    X, y = rows_of(2, 300, 5)
    fitted = FederatedRidge(0.5, False, schema(2), TARGET, security_bits=0)
    fitted.fit(X, y, np.arange(300) % 50)
    expected = reference(X, y, 0.5)
    assert len(fitted.agreement_.owners) == 50
    assert np.abs(fitted.coef_ - expected.coef_).max() < 1e-9
    assert abs(fitted.intercept_ - expected.intercept_) < 1e-9


@pytest.mark.parametrize("masked", [False, True])
def test_whole_numbers_that_follow_a_law_give_it_back_exactly(masked: bool) -> None:
    X = RNG.integers(-3, 6, (90, 2)).astype(float)
    y = 12.0 * X[:, 0] - 7.0 * X[:, 1] + 31
    fitted = FederatedRidge(0.0, masked, schema(2), TARGET, security_bits=0).fit(X, y, np.arange(90) % 3)
    assert (fitted.coef_.tolist(), fitted.intercept_) == ([12.0, -7.0], 31.0)


@pytest.mark.secure
def test_the_fit_at_a_secure_size_can_be_served_encrypted() -> None:
    X, y = rows_of(2, 60, 3)
    frame = pd.DataFrame(X, columns=["x0", "x1"])
    fitted = FederatedRidge(schema=schema(2), target=TARGET).fit(frame, y, np.arange(60) % 3)
    assert fitted.agreement_.parameters.security_bits == 128
    model = hepipe.from_sklearn(fitted.estimator_, schema(2))
    client = hepipe.Client(hepipe.plan(model, "ckks", samples=4))
    predicted = client.predict(hepipe.Server(model, client.public()), frame.iloc[:4])
    assert np.abs(predicted - reference(X, y, 0).predict(X[:4])).max() < 2.0**-10


def test_without_ranges_two_to_the_sixteen_is_published() -> None:
    X, y = rows_of(2, 60, 1)
    fitted = FederatedRidge(security_bits=0, fraction_bits=52).fit(X, y, list("abc") * 20)
    assert np.abs(fitted.coef_ - reference(X, y, 0).coef_).max() < 1e-6
    assert fitted.agreement_.owners == ("a", "b", "c")
    assert fitted.agreement_.rows == 32
    assert fitted.agreement_.schema.high.tolist() == [2.0**16] * 2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), features=st.integers(1, 3), alpha=st.sampled_from([0.0, 0.3]))
def test_hadamard_bounds_every_solution(seed: int, features: int, alpha: float) -> None:
    agreed = agreement(features, alpha=alpha, masked=True, fraction_bits=12, rows=20)
    rng = np.random.default_rng(seed)
    X = rng.choice([-3.0, 5.0, 0.5], (60, features))
    y = rng.choice([-400.0, 600.0, 0.0], 60)
    total = sum(agreed.contribution(X[at], y[at]) for at in np.split(np.arange(60), 3))
    try:
        numerators, denominator = solve(*agreed.system([int(v) for v in total[:, 0]]))
    except IllPosed:
        assume(False)
    most = agreed.solution_bounds
    assert max(map(abs, numerators)) <= most[0]
    assert 0 < denominator <= most[1]


def test_rounding_to_the_grid_is_half_a_unit_of_the_published_range() -> None:
    agreed = agreement(2, fraction_bits=20)
    X, y = rows_of(2, 50, 2)
    integers = agreed.integers(X, y)
    assert (integers[:, 0] == 1).all()
    # Column 0 lies in [-3, 5]: its middle is 1, and 2**2 covers the half of its range.
    assert np.abs(integers[:, 1].astype(float) * 4 / 2**20 + 1 - X[:, 0]).max() <= 4 * 2.0**-21
    assert max(abs(v) for v in integers[:, 1:].ravel()) <= 2**20


# --- who learns what -------------------------------------------------------------------------------------------------


def numbers_in(root: object) -> set[int]:
    """Every integer, and every array's content scaled as no array of ciphertexts is, that can be reached from root."""
    seen: set[int] = set()
    stack, found, kept = [root], set(), []
    while stack:
        item = stack.pop()
        kept.append(item)  # so that no id is used twice
        code = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
        if id(item) in seen or isinstance(item, code):
            continue
        seen.add(id(item))
        if isinstance(item, int | gmpy2.mpz):
            found.add(int(item))
        if isinstance(item, np.ndarray):
            found |= {int(v) for v in item.ravel() if item.dtype == object}
            stack += [float(v) for v in item.ravel() if item.dtype == float]
        if isinstance(item, float) and np.isfinite(item):
            found.add(hash(("float", item)))
        stack.extend(gc.get_referents(item))
    return found


def sums_of(agreed: Agreement, seed: int = 0) -> list[set[int]]:
    """What must stay hidden: each owner's sums that are not small, and the sums of all."""
    X, y = rows_of(2, 60, seed)
    each = [agreed.contribution(X[at], y[at])[:, 0] for at in np.split(np.arange(60), 3)]
    return [{int(v) for v in part if abs(v) > 2**20} for part in (*each, sum(each))]


@pytest.mark.parametrize("masked", [False, True])
def test_the_aggregator_never_holds_a_sum(masked: bool) -> None:
    made, holding = aggregator(masked), holder_again(masked)
    made.release()
    seen = numbers_in(made)
    for part in sums_of(agreement(masked=masked)):
        assert len(part) >= 8
        assert seen.isdisjoint(part)
    assert {int(holding._decryptor._secret.p), int(holding._decryptor._secret.q)}.isdisjoint(seen)
    assert int(holding._decryptor._secret.p) in numbers_in(holding)  # the walk does find what is there


def test_the_key_holder_learns_the_sum_over_all_owners_and_of_none_alone() -> None:
    holding, made = holder_again(), aggregator()
    pooled = made.release()
    frame = parse(pooled, Kind.POOLED_SUM)
    size, parameters = agreement().parameters.ciphertext_bytes(0), agreement().parameters
    count = len(frame.body) // size
    ciphertexts = [gmpy2.mpz.from_bytes(frame.body[-size * (i + 1) :][:size], "big") for i in reversed(range(count))]
    lanes = [
        value
        for plain in holding._decryptor.residues(ciphertexts)
        for value in unpack(plain, holding._bundle.public.n, parameters.lane_bits, parameters.lanes)
    ]
    *parts, total = sums_of(agreement())
    assert total <= set(lanes)
    assert set(lanes).isdisjoint(set.union(*parts) - total)
    solution = holding.solve(pooled)
    assert solution.rows == 60
    seen = numbers_in((holding, solution))
    for part in parts:
        assert seen.isdisjoint(part)


def test_an_owner_keeps_no_row() -> None:
    X, y = rows_of(2, 20, 0)
    owner = DataOwner("north", agreement(), holder().public())
    owner.contribute(X, y)
    hidden = {hash(("float", float(v))) for v in (*X.ravel(), *y)}
    assert numbers_in(owner).isdisjoint(hidden | sums_of(agreement())[0])
    assert numbers_in([X, y]) >= hidden


def test_contributions_and_sums_are_encrypted_anew_each_time() -> None:
    X, y = rows_of(2, 20, 0)
    owner = DataOwner("north", agreement(), holder().public())
    first, second = owner.contribute(X, y), owner.contribute(X, y)
    assert len(first) == len(second)
    assert first[-256:] != second[-256:]
    assert aggregator().release()[-256:] != aggregator().release()[-256:]


def test_masks_over_a_field_hide_the_system_perfectly_and_come_off() -> None:
    """All masks over Z_3: each (A R, b + A r) comes up equally often, for either of two systems."""
    field, seen = 3, []
    matrices = [((a, b), (c, d)) for a, b, c, d in product(range(field), repeat=4) if (a * d - b * c) % field]
    for A, b in ((((1, 0), (0, 1)), (0, 0)), (((2, 1), (1, 1)), (1, 2))):
        counts: Counter[Any] = Counter()
        solution = solve_modulo(A, b, gmpy2.mpz(field))
        for R, r in product(matrices, product(range(field), repeat=2)):
            AR = (np.array(A) @ np.array(R)) % field
            right = (np.array(b) + np.array(A) @ r) % field
            counts[AR.tobytes(), right.tobytes()] += 1
            v = solve_modulo(AR.tolist(), right.tolist(), gmpy2.mpz(field))
            assert [int(x) % field for x in np.array(R) @ [int(x) for x in v] - r] == [int(w) for w in solution]
        seen.append(counts)
    assert seen[0] == seen[1]
    assert set(seen[0].values()) == {1}
    assert len(seen[0]) == len(matrices) * field**2


def seen_by_key_holder(seed: int, runs: int) -> np.ndarray:
    """What the masked key holder decrypts, as fractions of n, over fresh masks."""
    holding, values = holder_again(masked=True), []
    n = int(holding._bundle.public.n)
    for _ in range(runs):
        frame = parse(aggregator(True, contributions(True, seed)).release(), Kind.MASKED_SYSTEM)
        body = frame.body[40:]
        ciphertexts = [gmpy2.mpz.from_bytes(body[i : i + 256], "big") for i in range(0, len(body), 256)]
        values += [int(v) / n for v in holding._decryptor.residues(ciphertexts)]
    return np.array(values)


@pytest.mark.slow
def test_what_the_masked_key_holder_sees_does_not_depend_on_the_data() -> None:
    """KS at level 1e-6 and 240 values a side rejects a difference of 0.26 in distribution with power over 1/2."""
    small, large = seen_by_key_holder(0, 20), seen_by_key_holder(11, 20)
    assert stats.ks_2samp(small, large).pvalue > 1e-6
    for side in (small, large):
        assert stats.kstest(side, "uniform").pvalue > 1e-6
        assert len(set(side.tolist())) == 20 * 12
    # The same sums without masks would be seen at once: they are small.
    raw = [abs(v) / 2.0**1023 for part in sums_of(agreement(masked=True)) for v in part]
    assert stats.kstest(raw, "uniform").pvalue < 1e-6


def test_the_masked_key_holder_holds_neither_sums_nor_model() -> None:
    holding, made = holder_again(masked=True), aggregator(masked=True)
    reply = holding.answer(made.release())
    solution = made.finish(reply)
    seen = numbers_in(holding)
    for part in sums_of(agreement(masked=True)):
        assert seen.isdisjoint(part)
    weights = {hash(("float", float(w))) for w in (*solution.coef, solution.intercept)}
    assert seen.isdisjoint(weights)
    assert weights <= numbers_in([solution.coef, solution.intercept])


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"owners": ("a", "b")}, AgreementBroken, "2 different owners in 2"),
        ({"owners": ("a", "b", "b", "a")}, AgreementBroken, "2 different owners in 4"),
        ({"owners": ("a", "b", "c", "c")}, AgreementBroken, "3 different owners in 4"),
        ({"rows": 0}, OutOfRange, "rows must be"),
        ({"fraction_bits": 53}, OutOfRange, "fraction_bits 1 to 52"),
        ({"alpha": -1.0}, OutOfRange, "alpha a finite"),
        ({"alpha": float("nan")}, OutOfRange, "alpha a finite"),
        ({"security_bits": 100}, InsecureParameters, "security_bits=100: use one of"),
        ({"masked": True, "features": 9}, OutOfRange, r"takes \d+ bits, the modulus holds 1023: use fraction_bits"),
    ],
)
def test_agreements_that_cannot_be_kept_are_refused(changes: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        agreement(**changes)


def test_the_bits_a_refusal_names_are_enough() -> None:
    for features in (7, 9, 12):
        with pytest.raises(OutOfRange) as refusal:
            agreement(features, masked=True)
        bits = int(str(refusal.value).split("fraction_bits of at most ")[1].split(",")[0])
        assert agreement(features, masked=True, fraction_bits=bits).features == features


def test_two_owners_are_refused_by_the_estimator_too() -> None:
    X, y = rows_of(2, 60, 1)
    with pytest.raises(AgreementBroken, match="find more owners"):
        FederatedRidge(security_bits=0).fit(X, y, np.arange(60) % 2)
    with pytest.raises(ShapeMismatch, match="give one owner a row"):
        FederatedRidge(security_bits=0).fit(X, y, [0, 1, 2])


@pytest.mark.parametrize("masked", [False, True])
def test_too_few_rows_are_refused_before_anything_is_decrypted(masked: bool) -> None:
    X, y = rows_of(2, 18, 1)
    agreed = agreement(masked=masked)
    owners = [DataOwner(name, agreed, holder(masked).public()) for name in NAMES]
    frames = tuple(o.contribute(X[i::3], y[i::3]) for i, o in enumerate(owners))
    with pytest.raises(AgreementBroken, match="18 rows in all, at least 20 for 2 columns"):
        aggregator(masked, frames).release()


def test_what_an_owner_may_not_send() -> None:
    X, y = rows_of(2, 65, 1)
    owner = DataOwner("north", agreement(), holder().public())
    with pytest.raises(AgreementBroken, match="'north' has 65 rows, agreed were 1 to 64"):
        owner.contribute(X, y)
    with pytest.raises(AgreementBroken, match="'north' has 0 rows"):
        owner.contribute(X[:0], y[:0])
    with pytest.raises(OutOfRange, match="row 1, column 'x1'"):
        owner.contribute([[0.0, 0.0], [0.0, 5.5]], [1.0, 1.0])
    with pytest.raises(OutOfRange, match="row 0, column 'pay'"):
        owner.contribute(X[:2], [601.0, 0.0])
    with pytest.raises(ShapeMismatch, match="give one a row"):
        owner.contribute(X[:2], y[:3])
    with pytest.raises(ShapeMismatch, match="not numeric"):
        owner.contribute(X[:2], ["much", "more"])
    with pytest.raises(AgreementBroken, match="'east' is none of the agreed owners"):
        DataOwner("east", agreement(), holder().public())
    with pytest.raises(KeyMismatch, match="agreed were"):
        DataOwner("north", agreement(fraction_bits=30), holder().public())


def test_an_owner_counts_once_and_all_must_come() -> None:
    made = aggregator(frames=contributions()[:2])
    with pytest.raises(AgreementBroken, match="'north' has contributed already"):
        made.receive(contributions()[0])
    with pytest.raises(AgreementBroken, match=r"\['west'\] have not contributed"):
        made.release()
    made.receive(contributions()[2])
    made.release()
    with pytest.raises(AgreementBroken, match="released already"):
        made.release()


@pytest.mark.parametrize(
    "other",
    [
        {"alpha": 1.0},
        {"owners": ("north", "south", "east")},
        {"schema": Schema((Column("x0", -3.0, 5.0), Column("x1", -4.0, 5.0, unit="m")))},
        {"target": Column("wage", -400.0, 600.0)},
    ],
)
def test_owners_must_agree_on_everything(other: dict[str, Any]) -> None:
    agreed = dataclasses.replace(agreement(), **other)
    frame = DataOwner("north", agreed, holder().public()).contribute(*rows_of(2, 20, 0))
    with pytest.raises(AgreementBroken, match="under another agreement"):
        aggregator(frames=()).receive(frame)


def test_a_key_holder_decrypts_one_sum() -> None:
    holding = holder_again()
    holding.solve(aggregator().release())
    with pytest.raises(AgreementBroken, match="has decrypted its sum"):
        holding.solve(aggregator().release())


def test_a_count_of_rows_that_is_not_the_encrypted_one_is_found() -> None:
    frame = parse(contributions()[0], Kind.CONTRIBUTION)
    body = frame.body[:34] + (19).to_bytes(8, "big") + frame.body[42:]
    forged = dataclasses.replace(frame, body=body).to_bytes()
    with pytest.raises(AgreementBroken, match="counts 60 rows, stated are 59"):
        holder_again().solve(aggregator(frames=(forged, *contributions()[1:])).release())


@pytest.mark.parametrize("masked", [False, True])
def test_columns_that_depend_on_each_other_need_a_penalty(masked: bool) -> None:
    X = np.repeat(RNG.integers(-3, 6, (60, 1)), 2, axis=1).astype(float)
    y, groups = X[:, 0] * 2, np.arange(60) % 3
    common = {"masked": masked, "schema": schema(2), "target": TARGET, "security_bits": 0}
    with pytest.raises(IllPosed, match="depend on each other"):
        FederatedRidge(**common).fit(X, y, groups)
    fitted = FederatedRidge(1.0, **common).fit(X, y, groups)
    assert np.abs(fitted.coef_ - Ridge(alpha=1.0).fit(X, y).coef_).max() < 1e-9


def test_columns_that_depend_on_each_other_up_to_rounding_are_found() -> None:
    X = np.repeat(RNG.uniform(-3, 5, (60, 1)), 2, axis=1)
    noisy = X + np.outer(RNG.normal(0, 1e-4, 60), [0, 1])
    common = {"schema": schema(2), "target": TARGET, "security_bits": 0}
    with pytest.raises(IllPosed, match="up to their rounding"):
        FederatedRidge(**common).fit(X, X[:, 0], np.arange(60) % 3)
    noisy = np.clip(noisy, -3, 5)
    fitted = FederatedRidge(**common).fit(noisy, noisy.sum(axis=1), np.arange(60) % 3)
    assert np.abs(fitted.coef_ - 1).max() < 1e-6


def test_either_variant_needs_its_own_parties() -> None:
    with pytest.raises(AgreementBroken, match="use an Aggregator"):
        MaskingAggregator(agreement(), holder().public())
    with pytest.raises(AgreementBroken, match="use a MaskedKeyHolder"):
        holder_again(masked=True).solve(b"")
    plain = Aggregator(agreement(masked=True), holder(True).public())
    for frame in contributions(True):
        plain.receive(frame)
    with pytest.raises(AgreementBroken, match="use a MaskingAggregator"):
        plain.release()
    with pytest.raises(AgreementBroken, match="no masked system"):
        aggregator(masked=True).finish(b"")


def test_an_answer_that_solves_another_system_is_met() -> None:
    made, _, answer = solved()
    frame = parse(answer, Kind.MASKED_SOLUTION)
    wrong = frame.body[:32] + frame.body[160:288] + frame.body[32:160] + frame.body[288:]
    with pytest.raises(OutOfRange, match="no fraction within its bounds"):
        made.finish(dataclasses.replace(frame, body=wrong).to_bytes())


def test_weights_without_a_common_denominator_are_met_even_where_each_would_pass() -> None:
    """The key holder is made to answer for weights 1/p, 1/q, 1/s: each within its bounds, together beyond them."""
    made, _, answer = solved()
    n, (R, r) = int(made._bundle.public.n), made._masks
    _, most = made.agreement.solution_bounds
    primes = [int(gmpy2.next_prime(1 << (most.bit_length() - k))) for k in (3, 4, 5)]
    wrong = [(pow(p, -1, n) + s) % n for p, s in zip(primes, r, strict=True)]
    masked = [int(v) for v in solve_modulo(R, wrong, gmpy2.mpz(n))]
    frame = parse(answer, Kind.MASKED_SOLUTION)
    body = frame.body[:32] + b"".join(v.to_bytes(128, "big") for v in masked)
    with pytest.raises(OutOfRange, match="no common denominator"):
        made.finish(dataclasses.replace(frame, body=body).to_bytes())


# --- hostile messages ------------------------------------------------------------------------------------------------

OUTER: list[tuple[dict[str, Any], type[HepipeError]]] = [
    ({"kind": Kind.TENSOR}, MalformedFrame),
    ({"samples": 5}, MalformedFrame),
    ({"features": 7}, MalformedFrame),
    ({"level": 1}, MalformedFrame),
    ({"log_scale": 1.0}, MalformedFrame),
    ({"body": b""}, MalformedFrame),
    ({"body": b"\0" * 32}, HepipeError),
    ({"body": b"\0" * 3000}, AgreementBroken),
]


@pytest.mark.parametrize(
    ("changes", "error"), [*OUTER, ({"key_id": "00" * 16}, MalformedFrame), ({"flags": 1}, MalformedFrame)]
)
def test_an_aggregator_refuses_frames_that_are_no_contribution(changes: dict[str, Any], error: Any) -> None:
    frame = parse(contributions()[0], Kind.CONTRIBUTION)
    with pytest.raises(error):
        aggregator(frames=()).receive(dataclasses.replace(frame, **changes).to_bytes())


@pytest.mark.parametrize(
    ("at", "content", "error"),
    [
        (0, b"\0", AgreementBroken),  # the digest
        (32, b"\0\3", MalformedFrame),  # a fourth owner
        (34, b"\0" * 8, AgreementBroken),  # no rows
        (34, b"\xff" * 8, AgreementBroken),  # more rows than agreed
        (42, b"X", MalformedFrame),  # the frame within
        (-1, b"", MalformedFrame),  # a byte less
    ],
)
def test_an_aggregator_refuses_contributions_altered_inside(at: int, content: bytes, error: Any) -> None:
    frame = parse(contributions()[0], Kind.CONTRIBUTION)
    end = at + len(content) if content else len(frame.body)
    body = frame.body[:at] + content + frame.body[end:]
    with pytest.raises(error):
        aggregator(frames=()).receive(dataclasses.replace(frame, body=body).to_bytes())


def test_a_bound_that_was_not_agreed_is_refused() -> None:
    frame = parse(contributions()[0], Kind.CONTRIBUTION)
    inner = parse(frame.body[42:], Kind.TENSOR)
    smaller = dataclasses.replace(inner, body=(20).to_bytes(2, "big") + inner.body[2:])
    with pytest.raises(MalformedFrame, match="bounded by"):
        aggregator(frames=()).receive(dataclasses.replace(frame, body=frame.body[:42] + smaller.to_bytes()).to_bytes())


@pytest.mark.parametrize(("changes", "error"), OUTER)
def test_a_key_holder_refuses_frames_that_are_no_sum(changes: dict[str, Any], error: Any) -> None:
    frame = parse(aggregator().release(), Kind.POOLED_SUM)
    with pytest.raises(error):
        holder_again().solve(dataclasses.replace(frame, **changes).to_bytes())


def test_a_sum_of_fewer_owners_is_refused_by_the_key_holder() -> None:
    frame = parse(aggregator().release(), Kind.POOLED_SUM)
    body = frame.body[:32] + b"\0\2" + frame.body[34:]
    with pytest.raises(AgreementBroken, match="a sum of 2 owners, agreed were 3"):
        holder_again().solve(dataclasses.replace(frame, body=body).to_bytes())
    few = frame.body[:34] + (19).to_bytes(8, "big") + frame.body[42:]
    with pytest.raises(AgreementBroken, match="19 rows in all"):
        holder_again().solve(dataclasses.replace(frame, body=few).to_bytes())


@pytest.mark.parametrize(
    ("changes", "error"), [*OUTER, ({"key_id": "00" * 16}, KeyMismatch), ({"scheme": "ckks"}, KeyMismatch)]
)
def test_a_masked_key_holder_refuses_frames_that_are_no_system(changes: dict[str, Any], error: Any) -> None:
    frame = parse(aggregator(masked=True).release(), Kind.MASKED_SYSTEM)
    with pytest.raises(error):
        holder_again(masked=True).answer(dataclasses.replace(frame, **changes).to_bytes())


@pytest.mark.parametrize(
    ("changes", "error"),
    [*OUTER[:6], ({"body": b"\0" * (32 + 3 * 128)}, AgreementBroken), ({"key_id": "00" * 16}, MalformedFrame)],
)
def test_an_aggregator_refuses_answers_that_are_none(changes: dict[str, Any], error: Any) -> None:
    made = aggregator(masked=True)
    frame = parse(holder_again(masked=True).answer(made.release()), Kind.MASKED_SOLUTION)
    with pytest.raises(error):
        made.finish(dataclasses.replace(frame, **changes).to_bytes())
    with pytest.raises(MalformedFrame, match="not below n"):
        made.finish(dataclasses.replace(frame, body=frame.body[:32] + b"\xff" * 3 * 128).to_bytes())


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_altered_messages_raise_typed_errors_only(data: st.DataObject) -> None:
    """Any bytes of the body, any shape in the header, the digest made anew as a hostile peer would."""
    masking, system, answer = solved()
    kinds = {
        Kind.CONTRIBUTION: (contributions()[0], aggregator(frames=()).receive),
        Kind.POOLED_SUM: (pooled(), lambda frame: holder_again().solve(frame)),
        Kind.MASKED_SYSTEM: (system, lambda frame: holder_again(masked=True).answer(frame)),
        Kind.MASKED_SOLUTION: (answer, masking.finish),
    }
    kind = data.draw(st.sampled_from(list(kinds)))
    frame, decode = parse(kinds[kind][0], kind), kinds[kind][1]
    at = data.draw(st.integers(0, len(frame.body) - 1))
    cut = data.draw(st.integers(at, min(at + 80, len(frame.body))))
    body = frame.body[:at] + data.draw(st.binary(max_size=80)) + frame.body[cut:]
    shape = {name: data.draw(st.integers(0, 20) | st.just(getattr(frame, name))) for name in ("samples", "features")}
    with contextlib.suppress(HepipeError):
        decode(dataclasses.replace(frame, body=body, **shape).to_bytes())


@cache
def solved() -> tuple[Any, bytes, bytes]:
    made = aggregator(masked=True)
    system = made.release()
    return made, system, holder_again(masked=True).answer(system)


@cache
def pooled() -> bytes:
    return aggregator().release()  # type: ignore[no-any-return]
