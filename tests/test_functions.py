"""Approximations: their stated error is their real one, and no degree is wasted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.circuits.functions import SIGMOID, Approximation, Function
from hepipe.errors import OutOfRange


@settings(max_examples=40, deadline=None)
@given(degree=st.integers(1, 15), domain=st.floats(0.5, 20), points=st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_the_stated_error_is_never_exceeded(degree: int, domain: float, points: list[float]) -> None:
    fn = SIGMOID.polynomial(degree, domain)
    x = domain * np.array(points)
    assert np.abs(fn(x) - SIGMOID.exact(x)).max() <= fn.max_error * 1.001 + 1e-12


@pytest.mark.parametrize("domain", [2.0, 8.0])
def test_the_error_falls_with_the_degree(domain: float) -> None:
    errors = [SIGMOID.polynomial(degree, domain).max_error for degree in (1, 3, 5, 7, 9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


def test_an_even_degree_of_an_odd_function_costs_no_depth() -> None:
    assert SIGMOID.polynomial(4, 6.0).degree == 3
    assert SIGMOID.polynomial(8, 6.0).depth == 3
    assert all(c == 0 for c in SIGMOID.polynomial(7, 6.0).coefficients[2::2])


def test_the_fit_is_near_the_best_there_is() -> None:
    # The minimax error of an odd cubic for the sigmoid on [-8, 8] is 0.0980 (Remez); at Chebyshev weight it is near.
    assert SIGMOID.polynomial(3, 8.0).max_error < 1.5 * 0.098


@pytest.mark.parametrize(("degree", "domain"), [(0, 1.0), (-1, 1.0), (3, 0.0), (3, -1.0), (3, math.inf), (3, math.nan)])
def test_a_degree_or_domain_that_makes_no_sense_is_refused(degree: int, domain: float) -> None:
    with pytest.raises(OutOfRange, match="needs degree >= 1 and a finite, positive domain"):
        SIGMOID.polynomial(degree, domain)


@pytest.mark.parametrize(("degree", "depth"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)])
def test_depth_is_the_logarithm_of_the_terms(degree: int, depth: int) -> None:
    assert Approximation((1.0,) * (degree + 1), 1.0, 0.0).depth == depth


def test_a_polynomial_is_fitted_exactly() -> None:
    cube = Function("cube", lambda x: 2 * x**3 - x + 0.5, lambda limit: 2 * limit**3 + limit + 0.5)
    fn = cube.polynomial(3, 4.0)
    assert fn.max_error < 1e-10
    assert np.allclose(fn.coefficients, (0.5, -4.0, 0.0, 128.0))
    assert np.allclose(fn(np.array([1.0, -2.0])), [1.5, -13.5])


def test_a_fit_is_made_once() -> None:
    assert SIGMOID.polynomial(5, 7.0) is SIGMOID.polynomial(5, 7.0)
