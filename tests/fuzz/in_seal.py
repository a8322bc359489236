"""What the parser accepts, loaded and computed with in SEAL: there a bad stream would be a crash, not an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import tenseal.sealapi as sealapi

from fixed_keys import ckks_bundle, polynomials
from hepipe.errors import HepipeError
from hepipe.schemes import seal
from hepipe.schemes.base import CipherTensor
from hepipe.schemes.ckks_keys import CkksSecretKey
from hepipe.schemes.frames import SEEDED, Frame, Kind
from hepipe.schemes.parameters import CkksParameters
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.wire import pack_tensor

PARAMETERS = CkksParameters(1024, (30, 30, 30), 20.0, insecure=True, rotations=(1,))


class Evaluation:
    """Keys of fixed bytes, so that inputs of one process mean the same in the next, and a secret key of this process.

    The secret key does not belong to the public ones: what it decrypts is what it encrypted, or garbage.
    """

    def __init__(self) -> None:
        self.bundle = ckks_bundle(PARAMETERS)
        self._context = seal.context(PARAMETERS)
        handle = sealapi.KeyGenerator(self._context.seal).secret_key()
        secret = CkksSecretKey(PARAMETERS, handle, self.bundle.key_id)
        scheme: Any = scheme_of(PARAMETERS)
        self._encryptor, self._decryptor = scheme.encryptor(secret), scheme.decryptor(secret)
        self._evaluator: Any = scheme.evaluator(self.bundle)

    def seeds(self) -> list[bytes]:
        """A fresh frame, one of two features, a result, and one that only looks like ciphertexts."""
        fresh = self._encryptor.encrypt([[1.0]], 4.0)
        wide = self._encryptor.encrypt(np.array([[1.0, -2.0]] * 3), 4.0)
        result = self._evaluator.rerandomize(self._evaluator.mul_plain(fresh, 0.5))
        made = [pack_tensor(x, self.bundle) for x in (fresh, wide, result)]
        primes, degree = PARAMETERS.primes_at(1), PARAMETERS.poly_modulus_degree
        look = b"\0\2" + seal.pack_residues(polynomials("tensor", 2, primes, degree, seeded=False).residues, primes)
        return [*made, Frame(Kind.TENSOR, "ckks", self.bundle.key_id, 7, 1, 1, 20.0, look, SEEDED * 0).to_bytes()]

    def load(self, x: CipherTensor) -> None:
        """Every ciphertext as SEAL's object."""
        for item in (item for row in x.data for item in row):
            item.ciphertext(self._context)

    def use(self, x: CipherTensor) -> None:
        """Each operation that a server or a client does: a number or a typed error."""
        ev = self._evaluator
        for use, *more in (
            (self._decryptor.decrypt,), (ev.add, x), (ev.mul, x), (ev.mul_plain, 1.5), (ev.rotate, 1), (ev.rerandomize,)
        ):  # fmt: skip
            try:
                result = use(x, *more)
                if isinstance(result, CipherTensor):
                    pack_tensor(result, self.bundle)
            except HepipeError:
                continue
