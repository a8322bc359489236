"""Policy "client": exact, one round a layer, the budget full again, and every plan says what it reveals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hepipe.circuits.activation import IDENTITY, SQUARE, Activation, on_request
from hepipe.circuits.functions import ON_OFFER, RELU, SIGMOID, TANH, Function
from hepipe.errors import BudgetExhausted, MalformedFrame, Unsupported
from hepipe.models.logistic import clear_scores
from hepipe.models.mlp import MlpModel, mlp, network_profile
from hepipe.models.schema import Schema
from hepipe.protocol.link import LocalLink
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.clear import ClearEncryptor, ClearEvaluator, ClearKey, ClearScheme
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.parameters import ClearParameters
from hepipe.schemes.wire import unpack_tensor
from hepipe.study.plan import Plan, plan

RNG = np.random.default_rng(29)
SCHEMA = Schema.unknown(3, 2.0)
X = RNG.uniform(-2, 2, (30, 3))
SCHEMES = ("clear", "paillier", "ckks")
ASKED = [RELU, SIGMOID, TANH]


def network(*activations: Activation, width: int = 4) -> MlpModel:
    """3-4-...-2 with these activations."""
    rng, maps, inputs = np.random.default_rng(1), [], 3
    for activation in activations:
        maps.append((rng.normal(size=(inputs, width)), rng.normal(size=width), activation))
        inputs = width
    return mlp(network_profile(SCHEMA, 2, None), [*maps, (rng.normal(size=(inputs, 2)), rng.normal(size=2), IDENTITY)])


def planned(model: Any, scheme: str, rows: int = 5, policy: str = "client", bits: float = 16) -> Plan:
    return plan(model, scheme, rows, policy, precision_bits=bits, security_bits=0 if scheme == "paillier" else 128)


def run(model: Any, made: Plan, policy: str | None = None) -> tuple[np.ndarray, Any, Client, list[bytes]]:
    """(scores, the encrypted result, the client, what it was asked)."""
    client, requests = Client(made), []

    def answer(request: bytes) -> bytes:
        requests.append(request)
        return client.answer(request)

    server = Server(model, client.public(), policy or made.policy, allow_insecure=True)
    result = server.evaluate(client.encrypt(X[: made.samples]), LocalLink(answer))
    return client.decrypt(result), result, client, requests


@pytest.mark.parametrize("fn", ASKED, ids=lambda fn: fn.name)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_function_on_offer_is_exact_on_every_scheme(scheme: str, fn: Function) -> None:
    model = network(on_request(fn))
    made = planned(model, scheme)
    scores, *_ = run(model, made)
    assert np.abs(scores - model.exact(X[:5])).max() <= made.error_bound
    assert made.error_bound <= 2.0**-16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_layer_is_one_round_and_the_budget_is_full_after_it(scheme: str) -> None:
    for depth in (1, 2, 3):
        model = network(*[on_request(RELU)] * depth)
        made = planned(model, scheme)
        assert (made.levels, made.rounds) == (1, depth)
        scores, _, _, requests = run(model, made)
        assert len(requests) == depth
        assert np.abs(scores - model.exact(X[:5])).max() <= made.error_bound


def test_ciphertexts_stay_full_of_samples() -> None:
    """A masked product needs one sample a ciphertext; a question does not."""
    asked, masked = network(on_request(RELU)), network(SQUARE)
    assert planned(asked, "paillier").parameters.lanes > 5
    assert planned(masked, "paillier").parameters.lanes == 1
    assert planned(asked, "ckks").parameters.complex_slots
    made = planned(asked, "ckks", rows=30)
    assert np.abs(run(asked, made)[0] - asked.exact(X)).max() <= made.error_bound


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_the_transcript_has_the_rounds_and_bytes_of_the_plan(scheme: str) -> None:
    model = network(on_request(RELU), SQUARE, on_request(TANH))
    made = planned(model, scheme, bits=10)
    client = Client(made)
    server, link = Server(model, client.public(), "client", allow_insecure=True), client.link()
    request = client.pack(client.encrypt(X[:5]))
    reply = server.pack(server.evaluate(server.unpack(request), link))
    seen = link.transcript
    assert made.rounds == seen.rounds == (3 if scheme == "paillier" else 2)
    assert made.bytes_up == len(request) + seen.bytes_up
    assert made.bytes_down == len(reply) + seen.bytes_down


@pytest.mark.parametrize("fn", ASKED, ids=lambda fn: fn.name)
def test_paillier_s_integers_are_those_of_the_reference_that_answers_itself(fn: Function) -> None:
    model = network(on_request(fn), on_request(fn))
    made = planned(model, "paillier")
    _, result, client, _ = run(model, made)
    given = made.parameters
    scheme = ClearScheme(ClearParameters(given.depth, given.log_scale, given.log_plain_scale, exact=True))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.prepare(X[:5]), model.profile.input_bound)
    reference = model.forward(scheme.evaluator(keys, "client"), x)
    expected = scheme.decryptor(keys.secret).decrypt_integers(reference)
    assert client.decrypt_integers(result).tolist() == expected.tolist()
    assert (result.log_scale, result.shape) == (reference.log_scale, reference.shape)


def test_the_clear_prediction_is_the_network_itself() -> None:
    model = network(on_request(SIGMOID), SQUARE, on_request(RELU))
    assert np.allclose(clear_scores(model, X, "client"), model.exact(X), rtol=1e-12, atol=1e-12)


# --- what is revealed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_plan_says_what_is_revealed(scheme: str) -> None:
    both = network(on_request(RELU), on_request(TANH), on_request(RELU))
    assert planned(both, scheme).reveals == "scores; the argument of every relu; the argument of every tanh"
    assert planned(network(SQUARE), scheme).reveals == "scores"


def test_the_client_sees_the_pre_activations_and_the_plan_was_right_to_say_so() -> None:
    model = network(on_request(RELU))
    _, _, client, (request,) = run(model, planned(model, "paillier"))
    question = unpack_tensor(parse(request, Kind.QUESTION).body[1:], client.public())
    expected = model.layers[0].pre_activations(model.prepare(X[:5]))
    assert np.abs(client.decrypt(question) - expected).max() < 1e-4


def test_a_square_is_never_asked_for() -> None:
    model = network(SQUARE)
    _, _, _, requests = run(model, planned(model, "paillier"))
    assert [parse(frame, Kind.MASKED_FACTORS, Kind.QUESTION).kind for frame in requests] == [Kind.MASKED_FACTORS]
    made = planned(model, "ckks")
    assert (made.rounds, run(model, made)[3]) == (0, [])


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_client_that_planned_otherwise_answers_no_question(scheme: str) -> None:
    asked = network(on_request(RELU))
    agreed = planned(network(on_request(RELU).on(8.0, degree=2)), scheme, policy="polynomial", bits=6)
    with pytest.raises(Unsupported, match="the plan's policy is not 'client'"):
        run(asked, agreed, policy="client")


def test_the_default_is_to_ask_nothing() -> None:
    model = network(on_request(RELU).on(8.0, degree=2))
    made = plan(model, "ckks", 5, precision_bits=6)
    assert (made.policy, made.rounds, made.reveals) == ("polynomial", 0, "scores")
    client = Client(made)
    Server(model, client.public()).evaluate(client.encrypt(X[:5]), LocalLink(refuse))


def refuse(request: bytes) -> bytes:
    raise AssertionError("nothing may be asked")


@pytest.mark.parametrize("exact", [False, True])
def test_the_reference_asks_only_where_it_may(exact: bool) -> None:
    parameters = ClearParameters(2, 20, 20, exact=exact)
    key = ClearKey("0" * 32)
    x = ClearEncryptor(parameters, key).encrypt([[-1.0, 1.5]], 2.0)
    with pytest.raises(Unsupported):
        ClearEvaluator(parameters, key.key_id).ask(RELU, x)
    ev = ClearEvaluator(parameters, key.key_id, "client")
    low = ev.mul_plain(ev.mul_plain(x, 1.0), 1.0)
    with pytest.raises(BudgetExhausted):
        ev.mul_plain(low, 1.0)
    answer = ev.ask(RELU, low)
    assert (answer.level, answer.log_scale) == (2, 20)
    values = np.asarray(answer.data, dtype=float) / (2.0**20 if exact else 1.0)
    assert values.tolist() == [[0.0, 1.5]]
    # The bounds of products with a rounded factor are a hair above those of the values.
    assert np.allclose(answer.bound, 2.0, rtol=1e-5)


@pytest.mark.parametrize("body", [b"", bytes([len(ON_OFFER)]), b"\xff"])
def test_a_question_about_no_function_on_offer_is_refused(body: bytes) -> None:
    client = Client(planned(network(on_request(RELU)), "clear"))
    frame = Frame(Kind.QUESTION, "clear", client.public().key_id, 1, 1, 0, 0.0, body).to_bytes()
    with pytest.raises(MalformedFrame, match="no function on offer"):
        client.answer(frame)
