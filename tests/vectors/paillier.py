"""Tensors and keys of Paillier, under a key of 512 bits whose factors are in `fixed_keys.py`."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

from fixed_keys import paillier_bundle, paillier_secret, stretched
from golden.paillier_numbers import divides_next, of_length, power, prime
from hepipe.schemes.paillier_keys import PaillierPublicKey
from hepipe.schemes.paillier_proof import prove
from test_paillier_proof import best_effort
from vectors.forge import BLINDED, CKKS, KEY_PROOF, PAILLIER, PUBLIC_KEYS, SEEDED, TENSOR, Case, Form

BITS = 512
N = int(paillier_secret(BITS).public.n)
P = int(paillier_secret(BITS).p)
KEY = paillier_secret(BITS).key_id
_SIZE = BITS // 4
_FORM = Form(TENSOR, PAILLIER, KEY, 1, 2, 1, 28.0)
_BOUNDS = struct.pack(">2h", 3, 3)


def _number(value: int) -> bytes:
    return value.to_bytes(_SIZE)


def _honest(place: int = 0) -> bytes:
    return _number(int.from_bytes(stretched(f"vector {place}", _SIZE)) % (N * N))


# --- tensors ---------------------------------------------------------------------------------------------------------


def tensors() -> list[Case]:
    pair = _honest(0) + _honest(1)

    def case(
        comment: str, flag: str, body: bytes = _BOUNDS + pair, error: str | None = "MalformedFrame", **f: Any
    ) -> Case:
        return Case(comment, flag, dataclasses.replace(_FORM, **f).frame(body), error)

    def second(comment: str, flag: str, value: int) -> Case:
        return case(comment, flag, _BOUNDS + _honest(0) + _number(value))

    numbers = [
        ("0", 0), ("1, which encrypts zero under every key", 1), ("n", N), ("n^2 - n, a multiple of n", N * N - N),
        ("n^2", N * N), ("n^2 + 1, which is 1", N * N + 1), ("2^1024 - 1", (1 << 2 * BITS) - 1), ("p", P),
        ("p^2", P * P), ("q", N // P), ("3 p", 3 * P), ("p n", P * N), ("n^2 - p", N * N - P), ("p q^2", N * (N // P)),
    ]  # fmt: skip
    huge = [(1 << 24, 1), (1, 1 << 16), (1 << 24, 1 << 16), (2, 2), (2, 1), (1, 3), (1, 1), (1 << 23, 2)]
    groups = [
        (0, "no group"),
        (3, "three groups of two ciphertexts"),
        (65535, "65535 groups"),
        (2, "two groups of one"),
    ]
    return [
        case("a row of two features", "Control", error=None),
        case("two rows of one feature", "Control", b"\0\3" + pair, error=None, samples=2, features=1),
        case("blinded, one group", "Control", b"\0\1" + _BOUNDS + pair, None, flags=BLINDED, level=0),
        case("n^2 - 1, a unit", "Control", _BOUNDS + _honest(0) + _number(N * N - 1), None),
        *(second(f"c = {name}", "Ciphertext", value) for name, value in numbers),
        case("the first c = 0", "Ciphertext", _BOUNDS + _number(0) + _honest(1)),
        case("both c = 1", "Ciphertext", _BOUNDS + _number(1) * 2),
        case("p and q, whose product only is a multiple of n", "Ciphertext", _BOUNDS + _number(P) + _number(N // P)),
        case("no sample", "Shape", samples=0),
        case("no sample and no bytes", "Shape", _BOUNDS, samples=0),
        case("no feature", "Shape", pair, features=0),
        case("no feature and no bytes", "Shape", b"", features=0),
        *(case(f"shape {s} x {f} with two ciphertexts", "Shape", samples=s, features=f) for s, f in huge),
        case("no bounds", "Length", pair),
        case("one byte of a bound", "Length", b"\0"),
        case("no body", "Length", b""),
        case("no ciphertexts", "Length", _BOUNDS),
        case("a byte less", "Length", _BOUNDS + pair[:-1]),
        case("a byte more", "Length", _BOUNDS + pair + b"\0"),
        case("a ciphertext more", "Length", _BOUNDS + pair + _honest(2)),
        *(
            case(f"a bound of 2^{exponent}", "Bound", struct.pack(">2h", 3, exponent) + pair)
            for exponent in (1024, -1024, 32767, -32768)
        ),
        case("level 2 of 1", "Level", level=2),
        case("level 64", "Level", level=64),
        case("seeded", "Flags", flags=SEEDED),
        *(
            case(f"blinded, {name}", "Groups", count.to_bytes(2) + _BOUNDS + pair, flags=BLINDED)
            for count, name in groups
        ),
        case("blinded, a byte for the number of groups", "Groups", b"\0", flags=BLINDED),
        case("blinded, without the number of groups", "Groups", flags=BLINDED),
        case("the key id of another key", "WrongKey", error="KeyMismatch", key_id="00" * 16),
        case("a frame of CKKS", "WrongKey", error="KeyMismatch", scheme=CKKS),
        case("a frame without encryption", "WrongKey", error="KeyMismatch", scheme=0),
        case("a key frame", "Kind", kind=PUBLIC_KEYS),
        case("a proof", "Kind", kind=KEY_PROOF),
    ]


# --- keys ------------------------------------------------------------------------------------------------------------

_FIELDS = dataclasses.asdict(paillier_bundle(BITS).parameters)


def canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def key_frame(n: int = N, text: bytes | None = None, material: bytes | None = None, **form: Any) -> bytes:
    text = canonical(_FIELDS) if text is None else text
    material = n.to_bytes(BITS // 8) if material is None else material
    size = form.pop("size", len(text))
    usual = {"scheme": PAILLIER, "key_id": PaillierPublicKey(n).key_id}
    return Form(PUBLIC_KEYS, **(usual | form)).frame(struct.pack(">I", size) + text + material)


def _proof_frame(body: bytes, **form: Any) -> bytes:
    return Form(KEY_PROOF, **({"scheme": PAILLIER, "key_id": KEY} | form)).frame(body)


def _factored(comment: str, factors: list[int], error: str = "InsecureParameters") -> Case:
    """A modulus from its factors, with the best proof that its owner can make."""
    n = 1
    for factor in factors:
        n *= factor
    if n.bit_length() != BITS:
        raise SystemExit(f"{comment}: a modulus of {n.bit_length()} bits")
    proof = best_effort(n, {factor: factors.count(factor) for factor in factors})
    return Case(comment, "Modulus", key_frame(n) + proof, error)


def _badly_made() -> list[Case]:
    square = prime("square factor", 128)
    return [
        _factored("n = p^2 q", of_length(BITS, square, square)),
        _factored("n = p q with p | q - 1", divides_next(BITS)),
        _factored("n = p^3 q", of_length(BITS, *[prime("cube factor", 100)] * 3)),
        _factored("n = p^2", power(BITS, 2)),
        _factored("n = p^3", power(BITS, 3)),
        _factored("n = p^5", power(BITS, 5)),
        *(_factored(f"n has the factor {small}", of_length(BITS, small)) for small in (3, 5, 251, 257, 65521, 65537)),
        _factored("n has the factors 3, 5 and 7", of_length(BITS, 3, 5, 7)),
        _factored("n is even", of_length(BITS, 2), "MalformedFrame"),
    ]


def _moduli() -> list[Case]:
    proof = prove(paillier_secret(BITS))
    numbers = [
        ("0", 0), ("1", 1), ("15", 15), ("n of 511 bits", N >> 1 | 1), ("n with its top byte zero", N & (1 << 504) - 1),
        ("2^511", 1 << 511), ("n + 1", N + 1),
    ]  # fmt: skip
    return [
        Case(f"a modulus of {name}", "Modulus", key_frame(number) + proof) for name, number in numbers
    ] + [
        Case("a prime", "Modulus", key_frame(prime("vector prime", BITS)) + proof, "InsecureParameters"),
        Case("2^512 - 1", "Modulus", key_frame((1 << BITS) - 1) + proof, "InsecureParameters"),
        Case("n, a byte short", "Length", key_frame(material=N.to_bytes(64)[1:]) + proof),
        Case("n, a byte long", "Length", key_frame(material=b"\0" + N.to_bytes(64)) + proof),
        Case("no modulus", "Length", key_frame(material=b"") + proof),
        Case("n and p behind it", "Length", key_frame(material=N.to_bytes(64) + P.to_bytes(32)) + proof),
        Case("the id of another key", "WrongKey", key_frame(key_id="11" * 16) + proof, "KeyMismatch"),
        Case("n - 2 under the id of n", "WrongKey", key_frame(N - 2, key_id=KEY) + proof, "InsecureParameters"),
    ]  # fmt: skip


def _proofs() -> list[Case]:
    keys, proof = key_frame(), prove(paillier_secret(BITS))
    roots, size = proof[82:], BITS // 8
    foreign = prove(paillier_secret(256))

    def case(comment: str, after: bytes, error: str = "MalformedFrame") -> Case:
        return Case(comment, "Proof", keys + after, error)

    def root(value: int) -> bytes:
        return _proof_frame(value.to_bytes(size) + roots[size:])

    bad, first = "InsecureParameters", int.from_bytes(roots[:size])
    return [
        case("no proof", b"", bad),
        case("the proof twice", proof * 2),
        case("the proof of another key", foreign, "KeyMismatch"),
        case("the roots of another key, replayed under this id", _proof_frame(foreign[82:] * 2), bad),
        case("the proof cut in its last root", proof[:-1]),
        case("a proof of seven roots", _proof_frame(roots[:-size])),
        case("a proof of nine roots", _proof_frame(roots + roots[:size])),
        case("a proof without roots", _proof_frame(b"")),
        case("the roots in another order", _proof_frame(roots[size:] + roots[:size]), bad),
        case("the first root eight times", _proof_frame(roots[:size] * 8), bad),
        case("a root of 0", root(0), bad),
        case("a root of 1", root(1), bad),
        case("a root of n", root(N), bad),
        case("minus the root", root(N - first), bad),
        case("a root of p", root(P), bad),
        case("a root of all ones", root((1 << BITS) - 1), bad),
        case("a flipped bit of the last root", _proof_frame(roots[:-1] + bytes([roots[-1] ^ 1])), bad),
        case("a proof with a sample", _proof_frame(roots, samples=1)),
        case("a proof with a scale", _proof_frame(roots, log_scale=1.0)),
        case("a proof with a flag", _proof_frame(roots, flags=SEEDED)),
        case("a proof of CKKS", _proof_frame(roots, scheme=CKKS)),
        case("the keys again for a proof", keys),
        Case("the proof before the keys", "Proof", proof + keys),
        Case("a proof alone", "Proof", proof),
    ]


def _parameters() -> list[Case]:
    proof = prove(paillier_secret(BITS))

    def case(comment: str, error: str = "MalformedFrame", **fields: Any) -> Case:
        changed = {name: value for name, value in (_FIELDS | fields).items() if value != "absent"}
        return Case(comment, "Parameters", key_frame(text=canonical(changed)) + proof, error)

    def text(comment: str, content: bytes, **form: Any) -> Case:
        return Case(comment, "Json", key_frame(text=content, **form) + proof)

    usual = canonical(_FIELDS)
    out = "OutOfRange"
    return [
        case("the right size, but not the parameters of tests", "InsecureParameters", insecure=False),
        case("modulus_bits as a text", modulus_bits="512"),
        case("modulus_bits with a fraction", modulus_bits=512.0),
        case("modulus_bits null", modulus_bits=None),
        case("another modulus_bits", modulus_bits=576),
        case("modulus_bits no multiple of 64", out, modulus_bits=511),
        case("modulus_bits beyond any use", out, modulus_bits=1 << 20),
        case("modulus_bits negative", out, modulus_bits=-512),
        case("no lane", out, lanes=0),
        case("lanes that do not fit", out, lanes=2),
        case("lanes true", lanes=True),
        case("lane_bits negative", out, lane_bits=-5),
        case("depth negative", out, depth=-1),
        case("a scale with a fraction", out, log_scale=28.5),
        case("a negative scale", out, log_scale=-1),
        case("a scale of 8192", out, log_scale=8192),
        case("insecure as a number", insecure=1),
        case("one field more", security_bits=128),
        case("one field less", depth="absent"),
        text("no JSON", b"parameters"),
        text("a list", b"[]"),
        text("nested 4000 deep", b"[" * 4000),
        text("a NaN", usual.replace(b'"log_scale":28', b'"log_scale":NaN')),
        text("an infinity by its size", usual.replace(b'"log_scale":28', b'"log_scale":1e400')),
        text("spaces", usual.replace(b",", b", ")),
        text("unsorted", json.dumps(dict(sorted(_FIELDS.items(), reverse=True)), separators=(",", ":")).encode()),
        text("a name twice", usual[:-1] + b',"modulus_bits":512}'),
        text("a number written otherwise", usual.replace(b"512", b"5.12e2")),
        text("a byte order mark", b"\xef\xbb\xbf" + usual),
        text("UTF-16", usual.decode().encode("utf-16")),
        text("5000 bytes", usual + b" " * 5000),
        text("a length of 0", usual, size=0),
        text("a length beyond the frame", usual, size=4096),
        text("a length of 2**32 - 1", usual, size=2**32 - 1),
        Case("a body of two bytes", "Length", Form(PUBLIC_KEYS, PAILLIER, KEY).frame(b"\0\0") + proof),
        *(
            Case(f"a key frame with {name}", "Header", key_frame(**{name: value}) + proof)
            for name, value in (("samples", 1), ("features", 1), ("level", 1), ("log_scale", 1.0), ("flags", SEEDED))
        ),
        Case("under the name of CKKS", "Scheme", key_frame(scheme=CKKS) + proof),
        Case("under no encryption", "Scheme", key_frame(scheme=0) + proof),
        Case("nothing", "Length", b""),
    ]


def keys() -> list[Case]:
    control = Case("a key and its proof", "Control", key_frame() + prove(paillier_secret(BITS)), None)
    return [control, *_badly_made(), *_moduli(), *_proofs(), *_parameters()]
