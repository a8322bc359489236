"""Paillier's arithmetic on ciphertexts, and the server's half of a masked product.

Nothing here needs a secret key. A product of two ciphertexts takes a round: ``mask`` what is multiplied, let the key
holder multiply, ``unmask_product`` what comes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

import gmpy2
import numpy as np
import numpy.typing as npt

from hepipe.errors import InsecureParameters, ScaleMismatch, ShapeMismatch, Unsupported
from hepipe.schemes.base import CipherTensor, Feature, FloatArray, not_supported
from hepipe.schemes.fixedpoint import shift, to_fixed
from hepipe.schemes.lanes import Mpz, pack, repunit
from hepipe.schemes.ledger import Ledger, check_choices, row_features
from hepipe.schemes.masks import mask_bits_for, masked_bound
from hepipe.schemes.multiexp import WeightedSums
from hepipe.schemes.paillier_checks import IntegerArray, block_spans, whole_bits
from hepipe.schemes.paillier_keys import PaillierPublicKey
from hepipe.schemes.paillier_randomness import RandomnessPool, UniformSource
from hepipe.schemes.parameters import PaillierParameters, spend

_SHUFFLER = secrets.SystemRandom()

Rows = list[list[Mpz]]


class PaillierEvaluator(Ledger):
    """Arithmetic with the public key. What leaves goes through ``rerandomize``, with uniform r**n from ``pool``.

    Prices at 3072 bits, a ciphertext of ``lanes`` samples each: sum 0.01 ms, product with a 28-bit factor 0.3 ms,
    weighted sum of 15 columns with 28-bit weights 1.4 ms, re-randomisation 28 ms or 0.01 ms from a filled pool.
    """

    parameters: PaillierParameters
    features = Feature.ADD | Feature.MUL_PLAIN | Feature.SELECT

    def __init__(self, parameters: PaillierParameters, public: PaillierPublicKey, threads: int = 1) -> None:
        self.parameters, self.public, self.key_id = parameters, public, public.key_id
        self.features |= row_features(parameters)
        self.pool = RandomnessPool(public, UniformSource(public, threads))

    mul = mul_pairs = not_supported(
        "a product of two ciphertexts takes a round with the key holder: wrap it in Interactive"
    )

    rotate = not_supported("samples share a ciphertext as lanes, which cannot be moved: rotate before encryption")

    def select(self, costs: CipherTensor, values: npt.ArrayLike) -> CipherTensor:
        """values[k] of the one column whose cost is zero, among random numbers and in random order.

        Column k becomes r * cost + value with r uniform in [1, n - 1] and of full length: for a cost that is not zero
        that is uniform, so a row reveals to the key holder one value and the number of columns, nothing of the other
        values, of the costs, or of which column it was (Tai et al., ESORICS 2017, section 4.2). Unsupported with more
        than one lane. Price: a full exponentiation an entry; rounds 0.
        """
        self._own(costs)
        self._single_lane("select")
        array, scale = check_choices(costs, values), self.parameters.log_plain_scale
        self._room(np.abs(array), costs.level, scale, "select")
        n, n_squared, integers = self.public.n, self.public.n_squared, to_fixed(array, whole_bits(scale))
        rows = []
        for row in costs.data:
            powers = [gmpy2.powmod(c, 1 + secrets.randbelow(int(n) - 1), n_squared) for c in row]
            blinded = _products(powers, [1 + int(v) % n * n for v in integers], n_squared)
            _SHUFFLER.shuffle(blinded)
            rows.append(blinded)
        bound = np.full(costs.shape[1], np.abs(array).max())
        return replace(self._result(rows, costs.shape, costs.level, scale, bound), blinded=True)

    def mask(self, x: CipherTensor, mask_bits: int) -> tuple[CipherTensor, IntegerArray]:
        """x + r, ready to be shown to the key holder, and the masks r: independent, uniform in [0, 2**mask_bits).

        x + r and x' + r are within 2V / 2**mask_bits statistically, V = max |x| 2**log_scale: 2**-79 at the least
        ``mask_bits`` allowed, log2(V) + 80 (``mask_bits_for``); InsecureParameters below it. Unsupported with more
        than one lane; OutOfRange if a masked value does not fit. Price: one re-randomisation an entry.
        """
        self._own(x)
        self._single_lane("mask")
        need = mask_bits_for(x.bound, x.log_scale)
        if mask_bits < need:
            raise InsecureParameters(f"masks of {mask_bits} bits hide these values badly: use at least {need}")
        bound = masked_bound(x.bound, whole_bits(x.log_scale), mask_bits)
        self._room(bound, x.level, x.log_scale, "mask")
        masks = np.array([secrets.randbits(mask_bits) for _ in range(x.shape[0] * x.shape[1])], dtype=object)
        masks = masks.reshape(x.shape)
        shifted = self._result(self._add_integers(x, masks), x.shape, x.level, x.log_scale, bound)
        return self.rerandomize(shifted), masks

    def unmask_product(
        self, product: CipherTensor, x: CipherTensor, y: CipherTensor, x_masks: IntegerArray, y_masks: IntegerArray
    ) -> CipherTensor:
        """x * y from the key holder's encryption of (x + r)(y + s): take off s x, r y and r s.

        Its scale is the sum of both, its level one below the lower, its bound the product of bounds; BudgetExhausted
        and OutOfRange as for any product. Price: two exponentiations by a mask an entry, one for a square (x is y).
        """
        self._pair(x, y)
        self._pair(product, x)
        self._single_lane("unmask_product")
        scale, bound = x.log_scale + y.log_scale, x.bound * y.bound
        if x_masks.shape != x.shape or y_masks.shape != x.shape:
            raise ShapeMismatch(f"masks of shape {x_masks.shape} and {y_masks.shape} do not fit {x.shape}")
        if product.log_scale != scale:
            raise ScaleMismatch(f"the product came back at log_scale {product.log_scale:.1f}, not {scale:.1f}")
        level = spend(min(x.level, y.level), self.parameters.depth, "mul")
        self._room(bound, level, scale, "mul")
        n_squared = self.public.n_squared
        shifted = self._add_integers(product, -(x_masks * y_masks))
        data = []
        for i, row in enumerate(shifted):
            crossed = self._crossed(x, y, i, x_masks[i], y_masks[i])
            data.append([c * gmpy2.invert(d, n_squared) % n_squared for c, d in zip(row, crossed, strict=True)])
        return self._result(data, x.shape, level, scale, bound)

    def unmask_refreshed(self, refreshed: CipherTensor, x: CipherTensor, masks: IntegerArray) -> CipherTensor:
        """x at the base scale and the full level, from the key holder's encryption of floor((x + r) / 2**k).

        k is what the scale of x has over the base scale. Taking off floor(r / 2**k) leaves floor(x / 2**k) or one unit
        more: an error below one unit of the base scale, and zero on average (Mohassel and Zhang, SecureML, IEEE S&P
        2017, section 4.1).
        """
        self._pair(refreshed, x)
        self._single_lane("unmask_refreshed")
        unit = 2.0**-refreshed.log_scale
        bound = x.bound + unit
        self._room(bound, refreshed.level, refreshed.log_scale, "refresh")
        shifted = shift(masks, whole_bits(x.log_scale) - whole_bits(refreshed.log_scale))
        data = self._add_integers(refreshed, -shifted)
        return self._result(data, x.shape, refreshed.level, refreshed.log_scale, bound)

    def _crossed(self, x: CipherTensor, y: CipherTensor, i: int, r: Iterable[int], s: Iterable[int]) -> list[Mpz]:
        n_squared = self.public.n_squared
        if x is y:
            return [gmpy2.powmod(c, a + b, n_squared) for c, a, b in zip(x.data[i], r, s, strict=True)]
        return [
            gmpy2.powmod(c, b, n_squared) * gmpy2.powmod(d, a, n_squared) % n_squared
            for c, d, a, b in zip(x.data[i], y.data[i], r, s, strict=True)
        ]

    def _single_lane(self, operation: str) -> None:
        if self.parameters.lanes != 1:
            raise Unsupported(
                f"{operation}: a mask for each sample needs one sample a ciphertext, these hold "
                f"{self.parameters.lanes}: plan with lanes=1"
            )

    def _add(self, x: CipherTensor, y: CipherTensor, sign: int) -> Rows:
        n_squared = self.public.n_squared
        if sign < 0:
            negated = [[gmpy2.invert(c, n_squared) for c in row] for row in y.data]
            return [self._blinded(_products(a, b, n_squared)) for a, b in zip(x.data, negated, strict=True)]
        return [self._blinded(_products(a, b, n_squared)) for a, b in zip(x.data, y.data, strict=True)]

    def _add_plain(self, x: CipherTensor, values: FloatArray) -> Rows:
        return self._add_integers(x, to_fixed(values, whole_bits(x.log_scale)))

    def _add_integers(self, x: CipherTensor, integers: IntegerArray) -> Rows:
        n, n_squared, lane_bits = self.public.n, self.public.n_squared, self.parameters.lane_bits
        rows = []
        for span, row in zip(block_spans(x, self.parameters.lanes), x.data, strict=True):
            if integers.ndim == 1:
                ones = repunit(lane_bits, span.stop - span.start)
                added = [value * ones for value in integers]
            else:
                added = [pack(column, lane_bits) for column in integers[span].T]
            rows.append(_products(row, [1 + m % n * n for m in added], n_squared))
        return rows

    def _mul_plain(self, x: CipherTensor, factors: FloatArray, plain_bits: float) -> Rows:
        weights = [gmpy2.mpz(w) for w in to_fixed(factors, whole_bits(plain_bits))]
        n_squared = self.public.n_squared
        return [
            self._blinded([gmpy2.powmod(c, w, n_squared) for c, w in zip(row, weights, strict=True)]) for row in x.data
        ]

    def _matmul_plain(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Rows:
        plan = WeightedSums.of(to_fixed(weights, whole_bits(plain_bits)).T.tolist())
        return [self._blinded(plan.run(row, self.public.n_squared)) for row in x.data]

    def _sum_samples(self, x: CipherTensor) -> Rows:
        n_squared = self.public.n_squared
        total = x.data[0]
        for row in x.data[1:]:
            total = _products(total, row, n_squared)
        return [self._blinded(total)]

    def _sum_weighted(self, x: CipherTensor, weights: FloatArray, plain_bits: float) -> Rows:
        plan = WeightedSums.of(to_fixed(weights, whole_bits(plain_bits)).T.tolist())
        columns = zip(*x.data, strict=True)
        return [self._blinded([total for column in columns for total in plan.run(column, self.public.n_squared)])]

    def _rerandomize(self, x: CipherTensor) -> Rows:
        blinding = iter(self.pool.take_many(sum(map(len, x.data))))
        n_squared = self.public.n_squared
        return [[c * next(blinding) % n_squared for c in row] for row in x.data]

    def _blinded(self, ciphertexts: list[Mpz]) -> list[Mpz]:
        # x - x and x * 0 come out as the bare 1, which says "zero" to anyone: make it an encryption of zero.
        return [c if c != 1 else self.pool.take() for c in ciphertexts]


def _products(left: Sequence[Mpz], right: Sequence[Mpz], modulus: Mpz) -> list[Mpz]:
    return [a * b % modulus for a, b in zip(left, right, strict=True)]
