"""Polynomials at the least depth, on every scheme, against numpy."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from hepipe.circuits.functions import SIGMOID, Approximation
from hepipe.circuits.polynomial import evaluate
from hepipe.errors import BudgetExhausted
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.rounds import answer_masked_factors
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, CkksParameters, ClearParameters
from hepipe.schemes.registry import scheme_of

DEEP = CkksParameters(1024, (60, *(40,) * 4, 60), 40.0, insecure=True)
EXACT = ClearParameters(depth=4, log_scale=28, log_plain_scale=28, exact=True)
LANE = replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=4)
POINTS = np.linspace(-1, 1, 12).reshape(6, 2)


@cache
def keys_of(parameters: Any) -> KeySet:
    return scheme_of(parameters).keygen()


def polynomial(*coefficients: float) -> Approximation:
    return Approximation(coefficients, 1.0, 0.0)


def random_polynomial(degree: int) -> Approximation:
    return polynomial(*np.random.default_rng(degree).uniform(-1, 1, degree + 1))


def run(parameters: Any, fn: Approximation, points: np.ndarray = POINTS) -> tuple[np.ndarray, Any, Any]:
    """(values, the encrypted result, the dry one)."""
    scheme: Any = scheme_of(parameters)
    keys, dry = keys_of(parameters), DryEvaluator(parameters)
    ev: Any = scheme.evaluator(keys)
    if parameters.name == "paillier":
        bundle = PublicBundle(parameters, keys.public, keys.evaluation)
        holder = scheme.encryptor(keys.secret), scheme.decryptor(keys.secret)
        ev = Interactive(ev, LocalLink(lambda frame: answer_masked_factors(frame, bundle, *holder)), bundle)
    result = evaluate(ev, scheme.encryptor(keys.secret).encrypt(points, 1.0), fn)
    return scheme.decryptor(keys.secret).decrypt(result), result, evaluate(dry, dry.fresh(points.shape, 1.0), fn)


@pytest.mark.parametrize("degree", range(1, 16))
@pytest.mark.parametrize("parameters", [ClearParameters(), EXACT, DEEP], ids=["clear", "exact", "ckks"])
def test_every_degree_equals_numpy_at_the_least_depth(parameters: Any, degree: int) -> None:
    fn = random_polynomial(degree)
    found, result, dry = run(parameters, fn)
    assert fn.depth == math.ceil(math.log2(degree + 1)) == parameters.depth - result.level
    assert np.abs(found - fn(POINTS)).max() <= 2 * DryEvaluator(parameters).error_bound(dry) + 1e-14
    assert (result.level, result.log_scale) == (dry.level, dry.log_scale)
    assert (np.abs(found) <= result.bound + 1e-6).all()


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 7])
def test_masked_products_give_the_very_integers_of_the_reference(degree: int) -> None:
    fn = random_polynomial(degree)
    points = POINTS[:2]
    found, result, _ = run(LANE, fn, points)
    _, reference, _ = run(EXACT, fn, points)
    integers = scheme_of(LANE).decryptor(keys_of(LANE).secret).decrypt_integers(result)  # type: ignore[attr-defined]
    assert integers.tolist() == reference.data.tolist()
    assert result.log_scale == reference.log_scale
    assert np.abs(found - fn(points)).max() < 1e-6


@pytest.mark.parametrize("degree", range(1, 16))
def test_an_additive_scheme_needs_a_round_a_level_but_none_for_a_line(degree: int) -> None:
    ev = DryEvaluator(LANE)
    x = ev.fresh((3, 2), 1.0)
    fn = random_polynomial(degree)
    evaluate(ev, x, fn)
    assert ev.rounds == (fn.depth if degree > 1 else 0)


@pytest.mark.parametrize(
    "coefficients",
    [(0.5, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0, 2.0), (0.0, 1.0), (0.5, 0.25, 0.0, -0.125, 0.0, 0.5),
     (0.0,) * 7 + (1.0,), (1.0, *(0.0,) * 7, 1.0), (0.0, 0.0, 1.0, *(0.0,) * 6, 0.5)],
)  # fmt: skip
@pytest.mark.parametrize("parameters", [ClearParameters(), EXACT, DEEP], ids=["clear", "exact", "ckks"])
def test_missing_terms_cost_nothing_and_change_nothing(parameters: Any, coefficients: tuple[float, ...]) -> None:
    fn = polynomial(*coefficients)
    found, result, dry = run(parameters, fn)
    assert parameters.depth - result.level == fn.depth
    assert np.abs(found - fn(POINTS)).max() <= 2 * DryEvaluator(parameters).error_bound(dry) + 1e-14


def test_too_few_levels_say_how_many_are_missing() -> None:
    ev = DryEvaluator(DEEP)
    x = ev.mul_plain(ev.fresh((1, 1), 1.0), 1.0)
    with pytest.raises(BudgetExhausted, match="degree 15 needs 4 levels, 3 left: plan with depth >= 5"):
        evaluate(ev, x, random_polynomial(15))


def test_a_polynomial_of_a_lower_level_still_lands_on_the_scale() -> None:
    scheme: Any = scheme_of(DEEP)
    keys = keys_of(DEEP)
    ev = scheme.evaluator(keys)
    x = ev.mul_plain(scheme.encryptor(keys.secret).encrypt(POINTS, 1.0), 1.0)
    fn = random_polynomial(7)
    result = evaluate(ev, x, fn)
    assert (result.level, round(result.log_scale, 6)) == (0, 40)
    assert np.abs(scheme.decryptor(keys.secret).decrypt(result) - fn(POINTS)).max() < 1e-6


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_the_sigmoid_under_encryption_is_the_polynomial(degree: int) -> None:
    fn = SIGMOID.polynomial(degree, 6.0)
    found, _, dry = run(DEEP, fn)
    assert np.abs(found - fn(6.0 * POINTS)).max() <= 2 * DryEvaluator(DEEP).error_bound(dry)
    assert np.abs(found - SIGMOID.exact(6.0 * POINTS)).max() <= fn.max_error + 1e-6
