"""nginx as users are given it: what it writes down and refuses, and a server that stops and starts behind it."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx2
import numpy as np
import pytest

from hepipe.errors import PeerLost
from hepipe.models.bundle import Bundle, Settings, save
from hepipe.models.logistic import clear_scores
from hepipe.service.inference import LENGTH_HEADER
from hepipe.service.problems import Refused
from service.conftest import SMALL, Running, wait_for
from service.odd_models import ROWS, odd
from service.proxy import Nginx, Proxied, needs_nginx
from service.test_tls import certify

pytestmark = needs_nginx


# --- what nginx keeps, and refuses ------------------------------------------------------------------------------------


def test_nginx_writes_down_no_path_address_or_token_and_no_body(proxied: Proxied, tmp_path: Path) -> None:
    remote = proxied.remote("linear")
    client = remote.client("ckks")
    client.predict(remote, ROWS)
    remote.close()
    lines = wait_for(lambda: (proxied.folder / "hepipe.log").read_text().splitlines()[-4:])
    for line in lines:
        assert re.fullmatch(r"\S+T\S+ (GET|PUT|POST) \d{3} \d+ \d+ [0-9.]+", line), line
    texts = [path.read_text() for path in (proxied.folder / "hepipe-error.log", proxied.folder / "start.log")]
    assert [text for text in texts if client.public().key_id in text or proxied.server.tokens["alice"] in text] == []
    assert not [path for path in (proxied.folder / "temporary").rglob("*") if path.is_file()]


def test_nginx_speaks_tls_1_3_only(proxied: Proxied) -> None:
    old = ssl.create_default_context(cafile=str(proxied.authority))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx2.TransportError), httpx2.Client(verify=old) as client:
        client.get(f"{proxied.url}/v2")
    with httpx2.Client() as client:
        assert client.get(proxied.url.replace("https", "http") + "/v2").status_code == 400
    with pytest.raises(PeerLost):  # an authority that nobody vouches for
        proxied.remote("linear", authority=None, retries=0).plan("ckks")


def test_sizes_are_refused_by_the_server_and_before_it_by_nginx(proxied: Proxied, tmp_path: Path) -> None:
    """Without relays: they close both ways where one breaks, and these bodies are refused while they are sent.

    A connection a request, because nginx may end one whose body it did not read whole.
    """
    certify(tmp_path)
    nginx = Nginx(tmp_path, int(proxied.server.url.rpartition(":")[2]))
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    headers = proxied.headers | {LENGTH_HEADER: "1"}
    fresh = httpx2.Limits(max_keepalive_connections=0)
    with httpx2.Client(
        base_url=f"https://127.0.0.1:{nginx.port}", headers=headers, verify=trusted, limits=fresh, timeout=60
    ) as client:
        for size in (1 << 18, *[10 << 20] * 4):
            announced = client.post("/v2/models/linear/infer", content=bytes(size))
            assert (announced.status_code, announced.json()["type"]) == (413, "urn:hepipe:problem:too-large")
        chunked = client.post("/v2/models/linear/infer", content=(bytes(4096) for _ in range(100)))
        assert chunked.status_code == 413
    nginx.stop()
    with raw(proxied, "PUT /v2/hepipe/keys/" + "0" * 32, 600 << 20) as one:
        assert one.recv(4096).startswith(b"HTTP/1.1 413 ")


def raw(proxied: Proxied, line: str, length: int) -> ssl.SSLSocket:
    """A connection with the head of a request whose body does not come."""
    plain = socket.create_connection(("127.0.0.1", proxied.outer.port), timeout=60)
    one = proxied.trusted.wrap_socket(plain, server_hostname="127.0.0.1")
    token = proxied.server.tokens["alice"]
    one.sendall(
        f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return one


def test_more_requests_at_once_than_an_address_may_have_are_refused(proxied: Proxied) -> None:
    before = len(proxied.inner.conversations)
    with ExitStack() as open_ones:
        for _ in range(32):
            open_ones.enter_context(raw(proxied, "POST /v2/models/linear/infer", 1000))
        wait_for(lambda: len(proxied.inner.conversations) >= before + 32)
        with pytest.raises(Refused, match="429") as caught:
            proxied.remote("linear", retries=0).plan("ckks")
        assert caught.value.kind == "too-many"
        assert len(proxied.inner.conversations) == before + 32
    patient = proxied.remote("linear", retries=10)
    assert patient.plan("ckks").rounds == 0
    patient.close()


# --- the server behind it ---------------------------------------------------------------------------------------------


def test_a_stop_behind_nginx_finishes_rounds_and_costs_a_client_only_time(proxied: Proxied) -> None:
    hasty, patient = (proxied.remote("square", retries=retries) for retries in (0, 10))
    client, scores = hasty.client("paillier"), clear_scores(odd("square"), ROWS)
    server, bound = proxied.server, hasty.plan("paillier").error_bound
    stopping = threading.Thread(target=server.stop, args=(signal.SIGTERM,))

    class Stopping:
        """A link whose first round finds the server told to stop."""

        inner = client.link()

        def request(self, kind: str, frame: bytes) -> bytes:
            stopping.start()
            wait_for(lambda: not listens(server))
            return self.inner.request(kind, frame)

    assert np.abs(client.decrypt(hasty.evaluate(client.encrypt(ROWS), Stopping())) - scores).max() <= bound
    stopping.join()
    for _ in range(50):  # each time; of the handshakes that two threads shared, one in 170 was never answered
        with pytest.raises(Refused, match="502") as caught:
            hasty.evaluate(client.encrypt(ROWS), client.link())
        assert caught.value.kind == "busy"
    starting = threading.Thread(target=server.start)
    starting.start()
    patient.register(client)
    assert np.abs(client.decrypt(patient.evaluate(client.encrypt(ROWS), client.link())) - scores).max() <= bound
    starting.join()
    for each in (hasty, patient):
        each.close()


def listens(server: Running) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) == 0


def test_a_server_without_tokens_takes_nobody_behind_nginx_for_its_own_user(
    tmp_path: Path,
) -> None:
    """Whatever the request says of its host and of where it comes from."""
    (tmp_path / "models").mkdir()
    save(tmp_path / "models" / "linear.zip", Bundle(odd("linear"), "linear", "1", Settings(("ckks",), **SMALL)))
    (tmp_path / "nginx").mkdir()
    certify(tmp_path / "nginx")
    server = Running(tmp_path, ("workers=1",))
    server.start()
    middle = Proxied(server, tmp_path / "nginx")
    try:
        with server.http(None) as direct:
            assert direct.get("/v2/hepipe/models").status_code == 200
        for lie in ({}, {"Host": "localhost"}, {"Host": "127.0.0.1:8800"}, {"X-Forwarded-Host": "localhost"},
                    {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1;host=localhost"}):  # fmt: skip
            with middle.http(**lie) as client:
                answer = client.get("/v2/hepipe/models")
                assert (answer.status_code, "for this machine" in answer.json()["detail"]) == (401, True), lie
    finally:
        middle.stop()
        server.stop()
