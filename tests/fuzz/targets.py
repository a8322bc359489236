"""The decoders under fuzz: for each its seeds, its changes, and what must hold of an input that it accepts.

``check`` returns for an accepted input and raises one of hepipe's errors for a refused one. Anything else it
raises, an AssertionError of its own included, is a finding. What is accepted packs to the same bytes again where the
encoding is canonical.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fixed_keys import paillier_bundle, paillier_secret, stretched
from fuzz.mutators import HEAD, INTEGERS, Havoc, frames_changed, json_changed, pieces, replaced, seldom
from hepipe.schemes import frames
from hepipe.schemes.frames import BLINDED, SEEDED, Frame, Kind
from hepipe.schemes.wire import pack_tensor, unpack_tensor
from hepipe.service.inference import Binding, pack_request, unpack_request
from hepipe.service.mailbox_letters import LETTER_BYTES, Letter, Part, Place

PAILLIER_BITS = 256


@dataclass
class Target:
    """A decoder.

    sealed  whether an input's digests are right; None where the format has none
    notes   what ``check`` counts besides, for the table
    """

    name: str
    seeds: list[bytes]
    check: Callable[[bytes], object]
    change: Callable[[bytes, Random, Havoc], bytes]
    sealed: Callable[[bytes], bool] | None
    notes: dict[str, int] = field(default_factory=dict)


def frames_sealed(data: bytes) -> bool:
    """Whether ``data`` is whole frames, each with its right digest."""
    parts = pieces(data)
    return bool(parts) and all(
        hashlib.sha256(head + body).digest() == digest and HEAD.unpack(head)[-1] == len(body)
        for head, digest, body in parts
    )


def frame_target(name: str, seeds: list[bytes], check: Callable[[bytes], object], change: Any) -> Target:
    """A target whose inputs are frames; ``change`` takes header, body, random numbers and havoc."""

    def changed(data: bytes, rng: Random, havoc: Havoc) -> bytes:
        return frames_changed(data, rng, havoc, lambda head, body: change(head, body, rng, havoc))

    return Target(name, seeds, check, changed, frames_sealed)


def check_tensor(data: bytes, bundle: Any) -> Any:
    """The tensor, which packs to the same bytes."""
    x = unpack_tensor(data, bundle)
    assert pack_tensor(x, bundle) == data, "an accepted tensor packs to other bytes"
    return x


# --- envelope --------------------------------------------------------------------------------------------------------


def envelope() -> Target:
    def check(data: bytes) -> None:
        whole = [frames.parse(part, *Kind) for part in frames.split(data)]
        assert b"".join(frame.to_bytes() for frame in whole) == data, "accepted frames pack to other bytes"

    one = Frame(Kind.TENSOR, "paillier", "ab" * 16, 3, 2, 1, 28.0, b"some ciphertexts").to_bytes()
    two = Frame(Kind.KEY_PROOF, "clear", "cd" * 16, 0, 0, 0, 0.0, b"").to_bytes()
    three = Frame(Kind.REFRESHED, "ckks", "ef" * 16, 1, 1, 2, 30.5, b"\0" * 40, SEEDED).to_bytes()
    return frame_target("envelope", [one, two, three, one + two], check, lambda _, body, __, havoc: havoc(body))


# --- Paillier tensor -------------------------------------------------------------------------------------------------


def paillier_numbers() -> list[int]:
    """What is no ciphertext, and what looks least like one."""
    secret = paillier_secret(PAILLIER_BITS)
    n, p = int(secret.public.n), int(secret.p)
    edges = [0, 1, 2, n, n - 1, n + 1, n * n, n * n - 1, n * n + 1, (1 << 2 * PAILLIER_BITS) - 1]
    return [*edges, p, p * p, p * n, n * n - p, 3 * p, n * n - n]


def paillier_ciphertext(label: str, bits: int = PAILLIER_BITS) -> bytes:
    """A unit modulo n**2: some ciphertext of something."""
    n = int(paillier_secret(bits).public.n)
    return (int.from_bytes(stretched(label, bits // 4)) % (n * n)).to_bytes(bits // 4)


def paillier_tensor() -> Target:
    bundle, size = paillier_bundle(PAILLIER_BITS), PAILLIER_BITS // 4
    numbers = [number.to_bytes(size + 1)[-size:] for number in paillier_numbers()]

    def seed(samples: int, features: int, level: int = 1, groups: int = 0) -> bytes:
        blocks = b"".join(paillier_ciphertext(f"{samples} {features} {i}") for i in range(samples * features))
        body = (groups.to_bytes(2) if groups else b"") + b"\0\3" * features + blocks
        flags = BLINDED if groups else 0
        return Frame(Kind.TENSOR, "paillier", bundle.key_id, samples, features, level, 28.0, body, flags).to_bytes()

    def change(head: bytes, body: bytes, rng: Random, havoc: Havoc) -> bytes:
        fields = HEAD.unpack(head)
        start = 2 * fields[7] + 2 * (fields[4] == BLINDED)
        count = max(len(body) - start, 0) // size
        kind = rng.randrange(6)
        if kind <= 1 and count:
            place = start + size * rng.randrange(count)
            return replaced(body, place, rng.choice((*numbers, rng.randbytes(size))))
        if kind == 2:
            bound = rng.choice((0, 1023, -1023, 1024, -1024, 32767, rng.randrange(-1023, 1024)))
            return replaced(body, 2 * rng.randrange(max(start // 2, 1)), bound.to_bytes(2, signed=True))
        if kind == 3 and count:
            place = start + size * rng.randrange(count)
            return replaced(body, place, havoc(body[place : place + size])[:size])
        if kind == 4:
            return rng.choice((body[:-size], body + numbers[2], body[:-1], body + b"\0", body[:start]))
        return havoc(body)

    seeds = [seed(1, 1), seed(2, 2), seed(3, 1, 0), seed(1, 3, 0, 1), seed(1, 4, 0, 2)]
    return frame_target("Paillier vector", seeds, lambda data: check_tensor(data, bundle), change)


# --- CKKS tensor -----------------------------------------------------------------------------------------------------


def ckks_tensor() -> Target:
    from fuzz.in_seal import PARAMETERS, Evaluation

    evaluation = Evaluation()
    width, degree = 4, PARAMETERS.poly_modulus_degree
    notes = {"evaluated": 0, "loaded": 0}

    def check(data: bytes) -> None:
        x = check_tensor(data, evaluation.bundle)
        evaluation.load(x)
        notes["loaded"] += 1
        if notes["loaded"] % 3 == 1:
            evaluation.use(x)
            notes["evaluated"] += 1

    def change(head: bytes, body: bytes, rng: Random, havoc: Havoc) -> bytes:
        start, kind = 2 * HEAD.unpack(head)[7], rng.randrange(8)
        words = max((len(body) - start) // width, 1)
        place = start + width * rng.randrange(words)
        if kind <= 2:
            for _ in range(rng.choice((1, 1, 2, 30))):
                word = rng.choice((0, 1, 2**32 - 1, rng.randrange(1 << 29), *PARAMETERS.coeff_modulus))
                body = replaced(
                    body,
                    start + width * rng.randrange(words),
                    (word - seldom(rng, 2)).to_bytes(5, "little", signed=True)[:width],
                )
            return body
        if kind == 3:
            length = width * rng.choice((1, degree, 2 * degree))
            return replaced(body, place, bytes(max(min(length, len(body) - place), 0)))
        if kind == 4:
            return body[: place - start] + body[place:] if seldom(rng, 2) else body + body[start:place]
        if kind == 5:
            return replaced(body, 2 * rng.randrange(max(start // 2, 1)), rng.randbytes(2))
        if kind == 6:
            return replaced(body, max(len(body) - 64, 0), rng.randbytes(64))
        return replaced(body, place, havoc(body[place : place + 64])[:64])

    target = frame_target("CKKS frame", evaluation.seeds(), check, change)
    target.notes = notes
    return target


# --- requests of the Open Inference Protocol -------------------------------------------------------------------------


def inference() -> Target:
    """The length header stands before the body, on a line of its own."""

    def check(data: bytes) -> None:
        length, _, body = data.partition(b"\n")
        frame, binding = unpack_request(body, length.decode("latin-1"))
        again, size = pack_request(frame, binding)
        found = unpack_request(again, str(size))
        kept = (frame, binding if binding.session else Binding(binding.request_id))
        assert found == kept, "an accepted request says another thing when it is packed again"

    def change(data: bytes, rng: Random, havoc: Havoc) -> bytes:
        length, _, body = data.partition(b"\n")
        if not length.isdigit() or len(length) > 6 or seldom(rng, 12):
            return havoc(data)
        size = int(length)
        text, binary = body[:size], body[size:]
        if seldom(rng, 4):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                fields = json.loads(text)
                fields["id"] = rng.choice((None, "\ud800", "x" * rng.randrange(130), 1))
                fields["parameters"] |= {"session": "s" * rng.randrange(66), "seq": rng.choice(INTEGERS)}
                text = json.dumps(fields, separators=(",", ":")).encode()
        elif seldom(rng, 4):
            binary = havoc(binary)
            text = text if seldom(rng, 4) else text.replace(b'size":%d' % (len(body) - size), b'size":%d' % len(binary))
        else:
            text = json_changed(text, rng, havoc, ("id", "inputs", "outputs", "parameters", "binary_data", "seq"))
        if seldom(rng):
            length = rng.choice((b"", b"-1", b"+5", b" 7", "٣".encode(), b"1" * 9, b"99999999999", havoc(length)))
        else:
            length = str(len(text)).encode()
        return length + b"\n" + text + binary

    def seed(binding: Binding, more: bytes = b"") -> bytes:
        body, size = pack_request(b"HEPF a frame", binding)
        text = body[: size - 1] + more + b"}"
        return str(len(text)).encode() + b"\n" + text + body[size:]

    named = b',"outputs":[{"name":"scores","parameters":{"binary_data":true}}]'
    seeds = [seed(Binding()), seed(Binding("an id", "session-1", 7)), seed(Binding("x"), named)]
    return Target("inference request", seeds, check, change, None)


# --- letters ---------------------------------------------------------------------------------------------------------


def letter() -> Target:
    def check(data: bytes) -> None:
        assert Letter.parse(data).to_bytes() == data, "an accepted letter packs to other bytes"

    head_bytes = LETTER_BYTES - 32

    def change(data: bytes, rng: Random, havoc: Havoc) -> bytes:
        if len(data) < LETTER_BYTES or seldom(rng):
            return havoc(data)
        head, digest, body = data[:head_bytes], data[head_bytes:LETTER_BYTES], data[LETTER_BYTES:]
        if seldom(rng, 2):
            head = replaced(head, rng.randrange(head_bytes), rng.randbytes(rng.randrange(1, 9)))[:head_bytes]
        if seldom(rng, 2):
            body = havoc(body)
        if not seldom(rng):
            head = head[:-8] + len(body).to_bytes(8)
        digest = digest if seldom(rng) else hashlib.sha256(head + body).digest()
        return head + digest + body

    def sealed(data: bytes) -> bool:
        content = data[:head_bytes] + data[LETTER_BYTES:]
        return len(data) >= LETTER_BYTES and hashlib.sha256(content).digest() == data[head_bytes:LETTER_BYTES]

    place = Place("12" * 32, "34" * 16, "56" * 16, "78" * 32)
    seeds = [Letter(part, place, part - 1, 5 - part, b"content" * (part - 1)).to_bytes() for part in Part]
    return Target("letter", seeds, check, change, sealed)


MAKERS = {
    "envelope": "targets.envelope", "paillier-vector": "targets.paillier_tensor",
    "paillier-key": "key_targets.paillier_key", "ckks-frame": "targets.ckks_tensor",
    "ckks-keys": "key_targets.ckks_keys", "model-file": "bundle_target.bundle",
    "inference": "targets.inference", "letter": "targets.letter",
}  # fmt: skip
"""Every target by its name, and the function below this folder that makes it: a process imports what it needs only."""


def target(name: str) -> Target:
    """The target of this name, or of a function."""
    module, _, maker = MAKERS.get(name, name).partition(".")
    made: Target = getattr(importlib.import_module(f"fuzz.{module}"), maker)()
    return made
