"""The same two parties in two processes: frames over a connection, never objects.

The client speaks first: its public keys, then a tensor a query. The server answers a tensor with requests of rounds,
and after the last with the result. The digest of an answer covers its request too, so that one which comes twice or in
another round's place is refused. An empty message is the goodbye. Neither side tells the other why it failed, since
that would be an oracle for decryption: whoever meets an error closes, and the other side finds its peer gone.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Protocol

from hepipe.errors import HepipeError, MalformedFrame, PeerLost, Unsupported
from hepipe.protocol.link import Link, Message, Transcript
from hepipe.protocol.parties import Client, Model, Server
from hepipe.schemes.base import CipherTensor
from hepipe.schemes.frames import Kind, bound_to, kind_of, unbound

MAX_BYTES = 1 << 28
"""Of one message, unless the caller says less: relinearization keys of the largest ring fit, and 13 Galois keys more at
N = 16384."""
TIMEOUT_S = 60.0
_GOODBYE = b""
_SIZE, _LARGE_SIZE = struct.Struct("!i"), struct.Struct("!Q")
_LONGEST_S = 2e6
"""Of a wait, 23 days: more does not fit into a socket's timeout."""
_JOINED = 1 << 14
"""Messages of up to this size go out with their header in one piece."""
ROUNDS = {
    int(Kind.MASKED_FACTORS): "masked product",
    int(Kind.QUESTION): "ask",
    int(Kind.MASKED_NUMBERS): "masked numbers",
    int(Kind.ZERO_TESTS): "zero tests",
    int(Kind.MASKED_VALUES): "refresh",
}
"""What a server may ask in the middle of a query, as a transcript names it."""


class Channel:
    """One end of a duplex ``multiprocessing`` connection: bytes only, of limited size, in limited time.

    timeout_s   for a whole message, sent or received, so that a peer cannot hold this one by trickling
    max_bytes   a message that announces more is refused before a byte of it is read

    After any error the channel is closed. Encrypts and authenticates nothing: within one machine, or under TLS.
    """

    def __init__(self, connection: Connection, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES) -> None:
        self._connection, self._timeout_s, self._max_bytes = connection, timeout_s, max_bytes
        if not stat.S_ISSOCK(os.fstat(connection.fileno()).st_mode):
            raise Unsupported("a channel needs a duplex connection over a socket: Pipe(), or Listener and Client")
        # Shutting a socket down wakes a thread that is blocked on it, whatever it waits for.
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))

    def send(self, message: bytes) -> None:
        """Send one message; PeerLost if the peer does not take all of it in time."""
        if len(message) > self._max_bytes:
            raise Unsupported(f"{len(message)} bytes over a channel of at most {self._max_bytes}: raise max_bytes")
        large = len(message) > 0x7FFFFFFF
        header = _SIZE.pack(-1) + _LARGE_SIZE.pack(len(message)) if large else _SIZE.pack(len(message))
        with self._guarded("send", self._timeout_s) as end:
            for part in (header + message,) if len(message) <= _JOINED else (header, message):
                self._wait_until(end)
                self._socket.sendall(part)

    def receive(self, timeout_s: float | None = None) -> bytes:
        """One message, empty for a goodbye; PeerLost without one in time, MalformedFrame for one too large."""
        with self._guarded("receive", timeout_s or self._timeout_s) as end:
            (size,) = _SIZE.unpack(self._exactly(_SIZE.size, end))
            if size == -1:
                (size,) = _LARGE_SIZE.unpack(self._exactly(_LARGE_SIZE.size, end))
            if not 0 <= size <= self._max_bytes:
                raise MalformedFrame(f"a message of more than {self._max_bytes} bytes: refused unread")
            return self._exactly(size, end)

    def waiting(self, seconds: float) -> bool:
        """Whether something is to be received, a goodbye or the peer's end included, now or within ``seconds``."""
        return self._connection.closed or self._connection.poll(seconds)

    def close(self) -> None:
        """Say goodbye and close; harmless on a closed channel."""
        if not self._connection.closed:
            with suppress(HepipeError):
                self.send(_GOODBYE)
        self.abort()

    def abort(self) -> None:
        """Close without a goodbye: the peer's next call raises PeerLost."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._connection.close()

    @contextmanager
    def _guarded(self, doing: str, timeout_s: float) -> Iterator[float]:
        """Gives the moment at which the message must be through."""
        try:
            yield time.monotonic() + timeout_s
        except MalformedFrame:
            self.abort()
            raise
        except (EOFError, OSError) as error:
            self.abort()
            late = isinstance(error, TimeoutError)
            reason = f"nothing complete within {timeout_s:g} s" if late else "it closed, or its process ended"
            raise PeerLost(f"{doing}: the peer is gone ({reason}); connect again and repeat the query") from error

    def _exactly(self, size: int, end: float) -> bytes:
        data, got = bytearray(size), 0
        while got < size:
            self._wait_until(end)
            count = self._socket.recv_into(memoryview(data)[got:])
            if not count:
                raise EOFError
            got += count
        return bytes(data)

    def _wait_until(self, end: float) -> None:
        """The next call on the socket ends by then; a timeout of zero would mean not to wait at all."""
        self._socket.settimeout(min(max(end - time.monotonic(), 1e-6), _LONGEST_S))

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        (self.abort if kind else self.close)()


class PipeLink:
    """The server's link to a key holder in another process: for protocols the same as LocalLink.

    From ``request``: PeerLost if the client is gone or says goodbye in the middle of a query, MalformedFrame for the
    answer to another round.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.transcript = Transcript()

    def request(self, kind: str, frame: bytes) -> bytes:
        """Send a frame to the key holder and wait for its answer. One round."""
        self._channel.send(frame)
        self.transcript.messages.append(Message(kind, "server", len(frame)))
        reply = self._channel.receive()
        if reply == _GOODBYE:
            raise PeerLost(f"{kind}: the client left in the middle of a query")
        self.transcript.messages.append(Message(kind, "client", len(reply)))
        return unbound(frame, reply)


def serve(
    model: Model,
    channel: Channel,
    policy: str = "polynomial",
    *,
    idle_s: float = 3600.0,
    ahead: int = 0,
    allow_insecure: bool = False,
    record: Callable[[Transcript], None] = lambda transcript: None,
) -> int:
    """The server's process: answer one client until its goodbye; returns the number of queries.

    idle_s  how long a client may think between two queries
    ahead   re-randomisations to have ready for each query, made while the client thinks (Paillier): what a query takes
            are the operations "rerandomize" and "mask" of its plan
    record  is called with the transcript of every query

    Closes the channel in any case; raises the typed error that ended it, which the client never sees.
    """
    queries = 0
    with channel:
        frame = channel.receive()
        if frame == _GOODBYE:
            return queries
        server = Server(model, frame, policy, allow_insecure=allow_insecure)
        server.fill(ahead)
        while (query := channel.receive(idle_s)) != _GOODBYE:
            link = PipeLink(channel)
            channel.send(server.pack(server.evaluate(server.unpack(query), link)))
            record(link.transcript)
            queries += 1
            server.fill(ahead)
    return queries


class Ends(Protocol):
    """What a conversation needs of a connection: whole messages, or a typed error."""

    def send(self, message: bytes) -> None:
        """Send one message."""
        ...

    def receive(self) -> bytes:
        """One message, empty for a goodbye."""
        ...


class Keeper(Protocol):
    """What a conversation needs of the key holder: frames of its tensors, and tensors of its frames."""

    def pack(self, x: CipherTensor) -> bytes:
        """A tensor as a frame."""
        ...

    def unpack(self, frame: bytes) -> CipherTensor:
        """A tensor from its frame."""
        ...


def converse(ends: Ends, keeper: Keeper, x: CipherTensor, link: Link | None, rounds: int) -> CipherTensor:
    """The client's half of one query: send x, answer at most ``rounds`` rounds over ``link``, return the result.

    MalformedFrame for a server that does not keep to the protocol, PeerLost for one that is gone. Every round is a
    decryption made for the server, so one that asks for more than planned is refused.
    """
    ends.send(keeper.pack(x))
    for _ in range(rounds):
        frame = ends.receive()
        kind = kind_of(frame)
        if kind not in ROUNDS:
            return _checked(keeper, frame, x, rounds)
        if link is None:
            raise Unsupported("the server asks for a round: pass link=client.link()")
        ends.send(bound_to(frame, link.request(ROUNDS[kind], frame)))
    return _checked(keeper, ends.receive(), x, rounds)


def _checked(keeper: Keeper, frame: bytes, x: CipherTensor, rounds: int) -> CipherTensor:
    if frame == _GOODBYE:
        raise PeerLost("the server said goodbye in the middle of a query")
    if kind_of(frame) in ROUNDS:
        raise MalformedFrame(f"the server asks for more than the {rounds} rounds planned")
    result = keeper.unpack(frame)
    if result.shape[0] != x.shape[0]:
        raise MalformedFrame(f"a result of {result.shape[0]} samples for {x.shape[0]} inputs")
    return result


class PipeServer:
    """What a client holds in place of a Server: ``evaluate`` as there, the model in another process of this machine.

    rounds  the most rounds a query may take, from the plan

    Reveals what the same evaluation reveals within one process: the frames are the same. Over a network, use
    service.client.RemoteServer.
    """

    def __init__(self, client: Client, channel: Channel, rounds: int) -> None:
        self._client, self._channel, self._rounds = client, channel, rounds
        channel.send(client.public_bytes())

    def evaluate(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The encrypted scores; ``link`` (client.link()) answers the rounds. Any error ends the connection.

        MalformedFrame for a server that does not keep to the protocol, PeerLost for one that is gone.
        """
        try:
            return converse(self._channel, self._client, x, link, self._rounds)
        except BaseException:
            self._channel.abort()
            raise

    def close(self) -> None:
        """Say goodbye: the server's process ends its session."""
        self._channel.close()
