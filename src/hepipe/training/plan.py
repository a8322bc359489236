"""Parameters of a training, derived by dry-running all its steps: levels, rounds, bytes, key switches, precision."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import BudgetExhausted, InsecureParameters, OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor, FloatArray, Scheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import tensor_bytes
from hepipe.schemes.mask_room import LEAST_BITS
from hepipe.schemes.parameters import (
    MAX_LOG_Q,
    MODULUS_BITS,
    TAIL_SIGMAS,
    TEST_INSECURE_CKKS,
    CkksParameters,
    ClearParameters,
    PaillierParameters,
)
from hepipe.schemes.registry import SCHEMES, scheme_of
from hepipe.schemes.wire import key_frame_bytes
from hepipe.training.descent import DOMAIN, Descent, State
from hepipe.training.layout import Columns, Diagonals, Layout

PRECISION_BITS = 5.0
"""Default -log2 of the error allowed in a weight: far below the sampling error of any weight learnt from some data."""
_SMALLEST_SCALE, _LARGEST_SCALE = 25, 49
_MOST_FITTING = 12
_MOST_SQUARE_BITS = 5


@dataclass(frozen=True, eq=False)
class RowsProfile:
    """What an owner encrypts: arrays of a layout, |value| <= bound, a power of two. Nothing else of them is public."""

    bound: float

    @property
    def input_bound(self) -> FloatArray:
        """One bound for all."""
        return np.array([self.bound])

    def prepare(self, X: Any) -> FloatArray:
        """Arranged rows, as they are."""
        return np.asarray(X, dtype=np.float64)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """The decrypted weights, as they are."""
        return scores


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What a training takes and publishes, known before any key exists.

    levels, rounds   of the modulus, and refreshes or masked products asked of the key holder
    reveals          what the key holder learns; the trainer learns nothing
    error_estimate   of a weight, against the same polynomial in the clear: the noises of all steps, added as
                     independent, five sigma. Right where a step expands no distances: rate * curvature <= 2
    bytes_up/down    of rows, rounds and result, exactly; key_bytes once
    key_switches     rotations of all steps; relinearizations besides: see layout
    """

    parameters: Any
    layout: Layout
    descent: Descent
    profile: RowsProfile
    levels: int
    rounds: int
    reveals: str
    error_estimate: float
    bytes_up: int
    bytes_down: int
    key_bytes: int
    operations: dict[str, int] = field(default_factory=dict)

    policy = "polynomial"

    @property
    def security_bits(self) -> int:
        """Classical security of the parameters; 0 for the clear scheme and for test sizes."""
        return 0 if self.parameters.insecure else int(self.parameters.security_bits)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the encrypted rows."""
        return self.layout.shapes(self.descent.rows)

    def scheme(self) -> Scheme:
        """The scheme with these parameters."""
        return scheme_of(self.parameters)

    def digest(self) -> str:
        """SHA-256 of all that is agreed before a training: two plans with one digest describe one training."""
        parts = {name: dataclasses.asdict(part) for name, part in self._agreed().items()}
        text = json.dumps([self.parameters.name, parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _agreed(self) -> dict[str, Any]:
        layout: Any = self.layout
        return {"parameters": self.parameters, "layout": layout, "descent": self.descent, "profile": self.profile}


def plan_training(
    descent: Descent,
    columns: int,
    scheme: str = "ckks",
    row_bound: float = 16.0,
    precision_bits: float | None = None,
    security_bits: int = 128,
) -> TrainingPlan:
    """The smallest parameters under which ``descent`` runs on rows of ``columns`` values, |value| <= ``row_bound``.

    precision_bits  -log2 of the largest error_estimate of a weight, default 5; in the ring that gives it, the scale
                    is the largest there is room for
    security_bits   128 (default), 192 or 256; 112 is Paillier at 2048 bits; 0 is for tests and marked insecure

    Unsupported if no parameters do it: without refresh, at most 3 steps of degree 3 at N = 16384 and 6 at 32768.
    """
    if scheme not in SCHEMES:
        raise Unsupported(f"no scheme named {scheme!r}: use one of {sorted(SCHEMES)}")
    if security_bits not in MODULUS_BITS:
        raise InsecureParameters(f"security_bits={security_bits}: use one of {sorted(MODULUS_BITS)}")
    target, best = 2.0 ** -(PRECISION_BITS if precision_bits is None else precision_bits), float("inf")
    for ring in _candidates(descent, columns, scheme, security_bits):
        tried = (_tried(*candidate, RowsProfile(row_bound)) for candidate in ring)
        fitting = islice((found for found in tried if found), _MOST_FITTING)
        finest = min(fitting, key=lambda found: found.error_estimate, default=None)
        if finest and finest.error_estimate <= target:
            return finest
        best = min(best, finest.error_estimate if finest else best)
    reached = f"the best leaves an error of {best:.2g}" if best < float("inf") else "none has the levels and the room"
    raise Unsupported(
        f"no {scheme} parameters train {descent.steps} steps of degree {descent.degree} to {target:.2g} a weight: "
        f"{reached}; take fewer steps, fewer precision_bits, or refresh"
    )


Candidate = tuple[Any, Layout, Descent]


def _candidates(descent: Descent, columns: int, scheme: str, security_bits: int) -> Iterator[Iterable[Candidate]]:
    """Settings of one size, the largest scale first, then of the next larger size."""
    if scheme == "paillier":
        layout = Columns(columns)
        yield [(_paillier(_depth(descent, layout), security_bits), layout, descent)]
    elif scheme == "clear":
        slots = Diagonals.holding(descent.rows, columns)
        yield [(ClearParameters(depth=_depth(descent, slots), slots=slots.slots), slots, descent)]
    else:
        for degree in (TEST_INSECURE_CKKS.poly_modulus_degree,) if security_bits == 0 else (8192, 16384, 32768):
            yield _ckks(descent, Diagonals(columns, degree // 2), degree, security_bits)


def _depth(descent: Descent, layout: Layout) -> int:
    """One refresh a step leaves the levels of a step; none, those of all steps."""
    step = descent.step_levels(layout)
    return step + descent.reserve if descent.refresh else 1 + (descent.steps - 1) * step


def _paillier(depth: int, security_bits: int) -> PaillierParameters:
    modulus = MODULUS_BITS[security_bits]
    return PaillierParameters(modulus, 24, 32, lane_bits=modulus - 2, lanes=1, depth=depth, insecure=security_bits == 0)


def _ckks(descent: Descent, layout: Diagonals, degree: int, security_bits: int) -> Iterator[Candidate]:
    """Every chain of primes that the standard leaves room for."""
    insecure, standard = security_bits == 0, max(security_bits, 128)
    asked = replace(descent, reserve=1) if descent.refresh else descent
    chains = _refreshed_chains if descent.refresh else _chains
    for bits, chain in chains(_depth(asked, layout), 10**6 if insecure else MAX_LOG_Q[standard][degree]):
        yield (
            CkksParameters(degree, chain, float(bits), 0.0, False, standard, insecure, layout.rotations),
            layout,
            asked,
        )


def _chains(depth: int, limit: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(scale, sizes of the primes): the result stands in q0 above its scale."""
    for bits in range(_LARGEST_SCALE, _SMALLEST_SCALE, -1):
        for first in range(bits + 8, 61, 2):
            if (special := _special(limit - first - bits * depth)) >= first:
                yield bits, (first, *(bits,) * depth, special)


def _refreshed_chains(depth: int, limit: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The same for steps that all begin at the top: q0 and q1 together hold the weights and a mask.

    Key switching errs by the largest prime over P, so those two are made alike. The prime below the top is dropped by
    u**2 and by M u: the larger it is, the smaller is the scale of s and the more of the result's scale is left for M u,
    whose rounding is what all the rows add up.
    """
    for bits in range(_LARGEST_SCALE, _SMALLEST_SCALE, -1):
        both = bits + LEAST_BITS + 4  # two bits that the encoder wants, primes below their powers, a carrier up to 2
        first = max(bits + 5, -(-both // 2))
        second = max(both - first, 20)
        for more in range(_MOST_SQUARE_BITS):
            chain = (first, second, *(bits,) * (depth - 3), bits + more, bits)
            if (special := _special(limit - sum(chain))) >= max(chain):
                yield bits, (*chain, special)


def _special(room: int) -> int:
    """P: as large as there is room for, so that rotations stay precise."""
    return min(room, 60)


def _tried(parameters: Any, layout: Layout, descent: Descent, profile: RowsProfile) -> TrainingPlan | None:
    """The plan with these parameters, or None where they lack levels or room."""
    ev = DryEvaluator(parameters)
    try:
        data = [ev.fresh(shape, profile.bound) for shape in layout.shapes(descent.rows)]
        state, error = _dry_run(ev, layout, data, descent)
        result = ev.rerandomize(state.weights)
    except (OutOfRange, BudgetExhausted):
        return None
    fresh = sum(tensor_bytes(parameters, x.shape, parameters.depth, fresh=True) for x in data)
    return TrainingPlan(
        parameters=parameters, layout=layout, descent=descent, profile=profile,
        levels=parameters.depth, rounds=ev.rounds, reveals=_revealed(ev),
        error_estimate=error, bytes_up=fresh + ev.bytes_up,
        bytes_down=tensor_bytes(parameters, result.shape, 0) + ev.bytes_down,
        key_bytes=key_frame_bytes(parameters), operations=dict(ev.operations),
    )  # fmt: skip


def _revealed(ev: DryEvaluator) -> str:
    if ev.hidden_bits == float("inf"):
        return "weights"
    return f"weights; in each refresh, weights under a mask of {ev.hidden_bits:.0f} bits"


def _dry_run(ev: DryEvaluator, layout: Layout, data: list[CipherTensor], descent: Descent) -> tuple[State, float]:
    """The last state, and the error of a weight: each step begins with exact weights, the noises add up after it."""
    state, bias, variance = next(descent.run(ev, layout, data)), 0.0, 0.0
    while True:
        bias += float(state.weights.data[0].max())
        variance += float(state.weights.data[1].max()) ** 2
        if state.step == descent.steps:
            return state, DOMAIN * (bias + TAIL_SIGMAS * variance**0.5)
        exact = [replace(x, data=np.zeros_like(x.data)) for x in (state.weights, state.carrier)]
        state = next(descent.run(ev, layout, data, State(state.step, exact[0], exact[1], state.totals)))
