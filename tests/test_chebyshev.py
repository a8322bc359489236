"""Chebyshev series under a levelled scheme, against numpy: value, levels, products, scale and error."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Chebyshev

from hepipe.circuits.chebyshev import depth, evaluate
from hepipe.errors import BudgetExhausted, OutOfRange, Unsupported
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, CkksParameters, ClearParameters
from hepipe.schemes.registry import scheme_of

CLEAR = ClearParameters(depth=6)
CKKS = CkksParameters(1024, (60, *(40,) * 6, 60), 40.0, insecure=True)
POINTS = np.cos(np.linspace(0, np.pi, 512))[:, None]


@cache
def party(parameters: Any) -> tuple[Any, Any, Any]:
    scheme: Any = scheme_of(parameters)
    keys = scheme.keygen()
    return scheme.encryptor(keys.secret), scheme.evaluator(keys), scheme.decryptor(keys.secret)


def run(parameters: Any, series: Chebyshev) -> tuple[np.ndarray, Any, DryEvaluator, Any]:
    """(values, the result, the dry evaluator, its result)."""
    encryptor, ev, decryptor = party(parameters)
    dry = DryEvaluator(parameters)
    y = evaluate(ev, encryptor.encrypt(POINTS, 1.0), series)
    return decryptor.decrypt(y), y, dry, evaluate(dry, dry.fresh(POINTS.shape, 1.0), series)


terms = st.lists(st.sampled_from([0.0, 0.0, 1.0, -0.5, 0.3]), min_size=2, max_size=40)
coefficients = terms.filter(lambda c: any(c[1:]))


@settings(max_examples=150, deadline=None)
@given(coefficients)
def test_every_series_equals_numpy_at_the_least_depth(given_coefficients: list[float]) -> None:
    series = Chebyshev(given_coefficients)
    found, y, _, z = run(CLEAR, series)
    assert np.abs(found - series(POINTS)).max() < 1e-12
    degree = max(np.flatnonzero(given_coefficients))
    assert CLEAR.depth - y.level == depth(int(degree)) == math.ceil(math.log2(degree + 1))
    assert (y.level, y.log_scale) == (z.level, z.log_scale) == (y.level, CLEAR.log_scale)
    assert (np.abs(found) <= y.bound + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(coefficients)
def test_on_ckks_the_error_is_within_the_dry_run_and_the_scale_is_exact(given_coefficients: list[float]) -> None:
    series = Chebyshev(given_coefficients)
    found, y, dry, z = run(CKKS, series)
    assert np.abs(found - series(POINTS)).max() <= dry.error_bound(z) < 2.0**-16
    assert (y.level, y.log_scale) == (z.level, z.log_scale)
    assert y.log_scale == pytest.approx(CKKS.log_scale, abs=1e-9)


@pytest.mark.parametrize(("degree", "products"), [(1, 0), (3, 2), (7, 5), (15, 8), (31, 13), (63, 22)])
def test_an_odd_series_takes_few_products(degree: int, products: int) -> None:
    ev = DryEvaluator(CLEAR)
    evaluate(ev, ev.fresh((1, 1), 1.0), Chebyshev([k % 2 / (k + 1) for k in range(degree + 1)]))
    assert ev.operations["mul"] == products


def test_high_degrees_keep_their_precision() -> None:
    """The error of x grows by the slope, 63**2; as powers the leading term alone would be 2**62 times as large."""
    series = Chebyshev.basis(63)
    found, _, dry, z = run(CKKS, series)
    assert np.abs(found - series(POINTS)).max() <= 2.0**-18 < dry.error_bound(z) < 2.0**-14


def test_what_cannot_be_evaluated_is_refused() -> None:
    ev = DryEvaluator(ClearParameters(depth=4))
    cubic = Chebyshev([0.0, 0.5, 0.0, 1.0])
    low = ev.mul_plain(ev.mul_plain(ev.fresh((1, 1), 1.0), 1.0).with_bound(np.ones(1)), 1.0).with_bound(np.ones(1))
    with pytest.raises(BudgetExhausted, match="degree 7 needs 3 levels, 2 left: plan with depth >= 5"):
        evaluate(ev, low, Chebyshev.basis(7))
    with pytest.raises(OutOfRange, match=r"\|x\| <= 1.5"):
        evaluate(ev, ev.fresh((1, 1), 1.5), cubic)
    with pytest.raises(OutOfRange, match="degree 0"):
        evaluate(ev, ev.fresh((1, 1), 1.0), Chebyshev([2.0, 0.0]))
    for additive in (TEST_INSECURE_PAILLIER, ClearParameters(exact=True)):
        ev = DryEvaluator(additive)
        with pytest.raises(Unsupported, match="levelled"):
            evaluate(ev, ev.fresh((1, 1), 1.0), cubic)
