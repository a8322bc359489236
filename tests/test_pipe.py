"""The two parties in two processes: scores and transcripts as in one, and no peer that can hang or fool the other."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepipe.circuits import polynomial
from hepipe.circuits.functions import SIGMOID
from hepipe.circuits.linear import affine
from hepipe.errors import HepipeError, InsecureParameters, MalformedFrame, PeerLost, Unsupported
from hepipe.models.linear import LinearModel
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.protocol.link import Transcript
from hepipe.protocol.parties import Client, Server
from hepipe.protocol.pipe import Channel, PipeLink, PipeServer, serve
from hepipe.schemes.paillier_randomness import UniformSource
from hepipe.study.plan import plan

SPAWN = multiprocessing.get_context("spawn")
X = np.array([[0.5, -1.0, 2.0], [1.0, 0.25, -0.75]])
WEIGHTS = np.array([[0.5], [-0.25], [0.125]])


class Sigmoid:
    """A linear layer and a sigmoid of degree 3: two rounds under Paillier."""

    profile = Profile.of("regression", Schema.unknown(3, bound=2.0), 1)
    reveals = "probabilities"
    prepare, head = profile.prepare, profile.head

    def forward(self, ev: Any, x: Any) -> Any:
        return polynomial.evaluate(ev, affine(ev, x, WEIGHTS, 0.25), SIGMOID.polynomial(3, 2.0))


class Asking(Sigmoid):
    """The same by the key holder."""

    def forward(self, ev: Any, x: Any) -> Any:
        return ev.ask(SIGMOID, affine(ev, x, WEIGHTS, 0.25))


class Choosing(Sigmoid):
    """A selection: 2 where the first feature is 0, 5 where it is 1."""

    def forward(self, ev: Any, x: Any) -> Any:
        bit = ev.take(x, [0])
        return ev.select(ev.join([bit, ev.sub(bit, 1.0)]), [2.0, 5.0])


class Dying(Sigmoid):
    """A server whose process is killed in the middle of an evaluation."""

    def forward(self, ev: Any, x: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


LINEAR = LinearModel(Sigmoid.profile, WEIGHTS, np.array([0.25]))


@cache
def planned(scheme: str = "paillier", model: Any = Sigmoid, policy: str = "polynomial") -> Any:
    return plan(model(), scheme, samples=2, precision_bits=10, policy=policy, security_bits=0)


@cache
def client(scheme: str = "paillier") -> Client:
    return Client(planned(scheme))


def run_server(connection: Connection, model: type[Sigmoid], report: str) -> None:
    """In a process of its own: nothing but ``connection`` joins it to the client."""
    transcripts: list[Transcript] = []
    queries = serve(model(), Channel(connection), allow_insecure=True, record=transcripts.append)
    messages = [[[m.kind, m.sender, m.size] for m in t.messages] for t in transcripts]
    Path(report).write_text(json.dumps({"queries": queries, "messages": messages}))


@contextmanager
def process(model: type[Sigmoid], report: Path) -> Iterator[tuple[Channel, Any]]:
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=run_server, args=(theirs, model, str(report)))
    child.start()
    theirs.close()
    try:
        yield Channel(ours), child
    finally:
        child.join(20)
        child.kill()
        child.join()


@contextmanager
def thread(target: Callable[[Channel], Any], **limits: Any) -> Iterator[Channel]:
    """A peer in this process; yields the other end. The peer must have ended when the test does."""
    ours, theirs = multiprocessing.Pipe()
    peer = threading.Thread(target=_quietly, args=(target, Channel(theirs)), daemon=True)
    peer.start()
    with Channel(ours, **limits) as channel:
        yield channel
    peer.join(20)
    assert not peer.is_alive()


def _quietly(target: Callable[[Channel], Any], channel: Channel) -> None:
    with suppress(HepipeError):
        target(channel)
    channel.abort()


def messages(transcript: Transcript) -> list[list[Any]]:
    return [[m.kind, m.sender, m.size] for m in transcript.messages]


# --- the same protocol ------------------------------------------------------------------------------------------------


def test_a_prediction_with_rounds_between_processes_is_that_of_one_process(tmp_path: Path) -> None:
    party, local, remote = client(), client().link(), client().link()
    x = party.encrypt(X)
    expected = Server(Sigmoid(), party.public(), allow_insecure=True).evaluate(x, local)
    with process(Sigmoid, tmp_path / "report") as (channel, child):
        server = PipeServer(party, channel, planned().rounds)
        results = [server.evaluate(x, remote), server.evaluate(x, party.link())]
        server.close()
        child.join(20)
        assert child.exitcode == 0
    for result in results:
        assert party.decrypt_integers(result).tolist() == party.decrypt_integers(expected).tolist()
    assert remote.transcript.rounds == planned().rounds == 2
    assert remote.transcript == local.transcript
    report = json.loads((tmp_path / "report").read_text())
    assert report == {"queries": 2, "messages": [messages(local.transcript)] * 2}


def test_a_server_killed_in_the_middle_of_a_query_is_a_lost_peer(tmp_path: Path) -> None:
    with process(Dying, tmp_path / "report") as (channel, child):
        server = PipeServer(client(), channel, 2)
        with pytest.raises(PeerLost, match="its process ended"):
            server.evaluate(client().encrypt(X), client().link())
        child.join(20)
        assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("scheme", ["clear", "ckks"])
def test_a_scheme_without_rounds_needs_no_link(scheme: str) -> None:
    party = client(scheme)
    with thread(lambda end: serve(Sigmoid(), end, allow_insecure=True)) as channel:
        server = PipeServer(party, channel, planned(scheme).rounds)
        scores = party.decrypt(server.evaluate(party.encrypt(X)))
    exact = SIGMOID.polynomial(3, 2.0)(LINEAR.prepare(X) @ WEIGHTS * 2.0 + 0.5)
    assert np.abs(scores - exact).max() < 2.0**-10


def test_a_client_predicts_with_a_remote_server_as_with_its_own() -> None:
    party, links = client(), []
    with thread(lambda end: serve(Sigmoid(), end, allow_insecure=True, record=links.append)) as channel:
        remote = party.predict(PipeServer(party, channel, 2), X)
    assert remote.tolist() == party.predict(Server(Sigmoid(), party.public(), allow_insecure=True), X).tolist()
    assert [link.rounds for link in links] == [2]


def test_a_server_makes_its_randomness_while_the_client_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = UniformSource.draw
    monkeypatch.setattr(UniformSource, "draw", lambda self, count: (drawn.append(count), draw(self, count))[1])
    party, operations = client(), planned().operations
    ahead = operations["rerandomize"] + operations["mask"]
    with thread(lambda end: serve(Sigmoid(), end, ahead=ahead, allow_insecure=True)) as channel:
        server = PipeServer(party, channel, planned().rounds)
        for _ in range(2):
            party.predict(server, X)
        server.close()
    assert drawn == [ahead] * 3  # before the first query, and after each: none during one


def test_questions_travel_under_policy_client() -> None:
    agreed = planned("paillier", Asking, "client")
    party = Client(agreed)
    link = party.link()
    with thread(lambda end: serve(Asking(), end, "client", allow_insecure=True)) as channel:
        scores = party.decrypt(PipeServer(party, channel, agreed.rounds).evaluate(party.encrypt(X), link))
    assert np.abs(scores - SIGMOID.exact(LINEAR.prepare(X) @ WEIGHTS + 0.25)).max() < 2.0**-9
    assert [kind for kind, _, _ in messages(link.transcript)] == ["ask", "ask"]


def test_a_selection_travels_blinded() -> None:
    made = planned("paillier", Choosing)
    party = Client(made)
    with thread(lambda end: serve(Choosing(), end, allow_insecure=True)) as channel:
        y = PipeServer(party, channel, made.rounds).evaluate(party.encrypt([[0.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    assert (y.blinded, y.shape) == (True, (2, 2))
    assert party.decrypt(y).tolist() == [[2.0], [5.0]]


# --- peers that are gone, slow, or hostile ----------------------------------------------------------------------------


def raw(channel: Channel) -> int:
    return channel._connection.fileno()


def wait(channel: Channel) -> None:
    with suppress(HepipeError):
        channel.receive(20)


def trickle(channel: Channel) -> None:
    os.write(raw(channel), struct.pack("!i", 1000))
    with suppress(OSError):
        for _ in range(400):
            os.write(raw(channel), b"x")
            time.sleep(0.05)


@pytest.mark.parametrize("peer", [wait, trickle], ids=["silent", "trickling"])
def test_a_peer_that_is_too_slow_is_given_up_in_time(peer: Callable[[Channel], None]) -> None:
    with thread(peer) as channel:
        start = time.monotonic()
        with pytest.raises(PeerLost, match=r"nothing complete within 0\.3 s"):
            channel.receive(0.3)
        assert 0.25 < time.monotonic() - start < 5  # the peer goes on for 20
        with pytest.raises(PeerLost, match="it closed"):
            channel.send(b"still there?")


def test_a_peer_that_does_not_read_is_given_up_in_time() -> None:
    ended = threading.Event()
    with thread(lambda _: ended.wait(20), timeout_s=0.3) as channel:
        with pytest.raises(PeerLost, match="send: the peer is gone"):
            channel.send(bytes(1 << 24))
        ended.set()


@pytest.mark.parametrize("header", [struct.pack("!i", 1001), struct.pack("!iQ", -1, 1 << 62)], ids=["small", "huge"])
def test_a_message_over_the_limit_is_refused_unread(header: bytes) -> None:
    with thread(lambda end: (os.write(raw(end), header), wait(end)), max_bytes=1000) as channel:
        with pytest.raises(MalformedFrame, match="more than 1000 bytes: refused unread"):
            channel.receive(5)
        with pytest.raises(PeerLost):
            channel.receive(5)


def test_whether_something_waits_is_known_without_receiving_it() -> None:
    ours, theirs = multiprocessing.Pipe()
    with Channel(ours) as channel, Channel(theirs) as end:
        assert not end.waiting(0)
        channel.send(b"something")
        assert end.waiting(20)
        assert end.receive() == b"something"
        assert not end.waiting(0)
        channel.abort()
        assert end.waiting(20)  # the peer's end
        with pytest.raises(PeerLost, match="it closed"):
            end.receive()
        assert end.waiting(0)


def test_a_wait_longer_than_a_socket_allows_is_only_cut_short() -> None:
    ours, theirs = multiprocessing.Pipe()
    with Channel(ours, timeout_s=1e12) as channel, Channel(theirs) as end:
        channel.send(b"question")
        assert end.receive(1e12) == b"question"


def test_a_message_of_just_the_limit_passes_and_an_own_one_over_it_does_not() -> None:
    with thread(lambda end: end.send(end.receive()), max_bytes=1000) as channel:
        with pytest.raises(Unsupported, match="raise max_bytes"):
            channel.send(bytes(1001))
        channel.send(bytes(1000))
        assert channel.receive() == bytes(1000)


class Bomb:
    """What would run in the receiving process if it ever unpickled."""

    def __reduce__(self) -> Any:
        return os.kill, (os.getpid(), signal.SIGKILL)


def test_a_pickled_object_is_bytes_that_are_no_frame() -> None:
    errors: list[Exception] = []

    def server(end: Channel) -> None:
        try:
            serve(Sigmoid(), end, allow_insecure=True)
        except MalformedFrame as error:
            errors.append(error)

    with thread(server) as channel:
        channel.send(pickle.dumps(Bomb()))
        with pytest.raises(PeerLost):
            channel.receive()
    assert "do not begin with a hepipe header" in str(errors[0])


def test_a_server_refuses_keys_of_tests_and_does_not_say_why() -> None:
    errors: list[Exception] = []

    def server(end: Channel) -> None:
        try:
            serve(Sigmoid(), end)
        except InsecureParameters as error:
            errors.append(error)

    with thread(server) as channel:
        channel.send(client().public_bytes())
        with pytest.raises(PeerLost) as caught:
            channel.receive()
    assert len(errors) == 1
    assert str(errors[0]) not in str(caught.value)


def scripted(*replies: Callable[[bytes], bytes]) -> Callable[[Channel], None]:
    """A server that answers the messages of a client in a way of its own."""

    def play(end: Channel) -> None:
        end.receive()
        for reply in replies:
            end.send(reply(end.receive()))
        wait(end)

    return play


def question(_: bytes) -> bytes:
    """A valid request for a masked square."""
    party = client()
    server = Server(Sigmoid(), party.public(), allow_insecure=True)
    seen: list[bytes] = []

    class Spy:
        transcript = Transcript()

        def request(self, kind: str, frame: bytes) -> bytes:
            seen.append(frame)
            return party.answer(frame)

    server.evaluate(party.encrypt(X), Spy())
    return seen[0]


def fewer(query: bytes) -> bytes:
    one = client().encrypt(X[:1])
    return client().pack(replace(one, level=0))


@pytest.mark.parametrize(
    ("replies", "rounds", "error", "says"),
    [
        ([question, question, question], 2, MalformedFrame, "more than the 2 rounds planned"),
        ([question], 0, MalformedFrame, "more than the 0 rounds planned"),
        ([fewer], 2, MalformedFrame, "1 samples for 2 inputs"),
        ([lambda q: b""], 2, PeerLost, "goodbye in the middle"),
        ([lambda q: b"no frame at all"], 2, MalformedFrame, "hepipe header"),
        ([lambda q: client().public_bytes()], 2, MalformedFrame, "expected one of"),
        ([lambda q: question(q)[:-1]], 2, MalformedFrame, "bytes that follow"),
    ],
    ids=["rounds", "no rounds", "samples", "goodbye", "junk", "keys", "truncated"],
)
def test_a_client_holds_a_server_to_the_protocol(
    replies: Any, rounds: int, error: type[HepipeError], says: str
) -> None:
    with thread(scripted(*replies)) as channel:
        server = PipeServer(client(), channel, rounds)
        with pytest.raises(error, match=says):
            server.evaluate(client().encrypt(X), client().link())
        with pytest.raises(PeerLost):  # any error has closed the channel
            channel.receive()


def test_a_round_without_a_link_is_refused() -> None:
    with thread(scripted(question)) as channel, pytest.raises(Unsupported, match="pass link"):
        PipeServer(client(), channel, 2).evaluate(client().encrypt(X))


def test_a_client_that_leaves_in_a_round_is_lost() -> None:
    with thread(lambda end: (end.receive(), end.send(b""))) as channel:
        link = PipeLink(channel)
        with pytest.raises(PeerLost, match="left in the middle of a query"):
            link.request("masked product", b"frame")
        assert messages(link.transcript) == [["masked product", "server", 5]]


def test_a_goodbye_ends_a_session_without_an_error() -> None:
    for first in ([], [client().public_bytes()]):
        ours, theirs = multiprocessing.Pipe()
        with Channel(ours) as channel:
            for message in first:
                channel.send(message)
        assert serve(Sigmoid(), Channel(theirs), allow_insecure=True) == 0
        assert theirs.closed
        channel.close()  # again: harmless


def test_a_one_way_connection_is_no_channel() -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    for end in (receiving, sending):
        with pytest.raises(Unsupported, match="duplex"):
            Channel(end)
        end.close()
