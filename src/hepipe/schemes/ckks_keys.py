"""The keys of CKKS: what each holds of SEAL, and how they are made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tenseal.sealapi as sealapi

from hepipe.schemes import seal, switching
from hepipe.schemes.base import KeySet
from hepipe.schemes.parameters import CkksParameters
from hepipe.schemes.secret import SecretKey
from hepipe.schemes.switching import SwitchingKey


@dataclass(frozen=True, eq=False)
class CkksPublicKey:
    """The encryption key: an encryption of zero at the key level, half of it a seed."""

    parameters: CkksParameters
    parts: seal.Polynomials

    @cached_property
    def key_id(self) -> str:
        """Digest of the parameters and of the key itself."""
        content = repr(self.parameters).encode() + (self.parts.seed or b"") + self.parts.residues.tobytes()
        return hashlib.sha256(b"hepipe ckks public key\0" + content).hexdigest()[:32]

    @cached_property
    def handle(self) -> Any:
        """SEAL's object."""
        context = seal.context(self.parameters)
        body = seal.put_together(self.parts, context.key_parms_id, 1.0)
        return seal.load(sealapi.PublicKey(), context.seal, body)


@dataclass(frozen=True, eq=False)
class CkksEvaluationKeys:
    """What switches keys after a product and after a rotation; each part seeded.

    relinearization   the parts of the one key; empty for complex slots, which are not multiplied
    galois            the parts of one key for each of ``parameters.rotations``, in their order
    """

    parameters: CkksParameters
    relinearization: SwitchingKey = field(default_factory=list)
    galois: list[SwitchingKey] = field(default_factory=list)

    @property
    def parts(self) -> SwitchingKey:
        """All parts of all keys, in the order in which they travel."""
        return [*self.relinearization, *(part for key in self.galois for part in key)]

    @cached_property
    def relin_handle(self) -> Any:
        """SEAL's object."""
        context = seal.context(self.parameters)
        body = switching.put_together({0: self.relinearization}, 1, context.key_parms_id)
        return seal.load(sealapi.RelinKeys(), context.seal, body)

    @cached_property
    def galois_handle(self) -> Any:
        """SEAL's object: a vector of N keys, that of the element g at (g - 1) / 2."""
        context, degree = seal.context(self.parameters), self.parameters.poly_modulus_degree
        elements = [switching.galois_element(step, degree) for step in self.parameters.rotations]
        keys = {(element - 1) // 2: key for element, key in zip(elements, self.galois, strict=True)}
        return seal.load(sealapi.GaloisKeys(), context.seal, switching.put_together(keys, degree, context.key_parms_id))


class CkksSecretKey(SecretKey):
    """The secret polynomial, inside SEAL; refuses to be copied, pickled or printed."""

    def __init__(self, parameters: CkksParameters, handle: Any, key_id: str) -> None:
        super().__init__(key_id)
        self.parameters, self._handle = parameters, handle

    def _material(self) -> bytes:
        return seal.save(self._handle)


def generate(parameters: CkksParameters) -> KeySet:
    """Fresh keys; a relinearization key where ciphertexts can be multiplied, Galois keys where samples rotate."""
    context = seal.context(parameters)
    handle = sealapi.KeyGenerator(context.seal).secret_key()
    # A public key is a symmetric encryption of zero at the key level; made so, half of it is a seed.
    zero = sealapi.Encryptor(context.seal, handle).encrypt_zero_symmetric(context.key_parms_id)
    public = CkksPublicKey(parameters, seal.take_apart(seal.save(zero), parameters.poly_modulus_degree))
    secret = CkksSecretKey(parameters, handle, public.key_id)
    if parameters.complex_slots:
        return KeySet(secret, public, CkksEvaluationKeys(parameters))
    relinearization, *galois = switching.keys_of(context, handle)
    return KeySet(secret, public, CkksEvaluationKeys(parameters, relinearization, galois))
