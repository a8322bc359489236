"""Paillier on test keys: exact against integers, interoperable with phe, and never silently wrong."""

import pickle
from dataclasses import replace
from functools import lru_cache

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepipe.errors import (
    BudgetExhausted,
    InsecureParameters,
    KeyMismatch,
    MalformedFrame,
    OutOfRange,
    ScaleMismatch,
    ShapeMismatch,
    Unsupported,
)
from hepipe.schemes.base import CipherTensor, Feature, KeySet
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.paillier import PaillierEvaluator, PaillierScheme, check_ciphertexts
from hepipe.schemes.paillier_keys import generate_secret_key
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, PaillierParameters

LANES = TEST_INSECURE_PAILLIER
DEEP = replace(LANES, depth=3, lanes=5, lane_bits=200)
SINGLE = replace(LANES, depth=3, lanes=1, lane_bits=1022)


@lru_cache
def keys():
    return PaillierScheme(LANES).keygen()


@lru_cache
def parties(parameters):
    """(encryptor of the key holder, evaluator, decryptor), all under one key."""
    scheme = PaillierScheme(parameters)
    public = KeySet(None, keys().public, keys().public)
    return scheme.encryptor(keys().secret), scheme.evaluator(public), scheme.decryptor(keys().secret)


@lru_cache
def encryptor(kind):
    scheme = PaillierScheme(LANES)
    return {
        "holder": lambda: scheme.encryptor(keys().secret),
        "uniform": lambda: scheme.encryptor(keys().public),
        "threads": lambda: scheme.encryptor(keys().public, threads=2),
        "djn": lambda: scheme.encryptor(keys().public, randomness="djn"),
    }[kind]()


def matrices(bound=100.0, rows=13, columns=4):
    shape = st.tuples(st.integers(1, rows), st.integers(1, columns))
    return shape.flatmap(lambda s: hnp.arrays(np.float64, s, elements=st.floats(-bound, bound)))


def draw_matrix(data, shape, bound=100.0):
    return data.draw(hnp.arrays(np.float64, shape, elements=st.floats(-bound, bound)))


@pytest.mark.parametrize("kind", ["holder", "uniform", "threads", "djn"])
@settings(max_examples=40, deadline=None)
@given(values=matrices())
def test_round_trip_is_exact_to_half_a_unit(kind, values):
    x = encryptor(kind).encrypt(values, 100)
    _, _, decryptor = parties(LANES)
    assert decryptor.decrypt_integers(x).tolist() == to_fixed(values, 28).tolist()
    assert np.abs(decryptor.decrypt(x) - values).max() <= 2.0**-29
    assert (x.shape, x.level, x.log_scale, x.key_id) == (values.shape, 1, 28, keys().public.key_id)
    check_ciphertexts(keys().public, [c for row in x.data for c in row])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float32, np.float64, bool])
def test_every_numeric_dtype(dtype):
    holder, _, decryptor = parties(LANES)
    values = np.arange(12).reshape(6, 2).astype(dtype)
    assert (decryptor.decrypt(holder.encrypt(values)) == values.astype(float)).all()


def test_encryption_is_probabilistic():
    for kind in ("holder", "uniform", "djn"):
        x = encryptor(kind).encrypt(np.zeros((1, 8)))
        assert len(set(x.data[0])) == 8


def test_a_partial_block_and_many_blocks():
    holder, _, decryptor = parties(LANES)
    for samples in (1, 9, 10, 11, 25):
        values = np.linspace(-1, 1, samples)[:, None]
        x = holder.encrypt(values, 1)
        assert len(x.data) == -(-samples // 10)
        assert np.allclose(decryptor.decrypt(x), values, atol=2.0**-29)


def test_bounds_below_the_grid_are_raised_to_it():
    holder, evaluator, decryptor = parties(DEEP)
    tiny = 0.6 * 2.0**-28
    x = holder.encrypt([[tiny]], tiny)
    assert x.bound[0] == 2.0**-28
    assert decryptor.decrypt(evaluator.mul_plain(x, 3.0)).item() == 3 * 2.0**-28
    assert holder.encrypt([[0.1]], 0.1).bound[0] == 0.1


@pytest.mark.parametrize(
    ("values", "bound", "error", "message"),
    [
        ([[np.nan]], None, OutOfRange, "only finite"),
        ([[np.inf]], None, OutOfRange, "only finite"),
        ([[1.0, 2.0], [3.0, -9.0]], 8, OutOfRange, "row 1, feature 1"),
        ([[2.0**17]], None, OutOfRange, "over the bound 65536"),
        ([[1.0]], 2.0**66, OutOfRange, "the lane holds 94.0"),
        ([[1.0]], np.inf, OutOfRange, "finite"),
        ([[1.0]], np.nan, OutOfRange, "finite"),
        ([1.0, 2.0], None, ShapeMismatch, "samples, features"),
        ([["a"]], None, ShapeMismatch, "dtype"),
        (np.zeros((0, 3)), None, ShapeMismatch, "at least one"),
    ],
)
def test_what_cannot_be_encrypted(values, bound, error, message):
    with pytest.raises(error, match=message):
        parties(LANES)[0].encrypt(values, bound)


def test_the_largest_bound_that_fits():
    holder, _, decryptor = parties(LANES)
    bound = 2.0**66 * (1 - 2.0**-40)
    values = np.array([[bound, -bound]] * 10)
    assert (decryptor.decrypt(holder.encrypt(values, bound)) == values).all()


def test_integers_pass_without_floats():
    holder, _, decryptor = parties(SINGLE)
    integers = np.array([[3**200, -(3**200)]], dtype=object)
    x = holder.encrypt_integers(integers, 2.0**261, log_scale=56, level=2)
    assert (x.level, x.log_scale) == (2, 56)
    assert decryptor.decrypt_integers(x).tolist() == integers.tolist()
    with pytest.raises(OutOfRange, match="an integer to encrypt is over its bound"):
        holder.encrypt_integers(integers, 2.0**250, log_scale=56)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), values=matrices(), outputs=st.integers(1, 4))
def test_affine_circuits_equal_the_integer_reference(data, values, outputs):
    holder, evaluator, decryptor = parties(LANES)
    w = draw_matrix(data, (values.shape[1], outputs))
    b = draw_matrix(data, (outputs,))
    y = evaluator.add(evaluator.matmul_plain(holder.encrypt(values, 100), w), b)
    expected = to_fixed(values, 28) @ to_fixed(w, 28) + to_fixed(b, 56)
    assert decryptor.decrypt_integers(evaluator.rerandomize(y)).tolist() == expected.tolist()
    assert (y.shape, y.level, y.log_scale) == ((len(values), outputs), 0, 56)


@pytest.mark.secure
def test_an_affine_circuit_at_the_default_parameters():
    scheme = PaillierScheme()
    made = scheme.keygen()
    holder, evaluator, decryptor = scheme.encryptor(made.secret), scheme.evaluator(made), scheme.decryptor(made.secret)
    rng = np.random.default_rng(1)
    values, w, b = rng.normal(size=(40, 5)), rng.normal(size=(5, 2)), rng.normal(size=2)
    y = evaluator.rerandomize(evaluator.add(evaluator.matmul_plain(holder.encrypt(values, 8), w), b))
    expected = to_fixed(values, 28) @ to_fixed(w, 28) + to_fixed(b, 56)
    assert decryptor.decrypt_integers(y).tolist() == expected.tolist()


@settings(max_examples=250, deadline=None)
@given(data=st.data(), values=matrices())
def test_sums_and_multiples_equal_the_integer_reference(data, values):
    holder, evaluator, decryptor = parties(DEEP)
    other = draw_matrix(data, values.shape)
    per_sample = draw_matrix(data, values.shape)
    factors = draw_matrix(data, (values.shape[1],))
    x, y = holder.encrypt(values, 100), holder.encrypt(other, 100)
    z = evaluator.mul_plain(evaluator.sub(evaluator.add(x, per_sample), y), factors)
    z = evaluator.sub(z, factors)
    a, b, c = (to_fixed(v, 28) for v in (values, other, per_sample))
    expected = (a + c - b) * to_fixed(factors, 28) - to_fixed(factors, 56)
    assert decryptor.decrypt_integers(z).tolist() == expected.tolist()


@settings(max_examples=100, deadline=None)
@given(values=matrices(bound=10))
def test_rerandomisation_changes_every_ciphertext(values):
    holder, evaluator, decryptor = parties(DEEP)
    x = holder.encrypt(values, 10)
    again = evaluator.rerandomize(x)
    assert decryptor.decrypt_integers(again).tolist() == decryptor.decrypt_integers(x).tolist()
    assert all(c != d for a, b in zip(again.data, x.data, strict=True) for c, d in zip(a, b, strict=True))


def test_a_product_at_a_scale_asked_for():
    holder, evaluator, decryptor = parties(DEEP)
    x = holder.encrypt([[1.5]])
    y = evaluator.add(
        evaluator.mul_plain(x, 2.0, log_scale=40), holder.encrypt_integers(to_fixed(np.ones((1, 1)), 40), 1, 40, 2)
    )
    assert decryptor.decrypt(y).item() == 4.0
    for fractional in (evaluator.mul_plain, lambda t, w, s: evaluator.matmul_plain(t, [[w]], s)):
        with pytest.raises(ScaleMismatch, match="whole bits, ask for"):
            fractional(x, 2.0, 40.5)


@pytest.mark.parametrize(
    "zero",
    [
        lambda ev, x: ev.matmul_plain(x, np.zeros((2, 3))),
        lambda ev, x: ev.mul_plain(x, 0.0),
        lambda ev, x: ev.sub(x, x),
        lambda ev, x: ev.add(x, ev.sub(replace(x, data=[[1] * 2] * 2), x)),
    ],
)
def test_zero_is_a_valid_encryption(zero):
    holder, evaluator, decryptor = parties(DEEP)
    y = zero(evaluator, holder.encrypt(np.ones((6, 2))))
    assert not decryptor.decrypt(y).any()
    check_ciphertexts(keys().public, [c for row in y.data for c in row])
    assert len({c for row in y.data for c in row}) == len(y.data) * y.shape[1]


def test_rerandomisation_takes_from_the_pool_first():
    evaluator = PaillierScheme(LANES).evaluator(keys(), threads=2)
    x = parties(LANES)[0].encrypt(np.ones((3, 4)))
    evaluator.pool.fill(3)
    y = evaluator.rerandomize(x)
    assert len(evaluator.pool) == 0
    assert (parties(LANES)[2].decrypt(y) == 1).all()


def test_levels_run_out():
    holder, evaluator, _ = parties(LANES)
    y = evaluator.mul_plain(holder.encrypt([[1.0]]), 2.0)
    for product in (lambda: evaluator.mul_plain(y, 2.0), lambda: evaluator.matmul_plain(y, [[1.0]])):
        with pytest.raises(BudgetExhausted, match="needs 1 level, 0 left of 1: plan with depth >= 2"):
            product()


def test_overflow_is_refused_before_arithmetic():
    holder, evaluator, _ = parties(LANES)
    x = holder.encrypt([[1.0]], 2.0**30)
    for overflow in (
        lambda: evaluator.mul_plain(x, 2.0**10),
        lambda: evaluator.matmul_plain(x, [[2.0**10]]),
        lambda: evaluator.add(x, 2.0**67),
    ):
        with pytest.raises(OutOfRange, match=r"the ciphertext holds 94\.0"):
            overflow()


def test_a_value_over_its_bound_is_no_number():
    holder, evaluator, decryptor = parties(LANES)
    x = holder.encrypt([[7.0, 1.0]], 8).with_bound(np.array([6.0, 8.0]))
    with pytest.raises(OutOfRange, match=r"feature 0: .* over its bound of 6: an overflow, or a wrong key"):
        decryptor.decrypt(x)
    lying = evaluator.add(x, 6.0).with_bound(np.array([12.9]))
    with pytest.raises(OutOfRange, match="over its bound"):
        decryptor.decrypt(lying)
    for bound in (np.nan, np.inf, -1.0):
        with pytest.raises(OutOfRange, match="finite number that is not negative"):
            decryptor.decrypt(x.with_bound(np.array([bound])))


def test_the_guard_admits_rounding_only():
    holder, _, decryptor = parties(LANES)
    x = holder.encrypt([[0.1]], 0.1)
    assert decryptor.decrypt(x.with_bound(np.array([0.1 * (1 - 2.0**-13)]))).item() == pytest.approx(0.1)
    with pytest.raises(OutOfRange):
        decryptor.decrypt(x.with_bound(np.array([0.1 * (1 - 2.0**-10)])))


def test_an_overflown_lane_is_found():
    holder, _, decryptor = parties(LANES)
    x = holder.encrypt([[1.0]] * 3)
    pushed = replace(x, data=[[gmpy2.powmod(x.data[0][0], 1 << 90, keys().public.n_squared)]])
    with pytest.raises(OutOfRange, match="an overflow, or a wrong key"):
        decryptor.decrypt(pushed)


def test_other_keys():
    other = PaillierScheme(LANES).keygen()
    holder, evaluator, decryptor = parties(LANES)
    stranger = PaillierScheme(LANES).encryptor(other.secret).encrypt([[1.0]])
    with pytest.raises(KeyMismatch, match="decrypt it with the key"):
        decryptor.decrypt(stranger)
    for mixed in (lambda: evaluator.add(holder.encrypt([[1.0]]), stranger), lambda: evaluator.rerandomize(stranger)):
        with pytest.raises(KeyMismatch, match="encrypt with the public key it holds"):
            mixed()
    with pytest.raises(OutOfRange, match="wrong key"):
        decryptor.decrypt(replace(stranger, key_id=keys().public.key_id))


def test_keys_of_another_size():
    large = generate_secret_key(1152)
    scheme = PaillierScheme(LANES)
    for use in (
        lambda: scheme.encryptor(large),
        lambda: scheme.encryptor(large.public),
        lambda: scheme.decryptor(large),
        lambda: scheme.evaluator(KeySet(None, large.public, large.public)),
    ):
        with pytest.raises(MalformedFrame, match="1152 bits, 1024 were agreed"):
            use()


def test_tensors_of_another_layout():
    holder, evaluator, decryptor = parties(LANES)
    x = holder.encrypt(np.ones((11, 2)))
    for broken in (
        replace(x, data=x.data[:1]),
        replace(x, data=[row[:1] for row in x.data]),
        replace(x, shape=(31, 2)),
    ):
        with pytest.raises(ShapeMismatch, match="do not make up"):
            decryptor.decrypt(broken)
        with pytest.raises(ShapeMismatch, match="do not make up"):
            evaluator.add(broken, 1.0)


def test_parameters():
    assert PaillierScheme().parameters == PaillierParameters()
    assert PaillierScheme.features == Feature.ADD | Feature.MUL_PLAIN
    with pytest.raises(InsecureParameters, match="use 3072"):
        PaillierParameters(modulus_bits=1024)
    for wrong in ({"log_scale": 2.5}, {"lanes": 11}, {"modulus_bits": 1000}):
        with pytest.raises(OutOfRange):
            replace(LANES, **wrong)
    with pytest.raises(Unsupported, match="unknown: use 'uniform'"):
        PaillierScheme(LANES).encryptor(keys().public, randomness="fast")


def test_what_needs_a_round_says_so():
    _, evaluator, _ = parties(LANES)
    for operation, reason in (
        ("mul", "Interactive"),
        ("refresh", "Interactive"),
        ("ask", "Interactive"),
        ("rotate", "lanes"),
    ):
        assert reason in getattr(PaillierEvaluator, operation).reason
        with pytest.raises(Unsupported, match=reason):
            getattr(evaluator, operation)()


def test_the_evaluator_holds_no_secret_and_the_encryptor_gives_none():
    holder, evaluator, decryptor = parties(LANES)
    assert not any(str(int(f)) in str(pickle.dumps(evaluator.public)) for f in (keys().secret.p, keys().secret.q))
    for guarded in (holder.pool._source, decryptor):
        with pytest.raises(TypeError, match="does not leave its holder"):
            pickle.dumps(guarded)


@pytest.mark.parametrize("bad", [0, 1, -5, lambda k: k.public.n_squared, lambda k: k.p, lambda k: k.public.n])
def test_integers_that_are_no_ciphertexts(bad):
    public, good = keys().public, parties(LANES)[0].encrypt([[1.0]]).data[0][0]
    check_ciphertexts(public, [])
    check_ciphertexts(public, [good])
    with pytest.raises(MalformedFrame):
        check_ciphertexts(public, [good, gmpy2.mpz(bad(keys().secret) if callable(bad) else bad)])


@settings(max_examples=40, deadline=None)
@given(values=matrices(bound=2.0**20, rows=3))
def test_phe_decrypts_ours(values):
    x = parties(SINGLE)[0].encrypt(values, 2.0**20)
    phe_key, n = keys().secret.to_phe(), int(keys().public.n)
    decrypted = [[phe_key.raw_decrypt(int(c)) for c in row] for row in x.data]
    assert decrypted == (to_fixed(values, 28) % n).tolist()


@settings(max_examples=40, deadline=None)
@given(integer=st.integers(-(2**200), 2**200))
def test_we_decrypt_phes(integer):
    public = keys().secret.to_phe().public_key
    ciphertext = gmpy2.mpz(public.raw_encrypt(integer % public.n))
    x = CipherTensor([[ciphertext]], (1, 1), 0, 0.0, np.array([2.0**200]), keys().public.key_id)
    assert parties(SINGLE)[2].decrypt_integers(x).item() == integer
