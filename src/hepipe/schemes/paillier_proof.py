"""Proof that a Paillier modulus is well made: gcd(n, phi(n)) = 1, so that r**n blinds perfectly.

Goldberg, Reyzin, Sagga and Baldimtsi (eprint 2018/057): x -> x**n permutes the units modulo n
exactly if gcd(n, phi(n)) = 1; otherwise, where n has no prime factor up to A, at most one unit in A has an n-th root.
The owner shows the n-th roots of ROUNDS units that a hash of the key chooses, so nothing is exchanged and nothing but
the roots of public numbers is told. With A = 65537 a bad modulus passes with probability 2**-128.
"""

from __future__ import annotations

import hashlib

import gmpy2

from hepipe.errors import InsecureParameters, KeyMismatch, MalformedFrame
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.lanes import Mpz
from hepipe.schemes.paillier_keys import PaillierPublicKey, PaillierSecretKey, check_public

ROUNDS = 8
_TAG = b"hepipe.paillier.proof.v1\0"
# Reducing this many bits more than n has leaves a hash within 2**-128 of uniform.
_EXTRA_BYTES = 16


def prove(secret: PaillierSecretKey) -> bytes:
    """One KEY_PROOF frame: the n-th roots of the key's units. Price: ROUNDS exponentiations, 0.1 s at 3072 bits."""
    n, p, q = secret.public.n, secret.p, secret.q
    exponents = [gmpy2.invert(n, prime - 1) for prime in (p, q)]
    lift = p * gmpy2.invert(p, q)
    roots = []
    for unit in _units(secret.public):
        at_p, at_q = (gmpy2.powmod_sec(unit, e, prime) for e, prime in zip(exponents, (p, q), strict=True))
        roots.append((at_p + (at_q - at_p) * lift) % n)
    body = b"".join(int(root).to_bytes(_size(n), "big") for root in roots)
    return Frame(Kind.KEY_PROOF, "paillier", secret.key_id, 0, 0, 0, 0.0, body).to_bytes()


def verify(public: PaillierPublicKey, proof: bytes) -> None:
    """InsecureParameters unless ``proof`` shows that the modulus is well made; a bad frame is a MalformedFrame.

    Checks the modulus itself as well (``check_public``), since the proof is worth nothing with small prime factors.
    Price: ROUNDS exponentiations, 0.1 s at 3072 bits, once a key.
    """
    n = public.n
    check_public(int(n), int(n).bit_length())
    frame = parse(proof, Kind.KEY_PROOF)
    if (frame.scheme, frame.samples, frame.features, frame.level, frame.log_scale, frame.flags) != (
        "paillier", 0, 0, 0, 0.0, 0,
    ):  # fmt: skip
        raise MalformedFrame("a key proof with the scheme, shape, level, scale or flags of something else")
    if frame.key_id != public.key_id:
        raise KeyMismatch(f"the proof is for key {frame.key_id[:8]}, the modulus is key {public.key_id[:8]}")
    size = _size(n)
    if len(frame.body) != ROUNDS * size:
        raise MalformedFrame(f"a proof of {len(frame.body)} bytes, expected {ROUNDS * size}")
    for place, unit in enumerate(_units(public)):
        root = gmpy2.mpz.from_bytes(frame.body[place * size : (place + 1) * size], "big")
        if not 0 < root < n or gmpy2.powmod(root, n, n) != unit:
            raise InsecureParameters(f"root {place} of the key proof is wrong: the modulus may be badly made; new keys")


def _units(public: PaillierPublicKey) -> list[Mpz]:
    """ROUNDS numbers that the key itself chooses, uniform modulo n."""
    n, size = public.n, _size(public.n)
    seed = _TAG + bytes.fromhex(public.key_id) + int(n).to_bytes(size, "big")
    draws = [hashlib.shake_256(seed + bytes([i])).digest(size + _EXTRA_BYTES) for i in range(ROUNDS)]
    return [gmpy2.mpz.from_bytes(draw, "big") % n for draw in draws]


def _size(n: Mpz) -> int:
    return (int(n).bit_length() + 7) // 8
