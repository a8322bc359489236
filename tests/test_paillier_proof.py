"""The proof of a Paillier key: every good key passes, and the bad ones that pass the other checks do not."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any

import gmpy2
import pytest

from hepipe.errors import HepipeError, InsecureParameters, KeyMismatch, MalformedFrame
from hepipe.protocol.parties import Client, registered
from hepipe.schemes.frames import HEADER_BYTES, Frame, Kind, parse, split
from hepipe.schemes.paillier_keys import PaillierPublicKey, PaillierSecretKey, generate_secret_key
from hepipe.schemes.paillier_proof import ROUNDS, _units, prove, verify
from hepipe.study.plan import plan
from served_models import made

BITS = 512


@cache
def key(which: int = 0, bits: int = BITS) -> PaillierSecretKey:
    return generate_secret_key(bits)


def prime(bits: int) -> Any:
    while True:
        candidate = gmpy2.mpz(secrets.randbits(bits) | 3 << (bits - 2) | 1)
        if gmpy2.is_prime(candidate):
            return candidate


def framed(public: PaillierPublicKey, roots: list[Any]) -> bytes:
    size = (int(public.n).bit_length() + 7) // 8
    body = b"".join(int(root).to_bytes(size, "big") for root in roots)
    return Frame(Kind.KEY_PROOF, "paillier", public.key_id, 0, 0, 0, 0.0, body).to_bytes()


def best_effort(n: Any, primes: dict[Any, int]) -> bytes:
    """The roots that an owner who knows the factorisation can show: the right ones wherever there are any."""
    public, phi = PaillierPublicKey(gmpy2.mpz(n)), gmpy2.mpz(1)
    for p, power in primes.items():
        phi *= p ** (power - 1) * (p - 1)
    coprime, common = phi, gmpy2.gcd(n, phi)
    while common > 1:  # the part of the group's order on which x -> x**n is a permutation
        coprime //= common
        common = gmpy2.gcd(n, coprime)
    roots = [gmpy2.powmod(unit, gmpy2.invert(n, coprime) if coprime > 1 else 1, n) for unit in _units(public)]
    return framed(public, roots)


@pytest.mark.parametrize("bits", [512, 1024, pytest.param(3072, marks=pytest.mark.secure)])
def test_every_key_of_hepipe_is_shown_to_be_well_made(bits: int) -> None:
    secret = key(0, bits)
    proof = prove(secret)
    verify(secret.public, proof)
    assert len(proof) == HEADER_BYTES + ROUNDS * bits // 8
    assert proof == prove(secret)  # a function of the key: a second one tells nothing new


def test_a_proof_has_soundness_of_128_bits() -> None:
    assert ROUNDS * gmpy2.log2(65537) >= 128


def test_the_units_are_those_of_one_key() -> None:
    units = _units(key().public)
    assert len({*units, *_units(key(1).public)}) == 2 * ROUNDS
    assert all(0 < unit < key().public.n and gmpy2.gcd(unit, key().public.n) == 1 for unit in units)


def test_the_proof_of_another_key_is_refused() -> None:
    with pytest.raises(KeyMismatch, match="the proof is for key"):
        verify(key().public, prove(key(1)))
    foreign = parse(prove(key(1)), Kind.KEY_PROOF).body
    body = Frame(Kind.KEY_PROOF, "paillier", key().public.key_id, 0, 0, 0, 0.0, foreign).to_bytes()
    with pytest.raises(InsecureParameters, match="root 0"):
        verify(key().public, body)


def bad_moduli() -> dict[str, tuple[Any, dict[Any, int]]]:
    p, q = prime(BITS // 4), prime(BITS // 2)
    while (p * p * q).bit_length() != BITS:
        p, q = prime(BITS // 4), prime(BITS // 2)
    large = prime(BITS // 2 - 60)
    k = 2
    while not gmpy2.is_prime(1 + k * large):  # a prime with ``large`` dividing it minus one
        k += 2
    linked = 1 + k * large
    three = prime(BITS - 2)
    return {
        "p**2 q": (p * p * q, {p: 2, q: 1}),
        "q divides p - 1": (large * linked, {large: 1, linked: 1}),
        "prime": (prime(BITS), {}),
        "even": (2 * prime(BITS - 1), {}),
        "3 p": (3 * three, {gmpy2.mpz(3): 1, three: 1}),
        "square": (q * q, {q: 2}),
    }


@pytest.mark.parametrize("name", ["p**2 q", "q divides p - 1", "prime", "even", "3 p", "square"])
def test_a_badly_made_modulus_is_refused_with_the_best_proof_its_owner_can_make(name: str) -> None:
    n, primes = bad_moduli()[name]
    proof = best_effort(n, primes) if primes else framed(PaillierPublicKey(n), [1] * ROUNDS)
    with pytest.raises((InsecureParameters, MalformedFrame)):
        verify(PaillierPublicKey(n), proof)


def test_the_best_proof_is_a_right_one_for_a_good_modulus() -> None:
    """So the refusals above are the modulus's fault."""
    secret = key()
    assert best_effort(secret.public.n, {secret.p: 1, secret.q: 1}) == prove(secret)


@pytest.mark.parametrize("place", range(ROUNDS))
def test_each_root_counts(place: int) -> None:
    size, body = BITS // 8, bytearray(parse(prove(key()), Kind.KEY_PROOF).body)
    body[place * size + size - 1] ^= 1
    frame = Frame(Kind.KEY_PROOF, "paillier", key().key_id, 0, 0, 0, 0.0, bytes(body)).to_bytes()
    with pytest.raises(InsecureParameters, match=f"root {place}"):
        verify(key().public, frame)


@pytest.mark.parametrize("root", ["zero", "plus n"])
def test_roots_are_canonical(root: str) -> None:
    size, body = BITS // 8, bytearray(parse(prove(key()), Kind.KEY_PROOF).body)
    other = 0 if root == "zero" else min(int.from_bytes(body[:size], "big") + int(key().public.n), (1 << BITS) - 1)
    body[:size] = other.to_bytes(size, "big")
    frame = Frame(Kind.KEY_PROOF, "paillier", key().key_id, 0, 0, 0, 0.0, bytes(body)).to_bytes()
    with pytest.raises(InsecureParameters, match="root 0"):
        verify(key().public, frame)


@pytest.mark.parametrize(
    "fields", [{"samples": 1}, {"features": 1}, {"level": 1}, {"log_scale": 1.0}, {"flags": 1}, {"scheme": "ckks"}]
)
def test_a_proof_frame_states_nothing_else(fields: dict[str, Any]) -> None:
    frame = parse(prove(key()), Kind.KEY_PROOF)
    changed = Frame(**{**frame.__dict__, **fields}).to_bytes()
    with pytest.raises(MalformedFrame):
        verify(key().public, changed)


@pytest.mark.parametrize("cut", [0, 1, 40, HEADER_BYTES, -1])
def test_a_truncated_proof_is_refused(cut: int) -> None:
    with pytest.raises(MalformedFrame):
        verify(key().public, prove(key())[:cut])


# --- as it travels ----------------------------------------------------------------------------------------------------


@cache
def client(scheme: str) -> Client:
    return Client(plan(made("linear"), scheme, samples=2, precision_bits=10, security_bits=0))


@pytest.mark.parametrize("scheme", ["clear", "paillier", "ckks"])
def test_registration_carries_the_keys_and_under_paillier_their_proof(scheme: str) -> None:
    data = client(scheme).registration_bytes()
    assert registered(data, allow_insecure=True).key_id == client(scheme).public().key_id
    kinds = [frame[5] for frame in split(data)]
    assert kinds == [Kind.PUBLIC_KEYS, *[Kind.KEY_PROOF] * (scheme == "paillier")]
    assert b"".join(split(data)) == data
    with pytest.raises(HepipeError):
        registered(data + data, allow_insecure=True)
    with pytest.raises(HepipeError):
        registered(data[:-1], allow_insecure=True)
    if scheme != "clear":
        with pytest.raises(InsecureParameters, match="tests"):
            registered(data)


def test_a_paillier_key_without_its_proof_is_refused() -> None:
    data = client("paillier").registration_bytes()
    keys, proof = split(data)
    other = Client(plan(made("linear"), "paillier", samples=2, precision_bits=10, security_bits=0))
    for wrong in (keys, keys + proof + proof, keys + split(other.registration_bytes())[1], proof + keys, proof, b""):
        with pytest.raises(HepipeError):
            registered(wrong, allow_insecure=True)


def test_only_public_numbers_are_in_it() -> None:
    """A proof tells roots of public numbers: none shares a factor with n, none is p or q."""
    secret = key()
    body = parse(prove(secret), Kind.KEY_PROOF).body
    roots = [int.from_bytes(body[i : i + BITS // 8], "big") for i in range(0, len(body), BITS // 8)]
    assert all(gmpy2.gcd(root, secret.public.n) == 1 for root in roots)
    factor = int(secret.p).to_bytes(BITS // 16, "big")
    assert factor not in prove(secret)
