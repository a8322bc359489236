"""What lies in a mailbox: the names of its objects, and letters, which bind each frame to what it belongs to.

    models/<model>                              the published profile of a model, JSON
    keys/<key>                                  public and evaluation keys, as Client.registration_bytes
    jobs/<model>/<job>.request                  letter: the tensor
    jobs/<model>/<job>.claim-<attempt>          who evaluates: created once, so by one worker
    jobs/<model>/<job>.alive-<attempt>          rewritten for as long as it does
    jobs/<model>/<job>.ask-<attempt>-<round>    letter: a frame of a round
    jobs/<model>/<job>.answer-<attempt>-<round> letter: the key holder's answer
    jobs/<model>/<job>.reply                    letter: the scores, or a refusal; the first one stays

<model> is the digest of a bundle, <key> a key id, <job> 128 random bits: names tell nothing but who waits for whom.

A letter is a fixed header, a digest over all of it, and a body:

    magic 4 | version 1 | kind 1 | attempt 2 | round 4 | model 32 | job 16 | key_id 16 | request sha256 32 | body_len 8
    | sha256 32 | body
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from hepipe.errors import MalformedFrame

MAGIC, VERSION = b"HEPM", 1
_HEAD = struct.Struct(">4sBBHI32s16s16s32sQ")
LETTER_BYTES = _HEAD.size + 32
MODELS, KEYS, JOBS = "models", "keys", "jobs"
MODEL_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([0-9a-f]{32})\.(request|reply|claim|alive|ask|answer)(?:-([1-9]\d{0,3})(?:-([1-9]\d{0,5}))?)?")
_NUMBERS = {"request": 0, "reply": 0, "claim": 1, "alive": 1, "ask": 2, "answer": 2}


class Part(enum.IntEnum):
    """What a letter carries: a TENSOR frame, frames of a round, a TENSOR frame of scores, or a problem as JSON."""

    REQUEST = 1
    ASK = 2
    ANSWER = 3
    RESULT = 4
    REFUSAL = 5


@dataclass(frozen=True)
class Place:
    """What every letter of one prediction is bound to: model, job, key, and the SHA-256 of the request's frame."""

    model: str
    job: str
    key_id: str
    request: str

    @classmethod
    def new(cls, model: str, key_id: str, frame: bytes) -> Place:
        """The place of a new request."""
        return cls(model, secrets.token_hex(16), key_id, hashlib.sha256(frame).hexdigest())

    def name(self, part: str, *numbers: int) -> str:
        """The name of one of its objects."""
        return "-".join([f"{JOBS}/{self.model}/{self.job}.{part}", *map(str, numbers)])


@dataclass(frozen=True)
class Letter:
    """A frame and where it belongs; ``attempt`` and ``round`` are 0 in a request, ``round`` also in a reply."""

    part: Part
    place: Place
    attempt: int
    round: int
    body: bytes

    def to_bytes(self) -> bytes:
        """The canonical encoding; ``parse`` accepts nothing else."""
        ids = (self.place.model, self.place.job, self.place.key_id, self.place.request)
        head = _HEAD.pack(MAGIC, VERSION, self.part, self.attempt, self.round, *map(bytes.fromhex, ids), len(self.body))
        return head + hashlib.sha256(head + self.body).digest() + self.body

    @classmethod
    def parse(cls, data: bytes) -> Letter:
        """The letter of exactly these bytes; MalformedFrame for anything else."""
        if len(data) < LETTER_BYTES or data[:4] != MAGIC:
            raise MalformedFrame(f"an object of {len(data)} bytes that is no letter")
        _, version, part, attempt, round_, model, job, key_id, request, length = _HEAD.unpack_from(data)
        body = data[LETTER_BYTES:]
        if version != VERSION or part not in set(Part) or length != len(body):
            raise MalformedFrame(f"a letter of version {version}, part {part}, {len(body)} of {length} bytes")
        if hashlib.sha256(data[: _HEAD.size] + body).digest() != data[_HEAD.size : LETTER_BYTES]:
            raise MalformedFrame("digest does not match: the letter was altered or truncated on its way")
        place = Place(model.hex(), job.hex(), key_id.hex(), request.hex())
        return cls(Part(part), place, attempt, round_, body)

    def expect(self, place: Place, parts: Iterable[Part], attempt: int | None = None, round_: int = 0) -> Letter:
        """Itself; MalformedFrame for a letter that belongs elsewhere. ``attempt`` None stands for any."""
        expected = {
            "part": (self.part in set(parts), True), "place": (self.place, place), "round": (self.round, round_),
            "attempt": (self.attempt, self.attempt if attempt is None else attempt),
        }  # fmt: skip
        wrong = [name for name, (found, wanted) in expected.items() if found != wanted]
        if wrong:
            raise MalformedFrame(f"a letter that belongs to another request, model, key or round: {', '.join(wrong)}")
        return self


@dataclass
class Job:
    """What the names of its objects tell of a job."""

    parts: set[str] = field(default_factory=set)
    claims: set[int] = field(default_factory=set)
    asks: set[tuple[int, int]] = field(default_factory=set)
    answers: set[tuple[int, int]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    @property
    def attempt(self) -> int:
        """The last claim; 0 before the first."""
        return max(self.claims, default=0)

    @property
    def open(self) -> tuple[int, int] | None:
        """The ask of the last attempt that has no answer yet, as (attempt, round)."""
        waiting = {ask for ask in self.asks - self.answers if ask[0] == self.attempt}
        return min(waiting, default=None)


def jobs(names: Iterable[str]) -> dict[str, Job]:
    """The jobs of a folder by their ids; names that are none of a mailbox are nobody's."""
    found: dict[str, Job] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        numbers = tuple(int(number) for number in match.groups()[2:] if number) if match else ()
        if match is None or len(numbers) != _NUMBERS[match[2]]:
            continue
        job = found.setdefault(match[1], Job())
        job.names.add(name)
        job.parts.add(match[2])
        if match[2] == "claim":
            job.claims.add(numbers[0])
        elif match[2] in ("ask", "answer"):
            (job.asks if match[2] == "ask" else job.answers).add((numbers[0], numbers[1]))
    return found
