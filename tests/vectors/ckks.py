"""Tensors and keys of CKKS over a ring of degree 1024; residues follow from labels."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from typing import Any

from fixed_keys import ckks_bundle
from hepipe.schemes.ckks_keys import CkksPublicKey
from hepipe.schemes.parameters import CkksParameters
from hepipe.schemes.seal import Polynomials, unpack_residues
from vectors.forge import BLINDED, CKKS, KEY_PROOF, PAILLIER, PUBLIC_KEYS, SEEDED, TENSOR, Case, Form
from vectors.recipe import Part, expand, hexadecimal, residues

PARAMETERS = CkksParameters(1024, (30, 30, 30), 20.0, insecure=True)
KEY_PARAMETERS = CkksParameters(1024, (30, 30), 20.0, insecure=True)
_N = PARAMETERS.poly_modulus_degree
_Q0, _Q1, _ = PARAMETERS.coeff_modulus
_SEED = hexadecimal(bytes(range(64)))
_BOUND = hexadecimal(struct.pack(">h", 2))
_ZEROS: Part = {"repeat": "00000000", "times": _N}


def key() -> str:
    """The id of the key that tensors are under."""
    return ckks_bundle(PARAMETERS).key_id


def _polynomial(label: str, **values: int) -> list[Part]:
    """At level 1: residues modulo both primes."""
    return [residues(f"{label} 0", _Q0, _N, **values), residues(f"{label} 1", _Q1, _N)]


# --- tensors ---------------------------------------------------------------------------------------------------------


def tensors() -> list[Case]:
    form = Form(TENSOR, CKKS, key(), 5, 1, 1, 20.0)
    c0, c1 = _polynomial("c0"), _polynomial("c1")
    low = [residues("c0 0", _Q0, _N), residues("c1 0", _Q0, _N)]

    def case(comment: str, flag: str, body: list[Part], error: str | None = "MalformedFrame", **fields: Any) -> Case:
        return Case(comment, flag, dataclasses.replace(form, **fields).parts(_BOUND, *body), error)

    full, seeded = [*c0, *c1], [*c0, _SEED]
    too_large = [("q0", _Q0), ("q0 + 1", _Q0 + 1), ("2^32 - 1", 2**32 - 1)]
    scales = [
        ("58.0 bits, the modulus at level 1", 58.0, full, 1), ("28.0 bits, the modulus at level 0", 28.0, low, 0),
        ("1024 bits", 1024.0, full, 1), ("8191 bits", 8191.0, full, 1),
    ]  # fmt: skip
    broken = [("NaN", math.nan), ("infinity", math.inf), ("-1", -1.0), ("-0", -0.0), ("-5e-324", -5e-324)]
    return [
        case("a computed ciphertext at level 1", "Control", full, None),
        case("a fresh one, seeded", "Control", seeded, None, flags=SEEDED),
        case("a computed one at level 0", "Control", low, None, level=0),
        case("the least scale", "Control", full, None, log_scale=5e-324),
        *(
            case(f"a residue of {name} in the {place} place of c0", "Residue", [*_polynomial("c0", **at), *c1])
            for name, value in too_large
            for place, at in (("first", {"i0": value}), ("last", {f"i{_N - 1}": value}))
        ),
        case("a residue of q0 in c1", "Residue", [*c0, *_polynomial("c1", i17=_Q0)]),
        case("a residue of q0 in a seeded c0", "Residue", [*_polynomial("c0", i17=_Q0), _SEED], flags=SEEDED),
        case("residues of all ones", "Residue", [{"repeat": "ff", "times": 16 * _N}]),
        case("c1 zero", "Transparent", [*c0, _ZEROS, _ZEROS]),
        case("c1 zero modulo q0", "Transparent", [*c0, _ZEROS, c1[1]]),
        case("c1 zero modulo q1", "Transparent", [*c0, c1[0], _ZEROS]),
        case("c0 and c1 zero", "Transparent", [_ZEROS] * 4),
        case("c1 zero at level 0", "Transparent", [low[0], _ZEROS], level=0),
        case("a seeded c0 of zeros", "Transparent", [_ZEROS, _ZEROS, _SEED], flags=SEEDED),
        *(case(f"a scale of {name}", "Scale", b, log_scale=s, level=level) for name, s, b, level in scales),
        *(case(f"a scale of {name}", "Scale", full, log_scale=value) for name, value in broken),
        case("level 2 of 1", "Level", full, level=2),
        case("level 0 with the bytes of level 1", "Level", full, level=0),
        case("level 1 with the bytes of level 0", "Level", low),
        case("level -1", "Level", full, level=-1),
        case("seeded at level 0", "Flags", [low[0], _SEED], flags=SEEDED, level=0),
        case("seeded, but without a seed", "Flags", c0, flags=SEEDED),
        case("a seed without the flag", "Flags", seeded),
        case("blinded", "Flags", [hexadecimal(b"\0\1"), *full], flags=BLINDED),
        case("three polynomials", "Length", [*full, *c0]),
        case("one polynomial", "Length", c0),
        case("no ciphertext", "Length", []),
        case("a byte less", "Length", [*c0, c1[0], {"repeat": "00", "times": 4 * _N - 1}]),
        case("a byte more", "Length", [*full, hexadecimal(b"\0")]),
        case("no sample", "Shape", full, samples=0),
        case("no feature", "Shape", full, features=0),
        case("513 samples in one ciphertext", "Shape", full, samples=513),
        case("2^24 samples", "Shape", full, samples=1 << 24),
        case("2^24 x 2^16", "Shape", full, samples=1 << 24, features=1 << 16),
        Case("a bound of 2^1024", "Bound", form.parts(hexadecimal(struct.pack(">h", 1024)), *full)),
        Case("a bound of 2^-32768", "Bound", form.parts(hexadecimal(struct.pack(">h", -32768)), *full)),
        case("the id of another key", "WrongKey", full, "KeyMismatch", key_id="00" * 16),
        case("a frame of Paillier", "WrongKey", full, "KeyMismatch", scheme=PAILLIER),
        case("a frame of keys", "Kind", full, kind=PUBLIC_KEYS),
        Case("SEAL's own stream", "Magic", [hexadecimal(bytes.fromhex("5ea110040300")), *full]),
    ]


# --- keys ------------------------------------------------------------------------------------------------------------

_PRIMES = KEY_PARAMETERS.coeff_modulus
_FIELDS = json.loads(json.dumps(dataclasses.asdict(KEY_PARAMETERS)))


def _one(label: str, **values: int) -> list[Part]:
    """A seeded encryption at the key level."""
    return [residues(f"{label} 0", _PRIMES[0], _N, **values), residues(f"{label} 1", _PRIMES[1], _N), _SEED]


def _key_id(public: list[Part]) -> str:
    words = unpack_residues(expand(public[:2]), 1, _PRIMES, _N)
    return CkksPublicKey(KEY_PARAMETERS, Polynomials(words, expand([_SEED]))).key_id


def keys() -> list[Case]:
    public, relinearization = _one("public"), _one("relinearization")
    key_id = _key_id(public)

    def frame(body: list[Part], text: bytes, size: int | None = None, **form: Any) -> list[Part]:
        head = hexadecimal(struct.pack(">I", len(text) if size is None else size) + text)
        return Form(**({"kind": PUBLIC_KEYS, "scheme": CKKS, "key_id": key_id} | form)).parts(head, *body)

    def canonical(fields: dict[str, Any]) -> bytes:
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    usual, both = canonical(_FIELDS), [*public, *relinearization]

    def case(comment: str, flag: str, body: list[Part], error: str | None = "MalformedFrame", **form: Any) -> Case:
        return Case(comment, flag, frame(body, usual, **form), error)

    def changed(comment: str, error: str = "MalformedFrame", **fields: Any) -> Case:
        kept = {name: value for name, value in (_FIELDS | fields).items() if value != "absent"}
        return Case(comment, "Parameters", frame(both, canonical(kept)), error)

    def text(comment: str, content: bytes, **form: Any) -> Case:
        return Case(comment, "Json", frame(both, content, **form))

    bad, out = "InsecureParameters", "OutOfRange"
    return [
        case("keys", "Control", both, None),
        case("a residue of q0 in the public key", "Residue", [*_one("public", i9=_PRIMES[0]), *relinearization]),
        case("a residue of q0 in another", "Residue", [*public, *_one("relinearization", i9=_PRIMES[0])]),
        case("residues of all ones", "Residue", [{"repeat": "ff", "times": 2 * (8 * _N + 64)}]),
        case("no key at all", "Length", []),
        case("the public key alone", "Length", public),
        case("one key too many", "Length", [*both, *relinearization]),
        case("a byte less", "Length", [*both[:-1], hexadecimal(bytes(63))]),
        case("a byte more", "Length", [*both, hexadecimal(b"\0")]),
        case("the keys in another order", "WrongKey", [*relinearization, *public], "KeyMismatch"),
        case("another public key", "WrongKey", [*_one("another"), *relinearization], "KeyMismatch"),
        case("the id of another key", "WrongKey", both, "KeyMismatch", key_id="00" * 16),
        case("with a sample", "Header", both, samples=1),
        case("with a level", "Header", both, level=1),
        case("with a scale", "Header", both, log_scale=20.0),
        case("with a flag", "Header", both, flags=SEEDED),
        case("as a tensor", "Kind", both, kind=TENSOR),
        case("under the name of Paillier", "Scheme", both, scheme=PAILLIER),
        Case("a proof behind them", "Proof", [*frame(both, usual), hexadecimal(Form(KEY_PROOF, CKKS, key_id).frame())]),
        changed("not the parameters of tests", bad, insecure=False),
        changed("N = 512", bad, poly_modulus_degree=512),
        changed("N = 1000", bad, poly_modulus_degree=1000),
        changed("N = 65536", bad, poly_modulus_degree=65536),
        changed("N = 0", bad, poly_modulus_degree=0),
        changed("N negative", bad, poly_modulus_degree=-1024),
        changed("N = 2048, with the keys of 1024", poly_modulus_degree=2048),
        changed("N as a text", poly_modulus_degree="1024"),
        changed("a standard of 64 bits", bad, standard_bits=64),
        changed("no prime", out, coeff_modulus_bits=[]),
        changed("a single prime", out, coeff_modulus_bits=[30]),
        changed("a prime of 19 bits", out, coeff_modulus_bits=[19, 30]),
        changed("a prime of 61 bits", out, coeff_modulus_bits=[61, 30]),
        changed("a prime of 30.5 bits", out, coeff_modulus_bits=[30.5, 30]),
        changed("sizes that are texts", out, coeff_modulus_bits=["30", "30"]),
        changed("a size for a list", coeff_modulus_bits=30),
        changed("more primes of 20 bits than there are", out, coeff_modulus_bits=[20] * 400),
        changed("four primes, with the keys of two", coeff_modulus_bits=[30] * 4),
        changed("a negative scale", out, log_scale=-1.0),
        changed("a scale of 1000 bits", out, log_scale=1000.0),
        changed("a scale that is true", log_scale=True),
        changed("another scale", "KeyMismatch", log_scale=21.0),
        changed("a negative tail", out, tail_bits=-1.0),
        changed("complex slots as a number", complex_slots=1),
        changed("complex slots, with a key for products", complex_slots=True),
        changed("a rotation without its key", rotations=[1]),
        changed("a rotation by a text", out, rotations=["1"]),
        changed("a rotation by 1.0", out, rotations=[1.0]),
        changed("one field more", secret_key="00"),
        changed("one field less", log_scale="absent"),
        text("rotations beyond the slots", usual.replace(b'"rotations":[]', b'"rotations":[512]')),
        text("a NaN", usual.replace(b'"log_scale":20.0', b'"log_scale":NaN')),
        text("a name twice", usual[:-1] + b',"insecure":true}'),
        text("spaces", usual.replace(b":", b": ")),
        text("no JSON", b"\x5e\xa1\x10"),
        text("a length of 0", usual, size=0),
        text("a length of 4097", usual + b" " * (4097 - len(usual))),
    ]
