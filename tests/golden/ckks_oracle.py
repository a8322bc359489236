"""CKKS decryption written from the format and the mathematics alone: Python integers and numpy, no SEAL.

It reads what SEAL 4.3 and 4.4 write (header, parms_id, NTT words, 64-byte seeds), so that the ciphertexts this project
produces can be decrypted by something that shares no code with the library that made them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Integers = NDArray[np.object_]  # exact Python integers: a product of two 60-bit residues does not fit a machine word
Slots = NDArray[np.complex128]

HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, compression, reserved, size of the whole stream
PLAINTEXT = struct.Struct("<Qd")  # after the parms_id: number of words, scale
CIPHERTEXT = struct.Struct("<BQQQdQ")  # after the parms_id: NTT form, size, degree, primes, scale, correction factor
COUNT = struct.Struct("<Q")
PARMS_ID = 32
CKKS, BLAKE2XB = 2, 1
XOF_BYTES = 4096  # SEAL's generator restarts Blake2Xb with the next counter after this many bytes


class StreamError(ValueError):
    """The bytes are not the stream they were said to be."""


@dataclass(frozen=True)
class Ciphertext:
    """Words [polynomial][prime][coefficient] in NTT form, with what the stream says about them."""

    parms_id: bytes
    primes: tuple[int, ...]
    scale: float
    words: Words
    seeded: bool


# --- streams ---------------------------------------------------------------------------------------------------------


def unwrap(stream: bytes) -> tuple[bytes, bytes]:
    """The body of the first SEAL object in `stream`, decompressed, and the bytes after that object."""
    magic, header_size, major, minor, compression, reserved, size = _fields(HEADER, stream)
    if (magic, header_size, major, reserved) != (0xA15E, HEADER.size, 4, 0) or minor not in (3, 4):
        raise StreamError("not a header of SEAL 4.3 or 4.4")
    if not HEADER.size <= size <= len(stream):
        raise StreamError(f"header says {size} bytes, {len(stream)} are here")
    body, rest = stream[HEADER.size : size], stream[size:]
    if compression == 2:
        body = _decompressed(body)
    elif compression != 0:
        raise StreamError(f"compression {compression} is neither none (0) nor zstandard (2)")
    return body, rest


def _decompressed(body: bytes) -> bytes:
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        out = decompressor.decompress(body)
    except zstandard.ZstdError as error:
        raise StreamError(str(error)) from error
    if not decompressor.eof or decompressor.unused_data:
        raise StreamError("not exactly one zstandard frame")
    return out


def _fields(layout: struct.Struct, body: bytes, offset: int = 0) -> tuple[Any, ...]:
    if len(body) < offset + layout.size:
        raise StreamError("ends within its fixed fields")
    return layout.unpack_from(body, offset)


def parms_id(degree: int, primes: Sequence[int]) -> bytes:
    """What SEAL calls these parameters: Blake2b-256 of scheme, degree, primes, and plain modulus (0 in CKKS)."""
    return hashlib.blake2b(struct.pack(f"<{len(primes) + 3}Q", CKKS, degree, *primes, 0), digest_size=32).digest()


def parse_secret_key(stream: bytes, degree: int, primes: Sequence[int]) -> Words:
    """The NTT words [prime][coefficient] of a secret key, which SEAL stores as a plaintext over all primes."""
    body, rest = unwrap(stream)
    coefficients, scale = _fields(PLAINTEXT, body, PARMS_ID)
    words, tail = _array(body[PARMS_ID + PLAINTEXT.size :])
    if rest or tail or body[:PARMS_ID] != parms_id(degree, primes) or scale != 1.0:
        raise StreamError("not a secret key of these parameters")
    if coefficients != words.size or words.size != degree * len(primes):
        raise StreamError("wrong number of words for these parameters")
    return _residues(words.reshape(len(primes), degree), primes)


def parse_ciphertext(stream: bytes, degree: int, primes: Sequence[int]) -> Ciphertext:
    """A ciphertext at any level of the chain `primes`; a seeded one is expanded."""
    body, rest = unwrap(stream)
    name = body[:PARMS_ID]
    ntt, size, stored_degree, level, scale, correction = _fields(CIPHERTEXT, body, PARMS_ID)
    used = tuple(primes[:level])
    if rest or stored_degree != degree or name != parms_id(degree, used) or (ntt, correction) != (1, 1) or size < 2:
        raise StreamError("not a CKKS ciphertext of these parameters")
    words, tail = _array(body[PARMS_ID + CIPHERTEXT.size :])
    seeded = bool(tail)
    if seeded:
        words = np.concatenate([words, expand_seed(_seed(tail), degree, used).ravel()])
    if words.size != size * level * degree:
        raise StreamError("wrong number of words for this size and level")
    return Ciphertext(name, used, scale, _residues(words.reshape(size, level, degree), used), seeded)


def _array(stream: bytes) -> tuple[Words, bytes]:
    body, tail = unwrap(stream)
    (length,) = _fields(COUNT, body)
    if len(body) != COUNT.size + 8 * length:
        raise StreamError("an array whose count is not its length")
    return np.frombuffer(body, "<u8", offset=COUNT.size), tail


def _seed(stream: bytes) -> bytes:
    body, tail = unwrap(stream)
    if tail or len(body) != 65 or body[0] != BLAKE2XB:
        raise StreamError("not the seed of a Blake2Xb generator")
    return body[1:]


def _residues(words: Words, primes: Sequence[int]) -> Words:
    if (words >= np.array(primes, np.uint64)[:, None]).any():
        raise StreamError("a word is not reduced modulo its prime")
    return words


# --- the uniform half of a seeded ciphertext -------------------------------------------------------------------------


def expand_seed(seed: bytes, degree: int, primes: Sequence[int]) -> Words:
    """The uniform polynomial [prime][coefficient] a seed stands for.

    All words are drawn first; a word in the incomplete top multiple of its prime is replaced by the next ones drawn.
    """
    stream = _random_words(seed)
    words = np.array([next(stream) for _ in range(len(primes) * degree)], np.uint64).reshape(len(primes), degree)
    for row, prime in zip(words, primes, strict=True):
        limit = 2**64 - 2 - (2**64 - 1) % prime
        for i in np.flatnonzero(row >= np.uint64(limit)):
            row[i] = next(word for word in stream if word < limit)
        row %= np.uint64(prime)
    return words


def _random_words(seed: bytes) -> Iterator[int]:
    for counter in count():
        yield from np.frombuffer(blake2xb(COUNT.pack(counter), seed, XOF_BYTES), "<u8").tolist()


def blake2xb(message: bytes, key: bytes, length: int) -> bytes:
    """Blake2Xb, for a length that is a multiple of 64 bytes."""
    root = hashlib.blake2b(message, key=key, node_offset=length << 32).digest()
    offsets = np.arange(length // 64, dtype=np.uint64) | np.uint64(length << 32)
    # The parameters of an output node: digest 64, no key, fanout and depth 0, leaf 64; its offset and the whole length;
    # node depth 0, inner 64. hashlib refuses depth 0, so the compression is done here, for all nodes at once.
    return blake2b_block([64 | 64 << 32, offsets, 64 << 8], root).T.tobytes()


IV = [0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1]
IV += [0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179]
SIGMA = ["0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d"]
SIGMA += ["2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0"]
COLUMNS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
DIAGONALS = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def blake2b_block(parameters: Sequence[int | Words], message: bytes) -> Words:
    """Blake2b of one message of at most 128 bytes under parameter words that may be arrays: digests [word][lane]."""
    lanes = np.broadcast_arrays(*(np.asarray(p, np.uint64) for p in [*parameters, *[0] * (8 - len(parameters))]))
    start = np.array(IV, np.uint64)[:, None] ^ np.stack([np.atleast_1d(lane) for lane in lanes])
    fixed = np.array(IV, np.uint64) ^ np.array([0, 0, 0, 0, len(message), 0, 2**64 - 1, 0], np.uint64)
    v = np.concatenate([start, np.broadcast_to(fixed[:, None], start.shape)])
    block = np.frombuffer(message.ljust(128, b"\0"), "<u8")
    for turn in range(12):
        order = [int(digit, 16) for digit in SIGMA[turn % 10]]
        for mix, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            for word, (first, second) in zip(order[2 * mix : 2 * mix + 2], ((32, 24), (16, 63)), strict=True):
                v[a] += v[b] + block[word]
                v[d] = _rotate(v[d] ^ v[a], first)
                v[c] += v[d]
                v[b] = _rotate(v[b] ^ v[c], second)
    digests: Words = start ^ v[:8] ^ v[8:]
    return digests


def _rotate(words: Words, bits: int) -> Words:
    return words >> np.uint64(bits) | words << np.uint64(64 - bits)


# --- decryption and decoding -----------------------------------------------------------------------------------------


def minimal_root(degree: int, prime: int) -> int:
    """The smallest primitive 2N-th root of unity: the one SEAL's transform is built on."""
    roots = (pow(x, (prime - 1) // (2 * degree), prime) for x in range(2, prime))
    root = next(r for r in roots if pow(r, degree, prime) == prime - 1)
    power, square, smallest = root, root * root % prime, root
    for _ in range(degree - 1):
        power = power * square % prime
        smallest = min(smallest, power)
    return smallest


def powers(base: int, length: int, prime: int) -> Integers:
    """base^0 … base^(length-1) modulo a prime."""
    out = [1]
    for _ in range(length - 1):
        out.append(out[-1] * base % prime)
    return np.array(out, object)


def inverse_ntt(words: Integers, prime: int) -> Integers:
    """Coefficients from values at the odd powers of the minimal root, which come in bit-reversed order."""
    degree = words.size
    inverse = pow(minimal_root(degree, prime), -1, prime)
    twiddles = powers(inverse * inverse % prime, degree // 2, prime)
    values, half = words, 1
    while half < degree:
        even, odd = values.reshape(-1, 2, half).transpose(1, 0, 2)
        odd = odd * twiddles[:: degree // 2 // half] % prime
        values = np.concatenate([even + odd, even - odd], axis=1).ravel() % prime
        half *= 2
    coefficients: Integers = values * powers(inverse, degree, prime) * pow(degree, -1, prime) % prime
    return coefficients


def decrypt(ciphertext: Ciphertext, secret: Words) -> Integers:
    """The noisy message polynomial c0 + c1 s + c2 s^2 + …, its coefficients lifted to (-Q/2, Q/2]."""
    modulus = int(np.prod(np.array(ciphertext.primes, object)))
    total = np.zeros(ciphertext.words.shape[-1], object)
    for i, prime in enumerate(ciphertext.primes):
        s, values = secret[i].astype(object), np.zeros_like(total)
        for poly in ciphertext.words[::-1, i].astype(object):
            values = (values * s + poly) % prime
        rest = modulus // prime
        total += inverse_ntt(values, prime) * pow(rest, -1, prime) % prime * rest
    total %= modulus
    return np.where(total > modulus // 2, total - modulus, total)


def decode(coefficients: Integers, scale: float) -> Slots:
    """Slot j is the polynomial's value at zeta^(3^j), zeta = exp(i pi / N), over the scale."""
    degree = coefficients.size
    twist = np.exp(1j * np.pi * np.arange(degree) / degree)
    values = np.fft.ifft(coefficients.astype(np.float64) * twist) * degree  # at zeta, zeta^3, zeta^5, …
    slots: Slots = values[(powers(3, degree // 2, 2 * degree).astype(int) - 1) // 2] / scale
    return slots


def decrypt_slots(ciphertext: bytes, secret_key: bytes, degree: int, primes: Sequence[int]) -> Slots:
    """From two SEAL streams to complex slots. `primes` is the whole chain, the key-switching prime last."""
    parsed = parse_ciphertext(ciphertext, degree, primes)
    return decode(decrypt(parsed, parse_secret_key(secret_key, degree, primes)), parsed.scale)
