"""Tokens, and two tenants who cannot see each other: every route, every id of the other, the same words as for none."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from hepipe.errors import DataError
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client
from hepipe.schemes import seal, switching
from hepipe.schemes.ckks_keys import CkksEvaluationKeys
from hepipe.schemes.wire import pack_keys
from hepipe.service.app import create_app
from hepipe.service.core import Core
from hepipe.service.inference import LENGTH_HEADER, Binding, pack_request
from hepipe.service.limits import Limits
from hepipe.service.problems import Refused
from hepipe.service.tenants import LOCAL, Tenants, add_tenant
from served_models import FRAME, made
from service.conftest import SAMPLES, Running
from service.test_lifecycle import conversation, finish

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

MODEL, VERSIONED = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
KEY, INFER, ROUNDS = "/v2/hepipe/keys/{key_id}", "/infer", "/rounds"
SHARED = {
    ("GET", path)
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/hepipe/models", "/v2/hepipe/keys", "/metrics",
                 *(model + end for model in (MODEL, VERSIONED) for end in ("", "/ready", "/profile")))
}  # fmt: skip
"""Routes that take no id of a tenant: what they answer to one does not depend on what another has."""
OWN = {
    ("GET", KEY): 404, ("DELETE", KEY): 404, ("POST", MODEL + INFER): 404, ("POST", VERSIONED + INFER): 404,
    ("WEBSOCKET", MODEL + ROUNDS): 404, ("WEBSOCKET", VERSIONED + ROUNDS): 404, ("PUT", KEY): 201,
}  # fmt: skip
"""Routes that take one, and what they say of an id of somebody else. Whoever copies a public key may upload it: for him
it is a new one."""
PLACES = {
    ("path", "model"), ("path", "version"), ("query", "version"), ("path", "key_id"), ("header", LENGTH_HEADER),
}  # fmt: skip
"""Where a request can name something, bodies apart."""


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Every route of the application: those of its document, and the WebSockets, which are in no such document."""
    folder = tmp_path_factory.mktemp("routes")
    app = create_app(Core(folder, folder, Tenants({}), Limits()))
    document = app.openapi()["paths"]
    named = {
        (parameter["in"], parameter["name"])
        for operations in document.values() for one in operations.values() for parameter in one.get("parameters", [])
    }  # fmt: skip
    assert named == PLACES
    found = {(method.upper(), path) for path, operations in document.items() for method in operations}
    return found | {("WEBSOCKET", route.path) for route in below(app) if isinstance(route, WebSocketRoute)}


def below(router: Any) -> Iterator[Any]:
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from below(route.original_router)
        else:
            yield route


@dataclass
class Person:
    """A client with a key for each model, and the requests of one session, whose ids are as long as anybody's."""

    session: str = field(default_factory=lambda: secrets.token_hex(16))
    clients: dict[str, Client] = field(default_factory=dict)
    frames: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, plans: dict[str, Any]) -> Person:
        clients = {name: Client(plan) for name, plan in plans.items()}
        return cls(clients=clients, frames={name: client.pack(client.encrypt(X)) for name, client in clients.items()})

    @property
    def ids(self) -> list[str]:
        """All that names something of this person."""
        digests = [hashlib.sha256(client.registration_bytes()).hexdigest() for client in self.clients.values()]
        return [self.session, *(client.public().key_id for client in self.clients.values()), *digests]

    @property
    def body(self) -> tuple[bytes, dict[str, str]]:
        """A request to infer."""
        body, length = pack_request(self.frames["linear"], Binding("", self.session, 1))
        return body, {LENGTH_HEADER: str(length)}

    def paths(self, route: str) -> list[str]:
        """A route with this person's key in the place of every parameter, one after another."""
        names = re.findall(r"{(\w+)}", route)
        known = {"model": "powers" if route.endswith(ROUNDS) else "linear", "version": "1"}
        key_id = self.clients["linear"].public().key_id
        filled = [known | {"key_id": key_id}] + [known | {"key_id": key_id, name: key_id} for name in names]
        paths = [route.format(**values) for values in filled] + [f"{route.format(**filled[0])}?version={key_id}"]
        return list(dict.fromkeys(paths))

    def asks(self, running: Running, http: Any, method: str, route: str) -> list[Any]:
        """Every answer to ``http`` of a route that is asked for what is this person's."""
        if method == "WEBSOCKET":
            return [self.converses(running.url, http.headers["authorization"], path) for path in self.paths(route)]
        content, headers = (self.clients["linear"].registration_bytes(), {}) if method == "PUT" else (b"", {})
        if method == "POST":
            content, headers = self.body
        return [shown(http.request(method, path, content=content, headers=headers)) for path in self.paths(route)]

    def converses(self, url: str, token: str, path: str) -> Any:
        try:
            with connect(url.replace("http", "ws") + path, additional_headers={"Authorization": token}) as socket:
                socket.send(json.dumps({"session": self.session, "seq": 1}))
                socket.send(self.frames["powers"])
                problem = socket.recv(30)
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(30)
                return json.loads(problem)["status"], problem, str(closed.value)
        except InvalidStatus as denied:
            answer = denied.response
            kept = [(name, value) for name, value in answer.headers.raw_items() if name.lower() != "date"]
            return answer.status_code, bytes(answer.body or b"").decode(), kept


def shown(answer: Any) -> tuple[int, str, list[tuple[bytes, bytes]]]:
    """All of an answer but its date."""
    return answer.status_code, answer.text, [(name, value) for name, value in answer.headers.raw if name != b"date"]


def without(ids: list[str], answers: list[Any]) -> str:
    text = repr(answers)
    for number, one in enumerate(ids):
        text = text.replace(one, f"ID {number}")
    return text


def test_every_route_is_known_to_the_tests_of_isolation(routes: set[tuple[str, str]]) -> None:
    """A new one fails here until it is said what it takes, and so is asked below."""
    assert routes == SHARED | set(OWN)
    assert not SHARED & set(OWN)


def test_nothing_of_one_tenant_is_reachable_with_anothers_token(running: Running) -> None:
    """Every route, with every id of alice: bob gets the very answer that he gets for the ids of nobody."""
    remotes = {name: running.remote(name, "alice") for name in ("linear", "powers")}
    plans = {name: remote.plan("paillier") for name, remote in remotes.items()}
    mine, nobody = Person.of(plans), Person.of(plans)
    body, headers = mine.body
    with running.http("alice") as alice, running.http("bob") as bob:
        before = {route: nobody.asks(running, bob, *route) for route in sorted(SHARED)}
        for name, client in mine.clients.items():
            remotes[name].register(client)
        reply = alice.post("/v2/models/linear/infer", content=body, headers=headers)
        assert reply.status_code == 200
        # a reply of hers is in store now, and another request of hers is being answered
        with conversation(running, mine.clients["powers"], mine.session, mine.frames["powers"]) as (socket, first):
            for route, others in before.items():
                answers = mine.asks(running, bob, *route)
                assert without(mine.ids, answers) == without(nobody.ids, others), route
            for route, status in OWN.items():
                answers, others = (each.asks(running, bob, *route) for each in (mine, nobody))
                assert (answers[0][0], others[0][0]) == (status, status), (route, answers)
                assert without(mine.ids, answers) == without(nobody.ids, others), route
            forgotten = [each.asks(running, bob, "DELETE", KEY)[0] for each in (mine, nobody)]
            assert forgotten[0] == forgotten[1]
            assert forgotten[0][0] == 204
            assert np.abs(finish(socket, mine.clients["powers"], first) - clear_scores(made("powers"), X)).max() < 0.01
        assert alice.get(f"/v2/hepipe/keys/{mine.clients['linear'].public().key_id}").status_code == 200
        assert alice.post("/v2/models/linear/infer", content=body, headers=headers).content == reply.content


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


def test_a_request_that_is_being_answered_does_not_show_to_another_tenant(running: Running) -> None:
    """Bob copied key, session and request of alice: a conflict would tell him that hers is running."""
    client = running.remote("powers", "alice").client("paillier")
    running.remote("powers", "bob").register(client)
    frame = client.pack(client.encrypt(X))
    with (
        conversation(running, client, "copied", frame) as (hers, first),
        conversation(running, client, "copied", frame, tenant="bob") as (his, other),
    ):
        assert first != other
        for socket, start in ((hers, first), (his, other)):
            assert np.abs(finish(socket, client, start) - clear_scores(made("powers"), X)).max() < 0.01


def test_what_one_tenant_used_up_and_holds_is_nothing_to_another(own: Any) -> None:
    """Quotas, rates, budgets and conflicts over one and the same public key."""
    server = own("powers", tokens=("alice", "bob"), options=("keys=1", "rate=0.01", "burst=3", f"rows={2 * SAMPLES}"))
    client = server.remote("powers", "alice").client("ckks")
    path, upload = f"/v2/hepipe/keys/{client.public().key_id}", client.registration_bytes()
    context = seal.context(client.public().parameters)
    relinearization, *galois = switching.keys_of(context, client._keys.secret._handle)
    other = CkksEvaluationKeys(client.public().parameters, relinearization, galois)
    again = pack_keys(replace(client.public(), evaluation=other))
    for tenant, first, second in (("alice", upload, again), ("bob", again, upload)):
        with server.http(tenant) as http:
            stored = http.put(path, content=first)
            assert stored.status_code == (200 if tenant == "alice" else 201)
            refused = http.put(path, content=second)
            assert refused.status_code == 409, refused.text
            assert http.put(path, content=first).status_code == (429 if tenant == "alice" else 200)
            assert http.put(f"/v2/hepipe/keys/{'0' * 32}", content=first).status_code == 403
        remote = server.remote("powers", tenant, retries=0)
        remote.register(client)
        for _ in range(2):
            assert np.abs(client.predict(remote, X) - clear_scores(made("powers"), X)[:, 0]).max() < 2.0**-7
        with pytest.raises(Refused, match="only 0 of 6 are left"):
            client.predict(remote, X)
        remote.close()


def test_every_route_but_health_and_metadata_wants_a_token(running: Running, routes: set[tuple[str, str]]) -> None:
    public = {"/v2", "/v2/health/live", "/v2/health/ready"}
    for method, route in routes - {("WEBSOCKET", each + ROUNDS) for each in (MODEL, VERSIONED)}:
        path = route.format(model="linear", version="1", key_id="0" * 32)
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
