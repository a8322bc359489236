"""One query timed by phase: with both parties in this process, or with the server elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from hepipe.protocol.link import Link, LocalLink
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.base import CipherTensor, FloatArray
from hepipe.study.measure import ANSWERS, REQUEST, Stopwatch


class Elsewhere(Protocol):
    """A server that is not in this process: RemoteServer and MailboxServer are."""

    def plan(self, scheme: str = ...) -> Any:
        """What it publishes under a scheme: the fields of study.plan.Plan but ``operations``."""
        ...

    def register(self, client: Client) -> None:
        """Take a client's public keys."""
        ...

    def unregister(self, client: Client) -> None:
        """Forget them."""
        ...

    def evaluate(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The encrypted scores."""
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """What a query brought: scores, the encrypted result, bytes of all frames, rounds."""

    scores: FloatArray
    result: CipherTensor
    bytes_up: int
    bytes_down: int
    rounds: int


class Parties(Protocol):
    """A client and its server, wherever that is. Making them is key generation and the upload of public keys."""

    client: Client

    def query(self, X: Any, watch: Stopwatch) -> Found:
        """One prediction from raw rows to scores."""
        ...

    def offline_ms(self) -> float:
        """What making the randomness of one batch ahead takes: 0 where there is none, NaN where it is not known."""
        ...

    def close(self) -> None:
        """The keys are needed no more."""
        ...


class Here:
    """Both parties in this process; every query travels through frames all the same."""

    def __init__(self, model: Any, planned: Any) -> None:
        self.client, self._planned = Client(planned), planned
        self._server = Server(model, self.client.public_bytes(), planned.policy, allow_insecure=True)

    def query(self, X: Any, watch: Stopwatch) -> Found:
        """One prediction from raw rows to scores."""
        client, server, link = self.client, self._server, _timed_link(self.client, watch)
        with watch("encrypt"):
            x = client.encrypt(X)
        with watch("upload"):
            request = client.pack(x)
            x = server.unpack(request)
        with watch("evaluate"):
            y = server.forward(x, link)
        with watch("rerandomize"):
            y = server.rerandomize(y)
        with watch("download"):
            reply = server.pack(y)
            y = client.unpack(reply)
        with watch("decrypt"):
            scores = client.decrypt(y)
        return _found(scores, y, (request, reply), link)

    def offline_ms(self) -> float:
        """What making the randomness of one batch ahead takes."""
        if self._planned.parameters.name != "paillier":
            return 0.0
        watch, operations = Stopwatch(), self._planned.operations
        with watch("pools"):
            self.client.fill(operations["encrypt"])
            self._server.fill(operations["rerandomize"] + operations.get("mask", 0))
        return watch.times["pools"][0]

    def close(self) -> None:
        """The keys are needed no more."""


class There:
    """A client here and its server elsewhere: between encrypting and decrypting only the whole can be timed."""

    def __init__(self, server: Elsewhere, planned: Any) -> None:
        self.client, self._server = Client(planned), server
        server.register(self.client)

    def query(self, X: Any, watch: Stopwatch) -> Found:
        """One prediction from raw rows to scores."""
        client, link = self.client, _timed_link(self.client, watch)
        with watch("encrypt"):
            x = client.encrypt(X)
        with watch(REQUEST):
            y = self._server.evaluate(x, link)
        with watch("decrypt"):
            scores = client.decrypt(y)
        return _found(scores, y, (client.pack(x), client.pack(y)), link)

    def offline_ms(self) -> float:
        """Not known: half of it is the server's own affair."""
        return math.nan

    def close(self) -> None:
        """Have the server forget the keys, of which it keeps a limited number."""
        self._server.unregister(self.client)


def _timed_link(client: Client, watch: Stopwatch) -> LocalLink:
    """``client.link()`` whose answers are filed together as one entry of ANSWERS."""
    watch.times.setdefault(ANSWERS, []).append(0.0)

    def answer(request: bytes) -> bytes:
        once = Stopwatch()
        with once(ANSWERS):
            reply = client.answer(request)
        watch.times[ANSWERS][-1] += once.times[ANSWERS][0]
        return reply

    return LocalLink(answer)


def _found(scores: FloatArray, y: CipherTensor, frames: tuple[bytes, bytes], link: LocalLink) -> Found:
    seen, (request, reply) = link.transcript, frames
    return Found(scores, y, len(request) + seen.bytes_up, len(reply) + seen.bytes_down, seen.rounds)
