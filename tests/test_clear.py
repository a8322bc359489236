"""The reference scheme: the same books and errors without a cipher; exact integers where asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepipe.errors import KeyMismatch, ScaleMismatch
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.parameters import ClearParameters

EXACT = ClearParameters(depth=3, log_scale=28, log_plain_scale=28, exact=True)
values_of = hnp.arrays(np.float64, (3, 2), elements=st.floats(-100, 100))


@settings(max_examples=100, deadline=None)
@given(a=values_of, b=values_of, w=hnp.arrays(np.float64, (2, 2), elements=st.floats(-10, 10)))
def test_the_integer_reference_is_python_s_integers(a: np.ndarray, b: np.ndarray, w: np.ndarray) -> None:
    scheme = ClearScheme(EXACT)
    keys = scheme.keygen()
    encryptor, ev = scheme.encryptor(keys.secret), scheme.evaluator(keys)
    x, y = encryptor.encrypt(a, 100), encryptor.encrypt(b, 100)
    result = ev.add(ev.matmul_plain(ev.mul(x, y), w), 0.5)
    expected = (to_fixed(a, 28) * to_fixed(b, 28)) @ to_fixed(w, 28) + (1 << 83)
    assert scheme.decryptor(keys.secret).decrypt_integers(result).tolist() == expected.tolist()
    assert result.log_scale == 84


@settings(max_examples=100, deadline=None)
@given(a=values_of, b=values_of)
def test_floats_are_numpy_s(a: np.ndarray, b: np.ndarray) -> None:
    scheme = ClearScheme()
    keys = scheme.keygen()
    encryptor, ev = scheme.encryptor(keys.secret), scheme.evaluator(keys)
    x, y = encryptor.encrypt(a, 100), encryptor.encrypt(b, 100)
    assert (scheme.decryptor(keys.secret).decrypt(ev.sub(ev.mul(x, y), x)) == a * b - a).all()


def test_a_scale_that_is_not_whole_is_refused_by_the_integer_reference() -> None:
    scheme = ClearScheme(EXACT)
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt([[1.0]], 2.0)
    with pytest.raises(ScaleMismatch, match="are whole, ask for"):
        scheme.evaluator(keys).mul_plain(x, 1.0, log_scale=56.5)


def test_names_differ_and_results_are_copies() -> None:
    scheme = ClearScheme()
    keys, other = scheme.keygen(), scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt([[1.0]], 2.0)
    found = scheme.decryptor(keys.secret).decrypt(x)
    found[:] = 7
    assert x.data[0, 0] == 1.0
    with pytest.raises(KeyMismatch):
        scheme.decryptor(other.secret).decrypt(x)
    with pytest.raises(KeyMismatch):
        scheme.evaluator(other).sum_samples(x)


def test_a_sum_over_samples_widens_the_bound() -> None:
    scheme = ClearScheme(EXACT)
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(np.ones((5, 2)), [1.0, 2.0])
    total = scheme.evaluator(keys).sum_samples(x)
    assert scheme.decryptor(keys.secret).decrypt(total).tolist() == [[5.0, 5.0]]
    assert total.bound.tolist() == [5.0, 10.0]


@settings(max_examples=100, deadline=None)
@given(samples=st.integers(1, 20), a=st.integers(-50, 50), b=st.integers(-50, 50), exact=st.booleans())
def test_rotations_move_rows_and_compose(samples: int, a: int, b: int, exact: bool) -> None:
    scheme = ClearScheme(EXACT if exact else None)
    keys = scheme.keygen()
    values = np.arange(samples * 2.0).reshape(samples, 2)
    x, ev = scheme.encryptor(keys.secret).encrypt(values, 100), scheme.evaluator(keys)
    read = scheme.decryptor(keys.secret).decrypt
    assert (read(ev.rotate(x, a)) == values[(np.arange(samples) + a) % samples]).all()
    assert (read(ev.rotate(ev.rotate(x, a), b)) == read(ev.rotate(x, a + b))).all()
    assert (ev.rotate(x, a).level, ev.rotate(x, a).log_scale) == (x.level, x.log_scale)
