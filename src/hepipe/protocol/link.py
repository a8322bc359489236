"""How messages of a protocol travel, and the record of what travelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Message:
    """One message: the kind of frame, who sent it, and its size."""

    kind: str
    sender: str
    size: int


@dataclass
class Transcript:
    """Every message of a session. A round is one request of the server and the answer of the client."""

    messages: list[Message] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Answers of the key holder."""
        return sum(message.sender == "client" for message in self.messages)

    @property
    def bytes_up(self) -> int:
        """Bytes from client to server."""
        return sum(message.size for message in self.messages if message.sender == "client")

    @property
    def bytes_down(self) -> int:
        """Bytes from server to client."""
        return sum(message.size for message in self.messages if message.sender == "server")


class Link(Protocol):
    """A connection from the server to the key holder."""

    transcript: Transcript

    def request(self, kind: str, frame: bytes) -> bytes:
        """Send a frame to the key holder and return its answer. One round."""
        ...


class LocalLink:
    """Both parties in one process: bytes all the same, so that nothing but bytes can cross."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self.transcript = Transcript()

    def request(self, kind: str, frame: bytes) -> bytes:
        """Hand the frame to the client's half and return its answer."""
        self.transcript.messages.append(Message(kind, "server", len(frame)))
        reply = self._answer(frame)
        self.transcript.messages.append(Message(kind, "client", len(reply)))
        return reply
