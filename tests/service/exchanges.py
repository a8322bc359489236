"""Recorded bytes as what they are: requests and answers of HTTP, and messages of WebSockets without their masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h11
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from service.proxy import Conversation


@dataclass
class Exchange:
    """One request, its answer, and the messages of the WebSocket that it may have become."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer_headers: dict[str, str]
    answer: bytes
    asked: list[str | bytes] = field(default_factory=list)
    answered: list[str | bytes] = field(default_factory=list)


def exchange(one: Conversation) -> Exchange:
    """The only exchange of a connection."""
    request, body, asked = _read(h11.Connection(h11.SERVER), bytes(one.up))
    answering = h11.Connection(h11.CLIENT)
    answering.send(request)
    answering.send(h11.Data(data=body))
    answering.send(h11.EndOfMessage())
    answer, answer_body, answered = _read(answering, bytes(one.down))
    messages = (_messages(asked), _messages(answered)) if answer.status_code == 101 else ([], [])
    assert answer.status_code == 101 or not (asked or answered)
    return Exchange(
        request.method.decode(), request.target.decode(), _headers(request), body, answer.status_code,
        _headers(answer), answer_body, *messages,
    )  # fmt: skip


def seen(conversations: Iterable[Conversation]) -> list[bytes]:
    """Every byte, raw, and again all bodies and messages whole: a WebSocket's client masks what it sends."""
    parts: list[bytes] = []
    for one in conversations:
        parts += [bytes(one.up), bytes(one.down)]
        read = exchange(one)
        parts += [read.body, read.answer]
        parts += [each.encode() if isinstance(each, str) else each for each in read.asked + read.answered]
    return parts


def _read(connection: Any, data: bytes) -> tuple[Any, bytes, bytes]:
    """Head and body of the one message in ``data``, and what stands behind it."""
    connection.receive_data(data)
    connection.receive_data(b"")
    head, body = connection.next_event(), b""
    assert isinstance(head, (h11.Request, h11.Response, h11.InformationalResponse)), head
    if getattr(head, "status_code", 0) != 101:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
            body += bytes(event.data)
    return head, body, bytes(connection.trailing_data[0])


def _messages(data: bytes) -> list[str | bytes]:
    """The payloads of a WebSocket's data frames."""
    reader, found = StreamReader(), []
    reader.feed_data(data)
    reader.feed_eof()
    while not _run(reader.at_eof()):
        frame = _run(Frame.parse(reader.read_exact, mask=bool(data[1] & 0x80)))
        assert frame.fin
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            payload = bytes(frame.data)
            found.append(payload.decode() if frame.opcode == Opcode.TEXT else payload)
    return found


def _run(steps: Any) -> Any:
    """What a generator of websockets returns, all of whose bytes are here."""
    try:
        next(steps)
    except StopIteration as done:
        return done.value
    raise AssertionError("a frame that is cut")


def _headers(event: Any) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in event.headers}
