"""Tokens, and two tenants who cannot see each other: every route, every id of the other, the same words as for none."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hepipe.errors import DataError
from hepipe.service.inference import LENGTH_HEADER, Binding, pack_request
from hepipe.service.problems import Refused
from hepipe.service.tenants import LOCAL, Tenants, add_tenant
from served_models import FRAME
from service.conftest import SAMPLES, Running

X = FRAME.iloc[:SAMPLES]


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_opens_for_its_tenant_only(tmp_path: Path) -> None:
    tokens = {name: add_tenant(tmp_path / "t", name, name == "root") for name in ("alice", "bob", "root")}
    tenants = Tenants.load(tmp_path / "t")
    for name, token in tokens.items():
        tenant = tenants.authenticate(f"Bearer {token}")
        assert (tenant.name, tenant.operator) == (name, name == "root")
        assert tenants.authenticate(f"bearer {token}") == tenant
    assert len({tenants.authenticate(f"Bearer {token}").folder for token in tokens.values()}) == 3
    token = tokens["alice"]
    for wrong in (None, "", "Bearer", "Bearer ", token, f"Basic {token}", f"Bearer {token[:-1]}", f"Bearer {token}x",
                  f"Bearer {token.upper()}", "Bearer hepipe_"):  # fmt: skip
        with pytest.raises(Refused) as caught:
            tenants.authenticate(wrong)
        assert caught.value.status == 401
        assert caught.value.headers()["WWW-Authenticate"] == "Bearer"


def test_the_file_holds_hashes_and_is_its_owners(tmp_path: Path) -> None:
    token = add_tenant(tmp_path / "t", "alice")
    assert token not in (tmp_path / "t").read_text()
    assert token.removeprefix("hepipe_") not in (tmp_path / "t").read_text()
    assert len(token) >= 43 + len("hepipe_")
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    with pytest.raises(DataError, match="taken"):
        add_tenant(tmp_path / "t", "alice")


@pytest.mark.parametrize("name", ["", "a b", "../a", "x" * 65, "ü"])
def test_a_tenants_name_is_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        add_tenant(tmp_path / "t", name)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "change",
    [lambda f: f.clear(), lambda f: f.update(tenants=[]), lambda f: f.update(version=2),
     lambda f: f["tenants"].append(f["tenants"][0]), lambda f: f["tenants"][0].update(sha256="x"),
     lambda f: f["tenants"][0].update(operator="yes"), lambda f: f["tenants"][0].pop("name"),
     lambda f: f.update(tenants={}), lambda f: f["tenants"].append(f["tenants"][0] | {"name": "twin"})],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(tmp_path: Path, change: Any) -> None:
    add_tenant(tmp_path / "t", "alice")
    fields = json.loads((tmp_path / "t").read_text())
    change(fields)
    (tmp_path / "t").write_text(json.dumps(fields))
    with pytest.raises(DataError):
        Tenants.load(tmp_path / "t")


def test_without_tokens_there_is_one_tenant() -> None:
    for host in ("localhost:8800", "127.0.0.1", "127.0.0.1:8800", "[::1]:8800"):
        assert Tenants({}).authenticate(None, host) == LOCAL
    for host in (None, "", "evil.example:8800", "127.0.0.1.nip.io", "[", "a@b"):  # a name that was made to lead here
        with pytest.raises(Refused, match="for this machine"):
            Tenants({}).authenticate(None, host)


# --- two tenants ------------------------------------------------------------------------------------------------------


def shown(answer: Any, *ids: str) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """All of an answer but its date and the ids that the asker sent himself."""
    text = answer.text
    for one in ids:
        text = text.replace(one, "ID")
    kept = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    return answer.status_code, text, tuple(sorted(kept.items()))


def test_nothing_of_one_tenant_is_reachable_with_anothers_token(running: Running) -> None:
    """Every route that takes an id, with every id of alice: bob gets the very answer he gets for an id of nobody."""
    remote = running.remote("linear", "alice")
    client = remote.client("paillier")
    link, frame = client.link(), client.pack(client.encrypt(X))
    remote.evaluate(client.encrypt(X), link)
    mine, nobodys = client.public().key_id, secrets.token_hex(16)
    with running.http("alice") as alice, running.http("bob") as bob:
        assert alice.get(f"/v2/hepipe/keys/{mine}").status_code == 200
        for method in ("GET", "DELETE"):
            answers = [bob.request(method, f"/v2/hepipe/keys/{key_id}") for key_id in (mine, nobodys)]
            assert answers[0].status_code == 404
            assert shown(answers[0], mine) == shown(answers[1], nobodys)
        assert mine not in bob.get("/v2/hepipe/keys").text
        assert mine in alice.get("/v2/hepipe/keys").text
        # alice's own session, replayed by bob with her very bytes, is a request under a key that he does not have
        body, length = pack_request(frame, Binding("", "alices", 1))
        headers = {LENGTH_HEADER: str(length)}
        first = alice.post("/v2/models/linear/infer", content=body, headers=headers)
        assert first.status_code == 200
        stolen = bob.post("/v2/models/linear/infer", content=body, headers=headers)
        assert (stolen.status_code, "upload it" in stolen.json()["detail"]) == (404, True)
        assert alice.get(f"/v2/hepipe/keys/{mine}").status_code == 200


def test_two_tenants_with_the_same_key_and_session_have_a_reply_each(running: Running) -> None:
    """Whoever copies public key and request gets an evaluation of his own: he learns nothing of the other's."""
    client = running.remote("linear", "alice").client("paillier")
    running.remote("linear", "bob").register(client)
    body, length = pack_request(client.pack(client.encrypt(X)), Binding("", "shared", 1))
    replies = []
    for tenant in ("alice", "bob", "alice", "bob"):
        with running.http(tenant) as http:
            replies.append(
                http.post("/v2/models/linear/infer", content=body, headers={LENGTH_HEADER: str(length)}).content
            )
    assert replies[0] == replies[2] != replies[1] == replies[3]
    with running.http("bob") as bob, running.http("alice") as alice:
        assert bob.delete(f"/v2/hepipe/keys/{client.public().key_id}").status_code == 204
        assert alice.get(f"/v2/hepipe/keys/{client.public().key_id}").status_code == 200


def routes(running: Running) -> list[tuple[str, str]]:
    """Every route of the document, with ids of alice's filled in."""
    client = running.remote("linear", "alice").client("ckks")
    values = {"model": "linear", "version": "1", "key_id": client.public().key_id}
    with running.http(None) as http:
        paths = http.get("/openapi.json").json()["paths"]
    found = []
    for path, operations in paths.items():
        filled = re.sub(r"{(\w+)}", lambda name: values[name.group(1)], path)
        found += [(method.upper(), filled) for method in operations]
    assert len(found) == 17
    return found


def test_every_route_but_health_and_metadata_wants_a_token(running: Running) -> None:
    public = {"/v2", "/v2/health/live", "/v2/health/ready"}
    for method, path in routes(running):
        for headers in ({}, {"Authorization": "Bearer hepipe_" + "x" * 43}):
            with running.http(None) as http:
                answer = http.request(method, path, headers=headers)
            assert (answer.status_code == 401) == (path not in public), (method, path)
            if answer.status_code == 401:
                assert answer.json()["type"] == "urn:hepipe:problem:unauthorized"
                assert answer.headers["www-authenticate"] == "Bearer"


def test_a_websocket_wants_a_token_before_it_is_one(running: Running) -> None:
    url = running.url.replace("http", "ws") + "/v2/models/powers/rounds"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(InvalidStatus) as caught, connect(url, additional_headers=headers):
            pass
        assert caught.value.response.status_code == 401
        assert json.loads(caught.value.response.body or b"")["type"] == "urn:hepipe:problem:unauthorized"
    headers = {"Authorization": f"Bearer {running.tokens['bob']}"}
    with pytest.raises(InvalidStatus) as caught, connect(url.replace("powers", "none"), additional_headers=headers):
        pass
    assert caught.value.response.status_code == 404


def test_a_session_with_rounds_under_anothers_key_is_refused_as_unknown(running: Running) -> None:
    client = running.remote("powers", "alice").client("paillier")
    frame = client.pack(client.encrypt(X))
    headers = {"Authorization": f"Bearer {running.tokens['bob']}"}
    with connect(running.url.replace("http", "ws") + "/v2/models/powers/rounds", additional_headers=headers) as socket:
        socket.send("{}")
        socket.send(frame)
        problem = json.loads(socket.recv(30))
    assert problem["type"] == "urn:hepipe:problem:unknown"


def test_metrics_are_for_operators_and_name_nobody(running: Running) -> None:
    for tenant, status in (("alice", 403), ("bob", 403), ("root", 200)):
        with running.http(tenant) as http:
            answer = http.get("/metrics")
            assert answer.status_code == status
    client = running.remote("linear", "alice").client("ckks")
    with running.http("root") as http:
        text = http.get("/metrics").text
    assert 'hepipe_requests_total{method="GET",route="/metrics",status="403"}' in text
    for secret in ("alice", "bob", client.public().key_id, *running.tokens.values()):
        assert secret not in text


def test_the_log_holds_no_token_key_id_tenant_or_input(running: Running) -> None:
    remote = running.remote("linear", "alice")
    client = remote.client("ckks")
    client.predict(remote, X)
    with running.http("alice") as http:
        http.get("/v2/hepipe/keys/" + "f" * 32)
        http.get("/v2/models/my-secret-model?token=abc")
        http.get("/not/a/route")
    log = running.log.read_text()
    assert "POST /v2/models/{model}/infer 200" in log
    for secret in (
        "alice",
        client.public().key_id,
        "f" * 32,
        "my-secret",
        "abc",
        "/not/a/route",
        *running.tokens.values(),
    ):
        assert secret not in log
