"""Registrations: parameters as JSON, key material, and under Paillier the proof."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from random import Random
from typing import Any

from fixed_keys import ckks_bundle, paillier_bundle, paillier_secret, polynomials
from fuzz.mutators import HEAD, Havoc, json_changed, replaced, seldom
from fuzz.targets import PAILLIER_BITS, Target, frame_target
from hepipe.errors import HepipeError
from hepipe.protocol.parties import registered
from hepipe.schemes import seal
from hepipe.schemes.ckks_keys import CkksPublicKey
from hepipe.schemes.frames import HEADER_BYTES, Kind, split
from hepipe.schemes.paillier_keys import PaillierPublicKey
from hepipe.schemes.paillier_proof import prove
from hepipe.schemes.parameters import CkksParameters
from hepipe.schemes.wire import pack_keys, parameters_from

_CKKS = CkksParameters(1024, (30, 30), 20.0, insecure=True, rotations=(1,))
_NAMES = ("lanes", "lane_bits", "depth", "modulus_bits", "log_scale", "rotations", "coeff_modulus_bits", "tail_bits")


def _checked(data: bytes) -> Any:
    bundle = registered(data, allow_insecure=True)
    assert pack_keys(bundle) == split(data)[0], "an accepted key packs to other bytes"
    return bundle


def _taken_apart(body: bytes) -> tuple[bytes, bytes]:
    """Parameters and material, as far as the length in front can be believed."""
    size = int.from_bytes(body[:4])
    return body[4 : 4 + size], body[4 + size :]


def _put_together(text: bytes, material: bytes, rng: Random) -> bytes:
    size = len(text) if not seldom(rng, 16) else rng.choice((0, 1, len(text) + 1, 4096, 4097, 2**32 - 1))
    return struct.pack(">I", size) + text + material


def _renamed(data: bytes, rng: Random) -> bytes:
    """The key frame under the id of the key that it holds now, so that the checks behind the id are reached."""
    if len(data) < HEADER_BYTES or seldom(rng):
        return data
    head, rest = data[: HEAD.size], data[HEADER_BYTES:]
    size = HEAD.unpack(head)[-1]
    body, after = rest[:size], rest[size:]
    text, material = _taken_apart(body)
    fields = HEAD.unpack(head)
    with contextlib.suppress(HepipeError, ValueError, TypeError, RecursionError):
        key_id = bytes.fromhex(_key_id(fields[3], text, material))
        head = HEAD.pack(*fields[:5], key_id, *fields[6:])
        digest = hashlib.sha256(head + body).digest()
        return head + digest + body + after
    return data


def _key_id(scheme: int, text: bytes, material: bytes) -> str:
    if scheme == 1:
        return PaillierPublicKey(int.from_bytes(material)).key_id
    parameters = parameters_from("ckks", json.loads(text))
    primes = parameters.coeff_modulus
    size = parameters.poly_modulus_degree * sum((prime.bit_length() + 7) // 8 for prime in primes)
    residues = seal.unpack_residues(material[:size], 1, primes, parameters.poly_modulus_degree)
    return CkksPublicKey(parameters, seal.Polynomials(residues, material[size : size + 64])).key_id


def _with_ids(target: Target) -> Target:
    change = target.change
    target.change = lambda data, rng, havoc: _renamed(change(data, rng, havoc), rng)
    return target


# --- Paillier --------------------------------------------------------------------------------------------------------


def _moduli() -> list[int]:
    secret, other = paillier_secret(PAILLIER_BITS), paillier_secret(PAILLIER_BITS, 1)
    n, p, q = int(secret.public.n), int(secret.p), int(secret.q)
    return [0, 1, 2, 3, 15, n - 1, n + 2, n << 1, p, q, p * p, q * q * 2 + 1, 3 * p, n * 65537, int(other.public.n)]


def paillier_key() -> Target:
    def change(head: bytes, body: bytes, rng: Random, havoc: Havoc) -> bytes:
        if HEAD.unpack(head)[2] == Kind.KEY_PROOF:
            return _proof_changed(body, rng, havoc)
        text, material = _taken_apart(body)
        if seldom(rng, 2):
            text = json_changed(text, rng, havoc, _NAMES)
        elif seldom(rng, 2):
            number = rng.choice((*_moduli(), rng.getrandbits(PAILLIER_BITS) | 1 << (PAILLIER_BITS - 1)))
            material = number.to_bytes(64)[-len(material) or 64 :]
        else:
            material = havoc(material)
        return _put_together(text, material, rng)

    def registration(which: int) -> bytes:
        return pack_keys(paillier_bundle(PAILLIER_BITS, which)) + prove(paillier_secret(PAILLIER_BITS, which))

    seeds = [registration(0), registration(1)]
    return _with_ids(frame_target("Paillier key", seeds, _paillier_checked, change))


def _paillier_checked(data: bytes) -> None:
    bundle = _checked(data)
    secrets = [paillier_secret(PAILLIER_BITS, which) for which in (0, 1)]
    # The roots of a permutation are unique, so the right proof is one string of bytes.
    proofs = [prove(secret) for secret in secrets if secret.key_id == bundle.key_id]
    assert split(data)[1:] == proofs, "another proof was accepted"


def _proof_changed(body: bytes, rng: Random, havoc: Havoc) -> bytes:
    size = PAILLIER_BITS // 8
    place = size * rng.randrange(max(len(body) // size, 1))
    root = int.from_bytes(body[place : place + size])
    n = int(paillier_secret(PAILLIER_BITS).public.n)
    kind = rng.randrange(5)
    if kind == 0:
        return replaced(
            body, place, rng.choice((0, 1, n, n - root, n + root, root + 1)).to_bytes(size + 2, signed=True)[-size:]
        )
    if kind == 1:
        return body[size:] + body[:size]
    if kind == 2:
        return rng.choice((body[:-size], body + body[:size], body[:-1], b""))
    return havoc(body) if kind == 3 else replaced(body, place, rng.randbytes(size))


# --- CKKS ------------------------------------------------------------------------------------------------------------


def ckks_keys() -> Target:
    notes = {"loaded": 0}

    def check(data: bytes) -> None:
        bundle = _checked(data)
        assert bundle.public.handle
        if not bundle.parameters.complex_slots:
            assert bundle.evaluation.relin_handle
            assert bundle.evaluation.galois_handle
        notes["loaded"] += 1

    def change(head: bytes, body: bytes, rng: Random, havoc: Havoc) -> bytes:
        text, material = _taken_apart(body)
        kind = rng.randrange(6)
        if kind <= 1:
            text = json_changed(text, rng, havoc, _NAMES)
        elif kind <= 3:
            for _ in range(rng.choice((1, 2, 30))):
                word = rng.choice((0, 1, 2**32 - 1, rng.randrange(1 << 29), *_CKKS.coeff_modulus))
                place = 4 * rng.randrange(max(len(material) // 4, 1))
                material = replaced(material, place, (word - seldom(rng, 2)).to_bytes(5, "little", signed=True)[:4])
        elif kind == 4:
            place = rng.randrange(max(len(material), 1))
            material = rng.choice((material[:place], material + material[:place], material[:-64], material[place:]))
        else:
            place = rng.randrange(max(len(material), 1))
            material = replaced(material, place, havoc(material[place : place + 64])[:64])
        return _put_together(text, material, rng)

    plain = CkksParameters(1024, (30, 30), 20.0, insecure=True)
    single = CkksParameters(1024, (30,), 20.0, complex_slots=True, insecure=True)
    seeds = [pack_keys(ckks_bundle(parameters)) for parameters in (_CKKS, plain)]
    seeds.append(pack_keys(_only_public(single)))
    target = _with_ids(frame_target("CKKS keys", seeds, check, change))
    target.notes = notes
    return target


def _only_public(parameters: CkksParameters) -> Any:
    """The keys of parameters that have no evaluation keys."""
    from hepipe.schemes.base import PublicBundle
    from hepipe.schemes.ckks_keys import CkksEvaluationKeys

    parts = polynomials("single", 1, parameters.coeff_modulus, parameters.poly_modulus_degree, seeded=True)
    return PublicBundle(parameters, CkksPublicKey(parameters, parts), CkksEvaluationKeys(parameters))
