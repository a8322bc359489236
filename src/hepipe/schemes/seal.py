"""Microsoft SEAL as tenseal carries it: contexts, and SEAL's byte streams taken apart and put together.

SEAL's Python face reads and writes files only, and its loader has been fed hostile bytes before (protocols.md, 0.1).
So no byte of a peer ever reaches it: hepipe transports bare residues and seeds, checks every residue against its
prime, and composes the stream that SEAL loads itself. Layout as written by SEAL 4.3 (native/src/seal/serialization.h,
ciphertext.cpp, kswitchkeys.cpp).
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as sealapi
import zstandard

from hepipe.errors import HepipeError, MalformedFrame
from hepipe.schemes.parameters import CkksParameters

Residues = npt.NDArray[np.uint64]

SEED_BYTES = 64
_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, version major, minor, compression, reserved, total size
FORMAT_VERSION = (4, 3)
"""Major and minor version of SEAL whose streams are read and written here."""
_MAGIC, _ZSTD = 0xA15E, 2
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")  # parms_id, NTT form, polynomials, N, primes, scale, correction factor
_BLAKE2XB = 1


class Transparent(HepipeError):
    """A result that everyone can read: its operands cancel, or were made to hide nothing."""


class Arithmetic:
    """SEAL's evaluator; its refusal of a ciphertext whose polynomials beyond c0 vanish is a typed error."""

    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator

    def __getattr__(self, name: str) -> Callable[..., None]:
        operation = getattr(self._evaluator, name)

        def guarded(*operands: Any) -> None:
            try:
                operation(*operands)
            except (RuntimeError, ValueError) as error:
                if "transparent" not in str(error):
                    raise
                raise Transparent("the result would hide nothing: its operands cancel, or were forged") from error

        return guarded


class Context:
    """The SEAL objects of one parameter set; holds no key."""

    def __init__(self, parameters: CkksParameters) -> None:
        self.parameters = parameters
        settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(parameters.poly_modulus_degree)
        primes = sealapi.CoeffModulus.Create(parameters.poly_modulus_degree, list(parameters.coeff_modulus_bits))
        if tuple(prime.value() for prime in primes) != parameters.coeff_modulus:
            raise HepipeError("SEAL chose other primes than the parameters state: this build is not supported")
        settings.set_coeff_modulus(primes)
        level = sealapi.SEC_LEVEL_TYPE.NONE if parameters.insecure else sealapi.SEC_LEVEL_TYPE.TC128
        self.seal = sealapi.SEALContext(settings, True, level)
        if not self.seal.parameters_set():
            raise HepipeError(f"SEAL refuses {parameters}: {self.seal.parameters_error_message()}")
        self.encoder = sealapi.CKKSEncoder(self.seal)
        self.evaluator = Arithmetic(sealapi.Evaluator(self.seal))
        self.key_parms_id: list[int] = self.seal.key_parms_id()
        self._parms_ids = self._chain()

    def _chain(self) -> list[list[int]]:
        ids, data = [], self.seal.first_context_data()
        while data is not None:
            ids.append(data.parms_id())
            data = data.next_context_data()
        return ids[::-1]

    def parms_id(self, level: int) -> list[int]:
        """SEAL's name of the modulus at ``level``."""
        return self._parms_ids[self.parameters.chain_index(level)]


@lru_cache(maxsize=16)
def context(parameters: CkksParameters) -> Context:
    """The context of a parameter set; immutable, so one serves all keys."""
    return Context(parameters)


@dataclass(frozen=True, eq=False)
class Polynomials:
    """A ciphertext taken apart: residues of shape (polynomials, primes, N), or of c0 alone with the seed of c1."""

    residues: Residues
    seed: bytes | None = None


@contextmanager
def _scratch() -> Iterator[str]:
    """A path that SEAL can open; memory where the system offers it, so that key material touches no disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("hepipe", os.MFD_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield os.path.join(folder, "stream")


def save(item: Any) -> bytes:
    """The body of what SEAL writes for ``item``, decompressed, its outer header removed."""
    with _scratch() as path:
        item.save(path)
        with open(path, "rb") as stream:
            data = stream.read()
    body = data[_HEADER.size :]
    return zstandard.ZstdDecompressor().decompressobj().decompress(body) if data[5] == _ZSTD else body


def load(empty: Any, seal_context: Any, body: bytes) -> Any:
    """Let SEAL load a body that hepipe composed into ``empty``; returns it."""
    with _scratch() as path:
        with open(path, "wb") as stream:
            stream.write(framed(body))
        empty.load(seal_context, path)
    return empty


def framed(body: bytes) -> bytes:
    """A body under the header that SEAL writes without compression."""
    return _HEADER.pack(_MAGIC, _HEADER.size, *FORMAT_VERSION, 0, 0, _HEADER.size + len(body)) + body


def take_apart(body: bytes, degree: int) -> Polynomials:
    """A ciphertext body, as SEAL wrote it on this machine, as residues and seed."""
    _, _, size, _, primes, _, _ = _CIPHERTEXT.unpack_from(body)
    start = _CIPHERTEXT.size + _HEADER.size
    (count,) = struct.unpack_from("<Q", body, start)
    words = np.frombuffer(body, dtype="<u8", count=count, offset=start + 8).reshape(-1, primes, degree)
    seed = body[-SEED_BYTES:] if len(words) < size else None
    return Polynomials(words, seed)


def put_together(parts: Polynomials, parms_id: list[int], scale: float, *, transformed: bool = True) -> bytes:
    """The ciphertext body that SEAL loads for ``parts``; not ``transformed``, they are residues of coefficients."""
    polynomials, primes, degree = parts.residues.shape
    size = polynomials + (parts.seed is not None)
    head = _CIPHERTEXT.pack(struct.pack("<4Q", *parms_id), transformed, size, degree, primes, scale, 1)
    words = parts.residues.astype("<u8", copy=False).tobytes()
    tail = b"" if parts.seed is None else framed(bytes([_BLAKE2XB]) + parts.seed)
    return head + framed(struct.pack("<Q", len(words) // 8) + words) + tail


def pack_residues(residues: Residues, primes: tuple[int, ...]) -> bytes:
    """Residues, little-endian, each in as many whole bytes as its prime has."""
    words = np.ascontiguousarray(residues.astype("<u8", copy=False)).view(np.uint8).reshape(*residues.shape, 8)
    return b"".join(words[p, i, :, : _width(q)].tobytes() for p in range(len(words)) for i, q in enumerate(primes))


def unpack_residues(data: bytes, polynomials: int, primes: tuple[int, ...], degree: int) -> Residues:
    """The inverse of ``pack_residues``; MalformedFrame unless the length fits and every residue is below its prime."""
    expected = polynomials * degree * sum(_width(prime) for prime in primes)
    if len(data) != expected:
        raise MalformedFrame(f"a ciphertext body of {len(data)} bytes, expected {expected}")
    words = np.zeros((polynomials, len(primes), degree, 8), dtype=np.uint8)
    position = 0
    for p in range(polynomials):
        for i, prime in enumerate(primes):
            count = degree * _width(prime)
            chunk = np.frombuffer(data, dtype=np.uint8, count=count, offset=position)
            words[p, i, :, : _width(prime)] = chunk.reshape(degree, -1)
            position += count
    residues = words.view("<u8")[..., 0]
    if (residues >= np.array(primes, dtype=np.uint64)[:, None]).any():
        raise MalformedFrame("a residue is not below its prime: not a ciphertext of these parameters")
    return residues


def _width(prime: int) -> int:
    return (prime.bit_length() + 7) // 8
