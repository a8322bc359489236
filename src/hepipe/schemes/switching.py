"""Key-switching keys, made as SEAL makes them, but seeded: half the bytes for relinearization and rotation alike.

A key that switches from s' to s has one part for each data prime q_i: an encryption of zero under s at the key level,
to whose c0 P s' is added in the residues of q_i alone, P the special prime (Cheon, Han, Kim, Kim and Song, eprint
2018/931, section 3; SEAL's keygenerator.cpp, generate_one_kswitch_key). SEAL's Python face returns such keys with c1
written out; built from its seeded encryptions of zero, c1 travels as a 64-byte seed. s' is s**2 for relinearization and
s(X**g) for the rotation whose Galois element is g.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as sealapi

from hepipe.schemes import seal
from hepipe.schemes.seal import Polynomials, Residues

SwitchingKey = list[Polynomials]
"""One seeded encryption for each data prime."""
GENERATOR = 3
"""Of the group of rotations modulo 2N, as SEAL numbers its slots."""


def keys_of(context: seal.Context, secret: Any) -> list[SwitchingKey]:
    """The relinearization key of SEAL's secret key, then a Galois key for each of the rotations."""
    primes, degree = context.parameters.coeff_modulus, context.parameters.poly_modulus_degree
    s = _words(secret, len(primes), degree)
    lifted = _times(s, np.full(s.shape, primes[-1], dtype=np.uint64), primes)
    squared = _times(lifted, s, primes)
    zeros = sealapi.Encryptor(context.seal, secret)
    rotated = (lifted[:, automorphism(step, degree)] for step in context.parameters.rotations)
    return [_key(context, zeros, target) for target in (squared, *rotated)]


def galois_element(step: int, degree: int) -> int:
    """g such that X -> X**g rotates the slots by ``step``: slot p becomes slot p + step."""
    return pow(GENERATOR, step, 2 * degree)


def automorphism(step: int, degree: int) -> npt.NDArray[np.int64]:
    """Where each word of X -> X**g comes from, in the number-theoretic transform as SEAL orders it.

    Word i is the value at the root of exponent 2 rev(i) + 1, rev reversing the bits of i (SEAL's galois.cpp).
    """
    exponents = 2 * _reversed(np.arange(degree), degree) + 1
    return _reversed(exponents * galois_element(step, degree) % (2 * degree) >> 1, degree)


def put_together(keys: dict[int, SwitchingKey], places: int, parms_id: list[int]) -> bytes:
    """The body of SEAL's KSwitchKeys: a vector of ``places`` keys, those not given empty."""
    body = [struct.pack("<4QQ", *parms_id, places)]
    for place in range(places):
        parts = keys.get(place, [])
        body.append(struct.pack("<Q", len(parts)))
        body += [seal.framed(seal.put_together(part, parms_id, 1.0)) for part in parts]
    return b"".join(body)


def _key(context: seal.Context, zeros: Any, target: Residues) -> SwitchingKey:
    primes, degree = context.parameters.coeff_modulus, context.parameters.poly_modulus_degree
    parts = []
    for i, prime in enumerate(primes[:-1]):
        zero = seal.take_apart(seal.save(zeros.encrypt_zero_symmetric(context.key_parms_id)), degree)
        residues = zero.residues.copy()
        residues[0, i] = (residues[0, i] + target[i]) % np.uint64(prime)
        parts.append(Polynomials(residues, zero.seed))
    return parts


def _words(secret: Any, primes: int, degree: int) -> Residues:
    """The transform of the secret key modulo each prime, as SEAL keeps it."""
    body = seal.save(secret)
    return np.frombuffer(body[-8 * primes * degree :], dtype="<u8").reshape(primes, degree).astype(np.uint64)


def _times(left: Residues, right: Residues, primes: tuple[int, ...]) -> Residues:
    """Products modulo each prime, by Python's integers: two words of 60 bits do not multiply into one of 64."""
    moduli = np.array(primes, dtype=object)[:, None]
    product: Residues = (left.astype(object) * right.astype(object) % moduli).astype(np.uint64)
    return product


def _reversed(values: npt.NDArray[np.int64], degree: int) -> npt.NDArray[np.int64]:
    result = np.zeros_like(values)
    for bit in range(degree.bit_length() - 1):
        result = result << 1 | values >> bit & 1
    return result
