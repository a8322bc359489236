"""The schemes by name, and a scheme from its parameters."""

from __future__ import annotations

from typing import Any

from hepipe.errors import Unsupported
from hepipe.schemes.base import PublicBundle, Scheme
from hepipe.schemes.ckks import CkksScheme
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import MAX_LOG_Q, CkksParameters, ClearParameters, PaillierParameters

SCHEMES: dict[str, Any] = {"clear": ClearScheme, "paillier": PaillierScheme, "ckks": CkksScheme}
_PARAMETERS: dict[str, Any] = {"clear": ClearParameters, "paillier": PaillierParameters, "ckks": CkksParameters}


def scheme_of(parameters: Any) -> Scheme:
    """The scheme with these parameters."""
    made: Scheme = SCHEMES[parameters.name](parameters)
    return made


def scheme(name: str, **settings: Any) -> Scheme:
    """A scheme by name: ``scheme("paillier", modulus_bits=3072)``, ``scheme("ckks", depth=3)``.

    ``settings`` are the fields of its parameters; for ckks, ``depth`` alone picks the smallest ring with 40-bit primes
    at 128 bits. A plan does better: it fits lanes, scales and primes to the circuit.
    """
    if name not in SCHEMES:
        raise Unsupported(f"no scheme named {name!r}: use one of {sorted(SCHEMES)}")
    if name == "ckks" and "depth" in settings:
        settings |= _ckks_chain(settings.pop("depth"), settings.get("standard_bits", 128))
    if name == "paillier" and "lanes" not in settings:
        size, width = settings.get("modulus_bits", 3072), settings.get("lane_bits", PaillierParameters.lane_bits)
        settings["lanes"] = max((size - 2) // width, 1)
    return scheme_of(_PARAMETERS[name](**settings))


def _ckks_chain(depth: int, standard_bits: int) -> dict[str, Any]:
    sizes = (60, *(40,) * depth, 60)
    for degree, limit in MAX_LOG_Q[standard_bits].items():
        if degree >= 4096 and sum(sizes) <= limit:
            return {"poly_modulus_degree": degree, "coeff_modulus_bits": sizes}
    raise Unsupported(f"depth {depth} needs log2(q)={sum(sizes)}, more than N=32768 allows: use a shallower circuit")


def evaluator_of(bundle: PublicBundle) -> Any:
    """The evaluator that a server makes from what a client gave it."""
    return SCHEMES[bundle.parameters.name](bundle.parameters).evaluator(bundle)
