"""The Open Inference Protocol as its stock client speaks it, and what is refused: bodies, frames, keys, replays."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException
from websockets.sync.client import connect

from hepipe.errors import HepipeError, InsecureParameters, KeyMismatch, MalformedFrame, OutOfRange, Unsupported
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import HEADER_BYTES, Kind, bound_to, parse
from hepipe.service.client import RemoteServer
from hepipe.service.inference import (
    LENGTH_HEADER,
    Binding,
    pack_request,
    pack_response,
    unpack_request,
    unpack_response,
)
from hepipe.service.problems import Refused
from hepipe.study.plan import plan
from served_models import FRAME, made
from service.conftest import SAMPLES, Running

X = FRAME.iloc[:SAMPLES]
INFER = "/v2/models/linear/infer"


@pytest.fixture
def remote(running: Running) -> Any:
    return running.remote("linear")


@pytest.fixture(scope="module")
def clients(running: Running) -> dict[str, Client]:
    """A client of each scheme whose keys alice has registered for the linear model."""
    made_here = running.remote("linear")
    return {scheme: made_here.client(scheme) for scheme in ("paillier", "ckks")}


def post(running: Running, frame: bytes, session: str = "", seq: int = 0, model: str = "linear", **more: Any) -> Any:
    body, length = pack_request(frame, Binding("id-7", session, seq))
    with running.http(**more) as http:
        return http.post(f"/v2/models/{model}/infer", content=body, headers={LENGTH_HEADER: str(length)})


def scores(clients: dict[str, Client], scheme: str, answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    frame, _ = unpack_response(answer.content, answer.headers[LENGTH_HEADER])
    return clients[scheme].decrypt(clients[scheme].unpack(frame))


# --- the stock client -------------------------------------------------------------------------------------------------


def test_tritonclient_unmodified_gets_a_ckks_prediction(running: Running, clients: dict[str, Client]) -> None:
    stock = triton.InferenceServerClient(running.url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {running.tokens['alice']}"}
    assert stock.is_server_live()
    assert stock.is_server_ready()
    assert stock.is_model_ready("linear", headers=headers)
    assert stock.get_server_metadata()["name"] == "hepipe"
    metadata = stock.get_model_metadata("linear", headers=headers)
    tensor = triton.InferInput(metadata["inputs"][0]["name"], metadata["inputs"][0]["shape"], "BYTES")
    tensor.set_data_from_numpy(np.array([clients["ckks"].pack(clients["ckks"].encrypt(X))], dtype=np.object_))
    for outputs in (None, [triton.InferRequestedOutput("scores")]):
        result = stock.infer("linear", [tensor], outputs=outputs, request_id="mine", headers=headers)
        assert result.get_response()["id"] == "mine"
        frame = result.as_numpy("scores")[0]
        found = clients["ckks"].decrypt(clients["ckks"].unpack(frame))
        assert np.abs(found - clear_scores(made("linear"), X)).max() < 2.0**-8
    with pytest.raises(InferenceServerException, match="no model 'none' is here"):
        stock.infer("none", [tensor], headers=headers)
    with pytest.raises(InferenceServerException, match="Authorization"):
        stock.infer("linear", [tensor])
    stock.close()


# --- what binds an answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_an_answer_says_what_it_answers(running: Running, clients: dict[str, Client], scheme: str) -> None:
    client = clients[scheme]
    frame = client.pack(client.encrypt(X))
    answer = post(running, frame, session=f"bound-{scheme}", seq=3)
    result, fields = unpack_response(answer.content, answer.headers[LENGTH_HEADER])
    with running.http() as http:
        digest = http.get("/v2/models/linear/profile").json()["digest"]
    assert fields["parameters"] == {
        "key_id": client.public().key_id, "session": f"bound-{scheme}", "seq": 3, "model_digest": digest,
        "request_sha256": hashlib.sha256(frame).hexdigest(), "response_sha256": hashlib.sha256(result).hexdigest(),
    }  # fmt: skip
    assert (fields["id"], fields["model_name"], fields["model_version"]) == ("id-7", "linear", "1")


@pytest.mark.parametrize("session", ["replayed", ""])
def test_a_replay_gets_the_stored_bytes_and_no_second_evaluation(
    running: Running, clients: dict[str, Client], session: str
) -> None:
    client = clients["paillier"]
    frame = client.pack(client.encrypt(X))
    first, again = (post(running, frame, session=session, seq=5) for _ in range(2))
    assert first.content == again.content  # an evaluation has fresh randomness: two would differ
    other = client.pack(client.encrypt(X))
    if session:
        for seq, says in ((5, "was another request"), (4, "lies behind")):
            answer = post(running, other, session=session, seq=seq)
            assert (answer.status_code, says in answer.json()["detail"]) == (409, True)
    assert post(running, other, session=session, seq=6).content != first.content


def test_a_replay_of_a_prediction_with_rounds_takes_no_round(running: Running) -> None:
    remote = running.remote("powers")
    client, links = remote.client("paillier"), []
    frame = client.pack(client.encrypt(X))
    replies = []
    for _ in range(2):
        link = client.link()
        url = running.url.replace("http", "ws") + "/v2/models/powers/rounds"
        headers = {"Authorization": f"Bearer {running.tokens['alice']}"}
        with connect(url, additional_headers=headers) as socket:
            socket.send(json.dumps({"session": "rounds", "seq": 1}))
            socket.send(frame)
            while parse(message := socket.recv(30), *Kind).kind != Kind.TENSOR:
                socket.send(bound_to(message, link.request("masked product", message)))
            replies.append((message, socket.recv(30)))
        links.append(link.transcript.rounds)
    assert links == [remote.plan("paillier").rounds, 0]
    assert replies[0] == replies[1]


class Tampering:
    """A transport that changes what the server said."""

    def __init__(self, inner: Any, change: Callable[[bytes, dict[str, Any]], tuple[bytes, dict[str, Any]]]) -> None:
        self._inner, self._change = inner, change

    def call(self, method: str, path: str, *rest: Any) -> Any:
        body, headers = self._inner.call(method, path, *rest)
        if not path.endswith("/infer"):
            return body, headers
        frame, fields = unpack_response(body, headers[LENGTH_HEADER])
        frame, fields = self._change(frame, {name: fields[name] for name in fields if name != "outputs"})
        body, length = pack_response(frame, fields)
        return body, {LENGTH_HEADER: str(length)}


@pytest.mark.parametrize("name", ["key_id", "session", "seq", "model_digest", "request_sha256", "response_sha256"])
def test_an_answer_bound_to_anything_else_is_refused(
    remote: RemoteServer, clients: dict[str, Client], name: str
) -> None:
    def change(frame: bytes, fields: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        fields["parameters"][name] = 99 if name == "seq" else "0" * 32
        return frame, fields

    client = clients["ckks"]
    remote.register(client)
    remote._transport = Tampering(remote._transport, change)  # type: ignore[assignment]
    with pytest.raises(MalformedFrame, match=f"{name} differ"):
        remote.evaluate(client.encrypt(X))


def test_an_answer_that_was_swapped_with_another_is_refused(remote: RemoteServer, clients: dict[str, Client]) -> None:
    """Two right answers of one client, exchanged on their way."""
    client, seen = clients["ckks"], []
    remote.register(client)

    def keep(frame: bytes, fields: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        seen.append((frame, fields))
        return seen[0]

    remote._transport = Tampering(remote._transport, keep)  # type: ignore[assignment]
    remote.evaluate(client.encrypt(X))
    with pytest.raises(MalformedFrame, match="belongs to another request"):
        remote.evaluate(client.encrypt(X))


# --- bodies that are none ---------------------------------------------------------------------------------------------

TENSOR = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}
ASKED = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
BINARY = struct.pack("<I", 5) + b"frame"


def packed(header: Any, binary: bytes = BINARY) -> tuple[bytes, str]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return text + binary, str(len(text))


def test_the_plain_request_of_the_tests_below_is_read() -> None:
    assert unpack_request(*packed(ASKED)) == (b"frame", Binding())
    assert unpack_request(*packed(ASKED | {"id": "7"}))[1].request_id == "7"


BODIES: dict[str, tuple[bytes, str | None]] = {
    "no length": (packed(ASKED)[0], None),
    "length no number": (packed(ASKED)[0], "x"),
    "length negative": (packed(ASKED)[0], "-1"),
    "length zero": (packed(ASKED)[0], "0"),
    "length beyond": (packed(ASKED)[0], "100000"),
    "length huge": (packed(ASKED)[0], "9" * 30),
    "empty": (b"", "0"),
    "no json": packed(b"{"),
    "a list": packed([]),
    "a number": packed(1),
    "deep": packed(b"[" * 5000),
    "no utf-8": packed(b"\xff\xfe{}"),
    "large header": packed(ASKED | {"id": "x" * 20_000}),
    "no inputs": packed({"parameters": {"binary_data_output": True}}),
    "inputs no list": packed(ASKED | {"inputs": {}}),
    "two inputs": packed(ASKED | {"inputs": [TENSOR, TENSOR]}),
    "input no object": packed(ASKED | {"inputs": [1]}),
    "other name": packed(ASKED | {"inputs": [TENSOR | {"name": "y"}]}),
    "other type": packed(ASKED | {"inputs": [TENSOR | {"datatype": "FP32"}]}),
    "other shape": packed(ASKED | {"inputs": [TENSOR | {"shape": [2]}]}),
    "shape deep": packed(ASKED | {"inputs": [TENSOR | {"shape": [[1]]}]}),
    "data in json": packed(ASKED | {"inputs": [TENSOR | {"data": ["frame"]}]}),
    "no size": packed(ASKED | {"inputs": [TENSOR | {"parameters": {}}]}),
    "size too small": packed(ASKED | {"inputs": [TENSOR | {"parameters": {"binary_data_size": 8}}]}),
    "shared memory": packed(ASKED | {"inputs": [TENSOR | {"parameters": {"shared_memory_region": "r"}}]}),
    "element too short": packed(ASKED, struct.pack("<I", 4) + b"frame"),
    "element too long": packed(ASKED, struct.pack("<I", 2**32 - 1) + b"frame"),
    "binary cut": packed(ASKED, BINARY[:-1]),
    "binary more": packed(ASKED, BINARY + b"x"),
    "no binary": packed(ASKED, b""),
    "output as text": packed(ASKED | {"parameters": {}}),
    "output false": packed(ASKED | {"parameters": {"binary_data_output": 1}}),
    "parameters no object": packed(ASKED | {"parameters": []}),
    "outputs no list": packed(ASKED | {"outputs": {}}),
    "other output": packed(ASKED | {"outputs": [{"name": "weights", "parameters": {"binary_data": True}}]}),
    "output of no object": packed(ASKED | {"outputs": ["scores"]}),
    "output no binary": packed(ASKED | {"outputs": [{"name": "scores"}]}),
    "unknown field": packed(ASKED | {"eval": "1"}),
    "session with a path": packed(ASKED | {"parameters": {"binary_data_output": True, "session": "../x"}}),
    "seq a text": packed(ASKED | {"parameters": {"binary_data_output": True, "session": "s", "seq": "1"}}),
    "id a number": packed(ASKED | {"id": 1}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none_is_refused_with_a_problem(running: Running, name: str) -> None:
    body, length = BODIES[name]
    with pytest.raises(MalformedFrame):
        unpack_request(body, length)
    with running.http() as http:
        answer = http.post(INFER, content=body, headers={} if length is None else {LENGTH_HEADER: length})
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert problem["type"] == "urn:hepipe:problem:malformed"
    assert problem["error"] == problem["detail"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutations_of_a_request_are_read_or_refused(data: st.DataObject) -> None:
    body, length = packed(ASKED)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        frame, binding = unpack_request(bytes(changed), length)
    except MalformedFrame:
        return
    assert len(frame) == 5
    assert binding.seq == 0


# --- frames that are not the plan's -----------------------------------------------------------------------------------


def refused_frames(clients: dict[str, Client]) -> dict[str, tuple[bytes, int, str]]:
    paillier, ckks = clients["paillier"], clients["ckks"]
    good = ckks.pack(ckks.encrypt(X))
    x = ckks.encrypt(X)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    unknown = Client(made_plan("ckks"))
    return {
        "empty": (b"", 400, "hepipe header"),
        "pickle": (b"\x80\x04cos\nsystem\n", 400, "hepipe header"),
        "flipped": (bytes(flipped), 400, "digest"),
        "cut at 1 %": (good[: len(good) // 100], 400, "expected"),
        "cut at 50 %": (good[: len(good) // 2], 400, "expected"),
        "cut at 99 %": (good[: len(good) * 99 // 100], 400, "expected"),
        "keys for a tensor": (ckks.public_bytes(), 400, "expected one of"),
        "unknown key": (unknown.pack(unknown.encrypt(X)), 404, "upload it"),
        "too many rows": (ckks.pack(ckks.encrypt(FRAME.iloc[: SAMPLES + 1])), 422, "at most 3 at once"),
        "lower level": (ckks.pack(replace(ckks._encryptor.encrypt(np.zeros((1, 3)), 1.0), level=0)), 400, "level 0"),
        "other scale": (ckks.pack(replace(x, log_scale=x.log_scale + 1)), 400, "scale"),
        "two columns": (ckks.pack(ckks._encryptor.encrypt(np.zeros((1, 2)), 1.0)), 400, "2 features"),
        "blinded": (paillier.pack(replace(paillier.encrypt(X), blinded=True)), 400, "blinds"),
    }  # fmt: skip


def made_plan(scheme: str) -> Any:
    return plan(made("linear"), scheme, SAMPLES, precision_bits=8.0, security_bits=0)


@pytest.mark.parametrize(
    "name",
    ["empty", "pickle", "flipped", "cut at 1 %", "cut at 50 %", "cut at 99 %", "keys for a tensor", "unknown key",
     "too many rows", "lower level", "other scale", "two columns", "blinded"],
)  # fmt: skip
def test_a_frame_that_is_not_the_plans_is_refused(running: Running, clients: dict[str, Client], name: str) -> None:
    frame, status, says = refused_frames(clients)[name]
    answer = post(running, frame)
    assert (answer.status_code, answer.json()["status"]) == (status, status), answer.text
    assert says in answer.json()["detail"], answer.text
    # and the server goes on
    good = clients["ckks"].pack(clients["ckks"].encrypt(X))
    assert np.abs(scores(clients, "ckks", post(running, good)) - clear_scores(made("linear"), X)).max() < 2.0**-8


def test_bounds_that_a_client_states_are_not_believed(running: Running, clients: dict[str, Client]) -> None:
    """Else an error about room would tell the sum of |weights|."""
    client = clients["paillier"]
    x = client.encrypt(X)
    for bound in (2.0**-40, 2.0**40):
        frame = client.pack(x.with_bound(np.full(3, bound)))
        found = scores(clients, "paillier", post(running, frame))
        assert np.abs(found - clear_scores(made("linear"), X)).max() < 2.0**-8


def test_a_key_for_other_parameters_is_refused(running: Running, clients: dict[str, Client]) -> None:
    """The right tenant and a stored key, but of another model's plan."""
    tree = running.remote("tree")
    other = tree.client("paillier")
    assert tree.plan("paillier").parameters != clients["paillier"].public().parameters
    frame = other.pack(other._encryptor.encrypt(np.zeros((1, 3)), 1.0))
    answer = post(running, frame)
    assert answer.status_code == 400, answer.text
    remote = running.remote("linear")
    remote._clients[other.public().key_id] = other
    with pytest.raises(KeyMismatch, match="other parameters"):
        remote.evaluate(other._encryptor.encrypt(np.zeros((1, 3)), 1.0))


def test_too_large_bodies_are_refused_by_their_announcement_and_by_their_bytes(running: Running) -> None:
    with running.http() as http:
        limit = max(plan["bytes_up"] for plan in http.get("/v2/models/linear/profile").json()["plans"].values())
        for size in (limit + 70_000, 10 * limit):
            announced = http.post(INFER, content=bytes(size), headers={LENGTH_HEADER: "1"})
            chunked = http.post(INFER, content=(bytes(4096) for _ in range(size // 4096)), headers={LENGTH_HEADER: "1"})
            assert (announced.status_code, chunked.status_code) == (413, 413)
        key = http.put(f"/v2/hepipe/keys/{'0' * 32}", content=bytes(1 << 24))
        assert key.status_code == 413
        packed_body = http.post(INFER, content=b"x", headers={LENGTH_HEADER: "1", "Content-Encoding": "gzip"})
        assert packed_body.status_code == 415


def test_a_plan_with_rounds_is_not_evaluated_by_a_post(running: Running) -> None:
    remote = running.remote("powers")
    client = remote.client("paillier")
    answer = post(running, client.pack(client.encrypt(X)), model="powers")
    assert (answer.status_code, "WebSocket" in answer.json()["detail"]) == (422, True)


# --- WebSockets -------------------------------------------------------------------------------------------------------


def first_message(running: Running, *messages: str | bytes, model: str = "powers") -> Any:
    headers = {"Authorization": f"Bearer {running.tokens['alice']}"}
    url = running.url.replace("http", "ws") + f"/v2/models/{model}/rounds"
    with connect(url, additional_headers=headers) as socket:
        for message in messages:
            socket.send(message)
        return socket.recv(30)


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        (["no json"], "malformed"),
        (["[]"], "malformed"),
        (['{"session": 1}'], "malformed"),
        (['{"token": "x"}'], "malformed"),
        ([b"binary first"], "malformed"),
        (["{}", "text where a frame belongs"], "malformed"),
        (["{}", b"no frame"], "malformed"),
        (["{}", b"HEPF" + bytes(HEADER_BYTES)], "malformed"),
        (["x" * 20_000], "malformed"),
    ],
)
def test_a_conversation_that_is_none_ends_in_a_problem(running: Running, messages: list[Any], kind: str) -> None:
    problem = json.loads(first_message(running, *messages))
    assert problem["type"] == f"urn:hepipe:problem:{kind}"


def test_an_answer_to_a_round_that_is_none_ends_in_a_problem(running: Running) -> None:
    remote = running.remote("powers")
    client = remote.client("paillier")
    frame = client.pack(client.encrypt(X))
    headers = {"Authorization": f"Bearer {running.tokens['alice']}"}
    for reply in (b"no frame", frame, client.public_bytes(), b""):
        with connect(
            running.url.replace("http", "ws") + "/v2/models/powers/rounds", additional_headers=headers
        ) as socket:
            socket.send("{}")
            socket.send(client.pack(client.encrypt(X)))
            assert parse(socket.recv(30), *Kind).kind == Kind.MASKED_FACTORS
            socket.send(reply)
            problem = json.loads(socket.recv(30))
            assert problem["status"] in (400, 503)
            assert "weights" not in problem["detail"]


# --- the client's own refusals ----------------------------------------------------------------------------------------


def test_a_client_refuses_what_it_should_not_trust(running: Running) -> None:
    for url in ("http://example.org", "ftp://127.0.0.1", "http://127.0.0.1.nip.io:8800"):
        with pytest.raises(Unsupported, match="use https"):
            RemoteServer(url, "linear")
    careful = running.remote("linear", allow_insecure=False)
    with pytest.raises(InsecureParameters, match="made for tests"):
        careful.plan("ckks")
    with pytest.raises(Unsupported, match="agree with policy='client'"):
        running.remote("tanh", policy="polynomial").plan("ckks")
    with pytest.raises(Unsupported, match="not offered on 'clear'"):
        running.remote("linear").plan("clear")
    with pytest.raises(Unsupported, match="name one"):
        RemoteServer(running.url, token=running.tokens["alice"])
    with pytest.raises(Refused, match="no model 'none'"):
        running.remote("none").plan("ckks")


def test_a_tensor_of_an_unregistered_key_is_refused_here(remote: RemoteServer) -> None:
    stranger = Client(made_plan("ckks"))
    with pytest.raises(KeyMismatch, match="not registered here"):
        remote.evaluate(stranger.encrypt(X))


def test_a_row_outside_the_schema_is_refused_before_anything_is_sent(remote: RemoteServer, running: Running) -> None:
    client = remote.client("ckks")
    before = running.log.read_text().count("POST")
    with pytest.raises(OutOfRange, match="age"):
        client.predict(remote, X.assign(age=99))
    assert running.log.read_text().count("POST") == before


def test_a_key_that_the_server_lost_is_uploaded_again(remote: RemoteServer, running: Running) -> None:
    client = remote.client("paillier")
    with running.http() as http:
        assert http.delete(f"/v2/hepipe/keys/{client.public().key_id}").status_code == 204
    assert np.abs(client.predict(remote, X) - clear_scores(made("linear"), X)[:, 0]).max() < 2.0**-8


def test_a_client_can_have_its_keys_forgotten(remote: RemoteServer, running: Running) -> None:
    client = remote.client("paillier")
    x = client.encrypt(X)
    remote.evaluate(x)
    remote.unregister(client)
    remote.unregister(client)
    with running.http() as http:
        assert http.get(f"/v2/hepipe/keys/{client.public().key_id}").status_code == 404
    with pytest.raises(KeyMismatch, match="not registered"):
        remote.evaluate(x)


def test_more_rows_than_a_request_holds_are_split(remote: RemoteServer) -> None:
    client = remote.client("ckks")
    rows = FRAME.iloc[: 2 * SAMPLES + 1]
    for table in (rows, rows.to_numpy()):
        found = remote.predict(client, table)
        assert np.abs(found - clear_scores(made("linear"), rows)[:, 0]).max() < 2.0**-8


def test_a_problem_survives_the_way_and_anything_else_becomes_one() -> None:
    for refused in (Refused("busy", "later", 3), Refused("conflict", "no"), Refused("secret-key", "burnt")):
        again = Refused.from_body(json.dumps(refused.body()).encode(), refused.status)
        assert (again.kind, again.detail, again.retry_after_s) == (refused.kind, refused.detail, refused.retry_after_s)
    for body in (b"", b"<html>", b"[]", b'{"type": 1}', b'{"type": "x", "detail": "y"}'):
        again = Refused.from_body(body, 502)
        assert isinstance(again, HepipeError)
        assert "502" in again.detail
    said = {status: Refused.from_body(b"<html>", status).kind for status in (413, 418, 429, 502, 503, 504)}
    assert said == {
        413: "too-large", 418: "internal", 429: "too-many", 502: "busy", 503: "deadline", 504: "deadline",
    }  # fmt: skip
