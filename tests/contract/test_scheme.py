"""The contract: one suite that every scheme passes, driven by the features it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepipe.errors import (
    BudgetExhausted,
    HepipeError,
    KeyMismatch,
    OutOfRange,
    ScaleMismatch,
    ShapeMismatch,
    Unsupported,
)
from hepipe.schemes.base import CipherTensor
from hepipe.schemes.frames import HEADER_BYTES, tensor_bytes
from hepipe.schemes.parameters import TAIL_SIGMAS
from hepipe.schemes.wire import key_frame_bytes, pack_keys, pack_tensor, unpack_keys, unpack_tensor
from tails import worst_of_many

if TYPE_CHECKING:
    from conftest import Party

FloatArray = npt.NDArray[np.float64]
RNG = np.random.default_rng(20240607)


def encrypted(party: Party, values: npt.ArrayLike, bound: Any = 8.0) -> tuple[CipherTensor, CipherTensor]:
    """The same tensor, encrypted and dry."""
    x = party.encryptor.encrypt(values, bound)
    return x, party.dry().fresh(x.shape, bound)


def assert_close(party: Party, x: CipherTensor, dry: CipherTensor, expected: FloatArray) -> None:
    """x decrypts to ``expected`` within what the dry run of the same circuit promised."""
    found = party.decryptor.decrypt(x)
    assert found.shape == expected.shape
    # Float64's own rounding is no error of the scheme.
    slack = 2.0**-46 * max(1.0, float(np.abs(expected).max()))
    error, bound = np.abs(found - expected), party.dry().error_bound(dry) + slack
    assert error.max() <= worst_of_many(party.dry(), dry) + slack
    assert (error > bound).sum() <= (3 if dry.data[1].any() else 0)


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "f8"],
)
def test_every_numeric_dtype_makes_the_round_trip(small: Party, dtype: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    x, dry = encrypted(small, values)
    assert_close(small, x, dry, values.astype(np.float64))


def test_arrays_frames_and_lists_make_the_round_trip(small: Party) -> None:
    values = np.array([[1.0, -2.5, 0.125], [3.0, 4.0, -7.75]])
    for given_as in (values, pd.DataFrame(values), values.tolist(), np.asfortranarray(values), values[::1]):
        x, dry = encrypted(small, given_as)
        assert_close(small, x, dry, values)


def test_a_frame_of_mixed_numeric_columns_makes_the_round_trip(small: Party) -> None:
    frame = pd.DataFrame({"flag": [True, False], "count": [3, -4], "size": [0.5, 1.5]})
    x, dry = encrypted(small, frame)
    assert_close(small, x, dry, frame.astype(float).to_numpy())


@pytest.mark.parametrize("blocks", [0, 1, 2.4, 3])
def test_one_sample_to_several_blocks_make_the_round_trip(party: Party, blocks: float) -> None:
    slots = party.parameters.slots
    samples = max(int(blocks * slots), 1)
    values = RNG.uniform(-8, 8, (samples, 2))
    x, dry = encrypted(party, values)
    assert (x.shape, x.level, x.log_scale) == ((samples, 2), party.parameters.depth, party.parameters.log_scale)
    assert_close(party, x, dry, values)


def test_values_at_their_bound_make_the_round_trip(party: Party) -> None:
    values = np.array([[8.0, -0.25, 0.0], [-8.0, 0.25, 0.0]])
    x, dry = encrypted(party, values, [8.0, 0.25, 2.0**-20])
    assert_close(party, x, dry, values)


def test_the_public_key_encrypts_what_the_secret_key_decrypts(party: Party) -> None:
    values = RNG.uniform(-8, 8, (3, 2))
    x = party.scheme.encryptor(party.keys.public).encrypt(values, 8.0)
    assert x.key_id == party.keys.public.key_id
    # Noise of a public key is 2 to 3 bits above that of the key owner; without a special prime it is an encryption
    # of zero's.
    bound = 12 * party.dry().error_bound(party.dry().fresh((3, 2), 8.0))
    bound += 2 * TAIL_SIGMAS * party.parameters.product_error(x.log_scale, x.level)
    assert np.abs(party.decryptor.decrypt(x) - values).max() <= bound


def test_two_encryptions_differ(encrypting: Party) -> None:
    values = np.ones((2, 1))
    first, second = (pack_tensor(encrypting.encryptor.encrypt(values, 2.0), encrypting.bundle) for _ in range(2))
    assert first[HEADER_BYTES:] != second[HEADER_BYTES:]


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_sums_and_differences_are_those_of_the_values(party: Party) -> None:
    ev, dry = party.evaluator, party.dry()
    a, b = RNG.uniform(-8, 8, (2, 5, 3))
    (x, dx), (y, dy) = encrypted(party, a), encrypted(party, b)
    assert_close(party, ev.add(x, y), dry.add(dx, dy), a + b)
    assert_close(party, ev.sub(x, y), dry.sub(dx, dy), a - b)
    assert ev.add(x, y).level == x.level


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 3)])
def test_arrays_are_added_and_subtracted(party: Party, shape: tuple[int, ...]) -> None:
    ev, dry = party.evaluator, party.dry()
    a, b = RNG.uniform(-8, 8, (5, 3)), RNG.uniform(-8, 8, shape)
    x, dx = encrypted(party, a)
    assert_close(party, ev.add(x, b), dry.add(dx, b), a + b)
    assert_close(party, ev.sub(x, b), dry.sub(dx, b), a - b)


def test_arrays_of_several_blocks_are_added_block_by_block(small: Party) -> None:
    samples = 2 * small.parameters.slots + 1
    a, b = RNG.uniform(-8, 8, (2, samples, 2))
    x, dx = encrypted(small, a)
    assert_close(small, small.evaluator.add(x, b), small.dry().add(dx, b), a + b)
    assert_close(small, small.evaluator.sub(x, b[0]), small.dry().sub(dx, b[0]), a - b[0])


@pytest.mark.parametrize("factor", [2.0, -0.5, [1.5, -2.0, 0.0], [0.0, 0.0, 0.0], 1e-300])
def test_factors_multiply_their_column(party: Party, factor: Any) -> None:
    a = RNG.uniform(-8, 8, (5, 3))
    x, dx = encrypted(party, a)
    product = party.evaluator.mul_plain(x, factor)
    assert product.level == x.level - 1
    assert_close(party, product, party.dry().mul_plain(dx, factor), a * np.asarray(factor))


WEIGHTS: dict[str, list[list[float]]] = {
    "dense": [[1.5, -2.0], [0.25, 3.0], [-1.0, 0.5]],
    "a zero column": [[1.5, 0.0], [0.25, 0.0], [-1.0, 0.0]],
    "a zero row": [[1.5, -2.0], [0.0, 0.0], [-1.0, 0.5]],
    "all zero": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
    "too small to encode": [[1e-300, 0.0], [0.0, 1e-300], [0.0, 0.0]],
}


@pytest.mark.parametrize("weights", list(WEIGHTS.values()), ids=list(WEIGHTS))
def test_matrix_products_are_those_of_the_values(party: Party, weights: list[list[float]]) -> None:
    a = RNG.uniform(-8, 8, (party.parameters.slots + 1 if not party.secure else 4, 3))
    x, dx = encrypted(party, a)
    product = party.evaluator.matmul_plain(x, weights)
    assert (product.level, product.shape) == (x.level - 1, (len(a), 2))
    assert_close(party, product, party.dry().matmul_plain(dx, weights), a @ np.array(weights))


def test_ciphertexts_multiply_where_the_scheme_declares_it(party: Party) -> None:
    a, b = RNG.uniform(-8, 8, (2, 4, 2))
    (x, dx), (y, dy) = encrypted(party, a), encrypted(party, b)
    ev, dry = party.evaluator, party.dry()
    if not party.multiplies:
        with pytest.raises(Unsupported, match=r"round|linear only"):
            ev.mul(x, y)
        return
    assert_close(party, ev.mul(x, y), dry.mul(dx, dy), a * b)
    assert_close(party, ev.mul(x, x), dry.mul(dx, dx), a * a)
    first, second = ev.mul_pairs([(x, y), (y, y)])
    assert_close(party, first, dry.mul(dx, dy), a * b)
    assert_close(party, second, dry.mul(dy, dy), b * b)


@pytest.mark.parametrize("operation", ["refresh", "ask"])
def test_what_takes_a_round_says_so(encrypting: Party, operation: str) -> None:
    x, _ = encrypted(encrypting, np.ones((1, 1)))
    arguments = (x,) if operation == "refresh" else (np.sign, x)
    with pytest.raises(Unsupported, match="round with the key holder"):
        getattr(encrypting.evaluator, operation)(*arguments)


def test_x_minus_x_is_an_encryption_of_zero(party: Party) -> None:
    x, dx = encrypted(party, RNG.uniform(-8, 8, (party.parameters.slots + 1 if not party.secure else 2, 2)))
    zero = party.evaluator.sub(x, x)
    assert_close(party, zero, party.dry().sub(dx, dx), np.zeros(x.shape))
    again = party.evaluator.matmul_plain(party.evaluator.add(zero, 1.0), [[1.0], [2.0]])
    dry = party.dry().matmul_plain(party.dry().add(party.dry().sub(dx, dx), 1.0), [[1.0], [2.0]])
    assert_close(party, again, dry, np.full((x.shape[0], 1), 3.0))


def test_a_deep_circuit_spends_one_level_a_product(party: Party) -> None:
    values, factor = RNG.uniform(-2, 2, (3, 2)), 1.25
    x, dx = encrypted(party, values, 2.0)
    for step in range(party.parameters.depth):
        x, dx = party.evaluator.mul_plain(x, factor), party.dry().mul_plain(dx, factor)
        assert x.level == party.parameters.depth - step - 1
    assert_close(party, x, dx, values * factor**party.parameters.depth)


def test_operands_of_different_levels_are_brought_together(small: Party) -> None:
    if small.parameters.depth < 2:
        pytest.skip("one level only")
    a, b = RNG.uniform(-2, 2, (2, 3, 2))
    (x, dx), (y, dy) = encrypted(small, a), encrypted(small, b)
    ev, dry = small.evaluator, small.dry()
    low, dlow = ev.mul_plain(x, 1.5), dry.mul_plain(dx, 1.5)
    high, dhigh = ev.mul_plain(y, 2.0), dry.mul_plain(dy, 2.0)
    assert ev.add(low, high).level == low.level
    again, dagain = (
        ev.mul_plain(low, 1.0, log_scale=low.log_scale + 2),
        dry.mul_plain(dlow, 1.0, log_scale=low.log_scale + 2),
    )
    other, dother = (
        ev.mul_plain(y, 2.0, log_scale=low.log_scale + 2),
        dry.mul_plain(dy, 2.0, log_scale=low.log_scale + 2),
    )
    total = ev.add(again, other)
    assert total.level == again.level < other.level
    assert_close(small, total, dry.add(dagain, dother), a * 1.5 + b * 2.0)
    assert_close(small, ev.sub(low, high), dry.sub(dlow, dhigh), a * 1.5 - b * 2.0)


# --- the books -------------------------------------------------------------------------------------------------------

Step = tuple[str, Any]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.just(None)),
        st.tuples(st.just("sub"), st.just(None)),
        st.tuples(st.just("add_plain"), st.floats(-4, 4)),
        st.tuples(st.just("mul_plain"), st.floats(-2, 2)),
        st.tuples(st.just("matmul_plain"), st.lists(st.floats(-2, 2), min_size=4, max_size=4)),
        st.tuples(st.just("mul"), st.just(None)),
        st.tuples(st.just("rescale_to"), st.integers(-4, 4)),
        st.tuples(st.just("rerandomize"), st.just(None)),
    ),
    min_size=1,
    max_size=6,
)


def run_step(ev: Any, x: CipherTensor, y: CipherTensor, step: Step) -> CipherTensor:
    name, value = step
    if name in ("add", "sub"):
        return getattr(ev, name)(x, x if x.log_scale != y.log_scale else y)  # type: ignore[no-any-return]
    if name == "add_plain":
        return ev.add(x, value)  # type: ignore[no-any-return]
    if name == "matmul_plain":
        return ev.matmul_plain(x, np.reshape(value, (2, 2)))  # type: ignore[no-any-return]
    if name == "mul":
        return ev.mul(x, y)  # type: ignore[no-any-return]
    if name == "rescale_to":
        return ev.mul_plain(x, 1.0, log_scale=ev.parameters.log_scale + value)  # type: ignore[no-any-return]
    return getattr(ev, name)(x) if value is None else getattr(ev, name)(x, value)  # type: ignore[no-any-return]


def run_clear(a: FloatArray, first: bool, b: FloatArray, step: Step) -> FloatArray:
    name, value = step
    other = b if first else a
    results: dict[str, Callable[[], FloatArray]] = {
        "add": lambda: a + other,
        "sub": lambda: a - other,
        "add_plain": lambda: a + value,
        "mul_plain": lambda: a * value,
        "matmul_plain": lambda: a @ np.reshape(value, (2, 2)),
        "mul": lambda: a * b,
    }
    return results.get(name, lambda: a)()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(0, 2**32 - 1))
def test_a_dry_run_keeps_the_same_books_as_a_real_one(small: Party, steps: list[Step], seed: int) -> None:
    values, other = np.random.default_rng(seed).uniform(-2, 2, (2, 3, 2))
    ev, dry = small.evaluator, small.dry()
    (x, dx), (y, dy) = encrypted(small, values, 2.0), encrypted(small, other, 2.0)
    for step in steps:
        if step[0] == "mul" and not small.multiplies:
            continue
        same_scale = x.log_scale == y.log_scale
        try:
            planned: CipherTensor | HepipeError = run_step(dry, dx, dy, step)
        except HepipeError as error:
            planned = error
        if isinstance(planned, HepipeError):
            with pytest.raises(type(planned)) as refusal:
                run_step(ev, x, y, step)
            assert str(refusal.value) == str(planned)
            continue
        x, dx = run_step(ev, x, y, step), planned
        values = run_clear(values, same_scale, other, step)
        assert (x.shape, x.level, x.log_scale) == (dx.shape, dx.level, dx.log_scale)
        assert (x.bound == dx.bound).all()
        assert (np.abs(values) <= x.bound).all()
    assert_close(small, x, dx, values)


@pytest.mark.parametrize("weights", list(WEIGHTS.values()), ids=list(WEIGHTS))
def test_results_look_alike_whatever_the_weights(encrypting: Party, weights: list[list[float]]) -> None:
    x, _ = encrypted(encrypting, RNG.uniform(-8, 8, (3, 3)))
    ev, bundle = encrypting.evaluator, encrypting.bundle
    results = [ev.matmul_plain(x, w) for w in (WEIGHTS["dense"], weights)]
    results += [ev.mul_plain(ev.matmul_plain(x, WEIGHTS["dense"]), 0.0)] if encrypting.parameters.depth > 1 else []
    leaving = [ev.rerandomize(ev.add(result, 0.5)).with_bound(np.float64(1024)) for result in results]
    assert len({(r.level, pack_size(encrypting, r)) for r in leaving}) == 1
    assert results[0].log_scale == results[1].log_scale
    assert results[0].level == results[1].level
    frames = [pack_tensor(r, bundle) for r in leaving[:2]]
    assert frames[0][: HEADER_BYTES - 32] == frames[1][: HEADER_BYTES - 32]


def pack_size(party: Party, x: CipherTensor) -> int:
    return len(pack_tensor(x, party.bundle))


def test_rerandomizing_changes_the_bytes_and_keeps_the_values(encrypting: Party) -> None:
    values = RNG.uniform(-8, 8, (encrypting.parameters.slots + 1, 2))
    x, dx = encrypted(encrypting, values)
    bottom = encrypting.evaluator.rerandomize(x)
    again = encrypting.evaluator.rerandomize(bottom)
    assert bottom.level == again.level == 0
    assert_close(encrypting, bottom, encrypting.dry().rerandomize(dx), values)
    bodies = {pack_tensor(tensor, encrypting.bundle)[HEADER_BYTES:] for tensor in (x, bottom, again)}
    assert len(bodies) == 3


# --- frames ----------------------------------------------------------------------------------------------------------


def test_tensors_travel_as_frames_of_the_size_that_was_foretold(party: Party) -> None:
    if not party.travels:
        x, _ = encrypted(party, np.ones((1, 1)))
        with pytest.raises(Unsupported, match="integers of any size"):
            pack_tensor(x, party.bundle)
        return
    samples = party.parameters.slots + 1 if not party.secure else 2
    values = RNG.uniform(-8, 8, (samples, 2))
    x, dx = encrypted(party, values, [8.0, 11.0])
    middle, dmiddle = party.evaluator.mul_plain(x, 0.5), party.dry().mul_plain(dx, 0.5)
    low, dlow = party.evaluator.rerandomize(middle), party.dry().rerandomize(dmiddle)
    for tensor, dry, expected, fresh in (
        (x, dx, values, True),
        (middle, dmiddle, values / 2, False),
        (low, dlow, values / 2, False),
    ):
        frame = pack_tensor(tensor, party.bundle)
        assert len(frame) == tensor_bytes(party.parameters, tensor.shape, tensor.level, fresh)
        found = unpack_tensor(frame, party.bundle)
        assert (found.shape, found.level, found.log_scale) == (tensor.shape, tensor.level, tensor.log_scale)
        assert (found.bound >= tensor.bound).all()
        assert (found.bound <= 2 * tensor.bound).all()
        assert_close(party, found, dry, expected)
        assert pack_tensor(found, party.bundle) == frame
    assert_close(party, party.evaluator.add(unpack_tensor(pack_tensor(x, party.bundle), party.bundle), 1.0),
                 party.dry().add(dx, 1.0), values + 1)  # fmt: skip


def test_public_keys_travel_as_frames_of_the_size_that_was_foretold(party: Party) -> None:
    frame = pack_keys(party.bundle)
    assert len(frame) == key_frame_bytes(party.parameters)
    bundle = unpack_keys(frame, allow_insecure=True)
    assert bundle.parameters == party.parameters
    assert bundle.key_id == party.keys.public.key_id
    assert pack_keys(bundle) == frame


def test_a_server_computes_with_keys_from_a_frame(party: Party) -> None:
    bundle = unpack_keys(pack_keys(party.bundle), allow_insecure=True)
    ev = type(party.scheme)(bundle.parameters).evaluator(bundle)
    a = RNG.uniform(-2, 2, (2, 2))
    x, dx = encrypted(party, a, 2.0)
    result, dry = ev.matmul_plain(x, [[1.0], [2.0]]), party.dry().matmul_plain(dx, [[1.0], [2.0]])
    expected = a @ [[1.0], [2.0]]
    if party.multiplies:
        result, dry, expected = ev.mul(result, result), party.dry().mul(dry, dry), expected**2
    assert_close(party, ev.rerandomize(result), party.dry().rerandomize(dry), expected)


def test_a_frame_of_another_key_is_refused(small: Party) -> None:
    if not small.travels:
        pytest.skip("the integer reference does not travel")
    x, _ = encrypted(small, np.ones((1, 1)))
    with pytest.raises(KeyMismatch, match="expected key"):
        unpack_tensor(pack_tensor(x, small.bundle), small.other().bundle)
    with pytest.raises(KeyMismatch, match="cannot travel"):
        pack_tensor(x, small.other().bundle)


# --- refusals: before any arithmetic, and typed ----------------------------------------------------------------------


def test_another_key_decrypts_nothing(party: Party) -> None:
    x, _ = encrypted(party, np.ones((1, 1)))
    with pytest.raises(KeyMismatch, match=r"key [0-9a-f]{8} given to the .* of key [0-9a-f]{8}"):
        party.other().decryptor.decrypt(x)


def test_a_relabelled_ciphertext_is_no_number_either(encrypting: Party) -> None:
    other = encrypting.other()
    x = replace(encrypted(encrypting, np.ones((encrypting.parameters.slots, 1)))[0], key_id=other.keys.public.key_id)
    with pytest.raises(OutOfRange, match="key"):
        other.decryptor.decrypt(x)


def test_keys_do_not_mix(party: Party) -> None:
    (x, _), (y, _) = encrypted(party, np.ones((1, 1))), encrypted(party.other(), np.ones((1, 1)))
    ev = party.evaluator
    calls: list[Callable[[], object]] = [
        lambda: ev.add(x, y),
        lambda: ev.sub(y, x),
        lambda: ev.add(y, 1.0),
        lambda: ev.mul_plain(y, 2.0),
        lambda: ev.matmul_plain(y, [[1.0]]),
        lambda: ev.rerandomize(y),
    ]
    calls += [lambda: ev.mul(x, y)] if party.multiplies else []
    for call in calls:
        with pytest.raises(KeyMismatch, match="encrypt with the public key it holds"):
            call()


def test_too_deep_says_how_much_is_missing(party: Party) -> None:
    x, _ = encrypted(party, np.ones((1, 2)), 1.0)
    for _ in range(party.parameters.depth):
        x = party.evaluator.mul_plain(x, 1.0)
    depth = party.parameters.depth
    needs = f"needs 1 level, 0 left of {depth}: plan with depth >= {depth + 1}"
    for name, second in (("mul_plain", 1.0), ("matmul_plain", np.ones((2, 1))), *([("mul", x)] * party.multiplies)):
        with pytest.raises(BudgetExhausted, match=f"{name} {needs}"):
            getattr(party.evaluator, name)(x, second)


def test_shapes_must_fit(party: Party) -> None:
    ev = party.evaluator
    (x, _), (y, _) = encrypted(party, np.ones((2, 2))), encrypted(party, np.ones((2, 3)))
    calls: list[Callable[[], object]] = [
        lambda: ev.add(x, y),
        lambda: ev.sub(x, y),
        lambda: ev.add(x, np.ones(3)),
        lambda: ev.add(x, np.ones((2, 2, 1))),
        lambda: ev.add(x, np.ones((1, 2))),
        lambda: ev.matmul_plain(x, np.ones((3, 2))),
        lambda: ev.matmul_plain(x, np.ones(2)),
        lambda: ev.mul_plain(x, np.ones(3)),
    ]
    calls += [lambda: ev.mul(x, y)] if party.multiplies else []
    for call in calls:
        with pytest.raises(ShapeMismatch):
            call()


def test_a_factor_per_sample_is_refused_with_the_reason(party: Party) -> None:
    x, _ = encrypted(party, np.ones((3, 2)))
    with pytest.raises(ShapeMismatch, match="a factor per sample is not possible"):
        party.evaluator.mul_plain(x, np.ones((3, 2)))
    with pytest.raises(ShapeMismatch, match="a factor per sample is not possible"):
        party.evaluator.mul_plain(x, np.ones((3, 1)))


def test_scales_must_be_equal(party: Party) -> None:
    (x, _), (y, _) = encrypted(party, np.ones((1, 1))), encrypted(party, np.ones((1, 1)))
    other = party.evaluator.mul_plain(y, 1.0, log_scale=y.log_scale + 3)
    for operation in (party.evaluator.add, party.evaluator.sub):
        with pytest.raises(ScaleMismatch, match="would be a wrong number"):
            operation(x, other)


def test_a_factor_needs_at_least_one_bit(party: Party) -> None:
    x, _ = encrypted(party, np.ones((1, 1)))
    least = x.log_scale - party.parameters.rescale_bits(x.level) + 1
    with pytest.raises(ScaleMismatch, match=f"ask for at least {least:.1f}"):
        party.evaluator.mul_plain(x, 1.0, log_scale=least - 1)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60)])
def test_an_integer_that_no_double_holds_is_refused(party: Party, value: int) -> None:
    with pytest.raises(OutOfRange, match=r"over 2\*\*53"):
        party.encryptor.encrypt(np.array([[value]]), 2.0**62)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(party: Party, value: float) -> None:
    ev, values = party.evaluator, np.array([[1.0, 2.0], [3.0, value]])
    with pytest.raises(OutOfRange, match=r"\(1, 1\)"):
        party.encryptor.encrypt(values, 8.0)
    x, _ = encrypted(party, np.ones((2, 2)))
    calls: list[Callable[[], object]] = [
        lambda: ev.add(x, values),
        lambda: ev.sub(x, value),
        lambda: ev.mul_plain(x, value),
        lambda: ev.matmul_plain(x, values),
        lambda: party.encryptor.encrypt(np.ones((2, 2)), value),
    ]
    for call in calls:
        with pytest.raises(OutOfRange):
            call()


@pytest.mark.parametrize(
    "values",
    [
        np.ones((1, 1), complex),
        np.array([["1.5"]]),
        np.array([[object()]], dtype=object),
        np.array([["2024-01-01"]], "M8[D]"),
    ],
    ids=["complex", "text", "object", "date"],
)
def test_other_dtypes_are_refused(party: Party, values: npt.NDArray[Any]) -> None:
    x, _ = encrypted(party, np.ones((1, 1)))
    calls: list[Callable[[], object]] = [
        lambda: party.encryptor.encrypt(values, 8.0),
        lambda: party.evaluator.add(x, values),
        lambda: party.evaluator.sub(x, values),
        lambda: party.evaluator.mul_plain(x, values[0]),
        lambda: party.evaluator.matmul_plain(x, values),
    ]
    for call in calls:
        with pytest.raises(ShapeMismatch, match="dtype"):
            call()


@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 0), (2, 2, 2), ()])
def test_only_samples_by_features_is_encrypted(small: Party, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatch, match="samples, features"):
        small.encryptor.encrypt(np.zeros(shape), 8.0)


def test_a_value_over_its_bound_is_named(party: Party) -> None:
    with pytest.raises(OutOfRange, match=r"row 1, feature 0: \|9\| is over the bound 8"):
        party.encryptor.encrypt([[1.0], [9.0]], 8.0)
    with pytest.raises(OutOfRange, match="feature 1"):
        party.encryptor.encrypt([[1.0, 1.0]], [8.0, 0.5])


@pytest.mark.parametrize("bound", [-1.0, [8.0, -0.5], [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_a_bound_that_makes_no_sense_is_refused(small: Party, bound: Any) -> None:
    with pytest.raises((OutOfRange, ShapeMismatch), match="bound"):
        small.encryptor.encrypt(np.zeros((1, 2)), bound)


def test_a_bound_without_room_is_refused(party: Party) -> None:
    room = party.parameters.capacity_bits(party.parameters.depth)
    if not np.isfinite(room):
        pytest.skip("integers of any size have room for every bound")
    largest = room - party.parameters.log_scale
    if largest > 1020:
        with pytest.raises(OutOfRange):
            party.encryptor.encrypt([[0.0]], 2.0**1023)
        return
    party.encryptor.encrypt([[0.0]], 2.0 ** (largest - 0.01))
    with pytest.raises(OutOfRange, match="lower the input bound"):
        party.encryptor.encrypt([[0.0]], 2.0 ** (largest + 0.01))


def test_results_without_room_are_refused(party: Party) -> None:
    if getattr(party.parameters, "exact", False):
        pytest.skip("integers of any size have room for every result")
    x, _ = encrypted(party, np.ones((1, 1)))
    huge = 2.0**1000
    for call in (party.evaluator.mul_plain, party.evaluator.add, lambda x, v: party.evaluator.matmul_plain(x, [[v]])):
        with pytest.raises(OutOfRange, match="the ciphertext holds"):
            call(x, huge)
