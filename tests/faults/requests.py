"""Requests that are not what they should be: sessions, keys, versions, levels, sizes and values."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import numpy as np

from faults.catalogue import fault
from faults.scene import SCHEMES, Ending, Party, Scene, X, other_linear
from hepipe.models.bundle import Bundle, Settings
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import HEADER_BYTES, Kind, parse
from hepipe.service.inference import LENGTH_HEADER, unpack_response
from hepipe.service.problems import Refused
from hepipe.service.transport import WebSocketEnds
from service.conftest import SMALL
from service.test_protocol import post
from service.test_uploads import secret_uploads

ROW = [[30.0, 5.0, 5.0]]


def fresh(party: Party, rows: Any = ROW) -> bytes:
    return party.client.pack(party.client.encrypt(rows))


def session() -> str:
    return secrets.token_hex(8)


def posted(party: Party, frame: bytes, *place: Any, model: str = "linear") -> Any:
    """The scores that a frame brings, sent as it is."""
    answer = post(party.scene.running, frame, *place, model=model)
    if answer.status_code >= 400:
        raise Refused.from_body(answer.content, answer.status_code)
    result, _ = unpack_response(answer.content, answer.headers[LENGTH_HEADER])
    return party.client.decrypt(party.client.unpack(result))


def sent(party: Party, frame: bytes, *place: Any, rows: Any = ROW, model: str = "linear") -> Ending:
    return party.ends(lambda: posted(party, frame, *place, model=model), rows)


def refused(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call for an HTTP answer, as one that raises what it refuses."""

    def raising() -> Any:
        answer = call()
        raise Refused.from_body(answer.content, answer.status_code)

    return raising


@fault("stale session", "right", "conflict")
def stale_session(scene: Scene, number: int) -> Iterator[Ending]:
    """A request of long ago, after its session went on; and one that was never sent, behind it."""
    party, name = scene.party("linear", SCHEMES[number % 2]), session()
    yield sent(party, fresh(party), name, 5)
    stale = sent(party, fresh(party), name, 4)
    assert stale.how == "conflict"
    yield stale
    yield sent(party, fresh(party), name, 6)


@fault("unknown session", "right")
def unknown_session(scene: Scene, number: int) -> Iterator[Ending]:
    """A session that the server has never seen, or has forgotten, begins wherever its client is."""
    party = scene.party("linear", SCHEMES[number % 2])
    yield sent(party, fresh(party), session(), 2**53 - 1)


@fault("replayed seq", "right", "conflict")
def replayed(scene: Scene, number: int) -> Iterator[Ending]:
    """The same bytes get the stored reply, others at their place none."""
    party, name = scene.party("linear", SCHEMES[number % 2]), session()
    frame = fresh(party)
    first, again = (post(scene.running, frame, name, 1).content for _ in range(2))
    assert first == again
    yield sent(party, frame, name, 1)
    yield sent(party, fresh(party), name, 1)


@fault("two clients same session id", "right", "conflict")
def same_session(scene: Scene, number: int) -> Iterator[Ending]:
    """Of one key at one place at once: one is answered. Other keys and tenants are elsewhere."""
    name, scheme = session(), SCHEMES[number % 2]
    one, other = scene.party("linear", scheme), scene.party("linear", SCHEMES[1 - number % 2])
    rows, together = ([[30.0, 5.0, 5.0]], [[60.0, 1.0, 9.0]]), Barrier(2)

    def ask(row: Any) -> Ending:
        frame = fresh(one, row)
        together.wait(30)
        return sent(one, frame, name, 1, rows=row)

    with ThreadPoolExecutor(2) as threads:
        endings = list(threads.map(ask, rows))
    assert sorted(ending.how for ending in endings) == ["conflict", "right"]
    yield from endings
    yield sent(other, fresh(other), name, 1)


@fault("wrong key_id", "unknown", "malformed")
def wrong_key_id(scene: Scene, number: int) -> Iterator[Ending]:
    """A frame under the id of nobody's key, of another tenant's, and of one for another plan."""
    party = scene.party("linear", SCHEMES[number % 2])
    ids = (secrets.token_hex(16), scene.party(tenant="bob").client, scene.party("powers", party.scheme).client)
    for each in ids:
        key_id = each if isinstance(each, str) else each.public().key_id
        yield sent(party, replace(parse(fresh(party), Kind.TENSOR), key_id=key_id).to_bytes())


@fault("right id, wrong key", "malformed", "MalformedFrame", "KeyMismatch", "OutOfRange")
def wrong_key(scene: Scene, number: int) -> Iterator[Ending]:
    """Another key behind an id: in an upload, in a tensor, and at the decryptor."""
    party = Party(scene, "alice", "linear", SCHEMES[number % 2])
    other = Client(party.server().plan(party.scheme))
    key_id = party.client.public().key_id
    with scene.running.http() as http:
        yield party.ends(refused(lambda: http.put(f"/v2/hepipe/keys/{key_id}", content=other.registration_bytes())))
    relabelled = replace(other.encrypt(ROW), key_id=key_id)
    server = party.reached()
    yield party.ends(lambda: party.client.decrypt(server.evaluate(relabelled)), ROW)
    answer = server.evaluate(party.client.encrypt(ROW))
    yield party.ends(lambda: other.decrypt(replace(answer, key_id=other.public().key_id)), ROW)
    server.unregister(party.client)


@fault("wrong model version", "right", "unknown", "MalformedFrame")
def wrong_version(scene: Scene, number: int) -> Iterator[Ending]:
    """One that is not there; then another model takes the name while a client holds the plan of the first."""
    party = scene.party("linear", SCHEMES[number % 2])
    server = party.reached()
    absent = party.server(version="7", retries=0)
    yield party.ends(lambda: absent.plan(party.scheme))
    newest = party.server(version=None, retries=0)
    newest.register(party.client)
    newest.plan(party.scheme)
    path = scene.save(Bundle(other_linear(), "linear", "2", Settings(SCHEMES, **SMALL)))
    try:
        scene.reload()
        yield party.ask(newest)
        yield party.ask(server)
    finally:
        path.unlink()
        scene.reload()


@fault("wrong schema", "ShapeMismatch", "OutOfRange", "DataError", "malformed", "refused")
def wrong_schema(scene: Scene, number: int) -> Iterator[Ending]:
    """Columns that are not the model's, a value outside its range, and a tensor of another width or too many rows."""
    party = scene.party("linear", SCHEMES[number % 2])
    for rows in (X.drop(columns="age"), X.rename(columns={"age": "wage"}), X.assign(age=99), X.to_numpy()[:, :2]):
        yield party.ask(rows=rows)
    yield sent(party, party.client.pack(party.client._encryptor.encrypt(np.zeros((1, 2)), 1.0)))
    yield sent(party, party.client.pack(party.client._encryptor.encrypt(np.zeros((9, 3)), 1.0)))


@fault("oversize", "too-large", "malformed", "PeerLost")
def oversize(scene: Scene, number: int) -> Iterator[Ending]:
    """Bodies over the limit, announced or not, of requests and keys; a message of a WebSocket."""
    size, party = 1 << 22, scene.party()
    with scene.running.http() as http:
        for path, method in (("/v2/models/linear/infer", "POST"), (f"/v2/hepipe/keys/{'0' * 32}", "PUT")):
            for content in (bytes(size), (bytes(1 << 16) for _ in range(size >> 16))):
                yield party.ends(
                    refused(
                        lambda m=method, p=path, c=content: http.request(m, p, content=c, headers={LENGTH_HEADER: "1"})
                    )
                )
    yield party.ends(lambda: _said(scene, "{}", bytes(size)))


def _said(scene: Scene, *messages: str | bytes) -> Any:
    """What the server says to messages in a prediction with rounds."""

    def talk(ends: WebSocketEnds) -> bytes:
        for message in messages:
            ends.send_text(message) if isinstance(message, str) else ends.send(message)
        return ends.receive()

    return scene.party().reached()._transport.converse("/v2/models/powers/rounds", talk)


@fault("empty", "malformed", "ShapeMismatch", "DataError", "OutOfRange")
def empty(scene: Scene, number: int) -> Iterator[Ending]:
    """An empty body, frame, upload, message and table."""
    party = scene.party("linear", SCHEMES[number % 2])
    yield sent(party, b"")
    with scene.running.http() as http:
        yield party.ends(refused(lambda: http.post("/v2/models/linear/infer", content=b"")))
        yield party.ends(refused(lambda: http.put(f"/v2/hepipe/keys/{'0' * 32}", content=b"")))
    for messages in (("",), ("{}", b"")):
        yield party.ends(lambda messages=messages: _said(scene, *messages))
    yield party.ask(rows=X.iloc[:0])


@fault("context with secret key", "secret-key", "too-large")
def secret_context(scene: Scene, number: int) -> Iterator[Ending]:
    """Every format in which a secret key may be sent by mistake."""
    folder = scene.folder / session()
    folder.mkdir()
    with scene.running.http() as http:
        for data in secret_uploads(folder).values():
            yield scene.party().ends(refused(lambda data=data: http.put(f"/v2/hepipe/keys/{'0' * 32}", content=data)))


@fault("NaN/inf input", "OutOfRange", "DataError", "malformed")
def not_finite(scene: Scene, number: int) -> Iterator[Ending]:
    """In a row, and in the numbers of a frame's header."""
    party = scene.party("linear", SCHEMES[number % 2])
    for value in (np.nan, np.inf, -np.inf):
        yield party.ask(rows=X.assign(active=[1.0, value, 2.0]))
        frame = fresh(party)
        scale = struct.pack(">d", value)
        place = frame.index(struct.pack(">d", parse(frame, Kind.TENSOR).log_scale), 0, HEADER_BYTES)
        yield sent(party, frame[:place] + scale + frame[place + 8 :])


@fault("level exhausted", "malformed")
def exhausted(scene: Scene, number: int) -> Iterator[Ending]:
    """A tensor with no level left for the circuit, whether its header says so or not."""
    party = scene.party(*[("linear", "ckks"), ("powers", "ckks"), ("linear", "paillier")][number % 3])
    client = party.client
    width = client.encrypt(ROW).shape[1]
    low = client.pack(replace(client._encryptor.encrypt(np.zeros((1, width)), 1.0), level=0))
    yield sent(party, low, model=party.name)
    head = parse(client.pack(client.encrypt(ROW)), Kind.TENSOR)
    yield sent(
        party,
        replace(parse(low, Kind.TENSOR), level=head.level, log_scale=head.log_scale + 1).to_bytes(),
        model=party.name,
    )
