"""CKKS beyond the contract: seeds, sizes, slots, what a server gets, and what must not be published."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from hepipe.errors import KeyMismatch, OutOfRange, Unsupported
from hepipe.schemes import seal
from hepipe.schemes.base import Feature, KeySet, PublicBundle
from hepipe.schemes.ckks import CkksScheme, Stream, expand, to_slots
from hepipe.schemes.frames import HEADER_BYTES
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, CkksParameters
from hepipe.schemes.wire import pack_keys, pack_tensor, unpack_tensor

SCHEME = CkksScheme(TEST_INSECURE_CKKS)
KEYS = SCHEME.keygen()
BUNDLE = PublicBundle(TEST_INSECURE_CKKS, KEYS.public, KEYS.evaluation)
COMPLEX = CkksParameters(1024, (50, 30, 50), 30.0, complex_slots=True, insecure=True)
EV = SCHEME.evaluator(KeySet(None, KEYS.public, KEYS.evaluation))


@cache
def complex_keys() -> KeySet:
    return CkksScheme(COMPLEX).keygen()


def all_slots(x: Any) -> np.ndarray[Any, Any]:
    """Every slot of every ciphertext of a tensor."""
    context, found = seal.context(TEST_INSECURE_CKKS), []
    decryptor = sealapi.Decryptor(context.seal, KEYS.secret._handle)
    for item in (item for row in x.data for item in row):
        plain = sealapi.Plaintext()
        decryptor.decrypt(expand(item, context), plain)
        found.append(context.encoder.decode_complex(plain))
    return np.array(found)


def test_the_key_owner_sends_half_the_bytes() -> None:
    values = np.ones((4, 2))
    owner = pack_tensor(SCHEME.encryptor(KEYS.secret).encrypt(values, 2.0), BUNDLE)
    anyone = pack_tensor(SCHEME.encryptor(KEYS.public).encrypt(values, 2.0), BUNDLE)
    assert len(owner) - HEADER_BYTES < 0.51 * (len(anyone) - HEADER_BYTES)


def test_seeds_never_repeat() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt(np.ones((1, 20)), 2.0)
    assert len({item.body[-64:] for item in x.data[0]}) == 20


def test_a_mixed_tensor_of_seeded_and_computed_ciphertexts_travels_whole() -> None:
    fresh = SCHEME.encryptor(KEYS.secret).encrypt([[1.0, 2.0]], 4.0)
    whole = expand(fresh.data[0][1], seal.context(TEST_INSECURE_CKKS))
    mixed = replace(fresh, data=[[expand(fresh.data[0][0], seal.context(TEST_INSECURE_CKKS)), whole]])
    found = unpack_tensor(pack_tensor(mixed, BUNDLE), BUNDLE)
    assert np.abs(SCHEME.decryptor(KEYS.secret).decrypt(found) - [[1.0, 2.0]]).max() < 1e-5


def test_features_follow_the_slots() -> None:
    assert Feature.MUL in SCHEME.features
    assert Feature.MUL not in CkksScheme(COMPLEX).features
    assert Feature.SUM_SAMPLES not in SCHEME.features


def test_linear_circuits_need_no_relinearization_key() -> None:
    assert complex_keys().evaluation.parts == []
    bundle = PublicBundle(COMPLEX, complex_keys().public, complex_keys().evaluation)
    assert len(pack_keys(bundle)) < len(pack_keys(BUNDLE)) / 4  # the public key, without three more encryptions
    x = CkksScheme(COMPLEX).encryptor(complex_keys().secret).encrypt([[1.0]], 2.0)
    ev = CkksScheme(COMPLEX).evaluator(complex_keys())
    for call in (lambda: ev.mul(x, x), lambda: ev.mul_pairs([(x, x)])):
        with pytest.raises(Unsupported, match=r"use CkksParameters\(complex_slots=False\)"):
            call()


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 1024, 1025])
def test_two_samples_share_a_complex_slot(samples: int) -> None:
    column = np.arange(samples, dtype=np.float64)
    slots = np.array(to_slots(column[:1024], COMPLEX))
    assert len(slots) == min(samples, 512)
    assert (slots.real == column[: len(slots)]).all()
    assert (slots.imag[: max(min(samples, 1024) - 512, 0)] == column[512:1024]).all()
    x = CkksScheme(COMPLEX).encryptor(complex_keys().secret).encrypt(column[:, None] / 1025, 1.0)
    assert len(x.data) == -(-samples // 1024)
    found = CkksScheme(COMPLEX).decryptor(complex_keys().secret).decrypt(x)
    assert np.abs(found[:, 0] - column / 1025).max() < 1e-4


def test_unused_slots_hold_no_partial_results() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, (4, 2))
    x = SCHEME.encryptor(KEYS.secret).encrypt(values, 1.0)
    result = EV.rerandomize(EV.matmul_plain(x, weights))
    slots = all_slots(result)
    assert np.abs(slots[:, :3].T - values @ weights).max() < 1e-3
    assert np.abs(slots[:, 3:]).max() < 1e-3
    assert np.abs(slots.imag).max() < 1e-3


def test_an_intercept_fills_unused_slots_with_itself_only() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt(np.ones((2, 1)), 1.0)
    slots = all_slots(EV.add(x, 0.25))
    assert np.abs(slots[0, 2:] - 0.25).max() < 1e-4


def test_the_exact_scale_comes_back_after_every_rescaling() -> None:
    parameters = CkksParameters(1024, (50, *(30,) * 6, 50), 30.0, insecure=True)
    scheme = CkksScheme(parameters)
    keys = scheme.keygen()
    ev, x = scheme.evaluator(keys), scheme.encryptor(keys.secret).encrypt([[1.0]], 1.0)
    for _ in range(6):
        x = ev.mul_plain(x, 1.0)
        assert abs(x.log_scale - 30.0) < 2.0**-45
        assert abs(x.data[0][0].scale - 2.0**30) < 2.0**-12
    assert abs(scheme.decryptor(keys.secret).decrypt(x)[0, 0] - 1) < 1e-5


def test_a_result_leaves_at_the_smallest_modulus() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[1.0]], 1.0)
    item = EV.rerandomize(x).data[0][0]
    assert item.coeff_modulus_size() == 1
    assert item.size() == 2


def test_a_product_is_relinearized_when_anything_but_a_weighted_sum_uses_it() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[3.0, 2.0, 1.0]], 4.0)
    product = EV.mul(x, x)
    late = EV.matmul_plain(product, [[1.0], [2.0], [3.0]])
    assert late.data[0][0].size() == 2
    assert all(item.finished is None for item in product.data[0])
    early = EV.matmul_plain(product, np.eye(3))  # as many sums as products: nothing to gain by waiting
    for tensor in (product, early, EV.add(product, 1.0), EV.rerandomize(product)):
        items = [expand(item, seal.context(TEST_INSECURE_CKKS)) for item in tensor.data[0]]
        assert [item.size() for item in items] == [2, 2, 2]


@pytest.mark.parametrize(
    "weights", [[[1.0], [-2.0], [0.5]], [[0.0], [0.0], [0.0]], [[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]]
)
def test_a_late_weighted_sum_is_the_same_result_as_an_early_one(weights: Any) -> None:
    values = np.random.default_rng(8).uniform(-1, 1, (5, 3))
    x = SCHEME.encryptor(KEYS.secret).encrypt(values, 1.0)
    product = EV.mul(x, x)
    late = EV.matmul_plain(product, weights)
    finished = [[expand(item, seal.context(TEST_INSECURE_CKKS)) for item in product.data[0]]]
    early = EV.matmul_plain(replace(product, data=finished), weights)
    decrypted = [SCHEME.decryptor(KEYS.secret).decrypt(y) for y in (late, early)]
    assert np.abs(decrypted[0] - values**2 @ np.array(weights)).max() < 1e-4
    assert np.abs(decrypted[0] - decrypted[1]).max() < 1e-4
    assert (late.level, late.log_scale, late.bound.tolist()) == (early.level, early.log_scale, early.bound.tolist())
    assert late.data[0][0].parms_id() == early.data[0][0].parms_id()
    assert late.data[0][0].scale == early.data[0][0].scale


def test_a_product_may_be_summed_before_and_after_it_is_used_otherwise() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[0.5, -1.0, 0.25]], 1.0)
    product, weights = EV.mul(x, x), [[1.0], [2.0], [3.0]]
    one_used = EV.add(EV.take(product, [1]), 1.0)
    for tensor, expected in ((EV.matmul_plain(product, weights), 2.4375), (one_used, 2.0), (product, None)):
        decrypted = SCHEME.decryptor(KEYS.secret).decrypt(tensor)
        assert np.abs(decrypted - ([0.25, 1.0, 0.0625] if expected is None else expected)).max() < 1e-5
    again = EV.matmul_plain(EV.take(EV.join([product, product]), [0, 4, 5]), weights)
    assert abs(SCHEME.decryptor(KEYS.secret).decrypt(again)[0, 0] - 2.4375) < 1e-5


def test_a_stream_and_a_product_are_worked_out_once() -> None:
    context = seal.context(TEST_INSECURE_CKKS)
    x = SCHEME.encryptor(KEYS.secret).encrypt([[3.0]], 4.0)
    for item in (x.data[0][0], EV.mul(x, x).data[0][0]):
        assert expand(item, context) is expand(item, context)


def test_the_operands_are_left_as_they_were() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[3.0, 1.0]], 4.0)
    y = EV.add(x, x)
    before = pack_tensor(x, BUNDLE), pack_tensor(y, BUNDLE)
    for call in (
        lambda: EV.add(y, x), lambda: EV.sub(y, x), lambda: EV.add(y, 1.0), lambda: EV.mul_plain(y, 2.0),
        lambda: EV.matmul_plain(y, [[1.0], [2.0]]), lambda: EV.mul(y, x), lambda: EV.rerandomize(y),
    ):  # fmt: skip
        call()
    assert (pack_tensor(x, BUNDLE), pack_tensor(y, BUNDLE)) == before


def test_a_value_outside_the_stated_bound_is_no_number() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[3.0]], 4.0)
    with pytest.raises(OutOfRange, match="over the stated bound"):
        SCHEME.decryptor(KEYS.secret).decrypt(x.with_bound(np.float64(2)))
    assert abs(SCHEME.decryptor(KEYS.secret).decrypt(x.with_bound(np.float64(3)))[0, 0] - 3) < 1e-4


def test_a_wrong_key_is_found_in_a_single_row() -> None:
    """Its one value may be within the bound; the empty slots beside it are not all of them."""
    other, encryptor = SCHEME.keygen(), SCHEME.encryptor(KEYS.secret)
    decryptor, found = SCHEME.decryptor(other.secret), []
    for _ in range(10):
        x = replace(encryptor.encrypt([[3.0]], 4.0), key_id=other.secret.key_id).with_bound(np.float64(2.0**500))
        found.append((abs(decryptor.decrypt(x)[0, 0]), x))
    value, x = min(found, key=lambda each: each[0])
    with pytest.raises(OutOfRange, match="another key"):
        decryptor.decrypt(x.with_bound(np.float64(2 * value)))


def test_scales_closer_than_the_tolerance_are_one_scale() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[3.0]], 4.0)
    y = EV.mul_plain(x, 1.0, log_scale=30.0 + 2.0**-40)
    z = EV.add(EV.mul_plain(x, 1.0), y)
    assert abs(SCHEME.decryptor(KEYS.secret).decrypt(z)[0, 0] - 6) < 1e-4


def test_a_factor_that_does_not_fit_the_modulus_is_out_of_range() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[0.0]], 2.0**-40)
    with pytest.raises(OutOfRange, match=r"a factor of .* does not fit"):
        EV.mul_plain(x, 2.0**85)


def test_a_scale_that_the_modulus_does_not_hold_is_out_of_range_however_small_the_values() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[0.0]], 2.0**-60)
    with pytest.raises(OutOfRange, match="the ciphertext holds"):
        EV.mul_plain(x, 1.0, log_scale=100.0)


def test_another_error_of_seal_is_not_mistaken_for_a_transparent_ciphertext() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[1.0]], 4.0)
    y = replace(EV.mul_plain(x, 1.0), level=2)  # a lie about the level
    with pytest.raises(ValueError, match="parameter mismatch"):
        EV.add(x, y)


def test_a_ciphertext_of_another_degree_is_another_key() -> None:
    x = CkksScheme(COMPLEX).encryptor(complex_keys().secret).encrypt([[1.0]], 2.0)
    with pytest.raises(KeyMismatch):
        EV.add(x, x)


@pytest.mark.parametrize("refuse", [pickle.dumps, copy.copy, copy.deepcopy, bytes], ids=lambda f: f.__name__)
def test_a_secret_key_stays(refuse: Any) -> None:
    with pytest.raises(TypeError, match="does not leave its holder"):
        refuse(KEYS.secret)


def test_reprs_show_no_content() -> None:
    assert repr(KEYS.secret) == f"<SecretKey {KEYS.secret.key_id[:4]}…>"
    x = SCHEME.encryptor(KEYS.secret).encrypt([[1.0]], 2.0)
    assert repr(x) == f"<CipherTensor 1x1, level 2, log_scale 30.0, key {x.key_id[:8]}>"


def test_key_ids_bind_the_parameters() -> None:
    other = replace(KEYS.public, parameters=replace(TEST_INSECURE_CKKS, log_scale=31.0))
    assert other.key_id != KEYS.public.key_id
    assert len(KEYS.public.key_id) == 32


def test_a_stream_is_loaded_only_when_computed_with() -> None:
    x = SCHEME.encryptor(KEYS.secret).encrypt([[1.0]], 2.0)
    assert isinstance(x.data[0][0], Stream)
    assert not isinstance(expand(x.data[0][0], seal.context(TEST_INSECURE_CKKS)), Stream)


def test_default_parameters_are_secure() -> None:
    assert CkksScheme().parameters.security_bits == 128


def test_columns_that_cancel_in_a_sum_give_an_encryption_of_zero() -> None:
    x = EV.take(SCHEME.encryptor(KEYS.secret).encrypt([[1.0, 3.0]], 4.0), [0, 0, 1])
    result = EV.matmul_plain(x, np.array([[1.0, 1.0], [-1.0, -1.0], [0.0, 2.0]]))
    assert SCHEME.decryptor(KEYS.secret).decrypt(result) == pytest.approx(np.array([[0.0, 6.0]]), abs=1e-3)


def test_a_forged_ciphertext_that_vanishes_when_it_is_rescaled_is_a_typed_error() -> None:
    """c1 = 1 hides nothing; times a small weight it rounds to zero, which SEAL refuses."""
    primes, degree = TEST_INSECURE_CKKS.primes_at(2), TEST_INSECURE_CKKS.poly_modulus_degree
    parts = seal.Polynomials(np.ones((2, len(primes), degree), np.uint64))
    body = seal.put_together(parts, seal.context(TEST_INSECURE_CKKS).parms_id(2), 2.0**30)
    honest = SCHEME.encryptor(KEYS.secret).encrypt([[1.0]], 4.0)
    with pytest.raises(seal.Transparent, match="would hide nothing"):
        EV.mul_plain(replace(honest, data=[[Stream(body)]]), 0.25)
