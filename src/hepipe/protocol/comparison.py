"""Comparisons under an additive scheme: the server's half and the client's half of each round, and what it reveals.

A number given by its encrypted bits is compared with one in the clear in one round (``ZeroTests``); the sign of an
encrypted number takes another round before, in which the client takes the masked number to bits (``MaskedNumbers``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from hepipe.errors import MalformedFrame
from hepipe.protocol.link import Link
from hepipe.protocol.rounds import masked_integers, pack_round, parse_round
from hepipe.schemes.base import CipherTensor, FloatArray, Plain, PublicBundle, Threshold
from hepipe.schemes.checks import check_gap, check_thresholds
from hepipe.schemes.fixedpoint import magnitude_bits
from hepipe.schemes.frames import MAX_FEATURES, Frame, Kind
from hepipe.schemes.masks import mask_bits_for
from hepipe.schemes.paillier import PaillierDecryptor, PaillierEncryptor, PaillierEvaluator
from hepipe.schemes.paillier_checks import IntegerArray
from hepipe.schemes.parameters import STATISTICAL_BITS
from hepipe.schemes.wire import unpack_ciphertexts


def at_most(
    evaluator: PaillierEvaluator, bits: CipherTensor, thresholds: Sequence[Threshold], link: Link, bundle: PublicBundle
) -> CipherTensor:
    """[number <= threshold] in one round of ``ZeroTests``: x <= t is x < t + 1."""
    checked = check_thresholds(bits, thresholds)
    numbers = np.array([[t.value + 1 for t in checked]] * bits.shape[0], dtype=object)
    return _tested(ZeroTests(evaluator, bits, [t.columns for t in checked], numbers), link, bundle)


def negative(
    evaluator: PaillierEvaluator, x: CipherTensor, gap: Plain, link: Link, bundle: PublicBundle
) -> CipherTensor:
    """[x < 0] in two rounds, ``MaskedNumbers`` and ``ZeroTests``; exact, so the gap is only what x itself must keep.

    Veugen's corrected form (eprint 2018/1100) of the comparison of Damgard, Geisler and Kroigaard (ACISP 2007); its
    masks are far below n here, so that none of its steps for a wrap modulo n is needed.
    """
    check_gap(x, gap)
    masked = MaskedNumbers(evaluator, x)
    reply = link.request("masked numbers", masked.request(bundle))
    high, bits = masked.finish(reply, bundle)
    below = _tested(ZeroTests(evaluator, bits, masked.groups, masked.rests), link, bundle)
    return masked.unmask(high, below)


def _tested(tests: ZeroTests, link: Link, bundle: PublicBundle) -> CipherTensor:
    return tests.finish(link.request("zero tests", tests.request(bundle)), bundle)


class ZeroTests:
    """[x < t] for encrypted bits of x and the server's t, any number of comparisons in one round.

    The server sends, for l bits, l + 1 ciphertexts of which one is zero or none, blinded and shuffled; which of the
    two stands for [x < t] is a secret coin of the server. The client answers Enc(a zero was there).

    rounds   1
    price    a comparison of l bits at 3072 bits: server l + 1 exponentiations of full length (28 ms each) and as many
             re-randomisations, from a pool where it is filled; client l + 1 half decryptions and 1 encryption
    reveals  to the client l and a fair coin: besides a zero, if there is one, every plaintext is uniform modulo n; to
             the server nothing
    """

    reveals = "nothing: fair coins, and the bits of what is compared"

    def __init__(
        self, evaluator: PaillierEvaluator, bits: CipherTensor, groups: Sequence[Sequence[int]], numbers: IntegerArray
    ) -> None:
        self._evaluator, self._bits, self._groups = evaluator, bits, groups
        self._tests, self._flips = evaluator.blinded_tests(bits, groups, numbers)

    def request(self, bundle: PublicBundle) -> bytes:
        """Server: the number of comparisons, the bits of each, the blinded tests."""
        widths = [len(group) for group in self._groups]
        head = struct.pack(f">I{len(widths)}H", len(widths), *widths)
        return pack_round(Kind.ZERO_TESTS, self._tests, bundle, head)

    def finish(self, reply: bytes, bundle: PublicBundle) -> CipherTensor:
        """Server: the comparisons, from the client's answer; MalformedFrame if it is not one."""
        frame = parse_round(reply, Kind.ZEROS_FOUND)
        shape = (self._bits.shape[0], len(self._groups))
        if (frame.samples, frame.features) != shape:
            raise MalformedFrame(f"answers of shape {(frame.samples, frame.features)}, expected {shape}")
        return self._evaluator.unflipped(unpack_ciphertexts(frame, frame.body, bundle), self._flips)


def answer_zero_tests(
    request: bytes, bundle: PublicBundle, encryptor: PaillierEncryptor, decryptor: PaillierDecryptor
) -> bytes:
    """Client: whether each comparison has a zero, encrypted afresh. Learns as many fair coins."""
    frame = parse_round(request, Kind.ZERO_TESTS)
    widths, body = _widths(frame)
    found = decryptor.zeros(unpack_ciphertexts(frame, body, bundle))
    starts = np.cumsum([0, *(width + 1 for width in widths)])[:-1]
    answers = encryptor.encrypt_integers(np.maximum.reduceat(found, starts, axis=1), 1.0, log_scale=0, level=0)
    return pack_round(Kind.ZEROS_FOUND, answers, bundle)


def _widths(frame: Frame) -> tuple[tuple[int, ...], bytes]:
    """The bits of each comparison, and what follows them."""
    count = struct.unpack_from(">I", frame.body)[0] if len(frame.body) >= 4 else 0
    head = 4 + 2 * count
    if not 1 <= count <= frame.features or len(frame.body) < head:
        raise MalformedFrame(f"{count} comparisons do not make {frame.features} tests a sample")
    widths = struct.unpack_from(f">{count}H", frame.body, 4)
    if min(widths) < 1 or sum(widths) + count != frame.features:
        raise MalformedFrame(f"comparisons of {sum(widths)} bits do not make {frame.features} tests a sample")
    return widths, frame.body[head:]


class MaskedNumbers:
    """The masked numbers 2**l + x + r taken to bits by the client, any number of them in one round; |x| < 2**l.

    The client answers the upper part, one ciphertext, and the l bits below it.

    rounds   1
    price    a number at 3072 bits: server 1 re-randomisation; client 1 decryption and l + 1 encryptions
    reveals  to the client l, and 2**l + x + r for r of l + 81 bits: within 2**-79 of independent of x; to the server
             nothing
    """

    reveals = "nothing: numbers masked by 80 bits"

    def __init__(self, evaluator: PaillierEvaluator, x: CipherTensor) -> None:
        self._evaluator, self._shape = evaluator, x.shape
        self._width = width = magnitude_bits(x.bound, x.log_scale)
        raised = evaluator.add(x, 2.0 ** (width - x.log_scale)).with_bound(np.array([2.0 ** (width + 1 - x.log_scale)]))
        self._masked, self._masks = evaluator.mask(raised, mask_bits_for(raised.bound, raised.log_scale))

    @property
    def groups(self) -> list[range]:
        """The columns of each number's bits in what ``finish`` returns."""
        return [range(start, start + self._width) for start in range(0, self._shape[1] * self._width, self._width)]

    @property
    def rests(self) -> IntegerArray:
        """The masks modulo 2**l."""
        return np.asarray(self._masks & ((1 << self._width) - 1))

    def request(self, bundle: PublicBundle) -> bytes:
        """Server: l and the masked numbers."""
        return pack_round(Kind.MASKED_NUMBERS, self._masked, bundle, struct.pack(">H", self._width))

    def finish(self, reply: bytes, bundle: PublicBundle) -> tuple[CipherTensor, CipherTensor]:
        """Server: the upper parts and the bits, from the client's answer; MalformedFrame if it is not one."""
        frame = parse_round(reply, Kind.BITS)
        numbers, bits = self._shape[1], self._shape[1] * self._width
        shape = (self._shape[0], numbers + bits)
        if (frame.samples, frame.features) != shape:
            raise MalformedFrame(f"bits of shape {(frame.samples, frame.features)}, expected {shape}")
        bound = np.concatenate([_upper_bound(numbers), np.ones(bits)])
        level, rows = self._evaluator.parameters.depth, unpack_ciphertexts(frame, frame.body, bundle)
        parts = CipherTensor(rows, shape, level, 0.0, bound, bundle.key_id)
        return self._evaluator.take(parts, range(numbers)), self._evaluator.take(parts, range(numbers, numbers + bits))

    def unmask(self, high: CipherTensor, below: CipherTensor) -> CipherTensor:
        """Server: [x < 0], from the upper parts and whether the lower ones are below the masks'."""
        return self._evaluator.unmask_sign(high, below, self._masks, self._width)


def answer_masked_numbers(
    request: bytes, bundle: PublicBundle, encryptor: PaillierEncryptor, decryptor: PaillierDecryptor
) -> bytes:
    """Client: decrypt, split each number, encrypt its parts. Learns nothing from a masked number."""
    frame = parse_round(request, Kind.MASKED_NUMBERS)
    width = struct.unpack_from(">H", frame.body)[0] if len(frame.body) >= 2 else 0
    if width < 1 or frame.features * (width + 1) > MAX_FEATURES:
        raise MalformedFrame(f"{frame.features} masked numbers of {width} bits: none, or too many for an answer")
    numbers, _, _ = masked_integers(frame, frame.body[2:], bundle, decryptor)
    bits = [numbers[:, [column]] >> place & 1 for column in range(frame.features) for place in range(width)]
    parts = np.concatenate([numbers >> width, *bits], axis=1)
    bound = np.concatenate([_upper_bound(frame.features), np.ones(len(bits))])
    answers = encryptor.encrypt_integers(parts, bound, log_scale=0, level=0)
    return pack_round(Kind.BITS, answers, bundle)


def _upper_bound(numbers: int) -> FloatArray:
    """What is left above l bits: masks have l + 81, and the sum may carry."""
    return np.full(numbers, 2.0 ** (STATISTICAL_BITS + 2))
