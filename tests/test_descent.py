"""The descent: the textbook's steps by another circuit, at the levels stated; whitening; divergence caught before."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from hepipe.errors import BudgetExhausted, OutOfRange, ShapeMismatch, Unsupported
from hepipe.schemes.base import FloatArray
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters
from hepipe.training.descent import DOMAIN, Descent
from hepipe.training.layout import Columns, Diagonals, Layout
from hepipe.training.rehearsal import check_domain, largest_rate, reach, row_bound, trajectory
from hepipe.training.whitening import Whitening


def textbook(descent: Descent, rows: FloatArray) -> FloatArray:
    """Nesterov's iteration as it is written in books, with the same polynomial: weights after each step."""
    weights = iterate = np.zeros(rows.shape[1])
    path = []
    for momentum in descent.momenta:
        gradient = -rows.T @ descent.sigmoid(-rows @ weights) / len(rows) + descent.l2 * weights
        following = weights - descent.rate * gradient
        weights, iterate = following + momentum * (following - iterate), following
        path.append(weights)
    return np.array(path)


def run(descent: Descent, layout: Layout, rows: FloatArray, depth: int) -> tuple[FloatArray, list[int]]:
    """Weights and levels after each step on the clear evaluator."""
    clear = ClearScheme(ClearParameters(depth=depth))
    keys = clear.keygen()
    encryptor, decryptor = clear.encryptor(keys.secret), clear.decryptor(keys.secret)
    data = [encryptor.encrypt(values, 8.0) for values in layout.arrange(rows)]
    states = list(descent.run(clear.evaluator(keys), layout, data))
    weights = [DOMAIN * layout.weights(decryptor.decrypt(state.weights)) for state in states]
    return np.array(weights), [state.weights.level for state in states]


descents = st.builds(
    Descent,
    rows=st.integers(2, 30),
    steps=st.integers(1, 5),
    rate=st.floats(0.01, 1.0),
    degree=st.sampled_from([3, 5, 7]),
    momentum=st.booleans(),
    l2=st.floats(0.0, 0.5),
)


@settings(deadline=None)
@given(descents, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_both_layouts_make_the_textbook_steps_at_the_stated_levels(descent: Descent, columns: int, seed: int) -> None:
    rows = np.random.default_rng(seed).uniform(-1, 1, (descent.rows, columns))
    for layout in (Diagonals.holding(*rows.shape), Columns(columns)):
        step = descent.step_levels(layout)
        depth = 1 + (descent.steps - 1) * step
        found, levels = run(descent, layout, rows, depth)
        np.testing.assert_allclose(found, textbook(descent, rows), rtol=0, atol=1e-12)
        assert levels == [depth - 1 - k * step for k in range(descent.steps)]


def test_a_step_costs_three_levels_at_degree_three_and_five_above() -> None:
    assert [Descent(9, 2, degree=degree).step_levels(Diagonals(16, 512)) for degree in (3, 5, 7)] == [3, 5, 5]


def test_the_last_momentum_is_zero_so_that_the_result_is_an_iterate() -> None:
    momenta = Descent(9, 6, momentum=True).momenta
    assert momenta[0] == momenta[-1] == 0
    assert all(0 < a < b < 1 for a, b in pairwise(momenta[1:-1]))


def test_steps_without_levels_are_refused_with_what_is_needed() -> None:
    rows = np.ones((4, 2))
    with pytest.raises(BudgetExhausted, match="step 3 needs 3 levels, 2 left: plan for 3 steps, or allow refresh"):
        run(Descent(4, 3), Diagonals.holding(4, 2), rows, depth=6)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"degree": 4}, Unsupported),
        ({"steps": 0}, OutOfRange),
        ({"rows": 0}, OutOfRange),
        ({"rate": 0.0}, OutOfRange),
        ({"rate": float("inf")}, OutOfRange),
        ({"l2": -1.0}, OutOfRange),
        ({"l2": 0.25}, OutOfRange),  # rate 4: a step would turn the weights around
    ],
)
def test_a_descent_without_meaning_is_refused(settings: dict[str, float], error: type[Exception]) -> None:
    with pytest.raises(error):
        Descent(**{"rows": 4, "steps": 2, **settings})  # type: ignore[arg-type]


matrices = st.tuples(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1)).map(
    lambda s: np.random.default_rng(s[2]).normal(size=s[:2]) * 10.0 ** np.arange(s[1]) + 3
)


@given(matrices, st.booleans())
def test_whitened_columns_have_unit_covariance(X: FloatArray, intercept: bool) -> None:
    whitening = Whitening.fit(X, intercept=intercept)
    white = whitening.transform(X)[:, int(intercept) :]
    moments = white.T @ white / len(X)
    # A projection: unit variance in every direction in which the data vary, none in the others.
    np.testing.assert_allclose(moments @ moments, moments, atol=1e-6)
    rank = np.linalg.matrix_rank((X - whitening.mean) / X.std(axis=0).clip(1e-9), tol=1e-4)
    assert round(float(np.trace(moments))) == rank


@given(matrices, st.booleans(), st.integers(0, 2**32 - 1))
def test_weights_for_raw_columns_give_the_same_scores(X: FloatArray, intercept: bool, seed: int) -> None:
    whitening = Whitening.fit(X, intercept=intercept)
    weights = np.random.default_rng(seed).normal(size=X.shape[1] + intercept)
    coef, constant = whitening.unfold(weights)
    scale = np.abs(X * coef).sum(axis=1).max() + np.abs(whitening.mean * coef).sum() + 1
    np.testing.assert_allclose(X @ coef + constant, whitening.transform(X) @ weights, rtol=0, atol=1e-9 * scale)


def test_columns_that_do_not_vary_get_no_weight() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    X[:, 1] = 1e6
    whitening = Whitening.fit(X)
    assert np.abs(whitening.transform(X)[:, 2]).max() < 1e-12
    assert whitening.unfold(np.ones(4))[0][1] == 0
    with pytest.raises(OutOfRange, match="nothing to learn"):
        Whitening.fit(np.ones((5, 2)))


def test_labels_are_folded_into_the_rows() -> None:
    X, y = np.random.default_rng(1).normal(size=(10, 2)), np.arange(10) % 3 == 0
    whitening = Whitening.fit(X)
    rows = whitening.fold(X, y)
    assert (rows[:, 0] == np.where(y, 1, -1)).all()
    with pytest.raises(ShapeMismatch):
        whitening.fold(X, y[:5])


def problem() -> FloatArray:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
    y = X[:, 0] + rng.logistic(size=300) > 0
    return Whitening.fit(X).fold(X, y)


def test_the_rehearsal_is_the_descent() -> None:
    rows = problem()
    descent = Descent(len(rows), 6, rate=2.0, momentum=True, refresh=True, reserve=1)
    np.testing.assert_allclose(trajectory(descent, rows), textbook(descent, rows), atol=1e-12)
    assert row_bound(rows) / 2 < np.abs(rows).max() <= row_bound(rows)


def test_a_rate_that_leaves_the_domain_is_refused_with_the_largest_safe_one() -> None:
    rows = problem()
    wild = Descent(len(rows), 5, rate=80.0)
    with pytest.raises(OutOfRange, match=r"\|z\| = .* use rate <= ") as caught:
        check_domain(wild, rows)
    named = float(re.findall(r"rate <= ([\d.e+-]+)", str(caught.value))[0])
    assert named == largest_rate(wild, rows)
    assert check_domain(replace(wild, rate=named), rows) <= DOMAIN
    assert reach(replace(wild, rate=1.01 * named), rows) > DOMAIN


def test_a_safe_rate_is_left_as_it_is_and_a_runaway_is_infinite() -> None:
    rows = problem()
    calm = Descent(len(rows), 5, rate=1.0)
    assert largest_rate(calm, rows) == 1.0
    assert reach(Descent(len(rows), 20, rate=1e6, degree=7), rows) == np.inf
    assert largest_rate(Descent(len(rows), 3), rows * 1e30) == 0.0


def test_many_steps_come_to_the_minimum_of_the_loss() -> None:
    rows = problem()
    descent = Descent(len(rows), 40, rate=4.0, degree=7, momentum=True)
    found = trajectory(descent, rows)[-1]
    exact = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(
        np.vstack([rows, -rows]), np.repeat([1, 0], len(rows))
    )
    error = descent.sigmoid.max_error
    gap = np.abs(rows.T @ (1 / (1 + np.exp(rows @ found)))).max() / len(rows)
    assert gap <= error * np.abs(rows).mean(axis=0).max()  # what the polynomial's error can hide of the gradient
    assert found @ exact.coef_[0] / np.linalg.norm(found) / np.linalg.norm(exact.coef_) > 0.999
