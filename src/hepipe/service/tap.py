"""A relay that records what passes it: what whoever stands between client and server sees where there is no TLS."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hepipe.errors import Unsupported
from hepipe.schemes.frames import LAYOUT, MAGIC, Kind, kind_of, parse, split

_CHUNK = 1 << 16
_KEY_ID = re.compile(r"[0-9a-f]{32}")
_OPCODES = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
_DIGITS = 32


@dataclass(frozen=True)
class Passed:
    """One whole message: who sent it, its first line, its size with all of its envelope, and its body."""

    sender: str
    what: str
    size: int
    body: bytes

    @property
    def frames(self) -> list[bytes]:
        """The frames in the body."""
        start = self.body.find(MAGIC)
        return split(self.body[start:]) if start >= 0 else []


class Tap:
    """A relay on this machine to a server on this machine; ``passed`` is what it saw, in order.

    It speaks what a client and a server of hepipe speak: HTTP/1.1 with lengths, and WebSockets.
    """

    def __init__(self, url: str) -> None:
        scheme, _, place = url.partition("://")
        if scheme != "http":
            raise Unsupported(f"{url}: under TLS a relay sees noise; tap plain http on this machine")
        host, _, port = place.rpartition(":")
        self._server = (host.strip("[]"), int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed: list[Passed] = []
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Relay no more; what was recorded stays."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                upgraded = threading.Event()
                for sender, ends in (("client", (client, server)), ("server", (server, client))):
                    stream = _Stream(sender, upgraded)
                    threading.Thread(target=self._relay, args=(*ends, stream), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, stream: _Stream) -> None:
        with suppress(OSError):  # one of the two is gone, and the other learns it by this
            while data := source.recv(_CHUNK):
                self.passed += stream.feed(data)  # before it is sent on, so that an answer stands after its question
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class _Stream:
    """One direction of one connection, cut into messages."""

    def __init__(self, sender: str, upgraded: threading.Event) -> None:
        self._sender, self._upgraded, self._buffer = sender, upgraded, bytearray()

    def feed(self, data: bytes) -> list[Passed]:
        """The messages that are whole with these bytes."""
        self._buffer += data
        return list(self._whole())

    def _whole(self) -> Iterator[Passed]:
        while (found := self._websocket() if self._upgraded.is_set() else self._http()) is not None:
            del self._buffer[: found.size]
            if found.what.startswith("101 "):
                self._upgraded.set()
            yield found

    def _http(self) -> Passed | None:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        head = bytes(self._buffer[:end])
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        size = end + (int(length[1]) if length else 0)
        if len(self._buffer) < size:
            return None
        line = head.partition(b"\r\n")[0].decode("ascii")
        what = _KEY_ID.sub("{key_id}", line.removesuffix(" HTTP/1.1").removeprefix("HTTP/1.1 "))
        return Passed(self._sender, what, size, bytes(self._buffer[end:size]))

    def _websocket(self) -> Passed | None:
        if len(self._buffer) < 2:
            return None
        first, second = self._buffer[:2]
        long, masked = {126: ">H", 127: ">Q"}.get(second & 127), second >> 7
        start = 2 + (struct.calcsize(long) if long else 0) + 4 * masked
        if len(self._buffer) < start:
            return None
        size = start + (struct.unpack_from(long, self._buffer, 2)[0] if long else second & 127)
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[start:size])
        shown = _unmasked(body, bytes(self._buffer[start - 4 : start])) if masked else body
        return Passed(self._sender, f"WebSocket {_OPCODES.get(first & 15, 'frame')}", size, shown)


def _unmasked(body: bytes, mask: bytes) -> bytes:
    """What a client sends over a WebSocket is masked with four bytes that it sends along: a protection of proxies."""
    return (np.frombuffer(body, np.uint8) ^ np.resize(np.frombuffer(mask, np.uint8), len(body))).tobytes()


_READERS = {
    Kind.PUBLIC_KEYS: "anyone: keys that encrypt and evaluate, none that decrypts",
    Kind.KEY_PROOF: "anyone: that the key is well made, no more",
    Kind.MASKED_FACTORS: "client: values under masks of 80 bits",
    Kind.MASKED_PRODUCTS: "client: their products",
    Kind.QUESTION: "client: the arguments of an activation, which policy client agrees to",
    Kind.MASKED_NUMBERS: "client: numbers under masks of 80 bits",
    Kind.BITS: "client: bits of the masked numbers",
    Kind.ZERO_TESTS: "client: zeros by the server's coin among random numbers, in random order",
    Kind.ZEROS_FOUND: "client: which of them are zero",
    Kind.MASKED_VALUES: "client: values under masks",
    Kind.REFRESHED: "client: the same masked values",
}
"""Who can make something of the content of a frame, and of what."""
_NAMES = "anyone here, under TLS both parties: names, ids, digests, sizes"
"""The same of what is no frame."""


def wire_table(passed: Sequence[Passed], reveals: str) -> pd.DataFrame:
    """A row for each message: what it holds, its bytes, and who can read what in it; ``reveals`` is the plan's."""
    rows = []
    for each in passed:
        kinds = [Kind(kind_of(frame)) for frame in each.frames]
        size = sum(map(len, each.frames))
        rows.append(
            {
                "message": each.what,
                "from": each.sender,
                "frames": " and ".join(kind.name for kind in kinds) or None,
                "bytes": each.size,
                "frame bytes": size,
                "envelope bytes": each.size - size,
                "who can read what": "; ".join(_reader(each, kind, reveals) for kind in kinds) or _NAMES,
            }
        )
    return pd.DataFrame(rows)


def _reader(passed: Passed, kind: Kind, reveals: str) -> str:
    if kind is Kind.TENSOR:
        return "client: its inputs" if passed.sender == "client" else f"client: {reveals}"
    return _READERS.get(kind, "client")


_MEANINGS = {
    "magic": "a frame of hepipe",
    "version": "of the envelope",
    "kind": "what it carries",
    "scheme": "0 clear, 1 Paillier, 2 CKKS",
    "flags": "1: half of each ciphertext is a seed; 2: rows are blinded",
    "key_id": "whose key, a digest of its public half",
    "samples": "rows",
    "features": "columns",
    "level": "products still affordable",
    "log_scale": "bits after the binary point, a double",
    "body_len": "bytes after this header",
    "sha256": "of all other bytes: finds accidents, proves nothing",
    "bounds": "a power of two that no value of the column exceeds, from the published profile",
    "ciphertexts": "noise to all but the holder of the key",
}


def frame_table(frame: bytes) -> pd.DataFrame:
    """The header of a query's frame field by field, and how its body begins: bounds and ciphertexts."""
    head = parse(frame, Kind.TENSOR)
    rows, start, bounds = [], 0, 2 * head.features
    for name, size in (*LAYOUT, ("bounds", bounds), ("ciphertexts", len(head.body) - bounds)):
        shown = frame[start : start + min(size, _DIGITS)].hex(" ")
        rows.append({"field": name, "bytes": size, "hex": shown + " …" * (size > _DIGITS), "meaning": _MEANINGS[name]})
        start += size
    return pd.DataFrame(rows)


def findings(*tables: pd.DataFrame) -> list[str]:
    """One sentence on ``wire_table``: how much of what travelled was ciphertext, and how much could be read."""
    every = pd.concat(tables)
    named = every.loc[every["frames"].isna(), "bytes"].sum()
    frames, total = every["frame bytes"].sum(), every["bytes"].sum()
    return [
        f"Of {total:,} bytes in {len(every)} messages {100 * frames / total:.2f} % are frames of public keys and "
        f"ciphertexts; {named:,} bytes are messages without one, of names, ids and digests."
    ]
