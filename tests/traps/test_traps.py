"""What the libraries underneath do today, side by side with what hepipe does: one test a trap.

Each test holds two statements: the silent garbage, crash or leak of phe, tenseal or SEAL as it is now, and the typed
error (or the closed leak) of hepipe. When a library mends a trap, its half fails here and says so.
"""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import textwrap
from functools import cache
from typing import Any

import numpy as np
import phe
import pytest
import tenseal
import tenseal.sealapi as sealapi

from hepipe.errors import (
    BudgetExhausted,
    InsecureParameters,
    KeyMismatch,
    MalformedFrame,
    OutOfRange,
    ShapeMismatch,
    Unsupported,
)
from hepipe.schemes import seal
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.ckks import expand
from hepipe.schemes.frames import HEADER_BYTES, Frame, Kind, parse
from hepipe.schemes.paillier import check_ciphertexts
from hepipe.schemes.paillier_keys import check_public
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER, CkksParameters
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.wire import pack_tensor, unpack_keys, unpack_tensor

CHAIN = [60, 40, 40, 60]


def tenseal_context(which: int = 0, galois: bool = False) -> Any:
    return _tenseal_context(which, galois)


@cache
def _tenseal_context(which: int, galois: bool) -> Any:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=CHAIN, n_threads=1)
    context.global_scale = 2.0**40
    if galois:
        context.generate_galois_keys()
    return context


def phe_keys(which: int = 0) -> tuple[Any, Any]:
    return _phe_keys(which)


@cache
def _phe_keys(which: int) -> tuple[Any, Any]:
    return phe.generate_paillier_keypair(n_length=1024)  # type: ignore[no-any-return]


def keys_of(parameters: Any, which: int = 0) -> KeySet:
    return _keys(parameters, which)


@cache
def _keys(parameters: Any, which: int) -> KeySet:
    return scheme_of(parameters).keygen()


def encryptor_of(parameters: Any, which: int = 0) -> Any:
    return scheme_of(parameters).encryptor(keys_of(parameters, which).secret)


def evaluator_of(parameters: Any) -> Any:
    return scheme_of(parameters).evaluator(keys_of(parameters))


def decryptor_of(parameters: Any, which: int = 0) -> Any:
    return scheme_of(parameters).decryptor(keys_of(parameters, which).secret)


TENSEAL_LIKE = CkksParameters(8192, tuple(CHAIN), 40.0)
CKKS, PAILLIER = TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER


# --- CKKS ------------------------------------------------------------------------------------------------------------


def test_another_key_decrypts_to_garbage_in_tenseal_and_to_an_error_here() -> None:
    found = tenseal.ckks_vector(tenseal_context(), [1.0, 2.0]).decrypt(tenseal_context(1).secret_key())
    assert max(map(abs, found)) > 1e9
    x = encryptor_of(CKKS).encrypt([[1.0, 2.0]], 4.0)
    with pytest.raises(KeyMismatch, match="given to the holder of key"):
        decryptor_of(CKKS, 1).decrypt(x)


def test_ciphertexts_of_two_contexts_add_silently_in_tenseal_and_are_refused_here() -> None:
    first, second = (tenseal.ckks_vector(tenseal_context(which), [1.0]) for which in (0, 1))
    assert abs((first + second).decrypt()[0]) > 1e9
    x, y = encryptor_of(CKKS).encrypt([[1.0]], 4.0), encryptor_of(CKKS, 1).encrypt([[1.0]], 4.0)
    with pytest.raises(KeyMismatch, match="encrypt with the public key it holds"):
        evaluator_of(CKKS).add(x, y)


def test_overflow_is_silently_wrong_in_tenseal_and_out_of_range_here() -> None:
    big = tenseal.ckks_vector(tenseal_context(), [1e9])
    assert not math.isclose((big * big).decrypt()[0], 1e18, rel_tol=0.5)
    x = encryptor_of(TENSEAL_LIKE).encrypt([[1e9]], 1e9)
    with pytest.raises(OutOfRange, match=r"mul: .*the ciphertext holds"):
        evaluator_of(TENSEAL_LIKE).mul(evaluator_of(TENSEAL_LIKE).mul(x, x), evaluator_of(TENSEAL_LIKE).mul(x, x))


def test_a_wide_matrix_product_is_silently_wrong_in_tenseal_and_right_here() -> None:
    rows, columns = 784, 3320  # more than slots + 1 together
    rng = np.random.default_rng(5)
    matrix, vector = rng.uniform(-1, 1, (rows, columns)), rng.uniform(-1, 1, rows)
    found = tenseal.ckks_vector(tenseal_context(galois=True), vector.tolist()).matmul(matrix.tolist()).decrypt()
    assert np.abs(np.array(found) - vector @ matrix).max() > 1.0
    x = encryptor_of(CKKS).encrypt(np.ones((1, 20)), 1.0)
    weights = np.arange(20.0 * 40).reshape(20, 40) / 100
    product = evaluator_of(CKKS).matmul_plain(x, weights)
    assert np.abs(decryptor_of(CKKS).decrypt(product) - weights.sum(axis=0)).max() < 1e-2


def test_more_values_than_slots_lose_operations_in_tenseal_and_make_blocks_here(
    capfd: pytest.CaptureFixture[str],
) -> None:
    long = tenseal.ckks_vector(tenseal_context(galois=True), [1.0] * 4097)
    assert "disabled" in "".join(capfd.readouterr())
    with pytest.raises(ValueError, match=r"."):
        long.matmul([[1.0]] * 4097)
    x = encryptor_of(CKKS).encrypt(np.ones((513, 1)), 1.0)
    assert len(x.data) == 2
    product = evaluator_of(CKKS).matmul_plain(x, [[2.0]])
    assert np.abs(decryptor_of(CKKS).decrypt(product) - 2).max() < 1e-3


def test_x_minus_x_fails_in_tenseal_and_is_an_encrypted_zero_here() -> None:
    vector = tenseal.ckks_vector(tenseal_context(), [1.0])
    with pytest.raises((RuntimeError, ValueError), match="transparent"):
        vector - vector
    x = encryptor_of(CKKS).encrypt([[1.0]], 4.0)
    assert abs(decryptor_of(CKKS).decrypt(evaluator_of(CKKS).sub(x, x))[0, 0]) < 1e-4


def test_over_budget_is_a_riddle_in_tenseal_and_a_count_of_levels_here() -> None:
    vector = tenseal.ckks_vector(tenseal_context(), [1.0])
    twice = vector * vector * (vector * vector)
    with pytest.raises(ValueError, match="scale out of bounds"):
        twice * twice
    x = encryptor_of(CKKS).encrypt([[1.0]], 1.0)
    for _ in range(2):
        x = evaluator_of(CKKS).mul(x, x)
    with pytest.raises(BudgetExhausted, match="mul needs 1 level, 0 left of 2: plan with depth >= 3"):
        evaluator_of(CKKS).mul(x, x)


def test_bad_parameters_are_anonymous_in_tenseal_and_named_here() -> None:
    with pytest.raises(ValueError, match="encryption parameters are not set correctly"):
        tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=CHAIN)
    with pytest.raises(InsecureParameters, match="200 at N=4096 is 91 bits over the standard's bound of 109"):
        CkksParameters(4096, tuple(CHAIN), 40.0)


def test_a_zero_weight_shows_in_tenseal_and_not_here() -> None:
    vector = tenseal.ckks_vector(tenseal_context(), [1.0, 2.0])
    zero, other = (len((vector * [w, w]).serialize()) for w in (0.0, 0.5))
    assert zero > 1.2 * other  # all zeros stay at the top level, with one prime more
    x = encryptor_of(CKKS).encrypt([[1.0, 2.0]], 4.0)
    bundle = PublicBundle(CKKS, keys_of(CKKS).public, keys_of(CKKS).evaluation)
    results = [evaluator_of(CKKS).matmul_plain(x, w) for w in ([[0.0], [0.0]], [[0.5], [0.0]], [[0.5], [-7.0]])]
    assert len({(r.level, r.log_scale, len(pack_tensor(r, bundle))) for r in results}) == 1


def test_dot_leaves_partial_sums_in_tenseal_s_slots_and_here_every_slot_is_an_answer() -> None:
    weights = np.random.default_rng(3).uniform(-5, 5, 15)
    context = tenseal_context(galois=True)
    response = tenseal.ckks_vector(context, [1.0] * 15).dot(weights.tolist())
    # The client's interface shows one slot; the ciphertext holds them all. The sum went by rotations, so slot i holds
    # the sum of the weights from i on, and neighbours differ by a weight.
    slots = all_slots_of(response, context)
    order = np.append(slots[:15], 0.0)
    assert np.abs(order[:-1] - order[1:] - weights).max() < 1e-3
    x = encryptor_of(CKKS).encrypt(np.ones((1, 15)), 1.0)
    result = evaluator_of(CKKS).rerandomize(evaluator_of(CKKS).matmul_plain(x, weights[:, None]))
    plain = sealapi.Plaintext()
    context_here = seal.context(CKKS)
    sealapi.Decryptor(context_here.seal, keys_of(CKKS).secret._handle).decrypt(result.data[0][0], plain)
    found = np.array(context_here.encoder.decode_double(plain))
    assert abs(found[0] - weights.sum()) < 1e-3
    assert np.abs(found[1:]).max() < 1e-3  # unused slots held zeros, so they hold nothing of the weights


def all_slots_of(vector: Any, context: Any) -> np.ndarray[Any, Any]:
    """Every slot of the one ciphertext of a TenSEAL vector: its size field, raised to the number of slots."""
    frame = vector.serialize()
    size, rest = frame[:3], frame[3:]
    assert size == b"\x0a\x01\x01"  # protobuf: field 1, one byte, one value
    wide = b"\x0a\x02\x80\x20" + rest  # 4096, which every slot vector may have
    return np.array(tenseal.ckks_vector_from(context, wide).decrypt())


CRASH = """
    import tenseal
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1)
    context.global_scale = 2.0**40
    frame = tenseal.ckks_vector(context, [1.0]).serialize()
    assert frame[:3] == b"\\x0a\\x01\\x01"
    found = tenseal.ckks_vector_from(context, SIZE + frame[3:]).decrypt()
    print(len(found))
"""


def in_a_child(size: bytes) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(CRASH).replace("SIZE", repr(size))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_false_size_reads_foreign_memory_or_crashes_in_tenseal_and_is_a_malformed_frame_here() -> None:
    over_read = in_a_child(b"\x0a\x03\xa0\x8d\x06")  # 100,000 values of a ciphertext with 4,096 slots
    assert over_read.returncode < 0 or over_read.stdout.strip() == "100000"
    missing = in_a_child(b"")  # no size at all for the one ciphertext
    assert missing.returncode < 0  # killed by a signal
    bundle = PublicBundle(CKKS, keys_of(CKKS).public, keys_of(CKKS).evaluation)
    frame = parse(pack_tensor(encryptor_of(CKKS).encrypt([[1.0]], 4.0), bundle), Kind.TENSOR)
    for samples, features in ((100_000, 1), (0, 1), (1, 0), (1, 400)):
        changed = Frame(frame.kind, "ckks", frame.key_id, samples, features, 2, 30.0, frame.body, frame.flags)
        with pytest.raises(MalformedFrame):
            unpack_tensor(changed.to_bytes(), bundle)


def test_a_secret_context_loads_as_any_other_in_tenseal_and_has_no_form_here() -> None:
    loaded = tenseal.context_from(tenseal_context().serialize(save_secret_key=True))
    assert loaded.is_private()
    for refuse in (pickle.dumps, bytes):
        with pytest.raises(TypeError, match="does not leave its holder"):
            refuse(keys_of(CKKS).secret)


def test_nan_is_refused_anonymously_in_tenseal_and_named_here() -> None:
    with pytest.raises(ValueError, match="finite"):
        tenseal.ckks_vector(tenseal_context(), [1.0, math.nan])
    with pytest.raises(OutOfRange, match=r"value at \(0, 1\) is nan"):
        encryptor_of(CKKS).encrypt([[1.0, math.nan]], 4.0)


def test_rescaling_overwrites_the_scale_in_tenseal_and_is_tracked_exactly_here() -> None:
    values = [0.5, -0.75, 1.0]
    vector = tenseal.ckks_vector(tenseal_context(), values)
    theirs = np.abs(np.array((vector * vector).decrypt()) - np.square(values)).max()
    x = encryptor_of(TENSEAL_LIKE).encrypt([values], 1.0)
    ours = np.abs(decryptor_of(TENSEAL_LIKE).decrypt(evaluator_of(TENSEAL_LIKE).mul(x, x)) - np.square([values])).max()
    assert ours < theirs


# --- Paillier --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.int64(3), np.float32(1.5), np.array([1.0])], ids=["int64", "float32", "array"])
def test_numpy_values_are_a_type_error_in_phe_and_encrypt_here(value: Any) -> None:
    with pytest.raises(TypeError):
        phe_keys()[0].encrypt(value)
    x = encryptor_of(PAILLIER).encrypt(np.reshape(value, (1, 1)), 4.0)
    assert decryptor_of(PAILLIER).decrypt(x).tolist() == [[float(np.ravel(value)[0])]]


def test_a_product_of_ciphertexts_is_good_luck_in_phe_and_names_the_way_here() -> None:
    number = phe_keys()[0].encrypt(2.0)
    with pytest.raises(NotImplementedError, match="Good luck with that"):
        number * number
    x = encryptor_of(PAILLIER).encrypt([[2.0]], 4.0)
    with pytest.raises(Unsupported, match="wrap it in Interactive"):
        evaluator_of(PAILLIER).mul(x, x)


def test_the_exponent_gives_the_weight_away_in_phe_and_nothing_varies_here() -> None:
    x = phe_keys()[0].encrypt(1.0)
    exponents = [(x * weight).exponent for weight in (1, 1e-9, 0.001, 0.5, 3.25)]
    assert len(set(exponents)) >= 4
    ours = encryptor_of(PAILLIER).encrypt([[1.0]], 4.0)
    bundle = PublicBundle(PAILLIER, keys_of(PAILLIER).public, keys_of(PAILLIER).evaluation)
    ev = evaluator_of(PAILLIER)
    results = [ev.rerandomize(ev.mul_plain(ours, w)).with_bound(np.float64(4)) for w in (1, 1e-9, 0.001, 0.5, 3.25)]
    frames = [pack_tensor(result, bundle) for result in results]
    assert len({frame[: HEADER_BYTES - 32] for frame in frames}) == 1
    assert len({len(frame) for frame in frames}) == 1


def test_a_long_chain_overflows_in_phe_at_the_end_if_at_all_and_is_refused_beforehand_here() -> None:
    number = phe_keys()[0].encrypt(1.1)
    for _ in range(60):
        number = number * 1.1  # 3,000 bits of mantissa in a plaintext of 1,024: nothing says so yet
    try:
        found = phe_keys()[1].decrypt(number)
    except OverflowError:  # where the garbage falls into the middle third of n
        found = math.nan
    assert not math.isclose(found, 1.1**61, rel_tol=0.5)
    x = encryptor_of(PAILLIER).encrypt([[1.1]], 4.0)
    with pytest.raises(BudgetExhausted, match="needs 1 level, 0 left of 1"):
        evaluator_of(PAILLIER).mul_plain(evaluator_of(PAILLIER).mul_plain(x, 1.1), 1.1)


@pytest.mark.parametrize("n", [15, 1 << 2048, 3 * ((1 << 2046) + 1)], ids=["15", "even", "three times"])
def test_a_bad_modulus_encrypts_in_phe_and_is_refused_here(n: int) -> None:
    assert phe.PaillierPublicKey(n).raw_encrypt(1) >= 0
    with pytest.raises((MalformedFrame, InsecureParameters)):
        check_public(n, 2048)


def test_what_is_no_ciphertext_decrypts_in_phe_and_is_refused_here() -> None:
    public, private = phe_keys()
    n, p = public.n, private.p
    for bad in (0, n, n * n, p, 7 * p):
        assert 0 <= private.raw_decrypt(bad) < n
    assert private.raw_decrypt(1) == private.raw_decrypt(n * n + 1) == 0
    for bad in (0, 1, n, n * n, n * n + 1, p, 7 * p, -1):
        with pytest.raises(MalformedFrame):
            check_ciphertexts(check_public(n, 1024), [bad])


def test_an_unblinded_zero_is_the_number_one_in_phe_and_never_leaves_here() -> None:
    x = phe_keys()[0].encrypt(3)
    assert (x * 0).ciphertext(be_secure=False) == 1
    assert (x * 1).ciphertext(be_secure=False) == x.ciphertext(be_secure=False)
    ours = encryptor_of(PAILLIER).encrypt([[3.0]], 4.0)
    ev = evaluator_of(PAILLIER)
    assert ev.mul_plain(ours, 0.0).data[0][0] != 1
    assert ev.sub(ours, ours).data[0][0] != 1
    assert ev.rerandomize(ours).data[0][0] != ours.data[0][0]


def test_a_private_key_pickles_in_phe_and_refuses_here() -> None:
    assert pickle.loads(pickle.dumps(phe_keys()[1])).p == phe_keys()[1].p  # noqa: S301
    secret = keys_of(PAILLIER).secret
    with pytest.raises(TypeError, match="does not leave its holder"):
        pickle.dumps(secret)
    assert str(int(secret.p)) not in repr(secret) + str(secret)


def test_a_pickled_body_is_refused_here() -> None:
    bundle = PublicBundle(PAILLIER, keys_of(PAILLIER).public, keys_of(PAILLIER).evaluation)
    body = pickle.dumps({"n": 15})
    for frame in (body, Frame(Kind.PUBLIC_KEYS, "paillier", bundle.key_id, 0, 0, 0, 0.0, body).to_bytes()):
        with pytest.raises(MalformedFrame):
            unpack_keys(frame, allow_insecure=True)


def test_a_wrong_key_is_an_error_in_phe_s_numbers_but_garbage_in_its_raw_form_and_an_error_here() -> None:
    (public, _), (_, other) = phe_keys(), phe_keys(1)
    with pytest.raises(ValueError, match="different key"):
        other.decrypt(public.encrypt(1))
    raw = public.raw_encrypt(1) % other.public_key.nsquare
    assert other.raw_decrypt(raw) != 1
    x = encryptor_of(PAILLIER).encrypt([[1.0]], 4.0)
    with pytest.raises(KeyMismatch, match="decrypt it with the key it was encrypted under"):
        decryptor_of(PAILLIER, 1).decrypt(x)


def test_a_factor_per_sample_would_leak_and_is_refused_on_both() -> None:
    for parameters in (PAILLIER, CKKS):
        x = encryptor_of(parameters).encrypt(np.ones((3, 2)), 4.0)
        with pytest.raises(ShapeMismatch, match="a factor per sample is not possible"):
            evaluator_of(parameters).mul_plain(x, np.ones((3, 2)))


def test_seal_loads_a_ciphertext_whose_residues_are_out_of_range_not_and_neither_does_the_parser() -> None:
    context = seal.context(CKKS)
    bundle = PublicBundle(CKKS, keys_of(CKKS).public, keys_of(CKKS).evaluation)
    x = encryptor_of(CKKS).encrypt([[1.0]], 4.0)
    item = expand(x.data[0][0], context)
    parts = seal.take_apart(seal.save(item), 1024)
    words = parts.residues.copy()
    words[0, 0, 0] = CKKS.coeff_modulus[0]
    with pytest.raises((RuntimeError, ValueError)):
        seal.load(
            sealapi.Ciphertext(), context.seal, seal.put_together(seal.Polynomials(words), context.parms_id(2), 2.0**30)
        )
    frame = parse(pack_tensor(x, bundle), Kind.TENSOR)
    body = bytearray(frame.body)
    body[2:9] = b"\xff" * 7
    changed = Frame(frame.kind, "ckks", frame.key_id, 1, 1, 2, 30.0, bytes(body), frame.flags)
    with pytest.raises(MalformedFrame, match="a residue is not below its prime"):
        unpack_tensor(changed.to_bytes(), bundle)
