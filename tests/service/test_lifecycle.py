"""A server's life: what survives a restart, what a stop finishes, what a crash costs, and who else notices."""

from __future__ import annotations

import json
import os
import signal
import socket as sockets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from hepipe.errors import HepipeError
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import Kind, parse
from hepipe.service.inference import LENGTH_HEADER, Binding, pack_request, unpack_response
from hepipe.service.problems import Refused
from served_models import FRAME, made
from service.conftest import SAMPLES, Running, export, wait_for

X = FRAME.iloc[:SAMPLES]
Make = Callable[..., Running]


def right(client: Client, remote: Any, name: str = "linear") -> bool:
    scores = client.decrypt(remote.evaluate(client.encrypt(X), client.link()))
    return bool(np.abs(scores - clear_scores(made(name), X)).max() < 2.0**-7)


@contextmanager
def conversation(server: Running, client: Client, model: str = "powers") -> Iterator[tuple[ClientConnection, bytes]]:
    """A prediction with rounds, stopped at its first round: a worker waits for this client now."""
    url = server.url.replace("http", "ws") + f"/v2/models/{model}/rounds"
    headers = {"Authorization": f"Bearer {server.tokens['alice']}"}
    with connect(url, additional_headers=headers, close_timeout=1) as socket:
        socket.send('{"session": "slow", "seq": 1}')
        socket.send(client.pack(client.encrypt(X)))
        frame = socket.recv(30)
        assert isinstance(frame, bytes)
        yield socket, frame


def finish(socket: ClientConnection, client: Client, frame: Any) -> Any:
    """Answer the rounds from ``frame`` on; the scores."""
    while parse(frame, *Kind).kind != Kind.TENSOR:
        socket.send(client.answer(frame))
        frame = socket.recv(30)
    return client.decrypt(client.unpack(frame))


def test_a_restart_keeps_keys_and_models(own: Make) -> None:
    server = own("linear", "powers")
    remote = server.remote("linear")
    client = remote.client("ckks")
    assert right(client, remote)
    with server.http() as http:
        keys, models = (http.get(f"/v2/hepipe/{name}").json() for name in ("keys", "models"))
    for number in (signal.SIGTERM, signal.SIGKILL):
        server.stop(number)
        server.start()
        uploads = server.log.read_text().count("PUT")
        with server.http() as http:
            assert http.get("/v2/hepipe/keys").json() == keys
            assert http.get("/v2/hepipe/models").json() == models
        assert right(client, remote)  # the same client goes on, over a new connection
        assert server.log.read_text().count("PUT") == uploads


def test_a_stop_finishes_what_runs_and_takes_nothing_new(own: Make) -> None:
    server = own("linear", "powers")
    client = server.remote("powers").client("paillier")
    with conversation(server, client) as (socket, frame):
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(server))
        scores = finish(socket, client, frame)
        assert json.loads(socket.recv(30))["parameters"]["seq"] == 1
    assert np.abs(scores - clear_scores(made("powers"), X)).max() < 2.0**-7
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    assert server.workers() == []


def listens(server: Running) -> bool:
    with sockets.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) == 0


def test_a_killed_worker_is_one_failed_request_and_a_fresh_worker(own: Make) -> None:
    server = own("linear", "powers", options=("round_workers=1",))
    remote, powers = server.remote("linear"), server.remote("powers", retries=0)
    client, patient = remote.client("ckks"), powers.client("paillier")
    before = set(server.workers())
    with conversation(server, patient) as (socket, _):
        (busy,) = set(server.workers()) - before
        os.kill(busy, signal.SIGKILL)
        problem = json.loads(socket.recv(30))
        assert (problem["type"], problem["status"]) == ("urn:hepipe:problem:worker-lost", 503)
        assert right(client, remote)  # whose worker is another
    assert right(patient, powers, "powers")
    for pid in server.workers():  # all of them, idle now
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not server.workers())
    assert right(client, remote)


def test_a_client_that_leaves_or_sleeps_costs_nobody_else(own: Make) -> None:
    server = own("linear", "powers", options=("round_workers=1", "round_s=1"))
    powers = server.remote("powers")
    client = powers.client("paillier")
    with conversation(server, client) as (socket, _):
        problem = json.loads(socket.recv(20))  # nobody answers the round
        assert problem["type"] == "urn:hepipe:problem:deadline"
    with conversation(server, client):
        pass  # gone in the middle
    assert right(client, powers, "powers")


def test_a_deadline_ends_a_request_that_waits_for_a_worker(own: Make) -> None:
    server = own("powers", options=("round_workers=1", "session_s=2"))
    remote = server.remote("powers", retries=0)
    client = remote.client("paillier")
    with conversation(server, client), pytest.raises(Refused) as caught:
        right(client, remote, "powers")
    assert (caught.value.status, caught.value.kind) == (503, "deadline")


def test_a_reload_serves_the_new_version_and_finishes_the_old(own: Make) -> None:
    server = own("powers")
    client = server.remote("powers").client("paillier")
    with conversation(server, client) as (socket, frame):
        (server.folder / "models" / "powers-1.zip").unlink()
        export(server.folder / "models", "powers", version="2")
        export(server.folder / "models", "linear")
        server.process.send_signal(signal.SIGHUP)
        with server.http() as http:
            wait_for(lambda: "linear" in http.get("/v2/hepipe/models").json()["models"])
            assert http.get("/v2/hepipe/models").json()["models"] == {"linear": ["1"], "powers": ["2"]}
            assert http.get("/v2/models/powers/versions/1").status_code == 404
        scores = finish(socket, client, frame)
        assert json.loads(socket.recv(30))["model_version"] == "1"
    assert np.abs(scores - clear_scores(made("powers"), X)).max() < 2.0**-7
    remote = server.remote("powers")
    assert right(remote.client("paillier"), remote, "powers")


def test_a_bad_bundle_leaves_everything_as_it_was(own: Make) -> None:
    server = own("linear")
    (server.folder / "models" / "bad.zip").write_bytes(b"PK")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "models as before: bad.zip" in server.log.read_text())
    remote = server.remote("linear")
    assert right(remote.client("ckks"), remote)


def test_two_versions_are_served_by_name_and_the_latest_by_default(own: Make) -> None:
    server = own("linear")
    for version in ("9", "10"):
        export(server.folder / "models", "linear", version=version)
    server.process.send_signal(signal.SIGHUP)
    with server.http() as http:
        wait_for(lambda: len(http.get("/v2/models/linear").json()["versions"]) == 3)
        assert http.get("/v2/models/linear").json()["versions"] == ["1", "9", "10"]
        assert http.get("/v2/models/linear/profile").json()["version"] == "10"
    remote = server.remote("linear", version="9")
    assert remote.plan("ckks").version == "9"
    assert right(remote.client("ckks"), remote)


def test_a_damaged_stored_key_is_found_and_mended_by_its_client(own: Make) -> None:
    server = own("linear", options=("workers=1",))
    remote = server.remote("linear")
    client = remote.client("ckks")
    (stored,) = [path for path in (server.folder / "state" / "keys").rglob("*-*") if path.is_file()]
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(bytes(data))
    with pytest.raises(Refused, match="damaged"):
        right(client, remote)
    remote._upload(client)
    assert right(client, remote)


def test_requests_beyond_the_rate_wait_or_are_refused(own: Make) -> None:
    server = own("linear", options=("rate=1", "burst=3", "rows=20"))
    remote = server.remote("linear", retries=0)
    client = remote.client("ckks")
    statuses = []
    for _ in range(5):
        try:
            remote.evaluate(client.encrypt(X))
            statuses.append(200)
        except Refused as refused:
            statuses.append(refused.status)
    assert statuses[:2] == [200, 200]
    assert 429 in statuses
    patient = server.remote("linear", retries=5)
    patient.register(client)
    assert right(client, patient)


def test_rows_beyond_the_budget_are_refused_also_after_a_restart(own: Make) -> None:
    server = own("linear", options=("rows=7",))
    remote = server.remote("linear", retries=0)
    client = remote.client("ckks")
    assert right(client, remote)
    server.stop()
    server.start()
    assert right(client, remote)
    with pytest.raises(Refused, match="only 1 of 7 are left"):
        remote.evaluate(client.encrypt(X))
    assert len(client.predict(remote, X.iloc[:1])) == 1


def test_a_lost_answer_is_asked_for_again_and_evaluated_once(own: Make) -> None:
    """The connection breaks after the request arrived; the same session and seq get the stored reply."""
    server = own("linear", options=("rows=3",))  # a second evaluation would be over the budget
    client = server.remote("linear").client("ckks")
    frame = client.pack(client.encrypt(X))
    body, length = pack_request(frame, Binding("", "lost", 1))
    head = (
        f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.tokens['alice']}\r\n"
        f"{LENGTH_HEADER}: {length}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with sockets.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
        raw.sendall(head.encode() + body)
    wait_for(lambda: "POST /v2/models/{model}/infer 200" in server.log.read_text())
    with server.http() as http:
        answer = http.post("/v2/models/linear/infer", content=body, headers={LENGTH_HEADER: str(length)})
    assert answer.status_code == 200, answer.text
    result, _ = unpack_response(answer.content, answer.headers[LENGTH_HEADER])
    assert np.abs(client.decrypt(client.unpack(result)) - clear_scores(made("linear"), X)).max() < 2.0**-7


def test_a_body_that_trickles_is_given_up_in_time(own: Make) -> None:
    server = own("linear", options=("body_s=1",))
    head = (
        f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.tokens['alice']}\r\n"
        f"{LENGTH_HEADER}: 9\r\nContent-Length: 1000\r\n\r\n"
    )
    with sockets.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20) as raw:
        raw.sendall(head.encode())
        stop = threading.Event()
        thread = threading.Thread(target=trickle, args=(raw, stop))
        thread.start()
        answer = raw.recv(4096)
        stop.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"urn:hepipe:problem:deadline" in answer or b"application/problem+json" in answer


def trickle(raw: sockets.socket, stop: threading.Event) -> None:
    for _ in range(200):
        try:
            raw.sendall(b"x")
        except OSError:
            return
        if stop.wait(0.1):
            return


def test_clients_at_once_get_their_own_answers(own: Make) -> None:
    server = own("linear", tokens=("alice", "bob"))
    failures: list[Any] = []

    def ask(tenant: str, scheme: str, start: int) -> None:
        try:
            remote = server.remote("linear", tenant)
            client, rows = remote.client(scheme), FRAME.iloc[start : start + SAMPLES]
            for _ in range(4):
                found = client.predict(remote, rows)
                assert np.abs(found - clear_scores(made("linear"), rows)[:, 0]).max() < 2.0**-7
        except (HepipeError, AssertionError) as error:
            failures.append(error)

    cases = [("alice", "ckks", 0), ("alice", "paillier", 9), ("bob", "ckks", 20), ("bob", "paillier", 30)]
    threads = [threading.Thread(target=ask, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
