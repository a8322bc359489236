"""Comparisons on Paillier: exact at every edge, priced as planned, and blind for both parties."""

from __future__ import annotations

import dataclasses
import multiprocessing
import struct
import threading
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame, OutOfRange, ShapeMismatch, Unsupported
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.protocol.comparison import MaskedNumbers, ZeroTests, answer_masked_numbers, answer_zero_tests
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.parties import Client, Server
from hepipe.protocol.pipe import Channel, PipeServer, serve
from hepipe.protocol.rounds import answer_masked_factors
from hepipe.schemes.base import CipherTensor, KeySet, PublicBundle, Threshold
from hepipe.schemes.ckks import CkksScheme
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.fixedpoint import magnitude_bits, to_fixed
from hepipe.schemes.frames import HEADER_BYTES, Frame, Kind, kind_of, parse
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.paillier_randomness import HolderSource, RandomnessPool
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER, ClearParameters
from hepipe.study.plan import plan

LANE = replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=2)
SCHEME = PaillierScheme(LANE)
HALVES = {
    Kind.MASKED_FACTORS: answer_masked_factors,
    Kind.MASKED_NUMBERS: answer_masked_numbers,
    Kind.ZERO_TESTS: answer_zero_tests,
}
EXACT = ClearParameters(2, LANE.log_scale, LANE.log_plain_scale, exact=True)


@cache
def keys() -> KeySet:
    return SCHEME.keygen()


@cache
def bundle() -> PublicBundle:
    return PublicBundle(LANE, keys().public, keys().evaluation)


@cache
def encryptor() -> Any:
    return SCHEME.encryptor(keys().secret)


@cache
def decryptor() -> Any:
    return SCHEME.decryptor(keys().secret)


@cache
def evaluator() -> Any:
    """The server's, but for the source of its randomness: the key holder draws from the same law 10 times faster."""
    ev = SCHEME.evaluator(KeySet(None, keys().public, keys().evaluation))
    ev.pool = RandomnessPool(keys().public, HolderSource(keys().secret))
    return ev


def answer(request: bytes) -> bytes:
    return HALVES[Kind(kind_of(request))](request, bundle(), encryptor(), decryptor())


def interactive() -> tuple[Interactive, LocalLink]:
    link = LocalLink(answer)
    return Interactive(evaluator(), link, bundle()), link


def in_clear(parameters: ClearParameters, values: np.ndarray, bound: float) -> tuple[CipherTensor, Any]:
    scheme = ClearScheme(parameters)
    own = scheme.keygen()
    return scheme.encryptor(own.secret).encrypt(values, bound), scheme.evaluator(own)


def bits_of(numbers: list[int], width: int) -> np.ndarray:
    return np.array([[number >> place & 1 for place in range(width)] for number in numbers])


def integers(values: list[list[int]], log_scale: int = 0) -> CipherTensor:
    array = np.array(values, dtype=object)
    bound = float(max(abs(v) for v in array.flat) or 1) / 2**log_scale
    return encryptor().encrypt_integers(array, bound, log_scale=log_scale)  # type: ignore[no-any-return]


# --- a number given by its bits, and one in the clear -----------------------------------------------------------------

numbers_and_thresholds = st.integers(1, 12).flatmap(
    lambda width: st.tuples(
        st.just(width),
        st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=2),
        st.lists(st.integers(-(2**width), 2 ** (width + 1)), min_size=1, max_size=3),
    )
)


@settings(max_examples=40, deadline=None)
@given(numbers_and_thresholds)
@example((1, [0, 1], [-1, 0, 1, 2]))
@example((5, [0, 31], [-1, 0, 30, 31, 32]))
@example((12, [4095, 2048], [2047, 2048, 4094, 4095, 2**40, -(2**40)]))
def test_at_most_is_exact(case: tuple[int, list[int], list[int]]) -> None:
    width, numbers, values = case
    (ev, link), thresholds = interactive(), [Threshold(range(width), value) for value in values]
    found = ev.at_most(encryptor().encrypt(bits_of(numbers, width), 1.0), thresholds)
    expected = [[int(number <= value) for value in values] for number in numbers]
    assert decryptor().decrypt_integers(found).tolist() == expected
    assert (found.log_scale, found.level, found.bound.tolist()) == (0, LANE.depth, [1.0] * len(values))
    assert link.transcript.rounds == 1
    for parameters in (EXACT, ClearParameters(2)):
        x, clear = in_clear(parameters, bits_of(numbers, width), 1.0)
        answers = clear.at_most(x, thresholds)
        assert answers.data.tolist() == expected
        assert (answers.log_scale, answers.level) == (0 if parameters.exact else 40, 2)


def test_every_number_of_three_bits_meets_every_threshold() -> None:
    ev, _ = interactive()
    thresholds = [Threshold([0, 1, 2], value) for value in range(-2, 10)]
    found = ev.at_most(encryptor().encrypt(bits_of(list(range(8)), 3), 1.0), thresholds)
    expected = np.arange(8)[:, None] <= np.arange(-2, 10)
    assert (decryptor().decrypt_integers(found) == expected).all()


def test_numbers_of_different_widths_share_a_round_and_columns_may_repeat() -> None:
    ev, link = interactive()
    x = encryptor().encrypt([[1, 0, 1, 1, 0]], 1.0)
    thresholds = [Threshold([4], 0), Threshold([0, 1, 2], 4), Threshold([0, 1, 2], 5), Threshold([3, 3], 2)]
    assert decryptor().decrypt_integers(ev.at_most(x, thresholds)).tolist() == [[1, 0, 1, 0]]
    assert link.transcript.rounds == 1


def test_bits_at_any_scale_are_compared() -> None:
    ev, _ = interactive()
    for x in (integers([[0, 1]]), integers([[0, 1 << 100]], log_scale=100)):
        found = ev.at_most(x, [Threshold([0, 1], t) for t in (1, 2)])
        assert decryptor().decrypt_integers(found).tolist() == [[0, 1]]


# --- the sign of an encrypted number ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40).flatmap(lambda bits: st.lists(st.integers(-(2**bits), 2**bits), min_size=1, max_size=3)))
@example([0, -1, 1])
@example([2**40, -(2**40), 2**40 - 1])
def test_negative_is_exact(values: list[int]) -> None:
    ev, link = interactive()
    found = ev.negative(integers([values]), 0.5)
    assert decryptor().decrypt_integers(found).tolist() == [[int(v < 0) for v in values]]
    assert (found.log_scale, found.level, link.transcript.rounds) == (0, LANE.depth, 2)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.01, 100), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_negative_agrees_with_the_integer_reference_at_both_ends(bound: float, samples: int, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(-bound, bound, (samples, 2))
    values[0] = bound, -bound
    x, clear = in_clear(EXACT, values, bound)
    expected = clear.negative(x, 1e-6).data.tolist()
    x, clear = in_clear(ClearParameters(2), values, bound)
    assert clear.negative(x, 1e-6).data.tolist() == (values < 0).tolist()
    ev, _ = interactive()
    found = decryptor().decrypt_integers(ev.negative(encryptor().encrypt(values, bound), 1e-6))
    assert found.tolist() == expected == (to_fixed(values, 28) < 0).astype(int).tolist()


@given(st.floats(0, 2.0**80), st.integers(0, 60))
def test_a_magnitude_covers_the_bound_and_what_rounding_may_add(bound: float, scale: int) -> None:
    limit = int(to_fixed(np.array([bound]), scale)[0])
    bits = magnitude_bits(np.array([0.0, bound]), scale)
    assert 2 ** (bits - 1) <= limit + limit // 4096 + 16 < 2**bits


def test_a_comparison_feeds_a_selection_and_a_product() -> None:
    ev, link = interactive()
    wins = ev.negative(encryptor().encrypt([[-3.0, 2.0]], 4.0), 0.1)
    assert decryptor().decrypt(ev.select(wins, [5.0, 7.0]))[0, 0] == 7.0
    assert decryptor().decrypt_integers(ev.mul(wins, wins)).tolist() == [[1, 0]]
    assert link.transcript.rounds == 3


# --- what a plan says -------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 2), st.lists(st.integers(1, 5), min_size=1, max_size=2), st.floats(0.01, 1e3))
def test_rounds_bytes_and_operations_are_those_of_the_dry_run(samples: int, widths: list[int], bound: float) -> None:
    (ev, link), dry = interactive(), DryEvaluator(LANE)
    thresholds = [Threshold(range(width), 1) for width in widths]
    bits, x = np.zeros((samples, 5)), np.zeros((samples, len(widths)))
    ev.at_most(encryptor().encrypt(bits, 1.0), thresholds)
    ev.negative(encryptor().encrypt(x, bound), bound)
    dry.at_most(dry.fresh((samples, 5), 1.0), thresholds)
    dry.negative(dry.fresh(x.shape, bound), bound)
    found = link.transcript
    assert (found.rounds, found.bytes_up, found.bytes_down) == (dry.rounds, dry.bytes_up, dry.bytes_down)
    assert found.rounds == 3
    width = magnitude_bits(np.array([bound]), 28)
    tests = samples * (sum(widths) + len(widths) + len(widths) * (width + 1))
    assert dry.operations["blind"] == dry.operations["rerandomize"] == tests
    assert dry.operations["mask"] == x.size
    assert dry.operations["encrypt"] == bits.size + x.size + samples * len(widths) * (1 + width + 1 + 1)


def test_a_dry_run_knows_when_the_error_reaches_the_gap() -> None:
    dry = DryEvaluator(replace(LANE, log_scale=4))
    x = dry.fresh((1, 1), 1.0)
    answers = dry.negative(x, 2.0**-4)
    assert (dry.undecided, dry.error_bound(answers)) == (False, 0.0)
    dry.negative(x, 2.0**-5)
    assert (dry.undecided, dry.error_bound(answers)) == (True, 2.0)


def test_a_plan_takes_the_least_scale_that_keeps_the_gap() -> None:
    made = {gap: plan(Sign(gap), "paillier", 2, security_bits=0) for gap in (2.0**-3, 2.0**-9)}
    assert [p.parameters.log_scale for p in made.values()] == [3, 9]
    assert [(p.rounds, p.parameters.lanes) for p in made.values()] == [(2, 1), (2, 1)]


# --- over a connection ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sign:
    """Whether each input is negative."""

    gap: float = 2.0**-6
    profile = Profile.of("regression", Schema.unknown(2, bound=1.0), 2)
    reveals = "signs"

    def prepare(self, X: Any) -> Any:
        return self.profile.prepare(X)

    def forward(self, ev: Any, x: Any) -> Any:
        return ev.negative(x, self.gap)


def test_signs_travel_between_processes_as_planned() -> None:
    made = plan(Sign(), "paillier", 2, security_bits=0)
    party, X = Client(made), np.array([[-1.0, 1.0], [0.25, -0.25]])
    ours, theirs = multiprocessing.Pipe()
    served: list[int] = []
    peer = threading.Thread(target=lambda: served.append(serve(Sign(), Channel(theirs), allow_insecure=True)))
    peer.start()
    with Channel(ours) as channel:
        server, link = PipeServer(party, channel, made.rounds), party.link()
        assert party.decrypt(server.evaluate(party.encrypt(X), link)).tolist() == [[1, 0], [0, 1]]
        server.close()
    peer.join(20)
    assert served == [1]
    local = party.link()
    x = party.encrypt(X)
    y = Server(Sign(), party.public(), allow_insecure=True).evaluate(x, local)
    assert local.transcript == link.transcript
    assert [m.kind for m in local.transcript.messages[::2]] == ["masked numbers", "zero tests"]
    assert local.transcript.bytes_up + len(party.pack(x)) == made.bytes_up
    assert local.transcript.bytes_down + len(party.pack(y)) == made.bytes_down


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_more_than_one_lane_is_refused_before_anything_is_sent() -> None:
    lanes = PaillierScheme(TEST_INSECURE_PAILLIER)
    ev = Interactive(lanes.evaluator(keys()), LocalLink(lambda _: pytest.fail("a round was asked for")), bundle())
    x = lanes.encryptor(keys().secret).encrypt(np.zeros((2, 2)), 1.0)
    dry = DryEvaluator(TEST_INSECURE_PAILLIER)
    for operand, each in ((x, ev), (dry.fresh((2, 2), 1.0), dry)):
        with pytest.raises(Unsupported, match="plan with lanes=1"):
            each.at_most(operand, [Threshold([0], 0)])
        with pytest.raises(Unsupported, match="plan with lanes=1"):
            each.negative(operand, 0.5)


def test_a_scheme_with_levels_compares_by_sign_polynomials() -> None:
    scheme = CkksScheme(TEST_INSECURE_CKKS)
    own = scheme.keygen()
    x, dry = scheme.encryptor(own.secret).encrypt(np.zeros((2, 2)), 1.0), DryEvaluator(TEST_INSECURE_CKKS)
    link = LocalLink(lambda _: pytest.fail("a round was asked for"))
    wrapped = Interactive(scheme.evaluator(own), link, PublicBundle(TEST_INSECURE_CKKS, own.public, own.evaluation))
    for operand, ev in ((x, scheme.evaluator(own)), (x, wrapped), (dry.fresh((2, 2), 1.0), dry)):
        with pytest.raises(Unsupported, match="compares by sign polynomials"):
            ev.at_most(operand, [Threshold([0], 0)])
        with pytest.raises(Unsupported, match="compares by sign polynomials"):
            ev.negative(operand, 0.5)


def test_without_a_link_a_comparison_says_what_is_missing() -> None:
    x = encryptor().encrypt([[1.0]], 1.0)
    with pytest.raises(Unsupported, match="wrap it in Interactive"):
        evaluator().negative(x, 0.5)
    with pytest.raises(Unsupported, match="wrap it in Interactive"):
        evaluator().at_most(x, [Threshold([0], 0)])


@pytest.mark.parametrize("thresholds", [[], [Threshold([], 1)], [Threshold([0, 2], 1)], [Threshold([-1], 1)]])
def test_thresholds_must_name_columns(thresholds: list[Threshold]) -> None:
    ev, _ = interactive()
    with pytest.raises(ShapeMismatch, match="give each the columns of its bits"):
        ev.at_most(encryptor().encrypt([[1, 0]], 1.0), thresholds)


@pytest.mark.parametrize("value", [0.5, 2.25])
def test_thresholds_are_whole(value: float) -> None:
    ev, _ = interactive()
    with pytest.raises(OutOfRange, match="whole thresholds"):
        ev.at_most(encryptor().encrypt([[1, 0]], 1.0), [Threshold([0], value)])  # type: ignore[arg-type]


@pytest.mark.parametrize("gap", [0.0, -1.0, [1.0, 0.0]])
def test_a_gap_is_positive(gap: Any) -> None:
    ev, _ = interactive()
    with pytest.raises(OutOfRange, match=r"gap of 0|not negative"):
        ev.negative(encryptor().encrypt([[1, 0]], 1.0), gap)


def test_another_key_s_numbers_are_refused() -> None:
    ev, _ = interactive()
    x = replace(encryptor().encrypt([[1.0]], 1.0), key_id="0" * 32)
    for call in (lambda: ev.negative(x, 0.5), lambda: ev.at_most(x, [Threshold([0], 0)])):
        with pytest.raises(KeyMismatch):
            call()


def test_numbers_too_large_to_mask_are_refused() -> None:
    ev, _ = interactive()
    x = encryptor().encrypt_integers(np.array([[1 << 950]], dtype=object), 2.0**950, log_scale=0)
    with pytest.raises(OutOfRange, match="mask: "):
        ev.negative(x, 1.0)
    dry = DryEvaluator(LANE)
    with pytest.raises(OutOfRange, match="negative: "):
        dry.negative(dry.fresh((1, 1), 2.0**920), 1.0)


# --- hostile messages -------------------------------------------------------------------------------------------------


@cache
def messages() -> dict[str, Any]:
    """Both rounds of two signs of one sample."""
    numbers = MaskedNumbers(evaluator(), integers([[3, -2]]))
    request = numbers.request(bundle())
    reply = answer(request)
    _, bits = numbers.finish(reply, bundle())
    tests = ZeroTests(evaluator(), bits, numbers.groups, numbers.rests)
    second = tests.request(bundle())
    return {
        "numbers": numbers,
        "masked": parse(request, Kind.MASKED_NUMBERS),
        "bits": parse(reply, Kind.BITS),
        "tests": tests,
        "zero tests": parse(second, Kind.ZERO_TESTS),
        "zeros": parse(answer(second), Kind.ZEROS_FOUND),
    }


SIZE = 256
COMMON = [
    ({"kind": Kind.TENSOR}, MalformedFrame),
    ({"body": b""}, MalformedFrame),
    ({"features": 0}, MalformedFrame),
    ({"samples": 0}, MalformedFrame),
    ({"samples": 1 << 24}, MalformedFrame),
    ({"level": 1}, MalformedFrame),
    ({"log_scale": 1.0}, MalformedFrame),
    ({"flags": 1}, MalformedFrame),
    ({"key_id": "00" * 16}, KeyMismatch),
    ({"scheme": "ckks"}, KeyMismatch),
]
Case = tuple[dict[str, Any], type[HepipeError]]


@pytest.mark.parametrize("name", ["bits", "zeros"])
@pytest.mark.parametrize(("changes", "error"), [*COMMON, ({"features": 3}, MalformedFrame)])
def test_a_server_refuses_replies_that_are_none(name: str, changes: dict[str, Any], error: type[HepipeError]) -> None:
    frame, server = messages()[name], messages()["numbers" if name == "bits" else "tests"]
    broken = dataclasses.replace(frame, **changes).to_bytes()
    with pytest.raises(error):
        server.finish(broken, bundle())


@pytest.mark.parametrize("name", ["bits", "zeros"])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_a_server_refuses_replies_that_hold_no_ciphertexts(name: str, byte: bytes) -> None:
    frame, server = messages()[name], messages()["numbers" if name == "bits" else "tests"]
    broken = dataclasses.replace(frame, body=byte * len(frame.body)).to_bytes()
    with pytest.raises(MalformedFrame):
        server.finish(broken, bundle())


@pytest.mark.parametrize("name", ["masked", "zero tests"])
@pytest.mark.parametrize(("changes", "error"), COMMON)
def test_a_client_refuses_requests_that_are_none(name: str, changes: dict[str, Any], error: type[HepipeError]) -> None:
    frame: Frame = messages()[name]
    half = HALVES[frame.kind]
    with pytest.raises(error):
        half(dataclasses.replace(frame, **changes).to_bytes(), bundle(), encryptor(), decryptor())


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("masked", b"\0"),
        ("masked", struct.pack(">H", 0)),
        ("masked", struct.pack(">H", 32768)),  # two numbers of 32768 bits: 65538 ciphertexts
        ("zero tests", struct.pack(">I", 0)),
        ("zero tests", struct.pack(">I", 1) + struct.pack(">H", 9)),
        ("zero tests", struct.pack(">I", 2**31)),
        ("zero tests", struct.pack(">IHH", 2, 0, 16)),
        ("zero tests", struct.pack(">IH", 1, 1)),
    ],
)
def test_a_client_refuses_heads_that_do_not_fit(name: str, head: bytes) -> None:
    frame: Frame = messages()[name]
    body = head + frame.body[2 if name == "masked" else 8 :]
    with pytest.raises(MalformedFrame):
        answer(dataclasses.replace(frame, body=body).to_bytes())
    with pytest.raises(MalformedFrame):
        answer(dataclasses.replace(frame, body=head).to_bytes())


def test_a_client_refuses_a_number_that_no_mask_explains() -> None:
    big = integers([[1 << 200]])
    body = struct.pack(">H", 8) + int(big.data[0][0]).to_bytes(SIZE, "big")
    with pytest.raises(OutOfRange, match="over its bound"):
        answer(Frame(Kind.MASKED_NUMBERS, "paillier", bundle().key_id, 1, 1, 0, 0.0, body).to_bytes())


def test_messages_have_the_size_that_plans_count() -> None:
    masked_numbers, bits, zero_tests, zeros = (messages()[k] for k in ("masked", "bits", "zero tests", "zeros"))
    width = magnitude_bits(np.array([3.0]), 0)
    assert len(masked_numbers.to_bytes()) == HEADER_BYTES + 2 + 2 * SIZE
    assert len(bits.to_bytes()) == HEADER_BYTES + 2 * (width + 1) * SIZE
    assert len(zero_tests.to_bytes()) == HEADER_BYTES + 4 + 2 * 2 + 2 * (width + 1) * SIZE
    assert len(zeros.to_bytes()) == HEADER_BYTES + 2 * SIZE


def test_ckks_answers_no_round() -> None:
    made = plan(Linear(), "ckks", 1, security_bits=0)
    request = dataclasses.replace(messages()["zero tests"], scheme="ckks").to_bytes()
    with pytest.raises(Unsupported, match="nothing to answer"):
        Client(made).answer(request)


class Linear(Sign):
    """One level, no round."""

    def forward(self, ev: Any, x: Any) -> Any:
        return ev.mul_plain(x, 0.5)
