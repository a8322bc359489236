"""The envelope of everything that crosses a boundary: a fixed binary header, a body, and a digest over both.

    magic 4 | version 1 | kind 1 | scheme 1 | flags 1 | key_id 16 | samples 4 | features 4 | level 2 | log_scale 8
    | body_len 8 | sha256 32 | body

Big-endian throughout. The header has one size, so a plan can predict the bytes of a protocol exactly.
"""

from __future__ import annotations

import enum
import hashlib
import math
import struct
from dataclasses import dataclass

from hepipe.errors import MalformedFrame
from hepipe.schemes.parameters import Parameters

MAGIC = b"HEPF"
VERSION = 1
SCHEMES = ("clear", "paillier", "ckks")
SEEDED = 1
BLINDED = 2
MAX_SAMPLES = 1 << 24
MAX_FEATURES = 1 << 16
MAX_BODY = 1 << 31
_HEAD = struct.Struct(">4sBBBB16sIIhdQ")
HEADER_BYTES = _HEAD.size + 32
LAYOUT = (
    *(("magic", 4), ("version", 1), ("kind", 1), ("scheme", 1), ("flags", 1), ("key_id", 16), ("samples", 4)),
    *(("features", 4), ("level", 2), ("log_scale", 8), ("body_len", 8), ("sha256", 32)),
)
"""The fields of the header and their bytes, in order."""


class Kind(enum.IntEnum):
    """What a frame carries."""

    TENSOR = 1
    PUBLIC_KEYS = 2
    MASKED_FACTORS = 3
    MASKED_PRODUCTS = 4
    QUESTION = 5
    MASKED_NUMBERS = 6
    BITS = 7
    ZERO_TESTS = 8
    ZEROS_FOUND = 9
    MASKED_VALUES = 12
    REFRESHED = 13
    KEY_PROOF = 16
    CONTRIBUTION = 32
    POOLED_SUM = 33
    MASKED_SYSTEM = 34
    MASKED_SOLUTION = 35
    ASSIGNMENT = 36
    CENTRES = 37


@dataclass(frozen=True)
class Frame:
    """One parsed message. ``flags`` is SEEDED, BLINDED or 0."""

    kind: Kind
    scheme: str
    key_id: str
    samples: int
    features: int
    level: int
    log_scale: float
    body: bytes
    flags: int = 0

    def to_bytes(self) -> bytes:
        """The canonical encoding; ``parse`` accepts nothing else."""
        head = _HEAD.pack(
            MAGIC, VERSION, self.kind, SCHEMES.index(self.scheme), self.flags, bytes.fromhex(self.key_id),
            self.samples, self.features, self.level, self.log_scale, len(self.body),
        )  # fmt: skip
        return head + _digest(head, self.body) + self.body


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def parse(data: bytes, *kinds: Kind) -> Frame:
    """Parse one frame of one of ``kinds``; MalformedFrame on anything that is not exactly one valid frame."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        raise MalformedFrame(f"{len(data)} bytes do not begin with a hepipe header of {HEADER_BYTES} bytes")
    head = _HEAD.unpack_from(data)
    _, version, kind, scheme, flags, key_id, samples, features, level, log_scale, body_len = head
    body = data[HEADER_BYTES:]
    for value, ok, meaning in (
        (version, version == VERSION, f"version {VERSION}"),
        (kind, kind in kinds, f"one of {[k.name for k in kinds]}"),
        (scheme, scheme < len(SCHEMES), "a known scheme"),
        (flags, flags in (0, SEEDED, BLINDED), "known flags"),
        (samples, samples <= MAX_SAMPLES, f"at most {MAX_SAMPLES} samples"),
        (features, features <= MAX_FEATURES, f"at most {MAX_FEATURES} features"),
        (level, 0 <= level <= 64, "a level from 0 to 64"),
        (log_scale, math.copysign(1.0, log_scale) > 0 and log_scale < 8192, "a log_scale from 0 to 8192"),
        (body_len, body_len == len(body) <= MAX_BODY, f"the {len(body)} bytes that follow"),
    ):
        if not ok:
            raise MalformedFrame(f"header says {value}, expected {meaning}")
    if _digest(data[: _HEAD.size], body) != data[_HEAD.size : HEADER_BYTES]:
        raise MalformedFrame("digest does not match: the frame was altered or truncated on its way; send it again")
    return Frame(Kind(kind), SCHEMES[scheme], key_id.hex(), samples, features, level, log_scale, body, flags)


def kind_of(data: bytes) -> int:
    """The kind that a frame's header states, before anything else is checked; -1 where there is none."""
    return data[5] if len(data) >= HEADER_BYTES else -1


def split(data: bytes, most: int = 2) -> list[bytes]:
    """The frames, ``most`` of them, that stand one after another in ``data``, each still to be parsed.

    MalformedFrame if the last does not end where ``data`` does.
    """
    frames: list[bytes] = []
    start = 0
    while start < len(data):
        whole = len(data) - start >= HEADER_BYTES and len(frames) < most
        end = start + HEADER_BYTES + _HEAD.unpack_from(data, start)[-1] if whole else math.inf
        if end > len(data):
            raise MalformedFrame(f"{len(data)} bytes that are not at most {most} whole frames")
        frames.append(data[start : int(end)])
        start = int(end)
    return frames


def bound_to(request: bytes, answer: bytes) -> bytes:
    """An answer whose digest covers its request's as well, at no byte more: it is none to any other request."""
    return _redigested(answer, _digest(answer[_HEAD.size : HEADER_BYTES], _digest(request)))


def unbound(request: bytes, answer: bytes) -> bytes:
    """The answer that was ``bound_to`` this request; MalformedFrame for the answer to another one."""
    plain = _redigested(answer, _digest(answer[: _HEAD.size], answer[HEADER_BYTES:]))
    if bound_to(request, plain) != answer:
        raise MalformedFrame("an answer that was altered on its way, or that answers another round: ask again")
    return plain


def _redigested(frame: bytes, digest: bytes) -> bytes:
    if len(frame) < HEADER_BYTES:
        raise MalformedFrame(f"{len(frame)} bytes do not begin with a hepipe header of {HEADER_BYTES} bytes")
    return frame[: _HEAD.size] + digest + frame[HEADER_BYTES:]


def body_bytes(parameters: Parameters, shape: tuple[int, int], level: int, fresh: bool = False) -> int:
    """The exact size of the ciphertexts of a tensor; without encryption, 8 bytes a value."""
    samples, features = shape
    if parameters.name == "clear":
        return 8 * samples * features
    return -(-samples // parameters.slots) * features * parameters.ciphertext_bytes(level, fresh)


def tensor_bytes(
    parameters: Parameters, shape: tuple[int, int], level: int, fresh: bool = False, blinded: int = 0
) -> int:
    """The exact size of a TENSOR frame: header, the groups if blinded, two bytes of bound a feature, ciphertexts."""
    return HEADER_BYTES + 2 * (blinded > 0) + 2 * shape[1] + body_bytes(parameters, shape, level, fresh)
