"""Parameters derived, not guessed: dry-run the circuit, then take the cheapest parameters that keep the promise."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from hepipe.errors import BudgetExhausted, InsecureParameters, OutOfRange, ScaleMismatch, Unsupported
from hepipe.models.profile import Profile
from hepipe.schemes.base import CipherTensor, Scheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import tensor_bytes
from hepipe.schemes.parameters import MAX_LOG_Q, MODULUS_BITS, CkksParameters, ClearParameters, PaillierParameters
from hepipe.schemes.registry import SCHEMES, scheme_of
from hepipe.schemes.wire import key_frame_bytes

PRECISION_BITS = 20.0
POLICIES = ("polynomial", "client")
_DEEPEST = 64
_FINEST = 149
"""The widest scale that is tried: an error beyond its reach is not for fixed-point numbers."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What an encrypted evaluation will take, known before any key exists.

    levels, rounds   what the circuit consumes and how often the server must ask the key holder
    reveals          what the client learns besides nothing; the server learns nothing
    error_bound      the largest error of a score against the same circuit in float64; on CKKS with probability
                     1 - 2**-20 a score
    bytes_up/down    frames of inputs, results and rounds, exactly; key_bytes once
    operations       ciphertext operations by name
    """

    parameters: Any
    profile: Profile
    samples: int
    policy: str
    levels: int
    rounds: int
    reveals: str
    error_bound: float
    bytes_up: int
    bytes_down: int
    key_bytes: int
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def security_bits(self) -> int:
        """Classical security of the parameters; 0 for the clear scheme and for test sizes."""
        return 0 if self.parameters.insecure else int(self.parameters.security_bits)

    def scheme(self) -> Scheme:
        """The scheme with these parameters."""
        return scheme_of(self.parameters)


@dataclass(frozen=True, eq=False)
class _DryRun:
    evaluator: DryEvaluator
    scores: CipherTensor
    result: CipherTensor

    @property
    def error(self) -> float:
        return self.evaluator.error_bound(self.result)

    @property
    def score_bits(self) -> float:
        return math.log2(float(np.max(self.scores.bound)))


def plan(
    model: Any,
    scheme: str = "ckks",
    samples: int = 64,
    policy: str = "polynomial",
    input_bound: float | None = None,
    precision_bits: float | None = None,
    security_bits: int = 128,
) -> Plan:
    """The cheapest parameters under which ``model`` evaluates ``samples`` rows with scores right to ``precision_bits``.

    input_bound     |x| of every raw input; default the model's schema
    precision_bits  -log2 of the largest error of a score, default what the model asks for, else 20
    security_bits   128 (default), 192 or 256; 112 is Paillier at 2048 bits; 0 is for tests and marked insecure

    Unsupported if no parameters do it, naming what is short. Reveals to whoever sees the parameters: the depth of the
    circuit and, to about a bit, the size of the scores and of the weights.
    """
    _check_request(scheme, policy, security_bits, samples)
    default = getattr(model, "precision_bits", PRECISION_BITS)
    target = 2.0 ** -(default if precision_bits is None else precision_bits)
    profile = model.profile if input_bound is None else model.profile.narrowed(input_bound)

    def run(parameters: Any) -> _DryRun:
        ev = DryEvaluator(parameters, policy)
        scores = model.forward(ev, ev.fresh((samples, len(profile.input_bound)), profile.input_bound))
        return _DryRun(ev, scores, ev.rerandomize(scores))

    probe = run(ClearParameters(depth=_DEEPEST, exact=scheme == "paillier"))
    depth = _DEEPEST - probe.evaluator.lowest_level
    # Complex slots and lanes are for circuits without products, sums over samples, or blinding a sample by itself.
    sums = probe.evaluator.sums
    linear = not ({"mul", "blind"} & set(probe.evaluator.operations) or sums)
    chosen: Any = ClearParameters(depth=depth)
    if scheme == "paillier":
        chosen = _paillier(run, depth, linear, target, security_bits)
    elif scheme == "ckks":
        chosen = _ckks(run, _ckks_candidates(depth, linear, sums, probe.score_bits, security_bits), target)
    return _described(model, profile, chosen, run(chosen), samples, policy, depth)


def _check_request(scheme: str, policy: str, security_bits: int, samples: int) -> None:
    if scheme not in SCHEMES:
        raise Unsupported(f"no scheme named {scheme!r}: use one of {sorted(SCHEMES)}")
    if policy not in POLICIES:
        raise Unsupported(f"no policy named {policy!r}: use one of {list(POLICIES)}")
    if security_bits not in MODULUS_BITS:
        raise InsecureParameters(f"security_bits={security_bits}: use one of {sorted(MODULUS_BITS)}")
    if samples < 1:
        raise OutOfRange("samples must be at least 1")


def _described(
    model: Any, profile: Profile, parameters: Any, run: _DryRun, samples: int, policy: str, depth: int
) -> Plan:
    features, ev = len(profile.input_bound), run.evaluator
    fresh = tensor_bytes(parameters, (samples, features), parameters.depth, fresh=True)
    return Plan(
        parameters=parameters,
        profile=profile,
        samples=samples,
        policy=policy,
        levels=depth,
        rounds=ev.rounds,
        reveals="; ".join(dict.fromkeys([model.reveals, *ev.revealed])),
        error_bound=run.error,
        bytes_up=fresh + ev.bytes_up,
        bytes_down=tensor_bytes(parameters, run.result.shape, 0, blinded=run.result.blinded) + ev.bytes_down,
        key_bytes=key_frame_bytes(parameters),
        operations=dict(ev.operations),
    )


def _paillier(
    run: Callable[[Any], _DryRun], depth: int, linear: bool, target: float, security_bits: int
) -> PaillierParameters:
    """The scales that keep the error in the least room; then, for a linear circuit, as many lanes as fit."""
    modulus = MODULUS_BITS[security_bits]
    log_scale, log_plain_scale = _least_scales(run, depth, target)
    fitted = PaillierParameters(modulus, log_scale, log_plain_scale, modulus - 2, 1, depth, security_bits == 0)
    try:
        peak_bits = run(fitted).evaluator.peak_bits
    except OutOfRange as error:
        raise Unsupported(f"{-math.log2(target):.1f} bits take more than a modulus of {modulus}: {error}") from error
    if not linear:
        return fitted  # a masked product needs one sample per ciphertext
    lane_bits = math.ceil(peak_bits) + 3
    return replace(fitted, lane_bits=lane_bits, lanes=max((modulus - 2) // lane_bits, 1))


def _least_scales(run: Callable[[Any], _DryRun], depth: int, target: float) -> tuple[int, int]:
    """(log_scale, log_plain_scale) that keep the error with the fewest bits at the peak; neither can be one less."""

    @cache
    def dry(log_scale: int, log_plain_scale: int) -> _DryRun:  # on integers of any size: room is not the question yet
        return run(ClearParameters(depth, log_scale, log_plain_scale, exact=True))

    def peak(log_scale: int, log_plain_scale: int) -> float:
        return dry(log_scale, log_plain_scale).evaluator.peak_bits

    def pair(log_scale: int) -> tuple[int, int]:
        return log_scale, _least(lambda bits: dry(log_scale, bits).error <= target)

    coarsest = _least(lambda bits: dry(bits, _FINEST).error <= target)
    coarsest_plain = _least(lambda bits: dry(_FINEST, bits).error <= target)
    best = pair(coarsest)
    # The least scale may leave the weights little of the error: go on while a bit more here could save several there.
    for log_scale in range(coarsest + 1, _FINEST):
        if peak(log_scale, coarsest_plain) >= peak(*best):
            break
        best = min(best, pair(log_scale), key=lambda scales: peak(*scales))
    return best


def _least(enough: Callable[[int], bool]) -> int:
    """The least number of bits that is enough, where all larger ones are too."""
    bits = bisect_left(range(1, _FINEST + 1), True, key=enough) + 1
    if bits > _FINEST:
        raise Unsupported(
            f"no fixed-point scale below {_FINEST + 1} bits gives this precision: ask for fewer precision_bits"
        )
    return bits


def _ckks(run: Callable[[Any], _DryRun], candidates: Iterator[CkksParameters], target: float) -> CkksParameters:
    """The smallest ring, and in it the smallest scale, that give depth and precision inside the standard's bound."""
    best = math.inf
    for parameters in candidates:
        try:
            error = run(parameters).error
        except (OutOfRange, BudgetExhausted, ScaleMismatch):
            continue
        if error <= target:
            return parameters
        best = min(best, error)
    reached = f"the best reaches {-math.log2(best):.1f} bits" if best < math.inf else "none has the depth and the room"
    raise Unsupported(
        f"no CKKS parameters give {-math.log2(target):.1f} bits: {reached}; "
        "ask for fewer precision_bits, a narrower input_bound, or a shallower model"
    )


def _ckks_candidates(
    depth: int, linear: bool, sums: bool, score_bits: float, security_bits: int
) -> Iterator[CkksParameters]:
    """From the cheapest up."""
    insecure, standard = security_bits == 0, max(security_bits, 128)
    complex_slots = linear and depth == 1
    for degree in (1024,) if insecure else (2048, 4096, 8192, 16384, 32768):
        limit = 10**6 if insecure else MAX_LOG_Q[standard][degree]
        common: dict[str, Any] = {"complex_slots": complex_slots, "standard_bits": standard, "insecure": insecure}
        if sums:
            common["rotations"] = tuple(1 << i for i in range((degree // 2).bit_length() - 1))
        if complex_slots:
            yield from _unrescaled(degree, limit, score_bits, common)
        for bits in range(26, 56):
            # q0 holds the result above its scale. Key switching wants a special prime as large as any other;
            # a linear circuit switches no keys, so there any size does.
            for first in (*range(min(bits + 4, 60), 60, 4), 60):
                rest = limit - first - bits * depth
                special = min(max(first, bits), rest) if complex_slots else max(first, bits)
                if 20 <= special <= rest:
                    yield CkksParameters(degree, (first, *(bits,) * depth, special), float(bits), **common)


def _unrescaled(degree: int, limit: int, score_bits: float, common: dict[str, Any]) -> Iterator[CkksParameters]:
    """One product held unrescaled by a single prime: the smallest ciphertexts there are."""
    first = min(limit, 60)
    chain = (first, min(limit - first, 60)) if limit - first >= 20 else (first,)
    # The prime may lie a hair below its power of two; SEAL wants two bits of room.
    total = first - 2.01 - max(score_bits, 0.0)
    for log_scale in np.arange(20.0, total - 12, 0.25):
        yield CkksParameters(degree, chain, float(log_scale), float(total - log_scale), **common)
