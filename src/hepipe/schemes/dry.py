"""The dry run: the same circuit on operands without values, to count levels, rounds, operations, bytes and error.

The data of a dry tensor is the error of its values, per feature: a worst-case part (rounding of inputs and weights)
and the standard deviation of a random part (noise). No keys, no ciphertexts, no values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor, Evaluator, Exact, Feature, FloatArray, Plain, Threshold
from hepipe.schemes.checks import check_choices, check_gap, check_room, check_thresholds, row_features
from hepipe.schemes.fixedpoint import magnitude_bits
from hepipe.schemes.frames import HEADER_BYTES, body_bytes, tensor_bytes
from hepipe.schemes.ledger import Ledger
from hepipe.schemes.mask_room import LEAST_BITS, mask_room
from hepipe.schemes.masks import check_masked_product, mask_bits_for, masked_bound
from hepipe.schemes.parameters import STATISTICAL_BITS, TAIL_SIGMAS, CkksParameters, Parameters

KEY_ID = "0" * 32
_LINEAR = Feature.ADD | Feature.MUL_PLAIN
_FEATURES = {
    "clear": _LINEAR | Feature.MUL,
    "paillier": _LINEAR | Feature.SELECT,
    "ckks": _LINEAR | Feature.MUL,
}


class DryEvaluator(Ledger):
    """Counts what an evaluation under ``parameters`` will cost.

    operations    ciphertext operations by name, a block of slots counting once
    rounds        rounds with the key holder
    bytes_up/down bytes of those rounds, client to server and back
    peak_bits     the most bits a value, scaled, occupies anywhere in the circuit, results included
    lowest_level  the lowest level that any value reaches
    sums          whether samples are added up anywhere: one a ciphertext on Paillier, rotations on CKKS
    revealed      what rounds and results show to the key holder besides what the model says
    undecided     the error of some value reaches the gap that ``negative`` was promised: any result may be wrong
    hidden_bits   the fewest bits by which the mask of a refresh exceeds what it hides; infinite where there is none
    """

    def __init__(self, parameters: Parameters, policy: str = "polynomial") -> None:
        self.parameters = parameters
        self.key_id = KEY_ID
        self.operations: Counter[str] = Counter()
        self.rounds = self.bytes_up = self.bytes_down = 0
        self.peak_bits, self.hidden_bits = 0.0, math.inf
        self.lowest_level = parameters.depth
        self.sums = False
        self.policy = policy
        self.features = _FEATURES["paillier" if getattr(parameters, "exact", False) else parameters.name]
        self.features |= row_features(parameters)
        self.revealed: list[str] = []
        self.undecided = False

    def fresh(self, shape: tuple[int, int], bound: Plain) -> CipherTensor:
        """An input of ``shape`` with |value| <= ``bound``, as the encryptor would make it."""
        limits = np.broadcast_to(np.asarray(bound, dtype=np.float64), (shape[1],)).copy()
        self._room(limits, self.parameters.depth, self.parameters.log_scale, "encrypt")
        self._count("encrypt", shape)
        bias, std = self.parameters.fresh_error()
        error = np.stack([np.full(shape[1], bias), np.full(shape[1], std)])
        return CipherTensor(error, shape, self.parameters.depth, self.parameters.log_scale, limits, KEY_ID)

    def error_bound(self, x: CipherTensor) -> float:
        """The largest error of any value of ``x``: worst case of the rounding plus five sigma of the noise."""
        error = float(np.max(x.data[0] + TAIL_SIGMAS * x.data[1]))
        return max(error, 2 * float(np.max(x.bound))) if self.undecided else error

    def mul(self, x: CipherTensor, y: CipherTensor) -> CipherTensor:
        """x * y; on an additive scheme one masked round."""
        return self.mul_pairs([(x, y)])[0]

    def mul_pairs(self, pairs: Sequence[tuple[CipherTensor, CipherTensor]]) -> list[CipherTensor]:
        """Independent products; on an additive scheme one masked round, which needs one sample per ciphertext."""
        products = [super(DryEvaluator, self).mul(x, y) for x, y in pairs]
        if self._one_lane("a masked product"):
            for x, y in pairs:
                check_masked_product(self.parameters, x, y)
            self._round(pairs)
        return products

    def ask(self, fn: Exact, x: CipherTensor) -> CipherTensor:
        """fn(x) at the full budget, one round; under policy "client" only."""
        if self.policy != "client":
            raise Unsupported(f"{fn.name} by the key holder reveals its argument: allow it with policy='client'")
        self._own(x)
        self._count("rerandomize", x.shape)
        self._count("encrypt", x.shape)
        self.rounds += 1
        self.bytes_down += HEADER_BYTES + 1 + tensor_bytes(self.parameters, x.shape, 0)
        self.bytes_up += tensor_bytes(self.parameters, x.shape, self.parameters.depth, fresh=True)
        self.revealed.append(f"the argument of every {fn.name}")
        bias, std = self.parameters.fresh_error()
        error = np.stack([x.data[0] + bias, np.hypot(x.data[1], std)])  # all functions on offer have slope <= 1
        limits, parameters = fn.bound(x.bound), self.parameters
        self._room(limits, parameters.depth, parameters.log_scale, fn.name)
        return CipherTensor(error, x.shape, parameters.depth, parameters.log_scale, limits, KEY_ID)

    def refresh(self, x: CipherTensor) -> CipherTensor:
        """x at the full level and the base scale, one round; without encryption none."""
        self._own(x)
        depth, scale = self.parameters.depth, self.parameters.log_scale
        if isinstance(self.parameters, CkksParameters):
            return self._result(self._refreshed(x, self.parameters), x.shape, depth, scale, x.bound)
        if self.parameters.name == "paillier":
            self._exchange_integers(x)
        elif not getattr(self.parameters, "exact", False):
            return self._result(x.data, x.shape, depth, scale, x.bound)
        unit = np.array([2.0**-scale, 0.0])[:, None]  # truncated integers
        return self._result(x.data + unit, x.shape, depth, scale, x.bound + unit[0])

    def _refreshed(self, x: CipherTensor, parameters: CkksParameters) -> Any:
        """An encryption of zero before, a fresh one after, which covers a unit of a coefficient for the scale."""
        room = mask_room(parameters, x.bound, x.log_scale, x.level, seen=self.policy == "client")
        self._refresh_round(x.shape, room.level)
        self.hidden_bits = min(self.hidden_bits, room.bits)
        if room.bits < LEAST_BITS:
            self.revealed.append(f"refreshed values, under masks of {room.bits:.0f} bits only")
        before, (_, after) = parameters.product_error(x.log_scale, room.level), parameters.fresh_error()
        return np.stack([x.data[0], np.sqrt(x.data[1] ** 2 + before**2 + after**2)])

    def _exchange_integers(self, x: CipherTensor) -> None:
        self._one_lane("refresh")
        masked = masked_bound(x.bound, x.log_scale, mask_bits_for(x.bound, x.log_scale))
        check_room(self.parameters, masked, x.level, x.log_scale, "mask")
        self._refresh_round(x.shape, 0)
        self.hidden_bits = min(self.hidden_bits, STATISTICAL_BITS)

    def _refresh_round(self, shape: tuple[int, int], level: int) -> None:
        for name in ("mask", "rerandomize", "encrypt"):
            self._count(name, shape)
        self.rounds += 1
        self.bytes_down += HEADER_BYTES + body_bytes(self.parameters, shape, level)
        self.bytes_up += HEADER_BYTES + body_bytes(self.parameters, shape, self.parameters.depth, fresh=True)

    def select(self, costs: CipherTensor, values: npt.ArrayLike, groups: int = 1) -> CipherTensor:
        """The values whose costs are zero, where the scheme can blind the others."""
        if Feature.SELECT not in self.features:
            return super().select(costs, values)  # type: ignore[no-any-return]
        self._one_lane("select")
        _, bound = check_choices(costs, values, groups)
        self._own(costs)
        shape = (costs.shape[0], costs.shape[1] * (1 if groups == 1 else 2))
        self._count("blind", shape)
        scale = self.parameters.plain_bits(costs.level)
        self._room(bound, costs.level, scale, "select")
        error = np.stack([np.full(shape[1], groups * 2.0 ** -(scale + 1)), np.zeros(shape[1])])
        result = self._result(error, shape, costs.level, scale, np.repeat(bound, shape[1]))
        return replace(result, blinded=groups)

    def at_most(self, bits: CipherTensor, thresholds: Sequence[Threshold]) -> CipherTensor:
        """One comparison a threshold; on an additive scheme one round, which needs one sample per ciphertext."""
        if self.parameters.name == "ckks":
            return super().at_most(bits, thresholds)  # type: ignore[no-any-return]
        self._own(bits)
        widths = [len(t.columns) for t in check_thresholds(bits, thresholds)]
        return self._tests(bits.shape[0], widths)

    def negative(self, x: CipherTensor, gap: Plain) -> CipherTensor:
        """One comparison a value; on an additive scheme two rounds, which need one sample per ciphertext."""
        if self.parameters.name == "ckks":
            return super().negative(x, gap)  # type: ignore[no-any-return]
        self._own(x)
        error = x.data[0] + TAIL_SIGMAS * x.data[1]
        self.undecided |= bool((error >= check_gap(x, gap)).any())
        (samples, values), width = x.shape, magnitude_bits(x.bound, x.log_scale)
        if self._one_lane("a comparison"):
            self._room(np.array([1.0]), x.level, float(width + STATISTICAL_BITS + 2), "negative")
            self._count("mask", x.shape)
            self._exchange(2, (samples, values), (samples, values * (width + 1)))
        return self._tests(samples, [width] * values)

    def _one_lane(self, operation: str) -> bool:
        """Whether ``operation`` takes rounds; Unsupported if samples share the ciphertexts that it would mask."""
        if self.parameters.name == "paillier" and self.parameters.slots != 1:
            raise Unsupported(f"{operation} needs one sample per ciphertext: plan with lanes=1")
        return self.parameters.name == "paillier"

    def _tests(self, samples: int, widths: list[int]) -> CipherTensor:
        shape, tests = (samples, len(widths)), (samples, sum(widths) + len(widths))
        if self._one_lane("a comparison"):
            self._count("rerandomize", tests)
            self._exchange(4 + 2 * len(widths), tests, shape)
        self._count("blind", tests)
        return self._answers(np.zeros((2, len(widths))), shape)

    def _exchange(self, head: int, request: tuple[int, int], reply: tuple[int, int]) -> None:
        """One round: a request of so many ciphertexts after ``head`` bytes, answered by fresh ones."""
        self.rounds += 1
        self._count("encrypt", reply)
        self.bytes_down += HEADER_BYTES + head + body_bytes(self.parameters, request, 0)
        self.bytes_up += HEADER_BYTES + body_bytes(self.parameters, reply, 0)

    def _result(
        self, data: Any, shape: tuple[int, int], level: int, log_scale: float, bound: FloatArray
    ) -> CipherTensor:
        self.lowest_level = min(self.lowest_level, level)
        return super()._result(data, shape, level, log_scale, bound)

    def _take(self, x: CipherTensor, columns: list[int]) -> Any:
        return x.data[:, columns]

    def _join(self, tensors: Sequence[CipherTensor]) -> Any:
        return np.concatenate([x.data for x in tensors], axis=1)

    def _round(self, pairs: Sequence[tuple[CipherTensor, CipherTensor]]) -> None:
        samples = pairs[0][0].shape[0]
        factors = sum(x.shape[1] * (1 if x is y else 2) for x, y in pairs)
        products = sum(x.shape[1] for x, _ in pairs)
        self.rounds += 1
        self.operations["mask"] += samples * factors
        self.bytes_down += HEADER_BYTES + 4 + body_bytes(self.parameters, (samples, factors), 0)
        self.bytes_up += HEADER_BYTES + body_bytes(self.parameters, (samples, products), 0)

    def _room(self, bound: FloatArray, level: int, log_scale: float, operation: str) -> None:
        super()._room(bound, level, log_scale, operation)
        largest = float(np.max(bound, initial=0.0))
        self.peak_bits = max(self.peak_bits, log_scale + (np.log2(largest) if largest > 0 else 0.0))

    def _count(self, name: str, shape: tuple[int, int], terms: int = 1) -> None:
        self.operations[name] += -(-shape[0] // self.parameters.slots) * shape[1] * terms

    def _add(self, x: CipherTensor, y: CipherTensor, sign: int) -> Any:
        self._count("add", x.shape)
        std = np.hypot(x.data[1], y.data[1])
        if x is y and sign > 0:  # its own noise adds up, not in quadrature
            std = 2 * x.data[1]
        elif x is y:  # x - x is an encryption of zero, as noisy as a rescaling
            std = np.hypot(std, self.parameters.product_error(x.log_scale, x.level))
        return np.stack([x.data[0] + y.data[0], std])

    def _add_plain(self, x: CipherTensor, values: FloatArray) -> Any:
        self._count("add_plain", x.shape)
        return np.stack([x.data[0] + 2.0 ** -(x.log_scale + 1), x.data[1]])

    def _mul_plain(self, x: CipherTensor, factors: FloatArray, plain_bits: float) -> Any:
        self._count("mul_plain", x.shape)
        bias = np.abs(factors) * x.data[0] + x.bound * 2.0 ** -(plain_bits + 1)
        return self._finished(x, plain_bits, bias, np.abs(factors) * x.data[1])

    def _matmul_plain(self, x: CipherTensor, weights: npt.NDArray[np.float64], plain_bits: float) -> Any:
        self._count("mul_plain", (x.shape[0], weights.shape[1]), x.shape[1])
        bias = x.data[0] @ np.abs(weights) + float(x.bound.sum()) * 2.0 ** -(plain_bits + 1)
        return self._finished(x, plain_bits, bias, np.sqrt(x.data[1] ** 2 @ weights**2))

    def _finished(self, x: CipherTensor, plain_bits: float, bias: FloatArray, std: FloatArray) -> Any:
        dropped = self.parameters.rescale_bits(x.level)
        if dropped:
            self._count("rescale", (x.shape[0], len(bias)))
            std = np.hypot(std, self.parameters.product_error(x.log_scale + plain_bits - dropped, x.level))
        return np.stack([bias, std])

    def _mul(self, x: CipherTensor, y: CipherTensor) -> Any:
        self._count("mul", x.shape)
        # Worst case |x| dy + |y| dx + dx dy; a square counts its own noise twice, not in quadrature.
        bias = x.bound * y.data[0] + y.bound * x.data[0] + x.data[0] * y.data[0]
        parts = x.bound * y.data[1], y.bound * x.data[1]
        std = parts[0] + parts[1] if x is y else np.hypot(*parts)
        raw = x.log_scale + y.log_scale
        finish = self.parameters.product_error(raw - self.parameters.rescale_bits(x.level), x.level)
        # Relinearization switches keys before the rescaling, at the scale of both factors.
        return np.stack([bias, np.sqrt(std**2 + finish**2 + self.parameters.switching_error(raw, x.level) ** 2)])

    def _rotate(self, x: CipherTensor, step: int) -> Any:
        self._count("rotate", x.shape)
        return np.stack([x.data[0], np.hypot(x.data[1], self.parameters.switching_error(x.log_scale, x.level))])

    def _sum_samples(self, x: CipherTensor) -> Any:
        places = self._blocks(x) * self.parameters.slots if self.parameters.name == "ckks" else x.shape[0]
        self.operations["add"] += (self._blocks(x) - 1) * x.shape[1]
        return self._folded(x.data[0] * x.shape[0], x.data[1] * math.sqrt(places), x.log_scale, x.level)

    def _sum_weighted(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Any:
        samples, k = weights.shape
        self._count("mul_plain", x.shape, k)
        rounding, spread = self._encoding_error(plain_bits)
        bias = np.outer(x.data[0], np.abs(weights).sum(axis=0)) + samples * rounding * x.bound[:, None]
        noise = np.outer(x.data[1], np.sqrt((weights**2).sum(axis=0)))
        std = np.hypot(noise, math.sqrt(samples) * spread * x.bound[:, None]).ravel()
        dropped = self.parameters.rescale_bits(x.level)
        scale = x.log_scale + plain_bits - dropped
        if dropped:  # once for all blocks; what it rounds in each slot is summed as well
            self._count("rescale", (1, len(std)))
            std = np.hypot(std, self.parameters.product_error(scale, x.level) * math.sqrt(self.parameters.slots))
        return self._folded(bias.ravel(), std, scale, x.level - 1)

    def _folded(self, bias: FloatArray, std: FloatArray, log_scale: float, level: int) -> Any:
        """All slots added up by rotations; elsewhere samples are added one by one, without error."""
        self.sums = True
        if not isinstance(self.parameters, CkksParameters):
            return np.stack([bias, std])
        slots, steps = self.parameters.slots, self.parameters.slots.bit_length() - 1
        for name in ("rotate", "add"):
            self.operations[name] += steps * len(std)
        # What a rotation rounds is added up by those that follow; the rest stands in few slots, whose squares sum to
        # pi**2 / 8 of the worst.
        rounding = self.parameters.product_error(log_scale, level)
        switching = self.parameters.switching_error(log_scale, level)
        peaks = steps * math.pi**2 / 8 * (switching**2 - rounding**2)
        return np.stack([bias, np.sqrt(std**2 + (slots - 1) * rounding**2 + peaks)])

    def _encoding_error(self, bits: float) -> tuple[float, float]:
        if isinstance(self.parameters, CkksParameters):
            return 0.0, self.parameters.encoding_error(bits)
        return 2.0 ** -(bits + 1), 0.0

    def _blocks(self, x: CipherTensor) -> int:
        return -(-x.shape[0] // self.parameters.slots)

    def _rerandomize(self, x: CipherTensor) -> Any:
        self._count("rerandomize", x.shape)
        noise = self.parameters.product_error(x.log_scale, 0)  # an encryption of zero is as noisy as a rescaling
        return np.stack([x.data[0], np.hypot(x.data[1], noise)])


def reveals_too(ev: Evaluator, what: str) -> None:
    """Note that the result shows ``what`` besides what it is computed for. Only a dry run takes notes."""
    if isinstance(ev, DryEvaluator):
        ev.revealed.append(what)


def smooth(
    ev: Evaluator, circuit: Callable[[CipherTensor], CipherTensor], x: CipherTensor, slope: float, margin: float
) -> CipherTensor:
    """circuit(x), where |circuit(x + e) - circuit(x)| <= slope * |e| for all |e| <= margin, slot by slot.

    Only a dry run looks at the two numbers. Product by product it would multiply the error of x by the steepest slope
    anywhere within the bounds, which is 2**alpha times too much where every value keeps a distance from the steep part.
    So it takes the error that the circuit makes on an exact x, and adds slope * (error of x). OutOfRange where that
    error leaves the margin, and the slope with it is not proven.
    """
    if not isinstance(ev, DryEvaluator):
        return circuit(x)
    error = ev.error_bound(x)
    if error > margin:
        raise OutOfRange(f"an error of {error:.3g} where the polynomial allows {margin:.3g}: plan with a larger scale")
    y, (bias, std) = circuit(replace(x, data=np.zeros_like(x.data))), slope * x.data
    return replace(y, data=np.stack([y.data[0] + bias, np.hypot(y.data[1], std)]))
