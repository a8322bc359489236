"""The one rounding rule: nearest, ties to even, exact at any size."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepipe.schemes.fixedpoint import from_fixed, to_fixed

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def reference(value, bits):
    return round(Fraction(float(value)) * 2**bits)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=5), elements=FINITE), st.integers(0, 300))
def test_any_float_at_any_scale(values, bits):
    fixed = to_fixed(values, bits)
    assert fixed.shape == values.shape
    assert fixed.dtype == object
    assert fixed.ravel().tolist() == [reference(v, bits) for v in values.flat]


@given(hnp.arrays(np.float64, 20, elements=st.floats(-(2.0**30), 2.0**30)), st.integers(0, 40))
def test_ordinary_values(values, bits):
    assert to_fixed(values, bits).tolist() == [reference(v, bits) for v in values]


@given(st.integers(-(2**40), 2**40), st.integers(0, 90))
def test_ties_go_to_even(odd_half, bits):
    value = (2 * odd_half + 1) * 2.0 ** -(bits + 1)
    result = to_fixed(np.array([value, 2.0**200]), bits)[0]
    assert result == reference(value, bits)
    assert result % 2 == 0
    assert to_fixed(np.array([value]), bits)[0] == result


@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324, -5e-324, 2.0**62, -(2.0**62), 2.0**63, 1.7e308, 0.1, -0.1])
@pytest.mark.parametrize("bits", [0, 1, 28, 62, 1000, 1074])
def test_edges(value, bits):
    assert to_fixed(np.array([value]), bits)[0] == reference(value, bits)


def test_results_are_python_integers():
    for values in (np.array([0.5]), np.array([2.0**300])):
        assert type(to_fixed(values, 28)[0]) is int


@given(st.lists(st.integers(-(2**200), 2**200), min_size=1, max_size=8), st.integers(0, 300))
def test_back_is_correctly_rounded(integers, bits):
    back = from_fixed(np.array(integers, dtype=object), bits)
    assert back.tolist() == [float(Fraction(i, 2**bits)) for i in integers]


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(-(2.0**16), 2.0**16)))
def test_round_trip_is_within_half_a_unit(values):
    assert np.abs(from_fixed(to_fixed(values, 28), 28) - values).max() <= 2.0**-29
