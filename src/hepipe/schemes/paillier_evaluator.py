"""Paillier's arithmetic on ciphertexts, and the server's half of masked products and of comparisons.

Nothing here needs a secret key. A product of two ciphertexts takes a round: ``mask`` what is multiplied, let the key
holder multiply, ``unmask_product`` what comes back. So does a comparison: ``blinded_tests``, let the key holder look
for a zero, ``unflipped``.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

import gmpy2
import numpy as np
import numpy.typing as npt

from hepipe.errors import InsecureParameters, ScaleMismatch, ShapeMismatch, Unsupported
from hepipe.schemes.base import CipherTensor, Feature, FloatArray, not_supported
from hepipe.schemes.checks import check_choices, row_features
from hepipe.schemes.fixedpoint import shift, to_fixed
from hepipe.schemes.lanes import Mpz, pack, repunit
from hepipe.schemes.ledger import Ledger
from hepipe.schemes.masks import mask_bits_for, masked_bound
from hepipe.schemes.multiexp import WeightedSums
from hepipe.schemes.paillier_checks import IntegerArray, block_spans, whole_bits
from hepipe.schemes.paillier_keys import PaillierPublicKey
from hepipe.schemes.paillier_randomness import RandomnessPool, UniformSource
from hepipe.schemes.parameters import PaillierParameters, spend

_SHUFFLER = secrets.SystemRandom()

Rows = list[list[Mpz]]
Flips = npt.NDArray[np.int64]


class PaillierEvaluator(Ledger):
    """Arithmetic with the public key. What leaves goes through ``rerandomize``, with uniform r**n from ``pool``.

    Prices at 3072 bits, a ciphertext of ``lanes`` samples each: sum 0.01 ms, product with a 28-bit factor 0.3 ms,
    weighted sum of 15 columns with 28-bit weights 1.7 ms, re-randomisation 28 ms or 0.01 ms from a filled pool.
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
    at_most = negative = not_supported("a comparison takes rounds with the key holder: wrap it in Interactive")

    rotate = not_supported("samples share a ciphertext as lanes, which cannot be moved: rotate before encryption")

    def select(self, costs: CipherTensor, values: npt.ArrayLike, groups: int = 1) -> CipherTensor:
        """values[k] of the one column of each group whose cost is zero, summed, among random numbers in random order.

        Column k becomes r * cost + value with r uniform in [1, n - 1] and of full length: for a cost that is not zero
        that is uniform, so a row reveals to the key holder one value and the number of columns, nothing of the other
        values, of the costs, or of which column it was (Tai et al., ESORICS 2017, section 4.2). Of several groups it
        reveals the sum only: each group adds its own share of zero, uniform modulo n, to its values, and the entry to
        be summed is marked by r' * cost beside it, zero for that one and uniform for the others. Unsupported with more
        than one lane. Price: a full exponentiation an entry, two with groups, and as many re-randomisations; rounds 0.
        """
        self._own(costs)
        self._single_lane("select")
        (array, bound), scale = check_choices(costs, values, groups), self.parameters.log_plain_scale
        self._room(bound, costs.level, scale, "select")
        integers = [int(v) for v in to_fixed(array, whole_bits(scale))]
        rows = [self._selected(row, integers, groups) for row in costs.data]
        shape = (costs.shape[0], len(rows[0]))
        return replace(self._result(rows, shape, costs.level, scale, np.repeat(bound, shape[1])), blinded=groups)

    def _selected(self, costs: list[Mpz], values: list[int], groups: int) -> list[Mpz]:
        """Group by group, in random order, what blinds each value, a mark before it where there are several groups."""
        n, n_squared = self.public.n, self.public.n_squared
        row: list[Mpz] = []
        for group, share in enumerate(_shares_of_zero(int(n), groups)):
            entries = []
            for cost, value in zip(costs[group::groups], values[group::groups], strict=True):
                blinded = self._multiple(cost) * (1 + (value + share) % n * n) % n_squared
                entries.append([blinded] if groups == 1 else [self._multiple(cost), blinded])
            _SHUFFLER.shuffle(entries)
            row += [ciphertext for entry in entries for ciphertext in entry]
        return row

    def _multiple(self, cost: Mpz) -> Mpz:
        return gmpy2.powmod(cost, 1 + secrets.randbelow(int(self.public.n) - 1), self.public.n_squared)

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

    def blinded_tests(
        self, bits: CipherTensor, groups: Sequence[Sequence[int]], numbers: IntegerArray
    ) -> tuple[CipherTensor, Flips]:
        """For every sample and group one ciphertext more than the group has bits, and secret flips.

        Of the plaintexts of group g, each times a uniform factor, in random order, one is zero exactly if
        flip XOR [x_g < numbers[:, g]], and none otherwise; x_g is the number whose bits, least first, are the columns
        of g. The others are uniform (Damgard, Geisler, Kroigaard, ACISP 2007; the flip and the form for one number in
        the clear as in Wu et al., PETS 2016). Unsupported with more than one lane. Price: a full exponentiation and a
        re-randomisation a ciphertext.
        """
        self._own(bits)
        self._single_lane("blinded_tests")
        # No number is below 0; every one is below 2**bits, which is the complement of the same test.
        size = np.array([1 << len(group) for group in groups], dtype=object)
        beyond = (numbers >= size).astype(int)
        numbers = np.where((numbers < 0) | (numbers >= size), 0, numbers)
        flips = np.array([[secrets.randbits(1) for _ in groups] for _ in numbers])
        unit, rows = 1 << whole_bits(bits.log_scale), []
        for i, row in enumerate(bits.data):
            tests: list[Mpz] = []
            for g, group in enumerate(groups):
                picked = [row[column] for column in group]
                tests += self._blinded_test(picked, int(numbers[i, g]), 1 - 2 * int(flips[i, g]), unit)
            rows.append(tests)
        shape = (bits.shape[0], len(rows[0]))
        return replace(bits, data=rows, shape=shape, bound=np.full(shape[1], math.inf)), flips ^ beyond

    def _blinded_test(self, bits: list[Mpz], number: int, sign: int, unit: int) -> list[Mpz]:
        """For sign = 1 one is zero if x < number, for sign = -1 if x >= number."""
        n, n_squared = self.public.n, self.public.n_squared
        encode = {k: 1 + k * unit % n * n for k in (-2, -1, 0, 1, 2)}
        tests, differing = [], gmpy2.mpz(1)  # three times the count of places above that differ
        for place in reversed(range(len(bits))):
            bit, digit = bits[place], number >> place & 1
            # Zero where x and number first differ, and in the sense asked for; never once differing >= 3.
            tests.append(bit * encode[sign - digit] * differing % n_squared)
            differs = encode[1] * gmpy2.invert(bit, n_squared) if digit else bit
            differing = differing * differs**3 % n_squared
        # 2 x + 1 and 2 number stand for x and number: never equal, so that >= is the complement of <.
        tests.append(encode[1 + sign] * differing % n_squared)
        powers = [gmpy2.powmod(c, 1 + secrets.randbelow(int(n) - 1), n_squared) for c in tests]
        blinded = _products(powers, self.pool.take_many(len(powers)), n_squared)
        _SHUFFLER.shuffle(blinded)
        return blinded

    def unflipped(self, found: Rows, flips: Flips) -> CipherTensor:
        """flip XOR found, for the key holder's bits; fresh, log_scale 0. Price: an inversion where flipped."""
        n, n_squared = self.public.n, self.public.n_squared
        turned = [
            [(1 + n) * gmpy2.invert(c, n_squared) % n_squared if flip else c for c, flip in zip(*each, strict=True)]
            for each in zip(found, flips, strict=True)
        ]
        return self._answers(turned, flips.shape)

    def unmask_sign(self, high: CipherTensor, below: CipherTensor, masks: IntegerArray, width: int) -> CipherTensor:
        """[x < 0] from the parts of z = 2**width + x + mask: high = z >> width, below = [z's rest < the mask's rest].

        z - mask is in [0, 2**(width + 1)), and its top bit is [x >= 0] = high - (mask >> width) - below.
        """
        difference = self.sub(below, high)
        return self._answers(self._add_integers(difference, (masks >> width) + 1), below.shape)

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


def _shares_of_zero(n: int, count: int) -> list[int]:
    """Numbers uniform modulo n but for their sum, which is zero modulo n; so any count - 1 of them are independent."""
    free = [secrets.randbelow(n) for _ in range(count - 1)]
    return [*free, -sum(free) % n]


def _products(left: Sequence[Mpz], right: Sequence[Mpz], modulus: Mpz) -> list[Mpz]:
    return [a * b % modulus for a, b in zip(left, right, strict=True)]
