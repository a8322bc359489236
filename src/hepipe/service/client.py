"""The client's side of the network: a server elsewhere with the ``evaluate`` of one in this process.

remote = hepipe.RemoteServer("https://example.org", "chd", token=token)
client = remote.client("ckks")              # keys for the published plan, uploaded once
client.predict(remote, X)                   # as with hepipe.Server
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hepipe.errors import KeyMismatch, MalformedFrame, Unsupported
from hepipe.protocol.link import Link
from hepipe.protocol.parties import Client
from hepipe.protocol.pipe import TIMEOUT_S, converse
from hepipe.schemes.base import CipherTensor
from hepipe.service.inference import LENGTH_HEADER, Binding, json_object, pack_request, unpack_response
from hepipe.service.keyring import KeyRing
from hepipe.service.problems import Refused
from hepipe.service.published import RemotePlan, predict_in_parts, read_plan
from hepipe.service.transport import Transport, WebSocketEnds


class RemoteServer:
    """What a client holds in place of a Server: ``evaluate`` as there, the model behind a URL.

    url             https, or http to this machine
    model, version  by name; without them the only model there is, and its latest version
    token           of the server, where it wants one
    authority       a PEM file of the certificate authority, where it is none that the system trusts
    timeout_s       for one message; ``retries`` further attempts are made when a message or its answer was lost, with
                    the same session and sequence number, so that nothing is evaluated twice
    policy          what this client agrees to; "client" reveals pre-activations to it
    allow_insecure  accept plans of the tests

    The server learns nothing of inputs or scores; the client what ``plan(scheme).reveals`` says. Any answer that is not
    bound to this request, key and model is a MalformedFrame; a refusal is a Refused with the server's words.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        token: str | None = None,
        version: str | None = None,
        authority: str | Path | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = 4,
        policy: str = "polynomial",
        allow_insecure: bool = False,
    ) -> None:
        self._transport = Transport(url, token, authority, timeout_s, retries)
        self._policy, self._allow_insecure = policy, allow_insecure
        self._sessions = threading.local()
        self._clients: dict[str, Client] = {}
        self._plans: dict[str, RemotePlan] = {}
        name = model or self._only_model()
        self._path = f"/v2/models/{name}" + ("" if version is None else f"/versions/{version}")

    def plan(self, scheme: str = "ckks") -> RemotePlan:
        """What the server publishes of this model under a scheme; Unsupported if it is not on offer.

        InsecureParameters for parameters of the tests, Unsupported for a policy that this client did not agree to.
        """
        if scheme not in self._plans:
            body, _ = self._transport.call("GET", f"{self._path}/profile")
            self._plans[scheme] = read_plan(json_object(body), scheme, self._policy, self._allow_insecure)
        return self._plans[scheme]

    def client(self, scheme: str = "ckks", keys: KeyRing | None = None, passphrase: str = "") -> Client:
        """A client for this model whose keys the server has: new ones, or those of a key ring, sealed on disk."""
        plan = self.plan(scheme)
        client = Client(plan) if keys is None else keys.client(plan, passphrase)
        self.register(client)
        return client

    def register(self, client: Client) -> None:
        """Upload a client's public keys unless the server has them. Tensors under other keys are not evaluated."""
        key_id = client.public().key_id
        try:
            self._transport.call("GET", f"/v2/hepipe/keys/{key_id}")
        except Refused as refused:
            if refused.kind != "unknown":
                raise
            self._upload(client)
        self._clients[key_id] = client

    def unregister(self, client: Client) -> None:
        """Have the server forget a client's keys and its stored replies; harmless if it has none."""
        key_id = client.public().key_id
        self._clients.pop(key_id, None)
        _forget(self._transport, key_id)

    def evaluate(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The encrypted scores; ``link`` (client.link()) where the plan needs rounds.

        KeyMismatch for a tensor under a key that is not registered. A key that the server lost is uploaded again.
        """
        client = self._clients.get(x.key_id)
        if client is None:
            raise KeyMismatch(f"key {x.key_id[:8]} is not registered here: call register(client) first")
        plan = self.plan(client.public().parameters.name)
        if plan.parameters != client.public().parameters:
            raise KeyMismatch("this client's keys are for other parameters than the model's plan: make new keys")
        query = _Query(plan, client, x, link, self._next())
        try:
            return self._asked(query)
        except Refused as refused:
            if refused.kind != "unknown":
                raise
            self._upload(client)
            return self._asked(query)

    def predict(self, client: Client, X: Any, progress: bool = False) -> npt.NDArray[Any]:
        """Predictions for any number of rows, as many at a time as the plan allows; see Client.predict."""
        return predict_in_parts(self, self.plan(client.public().parameters.name).samples, client, X, progress)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _only_model(self) -> str:
        body, _ = self._transport.call("GET", "/v2/hepipe/models")
        names = list(json_object(body).get("models", {}))
        if len(names) != 1:
            raise Unsupported(f"the server has the models {names}: name one")
        return str(names[0])

    def _upload(self, client: Client) -> None:
        self._transport.call("PUT", f"/v2/hepipe/keys/{client.public().key_id}", client.registration_bytes())

    def _next(self) -> Binding:
        """The next place in this thread's session."""
        if not hasattr(self._sessions, "name"):
            self._sessions.name, self._sessions.seq = secrets.token_urlsafe(16), 0
        self._sessions.seq += 1
        return Binding(secrets.token_hex(8), self._sessions.name, self._sessions.seq)

    def _asked(self, query: _Query) -> CipherTensor:
        return self._by_rounds(query) if query.plan.rounds else self._at_once(query)

    def _at_once(self, query: _Query) -> CipherTensor:
        frame = query.client.pack(query.x)
        body, length = pack_request(frame, query.binding)
        reply, headers = self._transport.call("POST", f"{self._path}/infer", body, {LENGTH_HEADER: str(length)})
        result, fields = unpack_response(reply, headers.get(LENGTH_HEADER))
        query.check(frame, result, fields)
        y = query.client.unpack(result)
        if y.shape != (query.x.shape[0], query.plan.profile.outputs) and not y.blinded:
            raise MalformedFrame(f"a result of shape {y.shape} for {query.x.shape[0]} rows")
        return y

    def _by_rounds(self, query: _Query) -> CipherTensor:
        def talk(ends: WebSocketEnds) -> CipherTensor:
            binding = query.binding
            ends.send_text(json.dumps({"session": binding.session, "seq": binding.seq, "id": binding.request_id}))
            result = converse(ends, query.client, query.x, query.link, query.plan.rounds)
            query.check(ends.sent, ends.received, json_object(ends.receive_text()))
            return result

        return self._transport.converse(f"{self._path}/rounds", talk)


def forget(url: str, key_id: str, token: str | None = None, authority: str | Path | None = None) -> None:
    """Have a server forget a public key and the stored replies under it; harmless if it has none.

    It makes room: a server keeps a limited number of keys for one token.
    """
    transport = Transport(url, token, authority, TIMEOUT_S, 4)
    try:
        _forget(transport, key_id)
    finally:
        transport.close()


def _forget(transport: Transport, key_id: str) -> None:
    try:
        transport.call("DELETE", f"/v2/hepipe/keys/{key_id}")
    except Refused as refused:
        if refused.kind != "unknown":
            raise


@dataclass(frozen=True, eq=False)
class _Query:
    """One query and its place; ``check`` holds an answer against it."""

    plan: RemotePlan
    client: Client
    x: CipherTensor
    link: Link | None
    binding: Binding

    def check(self, request: bytes, response: bytes, fields: dict[str, Any]) -> None:
        """MalformedFrame unless the answer says that it is for this request, key, session, place and model."""
        expected = {
            "key_id": self.x.key_id, "session": self.binding.session, "seq": self.binding.seq,
            "model_digest": self.plan.digest, "request_sha256": hashlib.sha256(request).hexdigest(),
            "response_sha256": hashlib.sha256(response).hexdigest(),
        }  # fmt: skip
        found = fields.get("parameters")
        wrong = [name for name in expected if not isinstance(found, dict) or found.get(name) != expected[name]]
        if wrong:
            raise MalformedFrame(f"the answer belongs to another request or model: {', '.join(wrong)} differ")
