"""Keys and ciphertexts that are the same in every process, so that a recorded input means the same in the next one.

INSECURE: the factors stand here for everyone to read, and the keys are small. Test data only.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np

from hepipe.schemes.base import PublicBundle
from hepipe.schemes.ckks_keys import CkksEvaluationKeys, CkksPublicKey
from hepipe.schemes.paillier_keys import PaillierSecretKey
from hepipe.schemes.parameters import CkksParameters, PaillierParameters
from hepipe.schemes.seal import SEED_BYTES, Polynomials

_FACTORS: dict[int, tuple[dict[str, int], ...]] = {
    256: (
        {"a_p": 0x16FA2CF, "b_p": 0x53B7587E38BF0727E996BA538F, "a_q": 0xEC8E5D, "b_q": 0x689110BFA2223D29CFB2BF3A71},
        {"a_p": 0xDA9FD9, "b_p": 0x72DDCEC6FFA4372FEB3D50B509, "a_q": 0x11C6BAB, "b_q": 0x64E2E10737668CB274040F6D57},
    ),
    512: (
        {
            "a_p": 0x10EDFF3, "b_p": 0x627572524F64A07BA9475FC60B940FB773AD87AAE6FBA0C298C8C419ED,
            "a_q": 0x173BF71, "b_q": 0x46697F8E74CF87F2C713A51594413CF1CFFBA46F014E84D915CA05D85B,
        },
    ),
}  # fmt: skip


@cache
def paillier_secret(bits: int, which: int = 0) -> PaillierSecretKey:
    return PaillierSecretKey.from_factors(_FACTORS[bits][which])


def paillier_bundle(bits: int, which: int = 0) -> PublicBundle:
    """One lane, so that a frame may be blinded."""
    public = paillier_secret(bits, which).public
    return PublicBundle(PaillierParameters(bits, lanes=1, lane_bits=bits - 2, insecure=True), public, public)


def stretched(label: str, count: int) -> bytes:
    """Bytes that follow from a label."""
    return hashlib.shake_256(f"hepipe fixed {label}".encode()).digest(count)


def polynomials(label: str, count: int, primes: tuple[int, ...], degree: int, *, seeded: bool) -> Polynomials:
    """Residues that look random: what an encryption of anything looks like to whoever has no secret key."""
    words = np.frombuffer(stretched(label, 8 * count * len(primes) * degree), "<u8").reshape(count, len(primes), degree)
    seed = stretched(f"{label} seed", SEED_BYTES) if seeded else None
    return Polynomials(words % np.array(primes, np.uint64)[:, None], seed)


def ckks_bundle(parameters: CkksParameters) -> PublicBundle:
    """Public keys of the right form; nobody has a secret one to them."""
    primes, degree = parameters.coeff_modulus, parameters.poly_modulus_degree

    def parts(label: str) -> Polynomials:
        return polynomials(label, 1, primes, degree, seeded=True)

    def switching(label: str) -> list[Polynomials]:
        return [parts(f"{label} {digit}") for digit in range(len(primes) - 1)]

    galois = [switching(f"galois {step}") for step in parameters.rotations]
    evaluation: Any = CkksEvaluationKeys(parameters, switching("relinearization"), galois)
    return PublicBundle(parameters, CkksPublicKey(parameters, parts("public")), evaluation)
