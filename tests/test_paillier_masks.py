"""Masked products: exact, hidden, checked. The key holder's half of the round is played here."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepipe.errors import (
    BudgetExhausted,
    InsecureParameters,
    KeyMismatch,
    OutOfRange,
    ScaleMismatch,
    ShapeMismatch,
    Unsupported,
)
from hepipe.schemes.base import KeySet
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.masks import mask_bits_for
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER

LANES = TEST_INSECURE_PAILLIER
SINGLE = replace(LANES, depth=3, lanes=1, lane_bits=1022)


@lru_cache
def keys():
    return PaillierScheme(TEST_INSECURE_PAILLIER).keygen()


@lru_cache
def parties(parameters):
    """(encryptor of the key holder, evaluator, decryptor), all under one key."""
    scheme = PaillierScheme(parameters)
    public = KeySet(None, keys().public, keys().public)
    return scheme.encryptor(keys().secret), scheme.evaluator(public), scheme.decryptor(keys().secret)


def matrices(rows=3, columns=3):
    shape = st.tuples(st.integers(1, rows), st.integers(1, columns))
    return shape.flatmap(lambda s: hnp.arrays(np.float64, s, elements=st.floats(-100, 100)))


def multiplied(u, v):
    """What the key holder does with two masked tensors, or one squared: decrypt, multiply, encrypt."""
    holder, _, decryptor = parties(SINGLE)
    product = decryptor.decrypt_integers(u) * decryptor.decrypt_integers(v)
    return holder.encrypt_integers(product, u.bound * v.bound, u.log_scale + v.log_scale, 0)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), values=matrices())
def test_masked_products_are_exact(data, values):
    holder, evaluator, decryptor = parties(SINGLE)
    other = data.draw(hnp.arrays(np.float64, values.shape, elements=st.floats(-100, 100)))
    x, y = holder.encrypt(values, 100), holder.encrypt(other, 100)
    bits = mask_bits_for(x.bound, x.log_scale)
    (u, r), (v, s) = evaluator.mask(x, bits), evaluator.mask(y, bits)
    assert decryptor.decrypt_integers(u).tolist() == (to_fixed(values, 28) + r).tolist()
    product = evaluator.unmask_product(multiplied(u, v), x, y, r, s)
    assert decryptor.decrypt_integers(product).tolist() == (to_fixed(values, 28) * to_fixed(other, 28)).tolist()
    assert (product.level, product.log_scale, product.bound[0]) == (2, 56, 10000.0)


@settings(max_examples=40, deadline=None)
@given(values=matrices())
def test_masked_squares_are_exact(values):
    holder, evaluator, decryptor = parties(SINGLE)
    x = holder.encrypt(values, 100)
    u, r = evaluator.mask(x, 120)
    square = evaluator.unmask_product(multiplied(u, u), x, x, r, r)
    assert decryptor.decrypt_integers(square).tolist() == (to_fixed(values, 28) ** 2).tolist()
    v, s = evaluator.mask(x, 120)
    two_masks = evaluator.unmask_product(multiplied(u, v), x, x, r, s)
    assert decryptor.decrypt_integers(two_masks).tolist() == (to_fixed(values, 28) ** 2).tolist()


def test_masks_are_wide_enough_to_hide():
    # Shifting a uniform interval of M integers by v changes it by v / M: the distance of two values of at most V is
    # 2V / M, and V < 2**(bits - 80).
    for bound, scale in ((100.0, 28), (1.0, 28), (2.0**-40, 28), (0.0, 28)):
        bits = mask_bits_for(np.array([bound]), scale)
        assert 2 * bound * 2.0**scale / 2.0**bits <= 2.0**-79
    holder, evaluator, _ = parties(SINGLE)
    x = holder.encrypt(np.zeros((40, 2)), 100)
    masked, masks = evaluator.mask(x, 115)
    n, n_squared = keys().public.n, keys().public.n_squared
    for c, d, r in zip(x.data, masked.data, masks, strict=True):
        assert d[0] != c[0] * (1 + r[0] * n) % n_squared
    assert masks.shape == (40, 2)
    assert len(set(masks.flat)) == 80
    assert 0 <= min(masks.flat) < 2**114 < max(masks.flat) < 2**115
    with pytest.raises(InsecureParameters, match="use at least 115"):
        evaluator.mask(x, 114)


def test_masks_need_room_and_a_ciphertext_for_each_sample():
    holder, evaluator, _ = parties(LANES)
    x = holder.encrypt(np.zeros((2, 2)), 100)
    with pytest.raises(Unsupported, match="plan with lanes=1"):
        evaluator.mask(x, 200)
    with pytest.raises(Unsupported, match="plan with lanes=1"):
        evaluator.unmask_product(replace(x, log_scale=56), x, x, np.zeros((2, 2)), np.zeros((2, 2)))
    holder, evaluator, _ = parties(SINGLE)
    for bits in (1020, 5000):
        with pytest.raises(OutOfRange, match="mask: "):
            evaluator.mask(holder.encrypt(np.zeros((2, 2)), 100), bits)


def test_products_that_do_not_fit_together():
    holder, evaluator, _ = parties(SINGLE)
    x = holder.encrypt(np.ones((2, 2)), 100)
    u, r = evaluator.mask(x, 120)
    product = multiplied(u, u)
    with pytest.raises(ScaleMismatch, match=r"came back at log_scale 55.0, not 56.0"):
        evaluator.unmask_product(replace(product, log_scale=55.0), x, x, r, r)
    with pytest.raises(ShapeMismatch, match="masks of shape"):
        evaluator.unmask_product(product, x, x, r[:1], r)
    with pytest.raises(ShapeMismatch, match="differ"):
        evaluator.unmask_product(product, x, holder.encrypt(np.ones((2, 3))), r, r)
    with pytest.raises(KeyMismatch):
        evaluator.unmask_product(replace(product, key_id="0" * 32), x, x, r, r)
    with pytest.raises(BudgetExhausted, match="mul needs 1 level"):
        evaluator.unmask_product(product, replace(x, level=0), x, r, r)
