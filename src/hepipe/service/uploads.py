"""Uploads that should never have been made: bytes that hold a secret key, as far as they can be told.

A public key of hepipe is parsed strictly, so no other byte gets past; this is for telling the sender that the key is
burnt, in the formats in which such a key is most likely to arrive.
"""

from __future__ import annotations

import re

import gmpy2

from hepipe.errors import HepipeError
from hepipe.schemes.frames import HEADER_BYTES, Kind, kind_of

BURNT = (
    "the upload holds a secret key: it was not stored, but a key that has left its holder is burnt; make new keys "
    "(hepipe keys new) and use this one no more"
)
_TEXTS = re.compile(
    rb"PRIVATE KEY-----|PaillierPrivateKey|SecretKey|private_?key|secret_?key"
    rb"|[\"'](?:p|q|lambda|mu|a_p|b_p|a_q|b_q|d)[\"']\s*:",
    re.IGNORECASE,
)
_KEY_FILE, _SEAL = b"HEPK", bytes.fromhex("5ea110")
_MODULUS_BYTES = (128, 256, 384, 512, 960, 1920)
# A TenSEAL context is a protobuf of parameters (field 1), public keys (2) and, where it has one, the secret key (3).
_TENSEAL_PARAMETERS, _TENSEAL_SECRET = 0x0A, 0x1A


class SecretKeyUploaded(HepipeError):
    """The upload holds a secret key."""


def check_upload(data: bytes) -> None:
    """SecretKeyUploaded if ``data`` looks like a secret key in one of the usual formats."""
    if data[:4] == _KEY_FILE or _has_text(data) or _paillier_factor(data) or _tenseal_secret(data):
        raise SecretKeyUploaded(BURNT)


def _has_text(data: bytes) -> bool:
    """A pickle, a PEM or a JSON with a secret key's names. Frames are numbers, in which such a text is no accident."""
    return kind_of(data) != Kind.PUBLIC_KEYS and _TEXTS.search(data[: 1 << 20]) is not None


def _paillier_factor(data: bytes) -> bool:
    """A key frame of Paillier with a factor of its modulus behind it."""
    if kind_of(data) != Kind.PUBLIC_KEYS or data[6] != 1 or len(data) < HEADER_BYTES + 4:
        return False
    start = HEADER_BYTES + 4 + int.from_bytes(data[HEADER_BYTES : HEADER_BYTES + 4], "big")
    rest = data[start : start + 8192]
    return any(_has_factor(rest[:size], rest[size:]) for size in _MODULUS_BYTES if len(rest) > size)


def _has_factor(modulus: bytes, rest: bytes) -> bool:
    n, half = gmpy2.mpz.from_bytes(modulus, "big"), len(modulus) // 2
    numbers = [gmpy2.mpz.from_bytes(rest[i : i + half], "big") for i in range(0, len(rest), half)]
    return any(1 < number < n and n % number == 0 for number in numbers)


def _tenseal_secret(data: bytes) -> bool:
    """A TenSEAL context with its secret key: only the tags and lengths of its fields are read."""
    place = 0
    while place < len(data):
        tag, (length, start) = data[place], _varint(data, place + 1)
        if place == 0 and (tag != _TENSEAL_PARAMETERS or data[start : start + 3] != _SEAL):
            return False
        if tag == _TENSEAL_SECRET:
            return length > 0
        place = start + length
    return False


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A length of a protobuf and where it ends."""
    value, shift = 0, 0
    while place < len(data) and shift < 35:
        value |= (data[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if data[place - 1] < 0x80:
            break
    return value, place
