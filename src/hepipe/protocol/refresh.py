"""The round that gives a tensor its budget back: masked, decrypted and encrypted afresh by the key holder, unmasked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hepipe.errors import MalformedFrame, Unsupported
from hepipe.protocol.rounds import masked_integers
from hepipe.schemes.base import CipherTensor, PublicBundle
from hepipe.schemes.ckks import CkksEvaluator
from hepipe.schemes.coefficients import scaled
from hepipe.schemes.fixedpoint import shift
from hepipe.schemes.frames import SEEDED, Frame, Kind, parse
from hepipe.schemes.mask_room import mask_room
from hepipe.schemes.masks import mask_bits_for
from hepipe.schemes.paillier import PaillierEvaluator
from hepipe.schemes.wire import pack_ciphertexts, unpack_ciphertexts


class Refresh:
    """x at the full level and the base scale, on either scheme.

    CKKS      The server adds a uniform whole number to every coefficient of the plaintext polynomial, slots that hold
              no sample and noise included, and takes it off the answer exactly. Precision: an encryption of zero and a
              fresh one are added to the noise, and one unit of a coefficient where the scale changes; nothing grows
              with the mask, since no value passes through a double.
    Paillier  The server adds a mask of 80 bits more than the values; the key holder drops the k bits that the scale
              has over the base scale. Precision: an error below one unit of the base scale, zero on average. So
              fixed-point loops go on without growing scales.

    rounds   1
    price    a decryption and an encryption a ciphertext; on CKKS also transforms of N whole numbers
    reveals  to the client x + r, and how far the circuit has come: level and scale, and on Paillier the size of the
             masks. On CKKS a ciphertext is within N * 2**-bits of independent of x, bits = capacity - log_scale -
             log2(bound) at the level that ``mask_room`` chooses, at least 40: the modulus has no room for 80. On
             Paillier x + r is within 2**-79. To the server nothing
    """

    def __init__(self, evaluator: CkksEvaluator | PaillierEvaluator, x: CipherTensor, policy: str) -> None:
        self._evaluator, self._x, self._policy = evaluator, x, policy
        self._masks: Any = None

    def request(self, bundle: PublicBundle) -> bytes:
        """Server: the masked values; OutOfRange where a mask of 40 bits does not fit, unless the policy is "client"."""
        x, ev = self._x, self._evaluator
        if isinstance(ev, CkksEvaluator):
            room = mask_room(ev.parameters, x.bound, x.log_scale, x.level, seen=self._policy == "client")
            masked, self._masks = ev.mask(x, room)
            level = room.level
        else:
            masked, self._masks = ev.mask(x, mask_bits_for(x.bound, x.log_scale))
            level = 0
        body, _ = pack_ciphertexts(masked, bundle)
        name = bundle.parameters.name
        return Frame(Kind.MASKED_VALUES, name, bundle.key_id, *x.shape, level, x.log_scale, body).to_bytes()

    @staticmethod
    def answer(request: bytes, bundle: PublicBundle, encryptor: Any, decryptor: Any) -> bytes:
        """Client: decrypt, bring to the base scale, encrypt at the full level. Learns nothing from masked values."""
        frame, parameters = parse(request, Kind.MASKED_VALUES), bundle.parameters
        if frame.flags or parameters.name == "clear":
            raise MalformedFrame("masked values are computed ciphertexts of a scheme that encrypts")
        answer = _on_ckks if parameters.name == "ckks" else _on_paillier
        fresh = answer(frame, bundle, encryptor, decryptor)
        body, flags = pack_ciphertexts(fresh, bundle)
        shape, depth, scale = fresh.shape, parameters.depth, parameters.log_scale
        return Frame(Kind.REFRESHED, parameters.name, bundle.key_id, *shape, depth, scale, body, flags).to_bytes()

    def finish(self, reply: bytes, bundle: PublicBundle) -> CipherTensor:
        """Server: x again, from the client's answer; MalformedFrame if it is not one."""
        frame, parameters, x = parse(reply, Kind.REFRESHED), bundle.parameters, self._x
        expected = (*x.shape, parameters.depth, parameters.log_scale, SEEDED if parameters.name == "ckks" else 0)
        found = (frame.samples, frame.features, frame.level, frame.log_scale, frame.flags)
        if found != expected:
            raise MalformedFrame(f"samples, features, level, scale and flags are {found}, expected {expected}")
        data = unpack_ciphertexts(frame, frame.body, bundle)
        refreshed = replace(x, data=data, level=frame.level, log_scale=frame.log_scale)
        return self._evaluator.unmask_refreshed(refreshed, x, self._masks)


def _on_ckks(frame: Frame, bundle: PublicBundle, encryptor: Any, decryptor: Any) -> CipherTensor:
    data, unknown = unpack_ciphertexts(frame, frame.body, bundle), np.ones(frame.features)
    shape = (frame.samples, frame.features)
    masked = CipherTensor(data, shape, frame.level, frame.log_scale, unknown, bundle.key_id)
    bits = bundle.parameters.log_scale - frame.log_scale
    rows = [[scaled(c, bits) for c in row] for row in decryptor.decrypt_integers(masked)]
    return encryptor.encrypt_integers(rows, shape, unknown)  # type: ignore[no-any-return]


def _on_paillier(frame: Frame, bundle: PublicBundle, encryptor: Any, decryptor: Any) -> CipherTensor:
    parameters = bundle.parameters
    if frame.level or frame.log_scale != int(frame.log_scale):
        raise MalformedFrame(f"masked values at level {frame.level} and scale {frame.log_scale}: level 0, whole bits")
    if parameters.lanes != 1:
        raise Unsupported("a mask for each sample needs one sample per ciphertext: plan with lanes=1")
    integers, scale, bound = masked_integers(frame, frame.body, bundle, decryptor)
    dropped = shift(integers, int(frame.log_scale - parameters.log_scale))
    return encryptor.encrypt_integers(dropped, bound, log_scale=scale)  # type: ignore[no-any-return]
