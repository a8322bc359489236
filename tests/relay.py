"""A TCP relay between a client and a server that sees every byte, and may change, hold back, repeat or cut it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Change = Callable[[bytes], bytes]
"""One direction of one connection: is given what came and returns what goes on, which may be less, more or later."""
Changes = Callable[[int], Change]
"""Makes the Change of a connection, given its number from 0 on."""


class Cut(Exception):
    """Raised by a Change: pass on ``rest``, then close the connection on both sides."""

    def __init__(self, rest: bytes = b"") -> None:
        super().__init__("cut")
        self.rest = rest


def unchanged(number: int) -> Change:
    """Passes everything on."""
    return lambda data: data


def recorded(into: list[bytes]) -> Changes:
    """Passes everything on and keeps it."""

    def each(data: bytes) -> bytes:
        into.append(data)
        return data

    return lambda number: each


class Relay:
    """Listens on a port of this machine and speaks with ``port`` for whoever connects; ``up`` is towards the server."""

    def __init__(self, port: int, up: Changes = unchanged, down: Changes = unchanged) -> None:
        self._target, self.up, self.down = ("127.0.0.1", port), up, down
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Close all connections and wait for the threads."""
        for each in [self._listener, *self._open]:
            _end(each)
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            try:
                far = socket.create_connection(self._target, 10)
            except OSError:  # nobody listens there now: the client finds its connection closed
                _end(near)
                continue
            far.settimeout(None)
            self._open += [near, far]
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways = ((near, far, self.up(number)), (far, near, self.down(number)))
            started = [threading.Thread(target=_pump, args=way, daemon=True) for way in ways]
            self._threads += started
            for thread in started:
                thread.start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self.close()


def _pump(source: socket.socket, target: socket.socket, change: Change) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(change(data))
        target.shutdown(socket.SHUT_WR)
        return
    except Cut as cut:
        with suppress(OSError):
            target.sendall(cut.rest)
    except OSError:
        pass
    _end(source)
    _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
