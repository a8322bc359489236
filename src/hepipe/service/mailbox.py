"""The client's side of a mailbox: a server that is never online at the same time, with the ``evaluate`` of one here.

server = hepipe.MailboxServer("s3://bucket/box", "chd")
client = server.client("ckks")              # keys for the published plan, left in the mailbox once
client.predict(server, X)                   # as with hepipe.Server

ticket = server.post(client.encrypt(X))     # or: leave the request, keep str(ticket), and come back for the rounds
scores = server.collect(ticket, client.link())
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from hepipe.errors import KeyMismatch, MalformedFrame, PeerLost, Unsupported
from hepipe.protocol.link import Link
from hepipe.protocol.parties import Client
from hepipe.protocol.pipe import ROUNDS
from hepipe.schemes.base import CipherTensor
from hepipe.schemes.frames import kind_of
from hepipe.service.inference import json_object
from hepipe.service.keyring import KeyRing
from hepipe.service.mailbox_letters import JOBS, KEYS, MODEL_ID, MODELS, Job, Letter, Part, Place, jobs
from hepipe.service.mailbox_store import Store
from hepipe.service.models import RESERVE_BYTES, version_order
from hepipe.service.problems import Refused
from hepipe.service.published import RemotePlan, predict_in_parts, read_plan

MAX_PROFILE_BYTES = 1 << 22
MAX_ATTEMPTS = 8
"""Workers that may try one request, one after another; each may ask the planned rounds anew."""
POLL_S = 5.0
_FIRST_S, _GROWTH = 0.02, 1.5
_TICKET = re.compile(r"([0-9a-f]{64}):([0-9a-f]{32}):([0-9a-f]{32}):([0-9a-f]{64}):([1-9][0-9]{0,7})")


def pauses(longest_s: float) -> Iterator[float]:
    """How long to wait between two looks: short at first, for those who are online, then up to ``longest_s``."""
    pause = _FIRST_S
    while True:
        yield min(pause, longest_s)
        pause *= _GROWTH


@dataclass(frozen=True)
class Ticket:
    """A request that was left: what its reply must be bound to, and its rows. No secret; it prints as one line."""

    place: Place
    rows: int

    def __str__(self) -> str:
        place = self.place
        return f"{place.model}:{place.job}:{place.key_id}:{place.request}:{self.rows}"

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """A ticket from its line; MalformedFrame for anything else."""
        match = _TICKET.fullmatch(text.strip())
        if match is None:
            raise MalformedFrame("this is no ticket of a mailbox: five fields with ':' between them")
        return cls(Place(*match.groups()[:4]), int(match[5]))


class MailboxServer:
    """What a client holds in place of a Server: ``evaluate`` as there, the model behind objects in a store.

    url             any fsspec URL with an exclusive create: file://, s3:// (extra ``s3``), memory:// for tests
    model, version  by name; without them the only model there is, and its latest version
    deadline_s      for ``evaluate``, rounds included; ``poll_s`` the longest pause between two looks
    policy          what this client agrees to; "client" reveals pre-activations to it
    options         for the store: endpoint_url, key, secret; else the environment's
    allow_insecure  accept plans of the tests

    The server learns nothing of inputs or scores; the client what ``plan(scheme).reveals`` says. Whoever may read the
    store sees who asks which model, when, and how much; whoever may write to it can stop or forge answers, as the peer
    of a connection could: give every client a prefix and credentials of its own, over TLS. A reply that is not bound to
    this request, key and model is a MalformedFrame; a refusal is a Refused with the server's words.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        version: str | None = None,
        deadline_s: float = 600.0,
        poll_s: float = POLL_S,
        policy: str = "polynomial",
        options: dict[str, Any] | None = None,
        allow_insecure: bool = False,
    ) -> None:
        self._store, self._deadline_s, self._poll_s = Store(url, options), deadline_s, poll_s
        self._policy, self._allow_insecure = policy, allow_insecure
        self._clients: dict[str, Client] = {}
        self._plans: dict[str, RemotePlan] = {}
        self._published = self._chosen(model, version)

    def plan(self, scheme: str = "ckks") -> RemotePlan:
        """What is published of this model under a scheme; see RemoteServer.plan."""
        if scheme not in self._plans:
            self._plans[scheme] = read_plan(self._published, scheme, self._policy, self._allow_insecure)
        return self._plans[scheme]

    def client(self, scheme: str = "ckks", keys: KeyRing | None = None, passphrase: str = "") -> Client:
        """A client for this model whose keys are in the mailbox: new ones, or those of a key ring, sealed on disk."""
        plan = self.plan(scheme)
        client = Client(plan) if keys is None else keys.client(plan, passphrase)
        self.register(client)
        return client

    def register(self, client: Client) -> None:
        """Leave a client's public keys unless they are there; KeyMismatch if others lie under their id."""
        bundle, data = client.public(), client.registration_bytes()
        if self.plan(bundle.parameters.name).parameters != bundle.parameters:
            raise KeyMismatch("this client's keys are for other parameters than the model's plan: make new keys")
        name = f"{KEYS}/{bundle.key_id}"
        if not self._store.create(name, data):
            found = self._store.read(name, len(data) + RESERVE_BYTES) or b""
            if found[: len(client.public_bytes())] != client.public_bytes():
                raise KeyMismatch(f"the mailbox holds other keys as {bundle.key_id[:8]}: make new keys")
        self._clients[bundle.key_id] = client

    def unregister(self, client: Client) -> None:
        """Take a client's keys out of the mailbox; harmless if they are not there."""
        key_id = client.public().key_id
        self._clients.pop(key_id, None)
        self._store.delete([f"{KEYS}/{key_id}"])

    def evaluate(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The encrypted scores; ``link`` (client.link()) where the plan needs rounds. Leaves nothing behind.

        PeerLost after ``deadline_s``, and the request is withdrawn.
        """
        try:
            return self._evaluated(x, link)
        except Refused as refused:
            if refused.kind != "unknown":
                raise
            self.register(self._client(x.key_id))
            return self._evaluated(x, link)

    def _evaluated(self, x: CipherTensor, link: Link | None) -> CipherTensor:
        ticket = self.post(x)
        try:
            return self.collect(ticket, link)
        except BaseException:
            self.withdraw(ticket)
            raise

    def post(self, x: CipherTensor) -> Ticket:
        """Leave a request; KeyMismatch for a tensor under a key that is not registered."""
        frame = self._client(x.key_id).pack(x)
        place = Place.new(str(self._published["digest"]), x.key_id, frame)
        self._store.create(place.name("request"), Letter(Part.REQUEST, place, 0, 0, frame).to_bytes())
        return Ticket(place, x.shape[0])

    def collect(self, ticket: Ticket, link: Link | None = None, deadline_s: float | None = None) -> CipherTensor:
        """The encrypted scores of an earlier ``post``, this process's or another's; rounds are answered over ``link``.

        May be called again after PeerLost (nothing came in time), or after this process was stopped: what was answered
        is in the mailbox. Then, and only then, the worker's process must still be there for the rounds to go on; if it
        is not, they begin again. With the result, or with an error of the protocol, everything of the request is gone.
        """
        client, seconds = self._client(ticket.place.key_id), self._deadline_s if deadline_s is None else deadline_s
        if ticket.place.model != self._published["digest"]:
            raise KeyMismatch("this ticket is for another model: name the one it was left for")
        talk = _Conversation(self._store, self.plan(client.public().parameters.name), client, ticket)
        end, waiting = time.monotonic() + seconds, pauses(self._poll_s)
        while (pause := next(waiting)) is not None:
            try:
                result, busy = talk.step(link)
            except (MalformedFrame, KeyMismatch, Refused):
                self.withdraw(ticket)
                raise
            if result is not None:
                self.withdraw(ticket)
                return result
            if busy:
                waiting = pauses(self._poll_s)
                continue
            if time.monotonic() + pause > end:
                break
            time.sleep(pause)
        raise PeerLost(f"no reply within {seconds:g} s: is a worker (hepipe work) running for this model?")

    def withdraw(self, ticket: Ticket) -> None:
        """Delete every object of a request, the request first, so that no worker begins it."""
        self._store.delete([ticket.place.name("request")])
        folder = f"{JOBS}/{ticket.place.model}"
        job = jobs(self._store.list(folder)).get(ticket.place.job, Job())
        self._store.delete(f"{folder}/{name}" for name in job.names)

    def predict(self, client: Client, X: Any, progress: bool = False) -> npt.NDArray[Any]:
        """Predictions for any number of rows, as many at a time as the plan allows; see Client.predict."""
        return predict_in_parts(self, self.plan(client.public().parameters.name).samples, client, X, progress)

    def _client(self, key_id: str) -> Client:
        if key_id not in self._clients:
            raise KeyMismatch(f"key {key_id[:8]} is not registered here: call register(client) first")
        return self._clients[key_id]

    def _chosen(self, name: str | None, version: str | None) -> dict[str, Any]:
        """The published document of one model; Unsupported unless the names leave exactly one."""
        known = []
        for digest in sorted(filter(MODEL_ID.fullmatch, self._store.list(MODELS))):
            found = json_object(self._store.read(f"{MODELS}/{digest}", MAX_PROFILE_BYTES) or b"")
            if found.get("digest") != digest:
                raise MalformedFrame(f"models/{digest[:8]} holds the profile of another model")
            known.append(found)
        wanted = {"name": name, "version": version}
        fitting = [each for each in known if all(value in (None, each.get(key)) for key, value in wanted.items())]
        named = sorted({f"{each.get('name')} {each.get('version')}" for each in known})
        if len({each.get("name") for each in fitting}) != 1:
            raise Unsupported(f"the mailbox has the models {named}: name one of them")
        latest = max(version_order(str(each.get("version"))) for each in fitting)
        fitting = [each for each in fitting if version_order(str(each.get("version"))) == latest]
        if len(fitting) != 1:
            raise Unsupported(f"two models share name and version among {named}: export one under another version")
        return fitting[0]


@dataclass(frozen=True, eq=False)
class _Conversation:
    """The client's half of one prediction; all that it remembers is in the mailbox."""

    store: Store
    plan: RemotePlan
    client: Client
    ticket: Ticket

    def step(self, link: Link | None) -> tuple[CipherTensor | None, bool]:
        """Look once: (the scores if they are there, whether a round was answered)."""
        place = self.ticket.place
        job = jobs(self.store.list(f"{JOBS}/{place.model}")).get(place.job, Job())
        if "reply" in job.parts:
            return self._result(self._letter("reply", [Part.RESULT, Part.REFUSAL])), False
        if "request" not in job.parts:
            raise PeerLost("the request is no longer in the mailbox: it was withdrawn or has expired; ask again")
        if job.open is None:
            return None, False
        self._answer(job.open, link)
        return None, True

    def _answer(self, ask: tuple[int, int], link: Link | None) -> None:
        attempt, round_ = ask
        if attempt > MAX_ATTEMPTS or not 1 <= round_ <= self.plan.rounds:
            # Every round is a decryption made for the server.
            raise MalformedFrame(f"the server asks for round {round_} of {self.plan.rounds}, attempt {attempt}")
        frame = self._letter("ask", [Part.ASK], attempt, round_).body
        if (kind := kind_of(frame)) not in ROUNDS:
            raise MalformedFrame("the server asks for what is no round")
        if link is None:
            raise Unsupported("the server asks for a round: pass link=client.link()")
        letter = Letter(Part.ANSWER, self.ticket.place, attempt, round_, link.request(ROUNDS[kind], frame))
        self.store.create(self.ticket.place.name("answer", attempt, round_), letter.to_bytes())

    def _letter(self, part: str, kinds: list[Part], *numbers: int) -> Letter:
        data = self.store.read(self.ticket.place.name(part, *numbers), self.plan.bytes_down + RESERVE_BYTES)
        attempt, round_ = numbers or (None, 0)
        return Letter.parse(data or b"").expect(self.ticket.place, kinds, attempt, round_)

    def _result(self, letter: Letter) -> CipherTensor:
        if letter.part is Part.REFUSAL:
            raise Refused.from_body(letter.body, 422)
        y = self.client.unpack(letter.body)
        if y.shape != (self.ticket.rows, self.plan.profile.outputs) and not y.blinded:
            raise MalformedFrame(f"a result of shape {y.shape} for {self.ticket.rows} rows")
        return y
