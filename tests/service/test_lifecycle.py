"""A server's life: what survives a restart, what a stop finishes, what a crash costs, and who else notices."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from hepipe.errors import HepipeError
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import Kind, bound_to, parse
from hepipe.service.inference import LENGTH_HEADER, Binding, pack_request, unpack_response
from hepipe.service.problems import Refused
from hepipe.service.run import Address, _bound
from hepipe.service.tenants import add_tenant
from served_models import FRAME, made
from service.conftest import SAMPLES, TESTS, Running, export, wait_for

X = FRAME.iloc[:SAMPLES]
Make = Callable[..., Running]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that these tests hurt one after another, and that each of them leaves at work."""
    server = Running(tmp_path_factory.mktemp("life"), ("workers=1", "round_workers=1", "round_s=8", "body_s=5"))
    export(server.folder / "models", "linear", "powers")
    server.tokens = {
        name: add_tenant(server.folder / "tokens", name, name == "root") for name in ("alice", "bob", "root")
    }
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop(signal.SIGKILL)


def right(client: Client, remote: Any, name: str = "linear") -> bool:
    scores = client.decrypt(remote.evaluate(client.encrypt(X), client.link()))
    return bool(np.abs(scores - clear_scores(made(name), X)).max() < 2.0**-7)


@contextmanager
def conversation(
    server: Running, client: Client, session: str = "slow", request: bytes = b"", tenant: str = "alice"
) -> Iterator[tuple[ClientConnection, bytes]]:
    """A prediction with rounds, stopped at its first round: a worker waits for this client now."""
    url = server.url.replace("http", "ws") + "/v2/models/powers/rounds"
    headers = {"Authorization": f"Bearer {server.tokens[tenant]}"}
    with connect(url, additional_headers=headers, close_timeout=1) as socket:
        socket.send(json.dumps({"session": session, "seq": 1}))
        socket.send(request or client.pack(client.encrypt(X)))
        frame = socket.recv(30)
        assert isinstance(frame, bytes)
        yield socket, frame


def finish(socket: ClientConnection, client: Client, frame: Any) -> Any:
    """Answer the rounds from ``frame`` on; the scores."""
    while parse(frame, *Kind).kind != Kind.TENSOR:
        socket.send(bound_to(frame, client.answer(frame)))
        frame = socket.recv(30)
    return client.decrypt(client.unpack(frame))


def listens(server: Running) -> bool:
    with sockets.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) == 0


def test_clients_at_once_get_their_own_answers(life: Running) -> None:
    failures: list[Any] = []

    def ask(tenant: str, scheme: str, start: int) -> None:
        try:
            remote = life.remote("linear", tenant)
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


def test_a_lost_answer_is_asked_for_again_and_evaluated_once(life: Running) -> None:
    """The connection breaks before the answer is read; the same session and seq get the stored reply."""
    client = life.remote("linear").client("ckks")
    body, length = pack_request(client.pack(client.encrypt(X)), Binding("", "lost", 1))
    head = (
        f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {life.tokens['alice']}\r\n"
        f"{LENGTH_HEADER}: {length}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answered = life.log.read_text().count("POST /v2/models/{model}/infer 200")
    with sockets.create_connection(("127.0.0.1", int(life.url.rpartition(":")[2]))) as raw:
        raw.sendall(head.encode() + body)
        wait_for(lambda: life.log.read_text().count("POST /v2/models/{model}/infer 200") > answered)
    with life.http() as http, life.http("root") as root:
        before = counters(root.get("/metrics").text)
        answer = http.post("/v2/models/linear/infer", content=body, headers={LENGTH_HEADER: str(length)})
        after = counters(root.get("/metrics").text)
    assert answer.status_code == 200, answer.text
    result, _ = unpack_response(answer.content, answer.headers[LENGTH_HEADER])
    assert np.abs(client.decrypt(client.unpack(result)) - clear_scores(made("linear"), X)).max() < 2.0**-7
    assert after["hepipe_replays_total"] == before["hepipe_replays_total"] + 1
    rows = 'hepipe_rows_total{model="linear",scheme="ckks"}'
    assert after[rows] == before[rows]


def counters(text: str) -> dict[str, float]:
    """The samples of Prometheus's text format."""
    pairs = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_a_reload_serves_new_versions_and_finishes_the_old_one(life: Running) -> None:
    models = life.folder / "models"
    client = life.remote("powers").client("paillier")
    with conversation(life, client, session="reload") as (socket, frame):
        (models / "powers-1.zip").unlink()
        export(models, "powers", version="2")
        for version in ("9", "10"):
            export(models, "linear", version=version)
        life.process.send_signal(signal.SIGHUP)
        with life.http() as http:
            wanted = {"linear": ["1", "9", "10"], "powers": ["2"]}
            wait_for(lambda: http.get("/v2/hepipe/models").json()["models"] == wanted)
            assert http.get("/v2/models/powers/versions/1").status_code == 404
            assert http.get("/v2/models/linear").json()["versions"] == ["1", "9", "10"]
            assert http.get("/v2/models/linear/profile").json()["version"] == "10"
        scores = finish(socket, client, frame)
        assert json.loads(socket.recv(30))["model_version"] == "1"
    assert np.abs(scores - clear_scores(made("powers"), X)).max() < 2.0**-7
    remote = life.remote("linear", version="9")
    assert remote.plan("ckks").version == "9"
    assert right(remote.client("ckks"), remote)


def test_rows_and_requests_beyond_their_budgets_are_refused_also_after_a_restart(own: Make) -> None:
    server = own("linear", options=("rows=7", "rate=0.1", "burst=3"))
    remote = server.remote("linear", retries=0)
    client = remote.client("ckks")
    assert right(client, remote)
    server.stop()
    server.start()
    assert right(client, remote)
    with pytest.raises(Refused, match="only 1 of 7 are left") as caught:
        remote.evaluate(client.encrypt(X))
    assert caught.value.status == 429
    key_id = client.public().key_id
    with server.http() as http:
        answers = [http.put(f"/v2/hepipe/keys/{key_id}", content=client.registration_bytes()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 10


def test_a_restart_keeps_keys_and_models(life: Running) -> None:
    remote, powers = life.remote("linear"), life.remote("powers")
    client, patient = remote.client("ckks"), powers.client("paillier")
    assert right(client, remote)
    with life.http() as http:
        keys, models = (http.get(f"/v2/hepipe/{name}").json() for name in ("keys", "models"))
    for number in (signal.SIGTERM, signal.SIGKILL):
        life.stop(number)
        life.start()
        uploads = life.log.read_text().count("PUT")
        with life.http() as http:
            assert http.get("/v2/hepipe/keys").json() == keys
            assert http.get("/v2/hepipe/models").json() == models
        assert right(client, remote)  # the same clients go on, over new connections, with rounds and without
        assert right(patient, powers, "powers")
        assert life.log.read_text().count("PUT") == uploads


def test_the_log_says_what_was_asked_and_not_by_whom(life: Running) -> None:
    remote = life.remote("powers")
    client = remote.client("paillier")
    written = len(life.log.read_text())
    remote.evaluate(client.encrypt(X), client.link())
    remote.close()
    said = wait_for(lambda: (text := life.log.read_text()[written:]).count("WEBSOCKET") and text)
    assert "WEBSOCKET /v2/models/{model}/rounds 1000" in said
    for secret in ("127.0.0.1", "powers", client.public().key_id, life.tokens["alice"]):
        assert secret not in said


def test_a_stop_finishes_what_runs_and_takes_nothing_new(life: Running) -> None:
    """Rounds in their middle, and a request without rounds of which the last byte has not come yet."""
    client, other = life.remote("powers").client("paillier"), life.remote("linear").client("ckks")
    body, length = pack_request(other.pack(other.encrypt(X)), Binding("", "stop", 1))
    head = (
        f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {life.tokens['alice']}\r\n"
        f"{LENGTH_HEADER}: {length}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        conversation(life, client) as (socket, frame),
        sockets.create_connection(("127.0.0.1", int(life.url.rpartition(":")[2])), timeout=30) as raw,
    ):
        raw.sendall(head.encode() + body[:-1])
        assert raw.recv(4096).startswith(b"HTTP/1.1 100 ")  # it is being answered
        life.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(life))
        raw.sendall(body[-1:])
        scores = finish(socket, client, frame)
        assert json.loads(socket.recv(30))["parameters"]["seq"] == 1
        answer = b"".join(iter(lambda: raw.recv(1 << 16), b""))
    assert np.abs(scores - clear_scores(made("powers"), X)).max() < 2.0**-7
    top, _, reply = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200 "), answer
    result, _ = unpack_response(reply, re.search(rf"{LENGTH_HEADER}: (\d+)", top.decode(), re.IGNORECASE)[1])
    assert np.abs(other.decrypt(other.unpack(result)) - clear_scores(made("linear"), X)).max() < 2.0**-7
    assert life.process.wait(30) in (0, -signal.SIGTERM)
    assert life.workers() == []


def test_a_server_that_cannot_start_ends(tmp_path: Path) -> None:
    """Its first worker is not ready in time, and ignores the signal that a parent's exit sends."""
    export(tmp_path / "models", "linear")
    words = [sys.executable, str(TESTS / "service" / "server.py"), str(tmp_path), "0", "deadline_s=0.05"]
    ended = subprocess.run(words, capture_output=True, timeout=120, check=False)
    assert ended.stdout == b""
    assert b"not done within 0.05 s" in ended.stderr


def test_answers_do_not_wait_for_the_client_to_acknowledge_their_head() -> None:
    """asyncio sets TCP_NODELAY on what a listener accepts if the listener names TCP, and only then."""
    assert asyncio.run(_nodelay(_bound(Address(port=0))))


async def _nodelay(listener: sockets.socket) -> int:
    found = asyncio.get_running_loop().create_future()

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(accepted, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.close()
        return await found
