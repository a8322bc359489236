"""What a bad line does to a stream: whole HTTP messages and WebSocket frames cut, flipped, repeated or exchanged."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from relay import Change, Cut, unchanged

Each = Callable[[int, bytes], bytes]
"""Is given a message and its number on the connection, returns what goes on in its place."""
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass
class Harm:
    """What is done to the messages of one direction; ``done`` once it happened."""

    each: Callable[[Harm, int, bytes], bytes]
    connections: int = 1_000_000
    """On so many connections, from the first on; those that follow are left alone."""
    done: bool = False

    def __call__(self, number: int) -> Change:
        if number >= self.connections:
            return unchanged(number)
        return Messages(lambda index, message: self.each(self, index, message))


@dataclass
class Messages:
    """Splits one direction of a connection into HTTP messages and, after an upgrade, WebSocket frames."""

    each: Each
    number: int = 0
    upgraded: bool = False
    left: bytes = b""

    def __call__(self, data: bytes) -> bytes:
        self.left += data
        out = b""
        while size := self._size():
            message, self.left = self.left[:size], self.left[size:]
            self.upgraded |= self.number == 0 and b"pgrade: websocket" in message
            try:
                out += self.each(self.number, message)
            except Cut as cut:
                raise Cut(out + cut.rest) from None
            self.number += 1
        return out

    def _size(self) -> int:
        """Of the first message, 0 while it is not whole."""
        size = _frame_bytes(self.left) if self.upgraded else _http_bytes(self.left)
        return size if 0 < size <= len(self.left) else 0


def body_start(message: bytes) -> int:
    """Where the body of an HTTP message begins."""
    return message.index(b"\r\n\r\n") + 4


def _http_bytes(data: bytes) -> int:
    if b"\r\n\r\n" not in data:
        return 0
    start = body_start(data)
    length = _LENGTH.search(data[:start])
    return start + (int(length[1]) if length else 0)


def _frame_bytes(data: bytes) -> int:
    if len(data) < 10:
        extended = {126: 4, 127: 10}.get(data[1] & 127, 2) if len(data) > 1 else 11
        if len(data) < extended:
            return 0
    short, masked = data[1] & 127, data[1] >> 7
    start, size = {126: (4, data[2:4]), 127: (10, data[2:10])}.get(short, (2, bytes([short])))
    return start + 4 * masked + int.from_bytes(size, "big")


def cut(at: int, share: float, connections: int = 1_000_000) -> Harm:
    """Message ``at`` ends after ``share`` of its body, and the connection with it."""

    def each(harm: Harm, number: int, message: bytes) -> bytes:
        if number != at:
            return message
        harm.done = True
        start = body_start(message) if message.startswith((b"POST", b"PUT", b"HTTP")) else 2
        raise Cut(message[: start + round(share * (len(message) - start))])

    return Harm(each, connections)


def flip(at: int) -> Harm:
    """Some byte of message ``at`` becomes another one."""

    def each(harm: Harm, number: int, message: bytes) -> bytes:
        if number != at:
            return message
        harm.done = True
        place = secrets.randbelow(len(message))
        return message[:place] + bytes([message[place] ^ (1 + secrets.randbelow(255))]) + message[place + 1 :]

    return Harm(each)


def repeat(at: int) -> Harm:
    """Message ``at`` comes twice."""

    def each(harm: Harm, number: int, message: bytes) -> bytes:
        harm.done |= number == at
        return message * (1 + (number == at))

    return Harm(each)


def exchange(at: int) -> Harm:
    """Message ``at`` comes after the next one, where the sender does not wait for an answer to it."""
    held: list[bytes] = []

    def each(harm: Harm, number: int, message: bytes) -> bytes:
        if number == at:
            held.append(message)
            return b""
        harm.done |= number == at + 1
        return message + (held.pop() if number == at + 1 else b"")

    return Harm(each)


def replace_by_first(at: int, first: int) -> Harm:
    """Message ``first`` comes again in the place of message ``at``."""
    kept: list[bytes] = []

    def each(harm: Harm, number: int, message: bytes) -> bytes:
        if number == first:
            kept.append(message)
        harm.done |= number == at
        return kept[0] if number == at else message

    return Harm(each)
