"""Envelopes, letters and requests of the Open Inference Protocol."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import struct
from dataclasses import replace
from typing import Any

from vectors.forge import BLINDED, KEY_PROOF, SEEDED, TENSOR, Case, Form, bits

KEY = "ab" * 16
_FORM = Form(TENSOR, 1, KEY, 3, 2, 1, 28.0)
_BODY = b"some ciphertexts"


def envelope() -> list[Case]:
    good = _FORM.frame(_BODY)

    def case(comment: str, flag: str, **fields: Any) -> Case:
        return Case(comment, flag, replace(_FORM, **fields).frame(_BODY))

    scales = [
        ("NaN", math.nan), ("a NaN with payload", bits(0x7FF8_0000_0000_0001)), ("a negative NaN", -math.nan),
        ("infinity", math.inf), ("minus infinity", -math.inf), ("minus zero", -0.0), ("negative", -1.0),
        ("the least negative subnormal", -5e-324), ("8192", 8192.0), ("the largest double", 1.7976931348623157e308),
    ]  # fmt: skip
    whole = [
        Case("a frame", "Control", good, None),
        Case("two frames", "Control", good + Form(KEY_PROOF, 0, KEY).frame(), None),
        Case("the least subnormal scale", "Control", replace(_FORM, log_scale=5e-324).frame(_BODY), None),
        Case("the largest shape", "Control", replace(_FORM, samples=1 << 24, features=1 << 16).frame(_BODY), None),
        Case("three frames", "Count", good * 3),
        Case("a frame and one byte", "Length", good + b"\0"),
        Case("a frame and a header cut short", "Length", good + good[:81]),
        Case("two frames, the second with a wrong digest", "Digest", good + good[:-1] + b"S"),
        Case("one byte", "Length", good[:1]),
        Case("the header less a byte", "Length", good[:81]),
        Case("a header that names 16 bytes, and none", "Length", good[:82]),
        Case("the last byte missing", "Length", good[:-1]),
        Case("zeros", "Magic", bytes(len(good))),
        Case("a pickle", "Magic", pickle.dumps({"frame": good}, 4)),
        Case("a zip", "Magic", b"PK\3\4" + bytes(120)),
        case("another magic", "Magic", magic=b"HEPG"),
        case("the magic of a letter", "Magic", magic=b"HEPM"),
        case("version 0", "Version", version=0),
        case("version 2", "Version", version=2),
        case("version 255", "Version", version=255),
        case("kind 0", "Kind", kind=0),
        case("kind 10, which there is not", "Kind", kind=10),
        case("kind 255", "Kind", kind=255),
        case("scheme 3", "Scheme", scheme=3),
        case("scheme 255", "Scheme", scheme=255),
        case("seeded and blinded at once", "Flags", flags=SEEDED | BLINDED),
        case("an unknown flag", "Flags", flags=4),
        case("all flags", "Flags", flags=255),
        case("one sample too many", "Shape", samples=(1 << 24) + 1),
        case("2**32 - 1 samples", "Shape", samples=2**32 - 1),
        case("one feature too many", "Shape", features=(1 << 16) + 1),
        case("2**32 - 1 features", "Shape", features=2**32 - 1),
        case("level -1", "Level", level=-1),
        case("level -32768", "Level", level=-32768),
        case("level 65", "Level", level=65),
        case("level 32767", "Level", level=32767),
        *(case(f"a scale of {name}", "Scale", log_scale=value) for name, value in scales),
        case("a length one less", "Length", body_len=15),
        case("a length one more", "Length", body_len=17),
        case("a length of 0", "Length", body_len=0),
        case("a length of 2**63", "Length", body_len=1 << 63),
        case("a length of 2**64 - 82, which overflows with the header", "Length", body_len=2**64 - 82),
        case("a digest of zeros", "Digest", digest=bytes(32)),
        case("the digest of the body alone", "Digest", digest=hashlib.sha256(_BODY).digest()),
        Case("a flipped bit of the key id", "Digest", good[:8] + bytes([good[8] ^ 1]) + good[9:]),
        Case("a flipped bit of the body", "Digest", good[:-1] + bytes([good[-1] ^ 1])),
    ]
    return whole


_LETTER = struct.Struct(">4sBBHI32s16s16s32sQ")


def _letter(body: bytes = b"a frame", digest: bytes | None = None, **fields: Any) -> bytes:
    values = {"magic": b"HEPM", "version": 1, "part": 2, "attempt": 1, "round": 3, "length": len(body)} | fields
    head = _LETTER.pack(
        values["magic"], values["version"], values["part"], values["attempt"], values["round"],
        b"\x12" * 32, b"\x34" * 16, b"\x56" * 16, b"\x78" * 32, values["length"],
    )  # fmt: skip
    return head + (digest or hashlib.sha256(head + body).digest()) + body


def letters() -> list[Case]:
    good = _letter()
    flipped = [(4, "version"), (5, "part"), (7, "attempt"), (11, "round"), (12, "model"), (50, "job"), (70, "key id")]
    return [
        Case("a letter", "Control", good, None),
        Case("an empty letter", "Control", _letter(b"", part=1, attempt=0, round=0), None),
        Case("nothing", "Length", b""),
        Case("the header less a byte", "Length", good[:147]),
        Case("the last byte missing", "Length", good[:-1]),
        Case("one byte more", "Length", good + b"\0"),
        Case("two letters", "Count", good + good),
        Case("a length one less", "Length", _letter(length=6)),
        Case("a length of 2**64 - 1", "Length", _letter(length=2**64 - 1)),
        Case("the magic of a frame", "Magic", _letter(magic=b"HEPF")),
        Case("a frame", "Magic", _FORM.frame(bytes(100))),
        Case("zeros", "Magic", bytes(200)),
        Case("a pickle", "Magic", pickle.dumps(["letter"] * 40, 4)),
        Case("version 0", "Version", _letter(version=0)),
        Case("version 2", "Version", _letter(version=2)),
        Case("part 0", "Kind", _letter(part=0)),
        Case("part 6", "Kind", _letter(part=6)),
        Case("part 255", "Kind", _letter(part=255)),
        Case("a digest of zeros", "Digest", _letter(digest=bytes(32))),
        Case("the digest of the body alone", "Digest", _letter(digest=hashlib.sha256(b"a frame").digest())),
        *(
            Case(f"a flipped bit of the {name}", "Digest", good[:place] + bytes([good[place] ^ 8]) + good[place + 1 :])
            for place, name in [*flipped, (110, "request's digest"), (150, "body")]
        ),
    ]


def _request(
    header: Any = None, frame: bytes = b"HEPF...", *, length: Any = ..., element: int | None = None, **fields: Any
) -> tuple[bytes, str | None]:
    """A body and the length header; ``fields`` replace those of the header, None drops one."""
    binary = struct.pack("<I", len(frame) if element is None else element) + frame
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(binary)}}
    usual = {"id": "7", "inputs": [tensor], "parameters": {"binary_data_output": True}}
    whole = {name: value for name, value in (usual | fields).items() if value is not None}
    text = header if isinstance(header, bytes) else json.dumps(whole, separators=(",", ":")).encode()
    return text + binary, str(len(text)) if length is ... else length


def requests() -> list[Case]:
    def case(comment: str, flag: str, *given: Any, error: str | None = "MalformedFrame", **fields: Any) -> Case:
        body, length = _request(*given, **fields)
        return Case(comment, flag, body, error, {"length": length})

    def tensor(**fields: Any) -> list[dict[str, Any]]:
        usual = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 11}}
        return [{name: value for name, value in (usual | fields).items() if value is not None}]

    wanted = {"binary_data_output": True}
    named = [{"name": "scores", "parameters": {"binary_data": True}}]
    lengths = [
        ("no length", None), ("an empty length", ""), ("a signed length", "+159"), ("a negative length", "-1"),
        ("a length with a space", " 159"), ("a length in hexadecimal", "0x9f"), ("a length with a fraction", "159.0"),
        ("a length in Arabic digits", "١٥٩"), ("a length of 0", "0"), ("a length of ten digits", "1000000000"),
        ("a length beyond the body", "999999999"), ("a length beyond the limit of a header", "16385"),
    ]  # fmt: skip
    return [
        case("a request", "Control", error=None),
        case("its output named", "Control", error=None, outputs=named, parameters={}),
        case("in a session", "Control", error=None, parameters=wanted | {"session": "s-1_", "seq": 2**53 - 1}),
        *(case(name, "Length", length=length) for name, length in lengths),
        case("a length one less", "Length", length=str(len(_request()[0]) - 12)),
        case("no JSON", "Json", b"\xff\xfe"),
        case("JSON cut short", "Json", b'{"inputs":['),
        case("JSON nested 8000 deep", "Json", b"[" * 8000),
        case("a JSON list", "Json", b"[1]"),
        case("a name twice", "Json", b'{"id":"1","id":"2"}'),
        case("null", "Json", b"null"),
        case("a number of 5000 digits", "Json", b'{"id":' + b"9" * 5000 + b"}"),
        case("an unknown field", "Json", model="x"),
        case("no inputs", "Tensor", inputs=None),
        case("inputs that are no list", "Tensor", inputs={"0": tensor()[0]}),
        case("two inputs", "Tensor", inputs=tensor() * 2),
        case("an input that is a text", "Tensor", inputs=["x"]),
        case("another name", "Tensor", inputs=tensor(name="y")),
        case("another datatype", "Tensor", inputs=tensor(datatype="FP64")),
        case("shape 0", "Shape", inputs=tensor(shape=[0])),
        case("shape 2", "Shape", inputs=tensor(shape=[2])),
        case("shape -1", "Shape", inputs=tensor(shape=[-1])),
        case("shape true", "Shape", inputs=tensor(shape=[True])),
        case("shape 1.0", "Shape", inputs=tensor(shape=[1.0])),
        case("two dimensions", "Shape", inputs=tensor(shape=[1, 1])),
        case("a huge shape", "Shape", inputs=tensor(shape=[10**400])),
        case("data in the JSON", "Tensor", inputs=tensor(data=["x"])),
        case("no size of the binary part", "Length", inputs=tensor(parameters={})),
        case("a size one less", "Length", inputs=tensor(parameters={"binary_data_size": 10})),
        case("a size with a fraction", "Length", inputs=tensor(parameters={"binary_data_size": 11.0})),
        case("a negative size", "Length", inputs=tensor(parameters={"binary_data_size": -11})),
        case("a size as a text", "Length", inputs=tensor(parameters={"binary_data_size": "11"})),
        case("an element one longer than what follows", "Length", element=8),
        case("an element of 2**32 - 1 bytes", "Length", element=2**32 - 1),
        case("an output that is not binary", "Output", parameters={}),
        case("a binary output by the number 1", "Output", parameters={"binary_data_output": 1}),
        case("another output", "Output", outputs=[{"name": "weights", "parameters": {"binary_data": True}}]),
        case("two outputs", "Output", outputs=named * 2),
        case("parameters that are a list", "Json", parameters=[True]),
        case("an id of 129 characters", "Binding", id="x" * 129),
        case("an id that is a number", "Binding", id=7),
        case("a session with a path", "Binding", parameters=wanted | {"session": "../x"}),
        case("a session of 65 characters", "Binding", parameters=wanted | {"session": "s" * 65}),
        case("a negative seq", "Binding", parameters=wanted | {"session": "s", "seq": -1}),
        case("seq 2**53", "Binding", parameters=wanted | {"session": "s", "seq": 2**53}),
        case("a seq of NaN", "Binding", parameters=wanted | {"session": "s", "seq": math.nan}),
        case("a seq that is true", "Binding", parameters=wanted | {"session": "s", "seq": True}),
        case("a seq with a fraction", "Binding", parameters=wanted | {"session": "s", "seq": 1.0}),
    ]
