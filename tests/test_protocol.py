"""Two parties: exact rounds of the size foretold, masks that hide, a server without secrets, hostile messages."""

from __future__ import annotations

import dataclasses
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression

from hepipe.circuits.functions import SIGMOID
from hepipe.errors import HepipeError, InsecureParameters, KeyMismatch, MalformedFrame, OutOfRange, Unsupported
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import with_sigmoid
from hepipe.models.schema import Schema
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink, Message, Transcript
from hepipe.protocol.parties import Client, Server
from hepipe.protocol.rounds import MaskedProduct, answer_masked_factors
from hepipe.schemes import keystore
from hepipe.schemes.base import CipherTensor, KeySet, PublicBundle
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.frames import HEADER_BYTES, Frame, Kind, parse
from hepipe.schemes.masks import mask_bits_for
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.secret import SecretKey
from hepipe.study.plan import plan
from object_graph import reachable

LANE = dataclasses.replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=3)
SCHEME = PaillierScheme(LANE)
RNG = np.random.default_rng(4)


@cache
def keys() -> KeySet:
    return SCHEME.keygen()


@cache
def bundle() -> PublicBundle:
    return PublicBundle(LANE, keys().public, keys().evaluation)


def answer(request: bytes) -> bytes:
    return answer_masked_factors(request, bundle(), encryptor(), decryptor())


@cache
def encryptor() -> Any:
    return SCHEME.encryptor(keys().secret)


@cache
def decryptor() -> Any:
    return SCHEME.decryptor(keys().secret)


@cache
def evaluator() -> Any:
    return SCHEME.evaluator(KeySet(None, keys().public, keys().evaluation))


def interactive() -> tuple[Interactive, LocalLink]:
    link = LocalLink(answer)
    return Interactive(evaluator(), link, bundle()), link


def encrypted(values: Any, bound: float = 100.0) -> CipherTensor:
    return encryptor().encrypt(values, bound)  # type: ignore[no-any-return]


def training() -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(1).uniform(-2, 2, (120, 3))
    return X, (X @ [1.0, -2.0, 0.5] + 0.3 > 0).astype(int)


@cache
def logistic() -> Any:
    X, y = training()
    schema = Schema.unknown(3, bound=2.0)
    return with_sigmoid(from_sklearn(LogisticRegression().fit(X, y), schema), X, degree=3)


@cache
def linear() -> Any:
    X, y = training()
    return from_sklearn(LinearRegression().fit(X, y), Schema.unknown(3, bound=2.0))


# --- masked products -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), samples=st.integers(1, 3), features=st.integers(1, 3))
def test_products_and_squares_of_one_round_are_exact(data: st.DataObject, samples: int, features: int) -> None:
    a, b = (data.draw(hnp.arrays(np.float64, (samples, features), elements=st.floats(-100, 100))) for _ in range(2))
    ev, link = interactive()
    x, y = encrypted(a), encrypted(b)
    results = ev.mul_pairs([(x, y), (x, x), (y, x), (y, y)])
    f, g = to_fixed(a, 28), to_fixed(b, 28)
    for result, expected in zip(results, (f * g, f * f, g * f, g * g), strict=True):
        assert decryptor().decrypt_integers(result).tolist() == expected.tolist()
        assert (result.level, result.log_scale) == (2, 56)
        assert (result.bound == 10_000).all()
    assert link.transcript.rounds == 1


def test_pairs_of_different_widths_share_a_round() -> None:
    ev, link = interactive()
    a, b = RNG.uniform(-1, 1, (2, 3)), RNG.uniform(-1, 1, (2, 1))
    results = ev.mul_pairs([(encrypted(b), encrypted(b)), (encrypted(a), encrypted(a)), (encrypted(b), encrypted(b))])
    for result, expected in zip(results, (b * b, a * a, b * b), strict=True):
        assert np.abs(decryptor().decrypt(result) - expected).max() < 1e-5
    assert link.transcript.rounds == 1


def test_a_product_of_two_levels_and_scales_is_exact() -> None:
    ev, _ = interactive()
    a, b = RNG.uniform(-1, 1, (2, 2)), RNG.uniform(-1, 1, (2, 2))
    low = ev.mul_plain(encrypted(a, 1.0), 0.5)
    product = ev.mul(low, encrypted(b, 1.0))
    assert (product.level, product.log_scale) == (1, 84)
    assert np.abs(decryptor().decrypt(product) - a / 2 * b).max() < 1e-7


def test_a_chain_of_products_costs_a_round_each() -> None:
    ev, link = interactive()
    x = encrypted([[1.5]], 2.0)
    for _ in range(3):
        x = ev.mul(x, x)
    assert decryptor().decrypt(x)[0, 0] == 1.5**8
    assert link.transcript.rounds == 3
    with pytest.raises(HepipeError, match="needs 1 level, 0 left"):
        ev.mul(x, x)


def test_bytes_and_rounds_are_those_of_the_dry_run() -> None:
    (ev, link), dry = interactive(), DryEvaluator(LANE)
    x, y = encrypted(RNG.uniform(-1, 1, (3, 2)), 1.0), encrypted(RNG.uniform(-1, 1, (3, 2)), 1.0)
    dx, dy = dry.fresh((3, 2), 1.0), dry.fresh((3, 2), 1.0)
    for e, a, b in ((ev, x, y), (dry, dx, dy)):
        e.mul_pairs([(a, b), (b, b)])
        e.mul(a, a)
    found = link.transcript
    assert (found.rounds, found.bytes_up, found.bytes_down) == (dry.rounds, dry.bytes_up, dry.bytes_down)


def test_a_transcript_tells_who_sent_what() -> None:
    link = LocalLink(lambda frame: frame + b"!")
    assert link.request("greeting", b"hello") == b"hello!"
    assert link.transcript == Transcript([Message("greeting", "server", 5), Message("greeting", "client", 6)])
    assert (link.transcript.rounds, link.transcript.bytes_down, link.transcript.bytes_up) == (1, 5, 6)


def test_what_needs_no_round_passes_through() -> None:
    ev, link = interactive()
    x = encrypted([[1.0, 2.0]])
    values = decryptor().decrypt(
        ev.rerandomize(ev.add(ev.sub(ev.matmul_plain(ev.mul_plain(x, 2.0), np.eye(2)), 1.0), 0.5))
    )
    assert np.abs(values - [[1.5, 3.5]]).max() < 1e-6
    assert np.abs(decryptor().decrypt(ev.sum_samples(ev.join([x, x]))) - [[1.0, 2.0, 1.0, 2.0]]).max() < 1e-6
    for call in (lambda: ev.rotate(x, 1), lambda: ev.ask(SIGMOID, x)):
        with pytest.raises(Unsupported):
            call()
    assert ev.parameters == LANE
    assert link.transcript.messages == []


def test_a_scheme_that_multiplies_itself_needs_no_round() -> None:
    scheme = scheme_of(TEST_INSECURE_CKKS)
    own = scheme.keygen()
    link = LocalLink(lambda frame: pytest.fail("a round was asked for"))
    bundle = PublicBundle(TEST_INSECURE_CKKS, own.public, own.evaluation)
    ev = Interactive(scheme.evaluator(own), link, bundle)
    x = scheme.encryptor(own.secret).encrypt([[3.0]], 4.0)
    assert abs(scheme.decryptor(own.secret).decrypt(ev.mul(x, x))[0, 0] - 9) < 1e-3


# --- what the client sees --------------------------------------------------------------------------------------------


def masked_values(value: float, count: int) -> list[int]:
    """What the key holder decrypts when ``value`` is masked, ``count`` times."""
    x = encrypted(np.full((count, 1), value), 4.0)
    tensor, _ = evaluator().mask(x, mask_bits_for(x.bound, x.log_scale))
    return [int(v) for v in decryptor().decrypt_integers(tensor)[:, 0]]


@pytest.mark.slow
def test_masked_values_are_distributed_alike_whatever_they_hide() -> None:
    """KS at level 1e-6 and 1,000 samples a side rejects a difference of 0.12 in distribution with power over 1/2.

    An unmasked value differs by 1, one masked by no more bits than its own by 0.25 or more.
    """
    bits = mask_bits_for(np.array([4.0]), 28)
    small, large = (np.array(masked_values(v, 1_000), dtype=object) / 2.0**bits for v in (-4.0, 4.0))
    samples = [np.asarray(side, dtype=np.float64) for side in (small, large)]
    assert stats.ks_2samp(*samples).pvalue > 1e-6
    for side in samples:
        assert stats.kstest(side, "uniform").pvalue > 1e-6
    low = [np.array([int(v * 2.0**bits) for v in side]) for side in (small, large)]
    assert all(len(set(values.tolist())) == 1_000 for values in low)


def test_the_test_for_masks_sees_masks_that_are_too_short() -> None:
    rng = np.random.default_rng(2)
    hidden = [rng.integers(0, 2**32, 1_000) + value for value in (-(2**30), 2**30)]
    assert stats.ks_2samp(*hidden).pvalue < 1e-6


def test_a_server_s_request_shows_neither_level_nor_scale() -> None:
    x = encrypted([[1.0, 2.0]])
    low = evaluator().mul_plain(x, 3.0)
    frames = [parse(MaskedProduct(evaluator(), [(t, t)]).request(bundle()), Kind.MASKED_FACTORS) for t in (x, low)]
    assert {(f.level, f.log_scale, f.samples, f.features, len(f.body)) for f in frames} == {(0, 0.0, 1, 2, 4 + 2 * 256)}


# --- no secret at the server -----------------------------------------------------------------------------------------


def secrets_in(root: object, secret: Any) -> list[object]:
    numbers = {int(v) for v in (getattr(secret, "p", 0), getattr(secret, "q", 0)) if v}
    found = reachable(root)
    return [
        item for item in found
        if isinstance(item, SecretKey) or (type(item).__name__ == "mpz" and int(item) in numbers)  # type: ignore[call-overload]
        or type(item).__name__ == "Decryptor" or (isinstance(item, int) and item in numbers)
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["paillier", "ckks", "clear"])
def test_a_server_holds_no_secret_key_even_after_rounds(scheme: str) -> None:
    model = logistic()
    client = Client(plan(model, scheme, samples=2, precision_bits=10, security_bits=0))
    server = Server(model, client.public(), allow_insecure=True)
    X = training()[0][:2]
    x = client.encrypt(X)
    y = server.evaluate(x, client.link())
    assert np.abs(client.decrypt(y) - model.sigmoid(logistic_scores(X))).max() < 2.0**-10
    secret = client._decryptor._secret if scheme == "paillier" else getattr(client._encryptor, "_seal", None)
    for root in (server, client.public(), x, y, client.profile):
        assert secrets_in(root, secret) == []
    assert scheme == "clear" or secrets_in(client, secret)  # the walk does find what is there


def logistic_scores(X: np.ndarray) -> np.ndarray:
    logits = logistic().logits
    return np.asarray(logits.prepare(X) @ logits.weights + logits.intercept)


def test_a_key_set_with_its_secret_is_refused_by_a_server() -> None:
    with pytest.raises(KeyMismatch, match="never leave the client"):
        Server(linear(), keys())  # type: ignore[arg-type]


# --- the parties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["clear", "paillier", "ckks"])
@pytest.mark.parametrize("model", [linear, logistic], ids=["linear", "sigmoid"])
def test_a_prediction_crosses_as_bytes_of_the_size_the_plan_says(scheme: str, model: Any) -> None:
    made, X = model(), training()[0][:5]
    planned = plan(made, scheme, samples=5, precision_bits=12, security_bits=0)
    client = Client(planned)
    server = Server(made, client.public_bytes(), allow_insecure=True)
    link, upload = client.link(), client.pack(client.encrypt(X))
    download = server.pack(server.evaluate(server.unpack(upload), link))
    assert len(client.public_bytes()) == planned.key_bytes
    assert len(upload) + link.transcript.bytes_up == planned.bytes_up
    assert len(download) + link.transcript.bytes_down == planned.bytes_down
    assert link.transcript.rounds == planned.rounds
    scores = client.decrypt(client.unpack(download))
    clear = Client(plan(made, "clear", samples=5))
    exact = clear.decrypt(Server(made, clear.public()).evaluate(clear.encrypt(X)))
    assert np.abs(scores - exact).max() <= max(2 * planned.error_bound, 1e-14)
    assert (client.head(scores) == clear.head(exact)).all() or model is linear
    assert client.predict(server, pd.DataFrame(X, columns=["x0", "x1", "x2"])).shape == (5,)


def test_results_state_a_bound_that_is_a_power_of_two_for_all_outputs() -> None:
    client = Client(plan(linear(), "ckks", samples=2, security_bits=0))
    server = Server(linear(), client.public(), allow_insecure=True)
    bound = server.evaluate(client.encrypt(training()[0][:2])).bound
    assert len(set(bound.tolist())) == 1
    assert np.log2(bound[0]) == int(np.log2(bound[0]))


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_parameters_of_tests_need_leave_at_a_server(scheme: str) -> None:
    client = Client(plan(linear(), scheme, samples=2, security_bits=0))
    for public in (client.public(), client.public_bytes()):
        with pytest.raises(InsecureParameters):
            Server(linear(), public)
        Server(linear(), public, allow_insecure=True)


def test_randomness_can_be_made_ahead() -> None:
    client = Client(plan(linear(), "paillier", samples=2, security_bits=0))
    server = Server(linear(), client.public(), allow_insecure=True)
    client.fill(3)
    server.fill(1)
    assert len(client._encryptor.pool) == 3
    assert len(server._evaluator.pool) == 1
    server.evaluate(client.encrypt(training()[0][:2]))
    assert len(client._encryptor.pool) == len(server._evaluator.pool) == 0
    other = Client(plan(linear(), "ckks", samples=2, security_bits=0))
    other.fill(3)
    Server(linear(), other.public(), allow_insecure=True).fill(3)


def test_exact_integers_are_paillier_s_alone() -> None:
    X = training()[0][:2]
    client = Client(plan(linear(), "paillier", samples=2, security_bits=0))
    y = Server(linear(), client.public(), allow_insecure=True).evaluate(client.encrypt(X))
    assert (client.decrypt_integers(y) / 2.0**y.log_scale == client.decrypt(y)).all()
    other = Client(plan(linear(), "ckks", samples=2, security_bits=0))
    with pytest.raises(Unsupported, match="ckks has no exact integers"):
        other.decrypt_integers(y)
    with pytest.raises(Unsupported, match="ckks multiplies by itself: nothing to answer"):
        other.answer(b"")


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_a_client_saves_its_keys_and_comes_back(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "_COST", {"n": 2**4, "r": 8, "p": 1})
    planned = plan(linear(), scheme, samples=2, security_bits=0)
    client, X = Client(planned), training()[0][:2]
    client.save(tmp_path / "keys", "a passphrase of length")
    again = Client.load(planned, tmp_path / "keys", "a passphrase of length")
    assert again.public().key_id == client.public().key_id
    assert np.abs(again.decrypt(client.encrypt(X)) - client.decrypt(client.encrypt(X))).max() < 1e-4
    with pytest.raises(KeyMismatch, match=r"the plan needs .*: make new keys"):
        Client.load(
            plan(linear(), scheme, precision_bits=8, security_bits=0), tmp_path / "keys", "a passphrase of length"
        )


def test_a_model_with_rounds_needs_a_link() -> None:
    client = Client(plan(logistic(), "paillier", samples=1, precision_bits=10, security_bits=0))
    server = Server(logistic(), client.public(), allow_insecure=True)
    with pytest.raises(Unsupported, match="wrap it in Interactive"):
        server.evaluate(client.encrypt(training()[0][:1]))


def test_inputs_outside_the_schema_are_never_encrypted() -> None:
    client = Client(plan(linear(), "clear", samples=1))
    with pytest.raises(OutOfRange, match="row 0, column 'x1'"):
        client.encrypt([[0.0, 2.5, 0.0]])


# --- hostile messages ------------------------------------------------------------------------------------------------


def round_frames() -> tuple[MaskedProduct, Frame, Frame]:
    x = encrypted([[1.0, 2.0], [3.0, 4.0]])
    products = MaskedProduct(evaluator(), [(x, x), (x, encrypted([[1.0, 1.0], [1.0, 1.0]]))])
    request = products.request(bundle())
    return products, parse(request, Kind.MASKED_FACTORS), parse(answer(request), Kind.MASKED_PRODUCTS)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": Kind.MASKED_FACTORS}, MalformedFrame),
        ({"samples": 1}, MalformedFrame),
        ({"features": 3}, MalformedFrame),
        ({"features": 0}, MalformedFrame),
        ({"body": b""}, MalformedFrame),
        ({"body": b"\0" * 4 * 2 * 256}, MalformedFrame),
        ({"body": b"\xff" * 4 * 2 * 256}, MalformedFrame),
        ({"scheme": "ckks"}, KeyMismatch),
        ({"key_id": "00" * 16}, KeyMismatch),
        ({"flags": 1}, MalformedFrame),
        ({"level": 1}, MalformedFrame),
        ({"log_scale": 1.0}, MalformedFrame),
    ],
)
def test_a_server_refuses_replies_that_are_none(changes: dict[str, Any], error: type[HepipeError]) -> None:
    products, _, reply = round_frames()
    with pytest.raises(error):
        products.finish(dataclasses.replace(reply, **changes).to_bytes(), bundle())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": Kind.MASKED_PRODUCTS}, MalformedFrame),
        ({"kind": Kind.TENSOR}, MalformedFrame),
        ({"body": b""}, MalformedFrame),
        ({"body": b"\0\0"}, MalformedFrame),
        ({"body": struct.pack(">I", 7)}, MalformedFrame),
        ({"body": struct.pack(">I", 1)}, MalformedFrame),
        ({"body": struct.pack(">I", 2)}, MalformedFrame),
        ({"body": struct.pack(">I", 2) + b"\0" * 12 * 256}, MalformedFrame),
        ({"samples": 1 << 24}, MalformedFrame),
        ({"level": 1}, MalformedFrame),
        ({"log_scale": 1.0}, MalformedFrame),
        ({"features": 0}, MalformedFrame),
        ({"key_id": "00" * 16}, KeyMismatch),
        ({"scheme": "clear"}, KeyMismatch),
    ],
)
def test_a_client_refuses_requests_that_are_none(changes: dict[str, Any], error: type[HepipeError]) -> None:
    _, request, _ = round_frames()
    with pytest.raises(error):
        answer(dataclasses.replace(request, **changes).to_bytes())


def test_a_client_refuses_factors_whose_product_does_not_fit() -> None:
    big = encryptor().encrypt_integers(np.array([[1 << 700]], dtype=object), 2.0**700, log_scale=0)
    body = struct.pack(">I", 1) + int(big.data[0][0]).to_bytes(256, "big")
    with pytest.raises(OutOfRange, match="over its bound"):
        answer(Frame(Kind.MASKED_FACTORS, "paillier", bundle().key_id, 1, 1, 0, 0.0, body).to_bytes())


def test_a_client_with_lanes_answers_no_request_for_one_lane_wrongly() -> None:
    client = Client(plan(linear(), "paillier", samples=2, security_bits=0))
    n_squared = int(client.public().public.n) ** 2
    body = struct.pack(">I", 1) + (n_squared - 2).to_bytes(256, "big")
    with pytest.raises(OutOfRange):
        client.answer(Frame(Kind.MASKED_FACTORS, "paillier", client.public().key_id, 1, 1, 0, 0.0, body).to_bytes())


def test_headers_of_a_round_have_the_size_that_plans_count() -> None:
    _, request, reply = round_frames()
    assert len(request.to_bytes()) == HEADER_BYTES + 4 + 2 * 6 * 256
    assert len(reply.to_bytes()) == HEADER_BYTES + 2 * 4 * 256
