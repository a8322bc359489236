"""Frames put together here, not by hepipe: every header field as given, the digest right unless one is given."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Any

from vectors.recipe import Part, expand, hexadecimal

_HEAD = struct.Struct(">4sBBBB16sIIhdQ")
TENSOR, PUBLIC_KEYS, KEY_PROOF = 1, 2, 16
PAILLIER, CKKS = 1, 2
SEEDED, BLINDED = 1, 2


@dataclass(frozen=True)
class Case:
    """A vector; ``error`` None for one that is valid."""

    comment: str
    flag: str
    content: bytes | list[Part]
    error: str | None = "MalformedFrame"
    more: dict[str, Any] | None = None

    def fields(self, number: int, text: str) -> dict[str, Any]:
        """As it is written; ``text`` is "hex" or "base64", for bytes."""
        content = self.content
        encoded = (
            {"parts": content}
            if isinstance(content, list)
            else {text: content.hex() if text == "hex" else base64.b64encode(content).decode()}
        )
        outcome = {"result": "invalid", "error": self.error} if self.error else {"result": "valid"}
        return {
            "tcId": number,
            "comment": self.comment,
            "flags": [self.flag],
            **(self.more or {}),
            **encoded,
            **outcome,
        }


@dataclass(frozen=True)
class Form:
    """The header of a frame and its body."""

    kind: int
    scheme: int
    key_id: str
    samples: int = 0
    features: int = 0
    level: int = 0
    log_scale: float = 0.0
    flags: int = 0
    magic: bytes = b"HEPF"
    version: int = 1
    body_len: int | None = None
    digest: bytes | None = None

    def head(self, body: bytes) -> bytes:
        """Header and digest for a body."""
        length = len(body) if self.body_len is None else self.body_len
        head = _HEAD.pack(
            self.magic, self.version, self.kind, self.scheme, self.flags, bytes.fromhex(self.key_id),
            self.samples, self.features, self.level, self.log_scale, length,
        )  # fmt: skip
        return head + (hashlib.sha256(head + body).digest() if self.digest is None else self.digest)

    def frame(self, body: bytes = b"") -> bytes:
        """The frame."""
        return self.head(body) + body

    def parts(self, *body: Part) -> list[Part]:
        """The frame as parts."""
        return [hexadecimal(self.head(expand(list(body)))), *body]


def bits(pattern: int) -> float:
    """The double of these 64 bits."""
    return float(struct.unpack(">d", pattern.to_bytes(8))[0])
