"""Bad lines: messages cut, altered, repeated, exchanged or late, clients that leave, certificates of yesterday."""

from __future__ import annotations

import secrets
import socket as sockets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from faults.catalogue import fault
from faults.changes import Harm, cut, exchange, flip, repeat, replace_by_first
from faults.scene import DEADLINE_S, SCHEMES, Ending, Party, Scene
from hepipe.protocol.parties import Client
from hepipe.service.client import RemoteServer
from hepipe.service.inference import LENGTH_HEADER, Binding, pack_request
from hepipe.service.problems import Refused
from relay import Relay
from service.conftest import Running
from service.test_lifecycle import conversation
from service.test_tls import certify

# Messages of a prediction with rounds, by their number on the connection; 0 is the handshake.
BINDING, TENSOR, ANSWER, SECOND_ANSWER = 1, 2, 3, 4
ROUND, RESULT, FIELDS = 1, 3, 4
PATIENCE_S = 4.0
"""Of a client whose line may say that more is to come."""
BROKEN = ("right", "PeerLost", "malformed")


def by_rounds(scene: Scene, number: int) -> Party:
    return scene.party(*[("powers", "paillier"), ("deep", "ckks"), ("deep", "paillier")][number % 3])


def harmed(party: Party, way: str, harm: Harm, timeout_s: float = PATIENCE_S, retries: int = 0) -> Ending:
    """How a prediction over a bad line ends."""
    with party.scene.relay(**{way: harm}) as relay:
        ending = party.ask(relay=relay, timeout_s=timeout_s, retries=retries)
    assert harm.done, "nothing happened to the message"
    return ending


@fault("truncated body at 1 %", *BROKEN)
def cut_at_1(scene: Scene, number: int) -> Iterator[Ending]:
    yield from _cut(scene, number, 0.01)


@fault("truncated body at 50 %", *BROKEN)
def cut_at_50(scene: Scene, number: int) -> Iterator[Ending]:
    yield from _cut(scene, number, 0.5)


@fault("truncated body at 99 %", *BROKEN)
def cut_at_99(scene: Scene, number: int) -> Iterator[Ending]:
    yield from _cut(scene, number, 0.99)


def _cut(scene: Scene, number: int, share: float) -> Iterator[Ending]:
    """Requests, answers and messages of rounds; another attempt mends it."""
    party, rounds = scene.party("linear", SCHEMES[number % 2]), by_rounds(scene, number)
    for way in ("up", "down"):
        yield harmed(party, way, cut(0, share))
        yield harmed(rounds, way, cut([TENSOR, ANSWER][number % 2] if way == "up" else ROUND, share))
        mended = harmed(party, way, cut(0, share, connections=1), DEADLINE_S, retries=4)
        assert mended.how == "right", mended.how
        yield mended


@fault(
    "flipped byte", *BROKEN, "MalformedFrame", "Unsupported", "InsecureParameters", "unauthorized", "unknown",
    "conflict", "too-large", "unsupported-encoding", "refused", "internal",
)  # fmt: skip
def flipped(scene: Scene, number: int) -> Iterator[Ending]:
    """Somewhere, header or body, in each kind of message."""
    party, rounds = scene.party("linear", SCHEMES[number % 2]), by_rounds(scene, number)
    for way in ("up", "down"):
        yield harmed(party, way, flip(0))
        yield _flipped_profile(party, way)
    yield harmed(rounds, "up", flip([0, BINDING, TENSOR, ANSWER][number % 4]))
    yield harmed(rounds, "down", flip([0, ROUND, RESULT, FIELDS][number % 4]))


def _flipped_profile(party: Party, way: str) -> Ending:
    """Read over a bad line, and believed: the rows are scaled by it."""
    harm = flip(0)

    def scores(relay: Relay) -> Any:
        server = party.server(retries=0, timeout_s=PATIENCE_S)
        straight, server._transport._http.base_url = server._transport._http.base_url, f"http://127.0.0.1:{relay.port}"
        plan = server.plan(party.scheme)
        server._transport._http.base_url = straight
        client = Client(plan, party.client._keys)
        server.register(client)
        return client.decrypt(server.evaluate(client.encrypt([[30, 5, 5]])))

    with party.scene.relay(**{way: harm}) as relay:
        ending = party.ends(lambda: scores(relay), [[30, 5, 5]])
    assert harm.done
    return ending


@fault("duplicated message", "right", "malformed", "PeerLost", "MalformedFrame", "refused")
def duplicated(scene: Scene, number: int) -> Iterator[Ending]:
    """A request, an answer, and each message of a prediction whose two rounds look alike."""
    party, rounds = scene.party("linear", SCHEMES[number % 2]), scene.party("deep", SCHEMES[number % 2])
    for way in ("up", "down"):
        yield harmed(party, way, repeat(0))
    for way, at in (("up", ANSWER), ("up", [BINDING, TENSOR][number % 2]), ("down", [ROUND, RESULT][number % 2])):
        yield harmed(rounds, way, repeat(at))


@fault("reordered rounds", "malformed", "PeerLost", "MalformedFrame", "refused")
def reordered(scene: Scene, number: int) -> Iterator[Ending]:
    """The answer to the first round where that to the second belongs, and messages that change places."""
    rounds = scene.party("deep", SCHEMES[number % 2])
    yield harmed(rounds, "up", replace_by_first(SECOND_ANSWER, ANSWER))
    yield harmed(rounds, "up", exchange(BINDING))
    yield harmed(rounds, "down", exchange(RESULT))


@fault("slow client", "deadline")
def slow(scene: Scene, number: int) -> Iterator[Ending]:
    """A body that trickles, or a round that is answered too late."""
    party, rounds = scene.party("linear", "ckks"), by_rounds(scene, number)
    if number % 2:
        yield rounds.ask(link=rounds.link(lambda round_: time.sleep(5)))
        return
    yield party.ends(lambda: _trickled(scene.running))


def _trickled(running: Running) -> None:
    with connected(running, 9, 1000) as raw:
        stop = threading.Event()
        thread = threading.Thread(target=_trickle, args=(raw, stop))
        thread.start()
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
        stop.set()
        thread.join()
    head, _, body = answer.partition(b"\r\n\r\n")
    raise Refused.from_body(body, int(head.split()[1]))


def _trickle(raw: sockets.socket, stop: threading.Event) -> None:
    for _ in range(200):
        try:
            raw.sendall(b"x")
        except OSError:
            return
        if stop.wait(0.1):
            return


@fault("client vanishes", "right", "worker-lost")
def vanished(scene: Scene, number: int) -> Iterator[Ending]:
    """In the middle of a body, before the answer, and between two rounds; whoever comes next is served."""
    party, rounds = scene.party("linear", SCHEMES[number % 2]), scene.party("powers", "paillier")
    frame = party.client.pack(party.client.encrypt([[30, 5, 5]]))
    body, length = pack_request(frame, Binding("", f"vanished-{secrets.token_hex(4)}", 1))
    for part in (body[: len(body) // 2], body):
        with connected(scene.running, length, len(body)) as raw:
            raw.sendall(part)
        yield party.ask()
    with conversation(scene.running, rounds.client, secrets.token_hex(4)):
        pass
    yield rounds.ask()


@contextmanager
def connected(running: Running, length: int, size: int) -> Iterator[sockets.socket]:
    """A connection on which a request of ``size`` bytes has begun."""
    head = (
        f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.tokens['alice']}\r\n"
        f"{LENGTH_HEADER}: {length}\r\nContent-Length: {size}\r\n\r\n"
    )
    with sockets.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as raw:
        raw.sendall(head.encode())
        yield raw


@fault("TLS cert expired", "PeerLost")
def expired(scene: Scene, number: int) -> Iterator[Ending]:
    """A server beside the other one, whose certificate ended yesterday."""
    server = scene.beside(Running(scene.folder / "tls"), lambda folder: certify(folder, days=-1))
    authority = server.folder / "cert.pem"

    def scores() -> Any:
        remote = RemoteServer(server.url, "linear", authority=authority, retries=0, allow_insecure=True)
        return Client(remote.plan("ckks"))

    yield scene.party().ends(scores)
