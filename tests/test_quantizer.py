"""Published steps: whole numbers, their bits, and the half step that every threshold keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils.estimator_checks import check_estimator

from hepipe.errors import OutOfRange, UnsupportedModel
from hepipe.models.quantizer import Quantizer
from hepipe.models.schema import Schema
from hepipe.models.step_profile import QuantizedProfile, steps_of

elements = st.floats(-50, 50) | st.integers(-9, 9).map(float)
columns_of_data = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=elements)


def profile_of(X: np.ndarray, bits: int, comparison: str) -> QuantizedProfile:
    schema = Schema.unknown(X.shape[1], bound=60)
    return QuantizedProfile.of("regression", schema, 1, steps=steps_of(X, bits), comparison=comparison)


@settings(max_examples=60, deadline=None)
@given(columns_of_data, st.integers(1, 16))
def test_numbers_are_whole_monotone_and_within_their_bits(X: np.ndarray, bits: int) -> None:
    steps = steps_of(X, bits)
    numbers = steps.numbers(X)
    assert (numbers == np.round(numbers)).all()
    assert (numbers >= 0).all()
    assert (numbers <= steps.largest).all()
    assert (steps.bits >= 1).all()
    assert (steps.bits <= bits).all()
    for column, number, step in zip(X.T, numbers.T, steps.step, strict=True):
        order = np.argsort(column)
        assert (np.diff(number[order]) >= 0).all()
        apart = np.diff(column[order]) > step * (1 + 1e-9)
        assert (np.diff(number[order])[apart] >= 1).all()


@settings(max_examples=40, deadline=None)
@given(columns_of_data, columns_of_data, st.integers(1, 16))
def test_bits_and_values_say_the_same_number(X: np.ndarray, other: np.ndarray, bits: int) -> None:
    rows = np.resize(other, (len(other), X.shape[1]))
    by_bits, by_sign = (profile_of(X, bits, comparison) for comparison in ("bits", "sign"))
    numbers = by_bits.steps.numbers(rows)
    encoded, values = by_bits.prepare(rows), by_sign.prepare(rows)
    assert encoded.shape == (len(rows), len(by_bits.input_bound))
    assert np.isin(encoded, [0.0, 1.0]).all()
    assert values.shape == (len(rows), len(by_sign.input_bound))
    assert (np.abs(values) <= 1).all()
    for column in range(X.shape[1]):
        places = list(by_bits.places(column))
        assert (encoded[:, places] @ 2.0 ** np.arange(len(places)) == numbers[:, column]).all()
    assert values == pytest.approx(2 * numbers / by_sign.steps.largest - 1)


def test_few_values_take_few_bits() -> None:
    X = np.array([[0, 5, 30, 2.5, 1], [1, 5, 70, 9.5, 2], [1, 5, 34, 3.25, 4], [0, 5, 33, 2.5, 3]])
    steps = steps_of(X, 6)
    assert steps.bits.tolist() == [1, 1, 6, 6, 2]
    assert steps.step.tolist() == [1.0, 1.0, 1.0, 7 / 63, 1.0]
    assert steps.numbers(X)[:, 4].tolist() == [0, 1, 3, 2]
    assert steps_of(X, 5).step[2] == 40 / 31  # whole numbers, but more of them than 5 bits tell apart


def test_values_beyond_the_range_are_cut() -> None:
    steps = steps_of(np.array([[0.0], [1.0], [10.0]]), 4)
    assert steps.numbers([[-7.0], [99.0], [4.4], [4.6]]).ravel().tolist() == [0, 15, 4, 5]


def test_ranges_are_published_instead_of_those_of_the_data() -> None:
    X = np.array([[1.5, 0], [2.5, 1], [2.25, 0]])
    steps = steps_of(X, 8, [(0, 255), (0, 1)])
    assert (steps.low.tolist(), steps.step.tolist(), steps.bits.tolist()) == ([0, 0], [1, 1], [8, 1])
    for ranges in ([(2, 3), (0, 1)], [(np.nan, 3), (0, 1)], [(0, np.inf), (0, 1)]):
        with pytest.raises(OutOfRange, match=r"does not hold a column from 1\.5 to 2\.5"):
            steps_of(X, 8, ranges)
    with pytest.raises(UnsupportedModel, match="1 ranges for 2 columns"):
        steps_of(X, 8, [(0, 3)])


@pytest.mark.parametrize("bits", [0, 17])
def test_bits_that_are_none_or_too_many_are_refused(bits: Any) -> None:
    with pytest.raises(OutOfRange, match="use 1 to 16"):
        steps_of(np.ones((2, 1)), bits)


def test_quantizer_is_a_scikit_learn_transformer() -> None:
    check_estimator(Quantizer(), on_skip=None)
    frame = pd.DataFrame({"age": [20.0, 30.5, 41.0], "smokes": [0.0, 1.0, 1.0]})
    fitted = Quantizer(4).fit(frame)
    assert fitted.get_feature_names_out().tolist() == ["age", "smokes"]
    assert fitted.transform(frame).tolist() == [[0, 0], [8, 1], [15, 1]]
