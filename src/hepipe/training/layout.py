"""Where the rows of a training set lie in ciphertexts, so that a product with all of them costs little.

A step of gradient descent needs two products with the matrix M of shape (rows, D): the scores u = M v, and the gradient
M^T t. With one ciphertext a column both need a full sum over the n slots for each column, D log2(n) rotations.

``Diagonals`` is for SIMD slots that rotate. D is padded to a power of two, D = B G, and one ciphertext holds all the
weights with period D: v[p] = v_(p mod D). Write rot(x, k)[p] = x[p + k], all slots modulo n. The owner encrypts

    R[g][b][p] = M[(p + B g) mod n, (p - b) mod D]          g < G giant steps, b < B baby steps

that is, for each k = B g + b one diagonal of M, turned so that neither product multiplies by anything but ciphertexts:

    u = sum_g rot( sum_b rot(v, -b) * R[g][b], -B g )                   at slot p: M[p, j] v_j with j = p - b - B g
    M^T t = sum over the n/D periods of  sum_b rot( sum_g R[g][b] * rot(t, B g), b )

As k runs through all of 0..D-1, so does j. The second line: at slot p its inner sum holds, for every k, the term
M[p + k, p mod D] t[p + k], a window of D rows; adding the rotations by D, 2D, 4D ... n/2 adds the windows, and the
result has period D again, ready to be the next v. Babies are successive turns by one and giants are summed by Horner's
rule, so the Galois keys are those of -1, 1, -B, B and D 2**i alone. Products are added before they are relinearized:
the scores take about 3 sqrt(D) key switches and the gradient D + 4 sqrt(D) + log2(n / D), against D log2(n) each.
(Diagonals: Halevi and Shoup, CRYPTO 2014; baby and giant steps: the same, CRYPTO 2018. That one set of ciphertexts
serves M and M^T, and the folding over periods, are ours.)

``Columns`` is for schemes without slots that move: column j is a tensor of shape (1, rows), and sums are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, blocks

Tensors = Sequence[CipherTensor]


class Layout(Protocol):
    """Rows as tensors, and the products with them that a step of descent is made of."""

    @property
    def gradient_levels(self) -> int:
        """Levels from the second factor of ``gradient`` to its result."""
        ...

    def arrange(self, rows: FloatArray) -> list[FloatArray]:
        """At the owner: rows of shape (rows, columns) as the arrays to encrypt."""
        ...

    def shapes(self, rows: int) -> list[tuple[int, int]]:
        """The shapes of what ``arrange`` returns."""
        ...

    def weights(self, decrypted: FloatArray) -> FloatArray:
        """At the owner: the weights, one a column, in a decrypted tensor of them."""
        ...

    def scores(self, ev: Evaluator, data: Tensors, weights: CipherTensor) -> list[CipherTensor]:
        """u = M v, a tensor a block of rows."""
        ...

    def totals(self, ev: Evaluator, data: Tensors) -> CipherTensor:
        """The sum of the rows, laid out as weights are. Price 0 / 0."""
        ...

    def gradient(self, ev: Evaluator, data: Tensors, u: Tensors, s: Tensors, factor: float) -> CipherTensor:
        """factor * M^T (u s), laid out as weights are; on a levelled scheme at the scale of fresh ciphertexts."""
        ...


@dataclass(frozen=True)
class Diagonals:
    """Turned diagonals in ``slots`` slots: see the module docstring. More rows than slots make more blocks.

    columns  columns of the rows, padded with zeros to ``padded``, a power of two
    slots    a power of two, at least ``padded``
    """

    columns: int
    slots: int

    gradient_levels = 1

    @classmethod
    def holding(cls, rows: int, columns: int) -> Diagonals:
        """As many slots as hold all rows in one block, for schemes whose slots are as many as are asked for."""
        return cls(columns, 1 << math.ceil(math.log2(max(rows, 2 * columns, 2))))

    @property
    def padded(self) -> int:
        """D: columns, rounded up to a power of two, at least 2."""
        return 1 << max(math.ceil(math.log2(self.columns)), 1)

    @property
    def babies(self) -> int:
        """B: about the square root of D."""
        return 1 << math.ceil(math.log2(self.padded) / 2)

    @property
    def giants(self) -> int:
        """G = D / B."""
        return self.padded // self.babies

    @property
    def windows(self) -> list[int]:
        """The rotations that add the windows of D rows: D, 2D, 4D ... n/2."""
        return [self.padded << i for i in range(int(math.log2(self.slots // self.padded)))]

    @property
    def rotations(self) -> tuple[int, ...]:
        """The steps whose Galois keys the trainer needs, and no others."""
        giants = {self.babies, -self.babies} if self.giants > 1 else set()
        return tuple(sorted({1, -1, *giants, *self.windows}))

    def arrange(self, rows: FloatArray) -> list[FloatArray]:
        """Arrays of shape (slots, D), one a block: column B g + b is R[g][b]."""
        parts = [rows[part] for part in blocks(len(rows), self.slots)]
        return [self._turned(np.pad(p, ((0, self.slots - len(p)), (0, self.padded - self.columns)))) for p in parts]

    def _turned(self, rows: FloatArray) -> FloatArray:
        slot, k = np.arange(self.slots)[:, None], np.arange(self.padded)
        baby, giant = k % self.babies, k // self.babies
        return np.asarray(rows[(slot + self.babies * giant) % self.slots, (slot - baby) % self.padded])

    def shapes(self, rows: int) -> list[tuple[int, int]]:
        """(slots, D) for each block."""
        return [(self.slots, self.padded)] * -(-rows // self.slots)

    def weights(self, decrypted: FloatArray) -> FloatArray:
        """Each weight stands slots / D times; their mean has the least noise."""
        return np.asarray(decrypted.reshape(-1, self.padded).mean(axis=0)[: self.columns])

    def scores(self, ev: Evaluator, data: Tensors, weights: CipherTensor) -> list[CipherTensor]:
        """u = M v. Price 1 / -. Key switches: B - 1, and 2 G - 1 a block."""
        babies = ev.join(self._turns(ev, weights, -1, self.babies))
        return [self._block_scores(ev, block, babies) for block in data]

    def _block_scores(self, ev: Evaluator, block: CipherTensor, babies: CipherTensor) -> CipherTensor:
        total = None
        for giant in reversed(range(self.giants)):
            inner = _row_sum(ev, ev.mul(self._giant(ev, block, giant), babies))
            total = inner if total is None else ev.add(ev.rotate(total, -self.babies), inner)
        assert total is not None
        return total

    def totals(self, ev: Evaluator, data: Tensors) -> CipherTensor:
        """The sum of the rows: the gradient's circuit for t = 1. Price 0 / -. Key switches: B - 1 + log2(n / D)."""
        parts = [self._giant(ev, block, giant) for block in data for giant in range(self.giants)]
        return self._folded(ev, _sum(ev, parts))

    def gradient(self, ev: Evaluator, data: Tensors, u: Tensors, s: Tensors, factor: float) -> CipherTensor:
        """factor * M^T (u s) as (factor M u) s, which is one level shallower. Price 1 level below s, 2 below u.

        The factor is folded into M, which has levels to spare. Key switches: D + 2 G - 2 a block for M u and the turns
        of u and s, then 2 B - 1 + log2(n / D).
        """
        below = min(u[0].level - 1, s[0].level)
        dropped = ev.parameters.rescale_bits(u[0].level) + ev.parameters.rescale_bits(below)
        scale = ev.parameters.log_scale + dropped - u[0].log_scale - s[0].log_scale
        parts = []
        for block, u_block, s_block in zip(data, u, s, strict=True):
            scaled = ev.mul_plain(block, factor, log_scale=scale)
            turns = [self._turns(ev, x, self.babies, self.giants) for x in (u_block, s_block)]
            for giant, (first, second) in enumerate(zip(*turns, strict=True)):
                inner = ev.mul(self._giant(ev, scaled, giant), ev.take(first, [0] * self.babies))
                parts.append(ev.mul(inner, ev.take(second, [0] * self.babies)))
        return self._folded(ev, _sum(ev, parts))

    def _giant(self, ev: Evaluator, block: CipherTensor, giant: int) -> CipherTensor:
        return ev.take(block, range(giant * self.babies, (giant + 1) * self.babies))

    def _turns(self, ev: Evaluator, x: CipherTensor, step: int, count: int) -> list[CipherTensor]:
        turns = [x]
        while len(turns) < count:
            turns.append(ev.rotate(turns[-1], step))
        return turns

    def _folded(self, ev: Evaluator, babies: CipherTensor) -> CipherTensor:
        """sum_b rot(babies_b, b) by Horner's rule, then the windows added."""
        total = ev.take(babies, [self.babies - 1])
        for baby in reversed(range(self.babies - 1)):
            total = ev.add(ev.rotate(total, 1), ev.take(babies, [baby]))
        for step in self.windows:
            total = ev.add(total, ev.rotate(total, step))
        return total


@dataclass(frozen=True)
class Columns:
    """Column j as a tensor of shape (1, rows): every value is a ciphertext of its own, and none has to move."""

    columns: int

    gradient_levels = 3

    def arrange(self, rows: FloatArray) -> list[FloatArray]:
        """Arrays of shape (1, rows), one a column."""
        return [column[None, :] for column in rows.T]

    def shapes(self, rows: int) -> list[tuple[int, int]]:
        """(1, rows) for each column."""
        return [(1, rows)] * self.columns

    def weights(self, decrypted: FloatArray) -> FloatArray:
        """The tensor of weights has shape (1, columns)."""
        return np.asarray(decrypted[0])

    def scores(self, ev: Evaluator, data: Tensors, weights: CipherTensor) -> list[CipherTensor]:
        """u = M v. Price 1 / 1, rows * columns products."""
        repeated = [ev.take(weights, [j] * column.shape[1]) for j, column in enumerate(data)]
        return [_sum(ev, ev.mul_pairs(list(zip(data, repeated, strict=True))))]

    def totals(self, ev: Evaluator, data: Tensors) -> CipherTensor:
        """The sum of the rows. Price 0 / 0."""
        return ev.join([_row_sum(ev, column) for column in data])

    def gradient(self, ev: Evaluator, data: Tensors, u: Tensors, s: Tensors, factor: float) -> CipherTensor:
        """factor * M^T (u s), u s first, since that is the fewest products. Price 3 / 2."""
        t = ev.mul(u[0], s[0])
        products = ev.mul_pairs([(column, t) for column in data])
        ones = np.full((t.shape[1], 1), factor)
        return ev.join([ev.matmul_plain(product, ones) for product in products])


def _sum(ev: Evaluator, tensors: Tensors) -> CipherTensor:
    total = tensors[0]
    for x in tensors[1:]:
        total = ev.add(total, x)
    return total


def _row_sum(ev: Evaluator, x: CipherTensor) -> CipherTensor:
    """The columns of x added: no level, where a product with ones would take one."""
    return _sum(ev, [ev.take(x, [j]) for j in range(x.shape[1])])
