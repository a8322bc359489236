"""The envelope: one canonical encoding, every other byte string refused, and sizes that can be foretold."""

from __future__ import annotations

import hashlib
import pickle
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.errors import MalformedFrame
from hepipe.schemes import frames
from hepipe.schemes.frames import (
    BLINDED,
    HEADER_BYTES,
    SCHEMES,
    SEEDED,
    Frame,
    Kind,
    body_bytes,
    bound_to,
    parse,
    tensor_bytes,
    unbound,
)
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER, ClearParameters

FRAME = Frame(Kind.TENSOR, "paillier", "ab" * 16, 3, 2, 1, 28.0, b"some ciphertexts", 0)
HEAD = struct.Struct(">4sBBBB16sIIhdQ")
FIELDS = (
    "magic",
    "version",
    "kind",
    "scheme",
    "flags",
    "key_id",
    "samples",
    "features",
    "level",
    "log_scale",
    "body_len",
)


def composed(body: bytes = FRAME.body, **fields: Any) -> bytes:
    """A frame with these header fields changed and the digest right."""
    values = dict(zip(FIELDS, HEAD.unpack_from(FRAME.to_bytes()), strict=True)) | {"body_len": len(body)} | fields
    head = HEAD.pack(*(values[name] for name in FIELDS))
    return head + hashlib.sha256(head + body).digest() + body


frames_of_any_content = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    scheme=st.sampled_from(SCHEMES),
    key_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    samples=st.integers(0, frames.MAX_SAMPLES),
    features=st.integers(0, frames.MAX_FEATURES),
    level=st.integers(0, 64),
    log_scale=st.floats(0, 8191),
    body=st.binary(max_size=60),
    flags=st.sampled_from([0, SEEDED, BLINDED]),
)


@settings(max_examples=300, deadline=None)
@given(frame=frames_of_any_content)
def test_every_frame_parses_to_itself(frame: Frame) -> None:
    data = frame.to_bytes()
    assert parse(data, *Kind) == frame
    assert len(data) == HEADER_BYTES + len(frame.body)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    for given_bytes in (data, b"HEPF" + data):
        with pytest.raises(MalformedFrame):
            parse(given_bytes, *Kind)


def test_every_single_flipped_bit_is_refused() -> None:
    data = FRAME.to_bytes()
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(MalformedFrame):
            parse(bytes(changed), Kind.TENSOR)


def test_every_truncation_and_extension_is_refused() -> None:
    data = FRAME.to_bytes()
    for length in range(len(data)):
        with pytest.raises(MalformedFrame):
            parse(data[:length], Kind.TENSOR)
    with pytest.raises(MalformedFrame, match="the 17 bytes that follow"):
        parse(data + b"\0", Kind.TENSOR)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("magic", b"HEPX", "do not begin with a hepipe header"),
        ("version", 2, "says 2, expected version 1"),
        ("kind", 9, "one of"),
        ("kind", Kind.MASKED_FACTORS, r"one of \['TENSOR'\]"),
        ("scheme", 3, "a known scheme"),
        ("flags", 3, "known flags"),
        ("samples", (1 << 24) + 1, "at most 16777216 samples"),
        ("features", (1 << 16) + 1, "at most 65536 features"),
        ("level", -1, "a level from 0 to 64"),
        ("level", 65, "a level from 0 to 64"),
        ("log_scale", float("nan"), "a log_scale from 0 to 8192"),
        ("log_scale", float("inf"), "a log_scale from 0 to 8192"),
        ("log_scale", -0.0, "a log_scale from 0 to 8192"),
        ("log_scale", -1.0, "a log_scale from 0 to 8192"),
        ("log_scale", 8192.0, "a log_scale from 0 to 8192"),
        ("body_len", 15, "the 16 bytes that follow"),
        ("body_len", 2**63, "the 16 bytes that follow"),
    ],
)
def test_every_header_field_is_checked_though_the_digest_is_right(field: str, value: Any, message: str) -> None:
    with pytest.raises(MalformedFrame, match=message):
        parse(composed(**{field: value}), Kind.TENSOR)


def test_an_unchanged_composition_is_the_frame_itself() -> None:
    assert composed() == FRAME.to_bytes()


def test_a_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_BODY", 15)
    with pytest.raises(MalformedFrame, match="the 16 bytes that follow"):
        parse(FRAME.to_bytes(), Kind.TENSOR)


def test_a_pickle_is_no_frame() -> None:
    with pytest.raises(MalformedFrame, match="do not begin with a hepipe header"):
        parse(pickle.dumps(FRAME) * 3, *Kind)


def test_huge_counts_allocate_nothing() -> None:
    data = composed(samples=1 << 24, features=1 << 16)
    tracemalloc.start()
    parse(data, Kind.TENSOR)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("parameters", "shape", "level", "fresh", "size"),
    [
        (ClearParameters(), (5, 3), 0, False, 8 * 15),
        (TEST_INSECURE_PAILLIER, (10, 3), 0, False, 3 * 256),
        (TEST_INSECURE_PAILLIER, (11, 3), 0, False, 6 * 256),
        (TEST_INSECURE_CKKS, (512, 2), 0, False, 2 * 2 * 1024 * 7),
        (TEST_INSECURE_CKKS, (513, 2), 2, True, 4 * (1024 * (7 + 4 + 4) + 64)),
        (
            replace(TEST_INSECURE_CKKS, coeff_modulus_bits=(50, 30, 50), complex_slots=True),
            (1024, 1),
            1,
            True,
            1024 * 11 + 64,
        ),
    ],
)
def test_sizes_are_foretold(parameters: Any, shape: tuple[int, int], level: int, fresh: bool, size: int) -> None:
    assert body_bytes(parameters, shape, level, fresh) == size
    assert tensor_bytes(parameters, shape, level, fresh) == HEADER_BYTES + 2 * shape[1] + size


def test_the_header_has_one_size_whatever_it_says() -> None:
    rng = np.random.default_rng(0)
    sizes = {len(Frame(Kind.TENSOR, "ckks", rng.bytes(16).hex(), 1, 1, 0, 1.0, b"").to_bytes()) for _ in range(20)}
    assert sizes == {HEADER_BYTES}


@settings(max_examples=200, deadline=None)
@given(frames_of_any_content, st.binary(max_size=40), st.binary(max_size=40), st.data())
def test_an_answer_is_one_to_its_own_request_only(
    frame: Frame, request: bytes, other: bytes, data: st.DataObject
) -> None:
    answer = frame.to_bytes()
    bound = bound_to(request, answer)
    assert len(bound) == len(answer)
    assert unbound(request, bound) == answer
    altered = bytearray(bound)
    altered[data.draw(st.integers(0, len(bound) - 1))] ^= data.draw(st.integers(1, 255))
    for asked, given_ in ((other, bound), (request, bytes(altered)), (request, answer), (request, bound[:-1])):
        if (asked, given_) != (request, bound):
            with pytest.raises(MalformedFrame):
                unbound(asked, given_)
    with pytest.raises(MalformedFrame):  # nor is it a frame by itself
        parse(bound, frame.kind)


@pytest.mark.parametrize("answer", [b"", bytes(HEADER_BYTES - 1)])
def test_an_answer_that_is_no_frame_is_bound_to_nothing(answer: bytes) -> None:
    for call in (bound_to, unbound):
        with pytest.raises(MalformedFrame):
            call(b"request", answer)
