"""The rounds of interactive protocols: the server's half and the client's half side by side, and what each reveals."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hepipe.circuits.functions import ON_OFFER
from hepipe.errors import MalformedFrame
from hepipe.schemes.base import CipherTensor, Decryptor, Encryptor, Evaluator, PublicBundle
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.masks import check_masked_product, mask_bits_for
from hepipe.schemes.paillier import PaillierDecryptor, PaillierEncryptor, PaillierEvaluator
from hepipe.schemes.paillier_checks import IntegerArray
from hepipe.schemes.wire import pack_ciphertexts, pack_tensor, unpack_ciphertexts, unpack_tensor

Pairs = Sequence[tuple[CipherTensor, CipherTensor]]


class MaskedProduct:
    """Products of encrypted values under an additive scheme, any number of them in one round.

    The server sends Enc(x + r) and Enc(y + s); the client returns Enc((x + r)(y + s)); the server takes off s x, r y
    and r s. A square sends one factor. Masks have 80 bits more than the values they hide.

    rounds   1
    price    a product at 3072 bits: client 2 decryptions (1 for a square) and 1 encryption; server 2 (1) full
             re-randomisations, from a pool where it is filled, and 2 (1) exponentiations by a mask
    reveals  to the client x + r and y + s: within 2**-79 of independent of x and y; to the server nothing

    OutOfRange before anything is sent where the plaintext cannot hold the product of the masked factors.
    """

    reveals = "nothing: factors masked by 80 bits"

    def __init__(self, evaluator: PaillierEvaluator, pairs: Pairs) -> None:
        self._evaluator = evaluator
        for x, y in pairs:
            check_masked_product(evaluator.parameters, x, y)
        # Squares travel first; ``_order`` remembers where each product belongs.
        self._order = sorted(range(len(pairs)), key=lambda i: pairs[i][0] is not pairs[i][1])
        self._pairs = [pairs[i] for i in self._order]
        self._masks: list[tuple[Any, Any]] = []

    def request(self, bundle: PublicBundle) -> bytes:
        """Server: the masked factors; the squares, then all left factors, then all right ones."""
        squares, left, right = [], [], []
        for x, y in self._pairs:
            masked, r = self._masked(x)
            if x is y:
                squares.append(masked)
                self._masks.append((r, r))
                continue
            other, s = self._masked(y)
            left.append(masked)
            right.append(other)
            self._masks.append((r, s))
        factors = _side_by_side([*squares, *left, *right])
        head = struct.pack(">I", sum(x.shape[1] for x in squares))
        return pack_round(Kind.MASKED_FACTORS, factors, bundle, head)

    def _masked(self, x: CipherTensor) -> tuple[CipherTensor, Any]:
        return self._evaluator.mask(x, mask_bits_for(x.bound, x.log_scale))

    def finish(self, reply: bytes, bundle: PublicBundle) -> list[CipherTensor]:
        """Server: the products, from the client's answer; MalformedFrame if it is not one."""
        frame = parse_round(reply, Kind.MASKED_PRODUCTS)
        shape = (self._pairs[0][0].shape[0], sum(x.shape[1] for x, _ in self._pairs))
        if (frame.samples, frame.features) != shape:
            raise MalformedFrame(f"products of shape {(frame.samples, frame.features)}, expected {shape}")
        rows, start = unpack_ciphertexts(frame, frame.body, bundle), 0
        results: dict[int, CipherTensor] = {}
        for place, (x, y), (r, s) in zip(self._order, self._pairs, self._masks, strict=True):
            data = [row[start : start + x.shape[1]] for row in rows]
            product = replace(x, data=data, log_scale=x.log_scale + y.log_scale)
            results[place] = self._evaluator.unmask_product(product, x, y, r, s)
            start += x.shape[1]
        return [results[place] for place in range(len(results))]


def pack_round(kind: Kind, x: CipherTensor, bundle: PublicBundle, head: bytes = b"") -> bytes:
    """A message of a round: ``head``, then ciphertexts; neither level nor scale, which would tell their origin."""
    body, _ = pack_ciphertexts(x, bundle)
    return Frame(kind, bundle.parameters.name, bundle.key_id, *x.shape, 0, 0.0, head + body).to_bytes()


def parse_round(data: bytes, kind: Kind) -> Frame:
    """The frame of a message of a round; MalformedFrame for anything else."""
    frame = parse(data, kind)
    if (frame.level, frame.log_scale) != (0, 0.0):
        raise MalformedFrame("a message of a round states no level and no scale")
    return frame


def _side_by_side(tensors: Sequence[CipherTensor]) -> CipherTensor:
    rows = [[item for tensor in tensors for item in tensor.data[block]] for block in range(len(tensors[0].data))]
    return replace(tensors[0], data=rows, shape=(tensors[0].shape[0], len(rows[0])))


def answer_masked_factors(
    request: bytes, bundle: PublicBundle, encryptor: PaillierEncryptor, decryptor: PaillierDecryptor
) -> bytes:
    """Client: decrypt the masked factors, multiply them, encrypt the products. Learns nothing from them."""
    frame = parse_round(request, Kind.MASKED_FACTORS)
    if len(frame.body) < 4:
        raise MalformedFrame("a masked product without its count of squares")
    (squares,) = struct.unpack_from(">I", frame.body)
    if squares > frame.features or (frame.features - squares) % 2:
        raise MalformedFrame(f"{squares} squares among {frame.features} factors do not make products")
    integers, scale, bound = masked_integers(frame, frame.body[4:], bundle, decryptor)
    left, right = np.split(integers[:, squares:], 2, axis=1)
    products = np.concatenate([integers[:, :squares] ** 2, left * right], axis=1)
    answers = encryptor.encrypt_integers(products, bound, log_scale=scale, level=0)
    return pack_round(Kind.MASKED_PRODUCTS, answers, bundle)


def masked_integers(
    frame: Frame, body: bytes, bundle: PublicBundle, decryptor: PaillierDecryptor
) -> tuple[IntegerArray, int, float]:
    """Client: the masked integers of a request, and a scale and a bound at which any such integer can be encrypted."""
    room = decryptor.parameters.capacity_bits(0)
    # Masked values are larger than a double can say: state their bound at a scale that leaves 2**500.
    scale, bound = max(int(room) - 501, 0), 2.0 ** min(room - 1, 500)
    rows, shape = unpack_ciphertexts(frame, body, bundle), (frame.samples, frame.features)
    masked = CipherTensor(rows, shape, 0, scale, np.full(frame.features, bound), bundle.key_id)
    return decryptor.decrypt_integers(masked), scale, bound


class Ask:
    """A function computed by the key holder on decrypted values: policy "client", never a default.

    rounds   1
    price    client: a decryption and an encryption a value, all lanes or slots of a block at once; server: one
             re-randomisation a ciphertext
    reveals  to the client the argument itself, here the pre-activations of a hidden layer, hence after d + 1 queries
             that layer's weights; to the server nothing
    """

    @staticmethod
    def request(fn: str, x: CipherTensor, evaluator: Evaluator, bundle: PublicBundle) -> bytes:
        """Server: the function's number and the rerandomized argument."""
        tensor = pack_tensor(evaluator.rerandomize(x), bundle)
        number = sorted(ON_OFFER).index(fn)
        body = bytes([number]) + tensor
        return Frame(Kind.QUESTION, bundle.parameters.name, bundle.key_id, *x.shape, 0, 0.0, body).to_bytes()

    @staticmethod
    def answer(request: bytes, bundle: PublicBundle, encryptor: Encryptor, decryptor: Decryptor) -> bytes:
        """Client: decrypt, compute, encrypt at the full budget."""
        frame = parse(request, Kind.QUESTION)
        if not frame.body or frame.body[0] >= len(ON_OFFER):
            raise MalformedFrame("a question about no function on offer")
        fn = ON_OFFER[sorted(ON_OFFER)[frame.body[0]]]
        x = unpack_tensor(frame.body[1:], bundle)
        values, limits = fn.exact(decryptor.decrypt(x)), fn.bound(x.bound)
        return pack_tensor(encryptor.encrypt(np.clip(values, -limits, limits), limits), bundle)
