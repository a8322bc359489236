"""How large a mask a CKKS ciphertext has room for, at which level, and what it hides."""

from __future__ import annotations

import math
from typing import NamedTuple

from hepipe.errors import OutOfRange
from hepipe.schemes.base import FloatArray
from hepipe.schemes.checks import log2_bound
from hepipe.schemes.parameters import CkksParameters

LEAST_BITS = 40
"""Of a mask beyond the size of what it hides; more takes levels that the circuit then lacks."""


class MaskRoom(NamedTuple):
    """Where a tensor is masked, and how well.

    level      at which it travels: the lowest at which a mask hides a whole ciphertext to 40 bits, else its own
    limit      each coefficient of the mask is uniform in [-limit, limit), limit = q / 4
    bits       a masked coefficient is within 2**-bits statistically of one that hides another value, a ciphertext of N
               coefficients within N * 2**-bits
    """

    level: int
    limit: int
    bits: float


def mask_room(
    parameters: CkksParameters, bound: FloatArray, log_scale: float, level: int, *, seen: bool = False
) -> MaskRoom:
    """The room for a mask over values up to ``bound``: bits = capacity - log_scale - log2(bound).

    A coefficient is a mean of slots, so no larger than they are. OutOfRange below 40 bits, unless the key holder agreed
    that the values may be ``seen``.
    """
    hidden = log_scale + max(log2_bound(bound), 0.0)
    wanted = LEAST_BITS + math.log2(parameters.poly_modulus_degree)
    # The answer is at the base scale, and masked as well.
    grows = max(math.ceil(parameters.log_scale - log_scale), 0)
    top = _quarter(parameters, parameters.depth) >> grows
    limits = [max(min(_quarter(parameters, at), top), 1) for at in range(parameters.depth + 1)]
    rooms = [MaskRoom(at, limit, math.log2(limit) - hidden) for at, limit in enumerate(limits)]
    found = next((room for room in rooms[: level + 1] if room.bits >= wanted), rooms[level])
    if found.bits < LEAST_BITS and not seen:
        enough = next((f"at level {room.level}" for room in rooms if room.bits >= LEAST_BITS), "with a longer modulus")
        raise OutOfRange(
            f"refresh: values of {hidden:.1f} bits at level {level} leave {found.bits:.1f} bits for their mask, "
            f"{LEAST_BITS} are needed: refresh {enough}, lower the bound, or let the key holder see them with "
            "policy='client'"
        )
    return found


def _quarter(parameters: CkksParameters, level: int) -> int:
    """2**capacity_bits, exact: values keep below it, so that the sum with a mask keeps below q / 2."""
    return math.prod(parameters.primes_at(level)) // 4
