"""The refresh round: exact under masks, planned to the byte, the masked values alike whatever they hide."""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame, OutOfRange, Unsupported
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.pipe import Channel, PipeLink
from hepipe.protocol.refresh import Refresh
from hepipe.schemes import seal
from hepipe.schemes.base import CipherTensor, FloatArray, KeySet, PublicBundle
from hepipe.schemes.coefficients import random_integers, scaled, to_integers, to_words
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import SEEDED, Frame, Kind, bound_to, parse
from hepipe.schemes.mask_room import LEAST_BITS, mask_room
from hepipe.schemes.masks import mask_bits_for
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, CkksParameters, ClearParameters
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.wire import unpack_ciphertexts
from tails import worst_of_many

CKKS = CkksParameters(1024, (50, 30, 30, 60), 30.0, insecure=True)
LANE = dataclasses.replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=3)
SHORT = dataclasses.replace(LANE, modulus_bits=256, lane_bits=254)
"""For 10^4 masked values in seconds: masks know nothing of the modulus."""
PARAMETERS: dict[str, Any] = {"ckks": CKKS, "paillier": LANE, "short paillier": SHORT}
ALPHA = 1e-6
RNG = np.random.default_rng(41)


@cache
def keys(name: str) -> KeySet:
    return scheme_of(PARAMETERS[name]).keygen()


@cache
def bundle(name: str) -> PublicBundle:
    return PublicBundle(PARAMETERS[name], keys(name).public, keys(name).evaluation)


@cache
def parts(name: str) -> tuple[Any, Any, Any]:
    """(encryptor, decryptor, evaluator)"""
    scheme, own = scheme_of(PARAMETERS[name]), keys(name)
    return (
        scheme.encryptor(own.secret),
        scheme.decryptor(own.secret),
        scheme.evaluator(KeySet(None, own.public, own.evaluation)),
    )


def answer(name: str, request: bytes) -> bytes:
    encryptor, decryptor, _ = parts(name)
    return Refresh.answer(request, bundle(name), encryptor, decryptor)


def interactive(name: str, policy: str = "polynomial") -> tuple[Interactive, LocalLink]:
    link = LocalLink(lambda request: answer(name, request))
    return Interactive(parts(name)[2], link, bundle(name), policy), link


def encrypted(name: str, values: npt.ArrayLike, bound: float = 4.0) -> tuple[CipherTensor, DryEvaluator, CipherTensor]:
    dry = DryEvaluator(PARAMETERS[name])
    x = parts(name)[0].encrypt(values, bound)
    return x, dry, dry.fresh(x.shape, bound)


def read(name: str, x: CipherTensor) -> FloatArray:
    return parts(name)[1].decrypt(x)  # type: ignore[no-any-return]


# --- the budget is full again, the values are the same ---------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 5, 512, 700])
@pytest.mark.parametrize("spent", [0, 1])
def test_ckks_is_at_the_full_level_and_the_base_scale_again(samples: int, spent: int) -> None:
    values = RNG.uniform(-2, 2, (samples, 2))
    x, dry, planned = encrypted("ckks", values)
    ev, link = interactive("ckks")
    for _ in range(spent):
        x, planned, values = ev.mul(x, x), dry.mul(planned, planned), values**2
    assert (x.log_scale == CKKS.log_scale) is (spent == 0)
    fresh, again = ev.refresh(x), dry.refresh(planned)
    assert (fresh.level, fresh.log_scale) == (again.level, again.log_scale) == (2, 30.0)
    assert (fresh.bound == x.bound).all()
    assert np.abs(read("ckks", fresh) - values).max() <= worst_of_many(dry, again)
    assert np.abs(read("ckks", ev.mul(fresh, fresh)) - values**2).max() <= worst_of_many(dry, dry.mul(again, again))
    assert (link.transcript.rounds, link.transcript.bytes_up, link.transcript.bytes_down) == (
        dry.rounds, dry.bytes_up, dry.bytes_down,
    )  # fmt: skip
    assert [message.kind for message in link.transcript.messages] == ["refresh", "refresh"]


def test_a_mask_costs_no_precision_however_long_it_is() -> None:
    """77 bits of mask over values of 30 leave an error like that of two encryptions: doubles would leave nothing."""
    values = RNG.uniform(-1, 1, (512, 1))
    x, dry, planned = encrypted("ckks", values, 1.0)
    error = np.abs(read("ckks", interactive("ckks")[0].refresh(x)) - values).max()
    dry.refresh(planned)
    assert dry.hidden_bits > 53
    assert error < 2.0**-19


def test_many_rounds_in_a_loop_keep_the_value() -> None:
    ev, _ = interactive("ckks")
    x, dry, planned = encrypted("ckks", [[0.5], [-1.0]], 1.0)
    for _ in range(10):
        x, planned = ev.refresh(ev.mul_plain(x, 1.0)), dry.refresh(dry.mul_plain(planned, 1.0))
        x, planned = x.with_bound(1.0), planned.with_bound(1.0)
    assert np.abs(read("ckks", x) - [[0.5], [-1.0]]).max() <= dry.error_bound(planned)
    assert dry.rounds == 10


@settings(max_examples=40, deadline=None)
@given(value=st.floats(-4, 4), products=st.integers(0, 3))
def test_paillier_truncates_to_within_one_unit_of_the_base_scale(value: float, products: int) -> None:
    _, decryptor, inner = parts("paillier")
    ev, link = interactive("paillier")
    x, dry, planned = encrypted("paillier", [[value]])
    for _ in range(products):
        x, planned = inner.mul_plain(x, -0.75), dry.mul_plain(planned, -0.75)
    before = int(decryptor.decrypt_integers(x)[0, 0])
    fresh, again = ev.refresh(x), dry.refresh(planned)
    after = int(decryptor.decrypt_integers(fresh)[0, 0])
    floor = before >> int(x.log_scale - LANE.log_scale)
    assert after in ({floor, floor + 1} if products else {floor})
    assert (fresh.level, fresh.log_scale) == (again.level, again.log_scale) == (3, LANE.log_scale)
    assert fresh.bound.tolist() == again.bound.tolist()
    assert abs(read("paillier", fresh)[0, 0] - value * (-0.75) ** products) <= dry.error_bound(again)
    assert (link.transcript.rounds, link.transcript.bytes_up, link.transcript.bytes_down) == (
        dry.rounds, dry.bytes_up, dry.bytes_down,
    )  # fmt: skip


def test_truncation_is_right_on_average() -> None:
    """The carry comes with the probability of the dropped fraction: a quarter here, binomial within five sigma."""
    _, decryptor, inner = parts("paillier")
    x = inner.mul_plain(encrypted("paillier", np.full((200, 1), 2.0**-28))[0], 0.25)
    fresh = decryptor.decrypt_integers(interactive("paillier")[0].refresh(x))
    assert set(fresh.ravel().tolist()) == {0, 1}
    assert abs(sum(fresh.ravel().tolist()) - 50) < 5 * (200 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("exact", [False, True])
def test_without_encryption_a_refresh_takes_no_round_and_the_books_agree(exact: bool) -> None:
    parameters = ClearParameters(depth=3, log_scale=28, log_plain_scale=28, exact=exact)
    scheme, dry = scheme_of(parameters), DryEvaluator(parameters)
    own = scheme.keygen()
    ev = scheme.evaluator(own)
    x, planned = scheme.encryptor(own.secret).encrypt([[1.5, -0.3]], 2.0), dry.fresh((1, 2), 2.0)
    fresh, again = ev.refresh(ev.mul(x, x)), dry.refresh(dry.mul(planned, planned))
    assert (fresh.level, fresh.log_scale, fresh.bound.tolist()) == (3, 28, again.bound.tolist())
    assert np.abs(scheme.decryptor(own.secret).decrypt(fresh) - [[2.25, 0.09]]).max() <= dry.error_bound(again) + 1e-15
    assert dry.rounds == 0
    link = LocalLink(lambda request: pytest.fail("a round was asked for"))
    outer = Interactive(ev, link, PublicBundle(parameters, own.public, None))
    assert outer.refresh(x).level == 3


# --- the room for masks ----------------------------------------------------------------------------------------------


def test_a_mask_that_does_not_fit_is_refused_with_the_level_that_would_do() -> None:
    ev, link = interactive("ckks")
    x, dry, planned = encrypted("ckks", [[1.0]], 1.0)
    for _ in range(2):
        x, planned = ev.mul_plain(x, 1.0), dry.mul_plain(planned, 1.0)
    for call in (lambda: ev.refresh(x), lambda: dry.refresh(planned)):
        with pytest.raises(OutOfRange, match=r"level 0 leave 1\d\.\d bits for their mask, 40 are needed: .*level 1"):
            call()
    assert link.transcript.messages == []
    assert dry.rounds == 0


def test_under_policy_client_a_short_mask_is_allowed_and_the_plan_says_so() -> None:
    ev, _ = interactive("ckks", "client")
    x = parts("ckks")[0].encrypt([[1.0], [-0.5]], 1.0)
    dry = DryEvaluator(CKKS, "client")
    planned = dry.fresh((2, 1), 1.0)
    for _ in range(2):
        x, planned = ev.mul_plain(x, 1.0), dry.mul_plain(planned, 1.0)
    assert np.abs(read("ckks", ev.refresh(x)) - [[1.0], [-0.5]]).max() <= dry.error_bound(dry.refresh(planned))
    assert dry.hidden_bits < LEAST_BITS
    assert dry.revealed == [f"refreshed values, under masks of {dry.hidden_bits:.0f} bits only"]


@settings(max_examples=200, deadline=None)
@given(level=st.integers(0, 2), bound=st.floats(2.0**-10, 2.0**40), scale=st.floats(20, 60))
def test_masked_values_always_fit_the_modulus_they_travel_in_and_the_one_they_come_back_in(
    level: int, bound: float, scale: float
) -> None:
    if scale + max(np.log2(bound), 0.0) >= CKKS.capacity_bits(level):
        return
    room = mask_room(CKKS, np.array([bound]), scale, level, seen=True)
    largest = room.limit + bound * 2.0**scale
    assert room.level <= level
    assert np.log2(largest) < CKKS.capacity_bits(room.level) + 1  # q / 2
    assert np.log2(largest) + CKKS.log_scale - scale < CKKS.capacity_bits(2) + 1
    assert abs(room.bits - (np.log2(float(room.limit)) - scale - max(np.log2(bound), 0.0))) < 1e-9


def test_bytes_are_spent_only_where_a_whole_ciphertext_is_hidden_better_than_40_bits() -> None:
    wide = CkksParameters(1024, (60, 30, 30, 30, 60), 20.0, insecure=True)
    assert mask_room(wide, np.array([1.0]), 20.0, 3).level == 1  # 88 - 20 = 68 bits; at q0 alone 38
    assert mask_room(wide, np.array([1.0]), 20.0, 3).bits > LEAST_BITS + np.log2(1024)


def test_lanes_cannot_be_refreshed() -> None:
    parameters = TEST_INSECURE_PAILLIER
    scheme = scheme_of(parameters)
    own = scheme.keygen()
    x = scheme.encryptor(own.secret).encrypt([[1.0]], 2.0)
    made = PublicBundle(parameters, own.public, own.evaluation)
    ev = Interactive(scheme.evaluator(own), LocalLink(lambda request: b""), made)
    dry = DryEvaluator(parameters)
    for call in (lambda: ev.refresh(x), lambda: dry.refresh(dry.fresh((1, 1), 2.0))):
        with pytest.raises(Unsupported, match="lanes=1"):
            call()


# --- what the key holder sees ----------------------------------------------------------------------------------------


def seen(name: str, value: float, count: int) -> np.ndarray:
    """The integers that the key holder decrypts, as fractions of their range; ``value`` is what they hide."""
    encryptor, decryptor, ev = parts(name)
    samples = 512 if name == "ckks" else count
    found: list[Any] = []
    while len(found) < count:
        x = ev.mul_plain(encryptor.encrypt(np.full((samples, 1), value), 4.0), 0.9)
        frame = parse(Refresh(ev, x, "polynomial").request(bundle(name)), Kind.MASKED_VALUES)
        data = unpack_ciphertexts(frame, frame.body, bundle(name))
        if name == "ckks":
            room = mask_room(CKKS, x.bound, x.log_scale, x.level)
            masked = dataclasses.replace(x, data=data, level=frame.level)
            whole = decryptor.decrypt_integers(masked)[0][0]
            found += ((whole + room.limit) / (2.0 * room.limit)).tolist()
        else:
            bits = mask_bits_for(x.bound, x.log_scale)
            found += [int(decryptor._plaintext(row[0])) / 2.0**bits for row in data]
    return np.array(found[:count], dtype=np.float64)


@pytest.mark.parametrize(("name", "count"), [("ckks", 20_480), ("short paillier", 10_000)])
def test_masked_values_are_uniform_whatever_they_hide(name: str, count: int) -> None:
    small, large = (seen(name, value, count) for value in (-4.0, 4.0))
    assert stats.ks_2samp(small, large).pvalue > ALPHA
    for side in (small, large):
        assert stats.kstest(side, "uniform").pvalue > ALPHA
        assert len(set(side.tolist())) > 0.99 * count


def test_every_coefficient_has_a_mask_of_its_own() -> None:
    """A constant column is one coefficient and zeros: masked, no place stands out, and no two requests are alike."""
    first, second = seen("ckks", 4.0, 20_480).reshape(20, 1024), seen("ckks", 4.0, 20_480).reshape(20, 1024)
    assert stats.kstest(first[:, 0], "uniform").pvalue > ALPHA
    assert abs(stats.pearsonr(first[:, :-1].ravel(), first[:, 1:].ravel()).statistic) < 0.04
    assert abs(stats.pearsonr(first.ravel(), second.ravel()).statistic) < 0.04


def test_the_tests_see_a_value_that_is_not_masked() -> None:
    """The mean of a column at the scale of the mask: what a mask no longer than its value would show."""
    masks = RNG.uniform(-1, 1, (2, 400))
    assert stats.ks_2samp(masks[0] + 0.5, masks[1] - 0.5).pvalue < ALPHA


def test_only_the_owner_of_the_key_answers() -> None:
    x = parts("ckks")[0].encrypt([[1.0]], 4.0)
    coefficients = parts("ckks")[1].decrypt_integers(x)
    with pytest.raises(Unsupported, match="owner of the key"):
        scheme_of(CKKS).encryptor(keys("ckks").public).encrypt_integers(coefficients, (1, 1), np.ones(1))
    with pytest.raises(KeyMismatch):
        parts("ckks")[1].decrypt_integers(dataclasses.replace(x, key_id="00" * 16))


@pytest.mark.secure
def test_a_loop_of_rotations_and_refreshes_at_a_secure_size() -> None:
    parameters = CkksParameters(8192, (44, 31, 31, 31, 31, 50), 31.0, rotations=(1,))
    scheme, dry = scheme_of(parameters), DryEvaluator(parameters)
    own = scheme.keygen()
    made = PublicBundle(parameters, own.public, own.evaluation)
    encryptor, decryptor = scheme.encryptor(own.secret), scheme.decryptor(own.secret)
    link = LocalLink(lambda request: Refresh.answer(request, made, encryptor, decryptor))
    ev = Interactive(scheme.evaluator(KeySet(None, own.public, own.evaluation)), link, made)
    values = RNG.uniform(-1, 1, (4096, 1))
    x, planned = encryptor.encrypt(values, 1.0), dry.fresh(values.shape, 1.0)
    for _ in range(2):
        for _ in range(3):
            x, planned = ev.rotate(ev.mul(x, x), 1), dry.rotate(dry.mul(planned, planned), 1)
            values = np.roll(values**2, -1, axis=0)
        x, planned = ev.refresh(x), dry.refresh(planned)
    assert x.level == 4
    assert np.abs(decryptor.decrypt(x) - values).max() <= worst_of_many(dry, planned)
    assert (dry.rounds, dry.bytes_up, dry.bytes_down) == (
        link.transcript.rounds, link.transcript.bytes_up, link.transcript.bytes_down,
    )  # fmt: skip
    assert dry.hidden_bits >= LEAST_BITS


# --- whole numbers ---------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(level=st.integers(0, 2), data=st.data())
def test_coefficients_go_through_seal_s_transform_and_back(level: int, data: st.DataObject) -> None:
    context = seal.context(CKKS)
    bits = int(CKKS.capacity_bits(level))
    integers = random_integers(1024, 1 << bits)
    integers[data.draw(st.integers(0, 1023))] = data.draw(st.integers(-(1 << bits), 1 << bits))
    assert to_integers(context, to_words(context, integers, level), level).tolist() == integers.tolist()


@given(a=st.integers(-(2**100), 2**100), r=st.integers(-(2**100), 2**100), bits=st.floats(-50, 50))
def test_scaling_is_linear_but_for_a_unit(a: int, r: int, bits: float) -> None:
    def one(value: int) -> int:
        return int(scaled(np.array([value], dtype=object), bits)[0])

    assert abs(one(a + r) - one(r) - one(a)) <= 1
    assert abs(one(a) - a * 2.0**bits) <= 1 + abs(a) * 2.0 ** (bits - 52)
    assert int(scaled(np.array([a], dtype=object), 0.0)[0]) == a


# --- messages that are none ------------------------------------------------------------------------------------------


@cache
def exchange(name: str) -> tuple[Refresh, Frame, Frame]:
    x = parts(name)[2].mul_plain(parts(name)[0].encrypt([[1.0, 2.0], [0.5, -2.0]], 4.0), 1.0)
    round_ = Refresh(parts(name)[2], x, "polynomial")
    request = round_.request(bundle(name))
    return round_, parse(request, Kind.MASKED_VALUES), parse(answer(name, request), Kind.REFRESHED)


SHARED: list[tuple[dict[str, Any], type[HepipeError]]] = [
    ({"kind": Kind.TENSOR}, MalformedFrame),
    ({"samples": 0}, MalformedFrame),
    ({"features": 0}, MalformedFrame),
    ({"features": 3}, MalformedFrame),
    ({"body": b""}, MalformedFrame),
    ({"level": 7}, MalformedFrame),
    ({"scheme": "clear"}, KeyMismatch),
    ({"key_id": "00" * 16}, KeyMismatch),
    ({"flags": 2}, MalformedFrame),
]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize(
    ("changes", "error"),
    [*SHARED, ({"flags": SEEDED}, MalformedFrame), ({"log_scale": 8000.5}, MalformedFrame)],
)
def test_a_client_refuses_requests_that_are_none(name: str, changes: dict[str, Any], error: type[HepipeError]) -> None:
    _, request, _ = exchange(name)
    with pytest.raises(error):
        answer(name, dataclasses.replace(request, **changes).to_bytes())


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize(
    ("changes", "error"), [*SHARED, ({"level": 0}, MalformedFrame), ({"log_scale": 29.0}, MalformedFrame)]
)
def test_a_server_refuses_replies_that_are_none(name: str, changes: dict[str, Any], error: type[HepipeError]) -> None:
    round_, _, reply = exchange(name)
    with pytest.raises(error):
        round_.finish(dataclasses.replace(reply, **changes).to_bytes(), bundle(name))


@pytest.mark.parametrize("name", PARAMETERS)
def test_damaged_ciphertexts_are_refused_before_a_library_sees_them(name: str) -> None:
    round_, request, reply = exchange(name)
    for frame, call in (
        (request, lambda data: answer(name, data)),
        (reply, lambda data: round_.finish(data, bundle(name))),
    ):
        for body in (frame.body[:-1], frame.body + b"\0", b"\xff" * len(frame.body)):
            with pytest.raises(MalformedFrame):
                call(dataclasses.replace(frame, body=body).to_bytes())


# --- two parties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_refresh_travels_over_a_pipe(name: str) -> None:
    ours, theirs = multiprocessing.Pipe()
    holder = Channel(theirs)
    thread = threading.Thread(target=lambda: holder.send(bound_to(request := holder.receive(), answer(name, request))))
    thread.start()
    with Channel(ours) as channel:
        link = PipeLink(channel)
        x = parts(name)[0].encrypt([[1.0, -2.0]], 4.0)
        fresh = Interactive(parts(name)[2], link, bundle(name)).refresh(x)
        thread.join()
    assert np.abs(read(name, fresh) - [[1.0, -2.0]]).max() < 1e-4
    assert link.transcript.rounds == 1
    holder.abort()
