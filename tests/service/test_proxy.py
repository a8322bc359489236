"""A third party in the middle: nginx, which ends TLS and so reads all that passes, and can read nothing of it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hepipe
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import Kind, kind_of, split
from hepipe.service.inference import LENGTH_HEADER
from hepipe.service.keyring import KeyRing
from hepipe.service.transport import WebSocketEnds
from service import traces
from service.exchanges import Exchange, exchange, seen
from service.hidden import PASSPHRASE, frames, secrets_of
from service.odd_models import CASES, ROWS, odd
from service.proxy import Proxied, needs_nginx

pytestmark = needs_nginx


HEADERS = {
    "accept", "accept-encoding", "authorization", "connection", "content-length", "host", LENGTH_HEADER.lower(),
    "sec-websocket-key", "sec-websocket-version", "upgrade", "user-agent",
}  # fmt: skip
ANSWER_HEADERS = {
    "cache-control", "connection", "content-length", "content-type", "date", LENGTH_HEADER.lower(),
    "sec-websocket-accept", "upgrade", "x-content-type-options",
}  # fmt: skip


# --- what the middle sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_nginx_sees_no_input_score_key_or_weight(proxied: Proxied, name: str, scheme: str, tmp_path: Path) -> None:
    before, outside = len(proxied.inner.conversations), len(proxied.outer.conversations)
    remote = proxied.remote(name)
    plan = remote.plan(scheme)
    client = remote.client(scheme, KeyRing(tmp_path), PASSPHRASE)
    link = client.link()
    scores = client.decrypt(remote.evaluate(client.encrypt(ROWS), link))
    remote.close()
    expected = clear_scores(odd(name), ROWS, selects=scheme == "paillier")
    assert np.abs(scores - expected).max() <= plan.error_bound + 1e-12
    assert link.transcript.rounds == plan.rounds
    passed = proxied.inner.conversations[before:]
    exchanges = [exchange(one) for one in passed]
    secret = secrets_of(odd(name), client, scores, exchanges)
    assert min(map(len, secret.values())) >= 3
    record = traces.Record(seen(passed))
    for what, hidden in secret.items():
        found = record.found(hidden)
        assert found == set(), (what, [record.around(each) for each in found])
    # what it does see, and what those see who only see TLS
    told = {
        proxied.server.tokens["alice"].encode(), client.public().key_id.encode(), f"/v2/models/{name}/".encode(),
        *(frame[:40] for one in exchanges for frame in frames(one)),
    }  # fmt: skip
    assert record.found(told) == told
    raw = traces.Record(
        bytes(part) for one in proxied.outer.conversations[outside:] for part in (one.up, one.down) if part
    )
    assert raw.found(told.union(*secret.values())) == set()
    for one in exchanges:
        assert one.headers["authorization"] == f"Bearer {proxied.server.tokens['alice']}"
        assert set(one.headers) <= HEADERS
        assert set(one.answer_headers) <= ANSWER_HEADERS
    assert [summary(one) for one in exchanges] == expected_summary(name, scheme, plan.rounds)


def summary(one: Exchange) -> tuple[Any, ...]:
    """An exchange as the kinds of what it holds; nothing of it is left out."""
    path = re.sub("[0-9a-f]{32}", "KEY", one.path)
    if one.asked:
        assert (one.status, one.body, one.answer) == (101, b"", b"")
        return path, *map(what, one.asked), "->", *map(what, one.answered)
    if path.endswith("/infer"):
        length = int(one.headers[LENGTH_HEADER.lower()])
        answered = int(one.answer_headers[LENGTH_HEADER.lower()])
        documents = what(one.body[:length].decode()), what(one.answer[:answered].decode())
        asked, answer = (what(frame) for frame in frames(one))
        return path, documents[0], asked, "->", one.status, documents[1], answer
    upload = [what(frame) for frame in split(one.body)]
    return one.method, path, *upload, "->", one.status, what(one.answer.decode())


def what(message: str | bytes) -> Any:
    return tuple(sorted(json.loads(message))) if isinstance(message, str) else Kind(kind_of(message)).name


def expected_summary(name: str, scheme: str, rounds: int) -> list[tuple[Any, ...]]:
    """All that nginx sees of a first prediction."""
    problem = ("detail", "error", "status", "title", "type")
    keys = ["PUBLIC_KEYS", "KEY_PROOF"] if scheme == "paillier" else ["PUBLIC_KEYS"]
    answer = ("id", "model_name", "model_version", "parameters")
    asked, replied = {"square": ("MASKED_FACTORS", "MASKED_PRODUCTS"), "bits": ("ZERO_TESTS", "ZEROS_FOUND")}.get(
        name, ("", "")
    )
    predicted: tuple[Any, ...] = (
        f"/v2/models/{name}/infer", ("id", "inputs", "parameters"), "TENSOR", "->", 200,
        ("id", "model_name", "model_version", "outputs", "parameters"), "TENSOR",
    )  # fmt: skip
    if rounds:
        predicted = (
            f"/v2/models/{name}/rounds", ("id", "seq", "session"), "TENSOR", *[replied] * rounds, "->",
            *[asked] * rounds, "TENSOR", answer,
        )  # fmt: skip
    return [
        ("GET", f"/v2/models/{name}/profile", "->", 200, ("digest", "name", "plans", "profile", "sha256", "version")),
        ("GET", "/v2/hepipe/keys/KEY", "->", 404, problem),
        ("PUT", "/v2/hepipe/keys/KEY", *keys, "->", 201, ("key_id", "sha256", "size")),
        predicted,
    ]


# --- and would see ----------------------------------------------------------------------------------------------------


def recorded(proxied: Proxied, body: bytes) -> traces.Record:
    """What nginx has seen of a request in the clear, which the server refuses."""
    before = len(proxied.inner.conversations)
    with proxied.http() as plain:
        assert plain.post("/v2/models/square/infer", content=body).status_code == 400
    return traces.Record(seen(proxied.inner.conversations[before:]))


def written(values: Any) -> dict[str, bytes]:
    """Numbers as a service without encryption might send them."""
    floats = np.asarray(values, dtype=np.float64)
    found = {kind: floats.astype(kind).tobytes() for kind in ("<f8", ">f8", "<f4", ">f4")}
    found |= {f"{kind}, 20 bits": np.round(floats * 2**20).astype(kind).tobytes() for kind in ("<i4", ">i8")}
    return found | {
        "json": json.dumps(floats.tolist()).encode(),
        "six digits": " ".join(f"{value:.6f}" for value in floats.ravel()).encode(),
        "base64": base64.b64encode(b"?" + floats.tobytes()),
    }


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_the_same_search_finds_them_when_they_are_sent_in_the_clear(proxied: Proxied, scheme: str) -> None:
    model, remote = odd("square"), proxied.remote("square")
    client = remote.client(scheme)
    scores = client.decrypt(remote.evaluate(client.encrypt(ROWS), client.link()))
    remote.close()
    hidden = secrets_of(model, client, scores, [exchange(proxied.inner.conversations[-1])])
    prepared = model.prepare(ROWS)
    bodies = {
        "inputs": written(ROWS), "scores": written(scores), "weights": written(model.layers[0].weights),
        "hidden layer": written(model.layers[0].pre_activations(prepared)), "prepared inputs": written(prepared),
        "passphrase": {"text": PASSPHRASE.encode(), "base64": base64.b64encode(f'{{"p":"{PASSPHRASE}"}}'.encode())},
        "secret key": {"sealed content": client._keys.secret._material()},
    }  # fmt: skip
    if scheme == "paillier":
        secret, x = client._keys.secret, client.encrypt(ROWS)
        bodies["secret key"] |= {"p": str(secret.p).encode(), "q": int(secret.q).to_bytes(64, "little")}
        value = int(secret.to_phe().raw_decrypt(int(x.data[0][0])))
        hidden["plaintexts"] |= traces.of_whole_number(value)
        bodies["plaintexts"] = {"integer": value.to_bytes(128, "big"), "digits": str(value).encode()}
    # the prepared inputs in a frame of hepipe's own, of the scheme that does not encrypt
    plain = Client(hepipe.plan(model, scheme="clear", samples=len(ROWS)))
    bodies["prepared inputs"]["frame"] = plain.pack(plain.encrypt(ROWS))
    assert bodies.keys() == hidden.keys()
    for what_it_is, forms in bodies.items():
        for form, body in forms.items():
            assert recorded(proxied, b"{" + body + b"}").found(hidden[what_it_is]), (what_it_is, form)


def test_a_message_in_the_clear_is_found_under_the_mask_of_its_websocket(proxied: Proxied) -> None:
    before, hidden = len(proxied.inner.conversations), traces.of_numbers(ROWS.to_numpy())

    def tell(conversation: WebSocketEnds) -> str:
        conversation.send_text(json.dumps({"rows": ROWS.to_numpy().tolist()}))
        return conversation.receive_text()

    answer = proxied.remote("square")._transport.converse("/v2/models/square/rounds", tell)
    assert json.loads(answer)["status"] == 400
    (one,) = proxied.inner.conversations[before:]
    assert traces.Record([bytes(one.up), bytes(one.down)]).found(hidden) == set()
    assert traces.Record(seen([one])).found(hidden)
