"""The leaf that encrypted bits select, in complete binary trees, without a comparison and without a look at the path.

The bits come from thermometer inputs: column g of a feature holds [x <= grid[g]] for a public grid, so a node with a
secret threshold on that grid is a secret choice of a column, and every model on the same grids gets the same message.
Where a scheme can blind (Paillier) a leaf costs additions only; elsewhere it is a product of bits along its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hepipe.errors import ShapeMismatch
from hepipe.schemes.base import CipherTensor, Evaluator, Feature, FloatArray

Columns = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trees:
    """``count`` complete trees of one depth, side by side.

    columns  per level l the column of x that each of its count * 2**l nodes tests: 1 goes left, 0 goes right
    values   the leaves', count * 2**depth of them

    In both, tree t's entry for a path stands at t + count * path, and bit l of a path is 1 where it goes right at
    level l. So a level's left children, then its right children, are the next level.
    """

    columns: tuple[Columns, ...]
    values: FloatArray

    def __post_init__(self) -> None:
        count, depth = self.count, len(self.columns)
        sizes = [len(level) for level in self.columns] + [len(self.values)]
        if depth < 1 or count < 1 or sizes != [count << level for level in range(depth + 1)]:
            raise ShapeMismatch(f"levels of {sizes} entries are not complete trees: each is twice the one before")

    @property
    def count(self) -> int:
        """How many trees."""
        return len(self.columns[0]) if self.columns else 0


def choose(ev: Evaluator, x: CipherTensor, trees: Trees) -> CipherTensor:
    """The value of the leaf that a row of bits reaches, summed over the trees.

    x         shape (samples, columns), bits in {0, 1}; a client that sends others opens what it should not
    price     where the scheme can blind 0 / 0, and 2**depth full exponentiations a row, or twice as many a tree of
              several; else at depth 1 to 6 1, 2, 2, 3, 3, 4 levels / 0, 1, 2, 3, 3, 4 rounds
    reveals   that value, and at most the depth and the count; to the server nothing
    """
    if Feature.SELECT in ev.features:
        return ev.select(path_costs(ev, x, trees.columns), trees.values, trees.count)
    return weighted_leaves(ev, x, trees)


def path_costs(ev: Evaluator, x: CipherTensor, columns: Sequence[Columns]) -> CipherTensor:
    """One whole number a leaf, zero exactly for the leaf that is reached: shape (samples, leaves). Price 0 / 0.

    An edge taken costs 0, one not taken +1 or -1; a path's cost is 2 * (cost so far) + edge. It is even up to the
    last edge, so it vanishes only if both do: nothing cancels, and no bit is ever negated (after Tai et al.,
    ESORICS 2017, section 4.2, who add 1 - b and b).
    """
    costs: CipherTensor | None = None
    for level in columns:
        bits, less = _sides(ev, x, level)
        edges = ev.join([less, bits])
        if costs is not None:
            twice = ev.add(costs, costs)
            edges = ev.add(ev.join([twice, twice]), edges)
        costs = edges
    assert costs is not None
    return costs


def weighted_leaves(ev: Evaluator, x: CipherTensor, trees: Trees) -> CipherTensor:
    """The sum over all leaves of value * [its path is taken], shape (samples, 1). Price of ``choose`` without blinding.

    The lowest nodes are linear in their bit, right + (left - right) * b; each is multiplied with the indicator of
    the path to it, all in one step.
    """
    *above, lowest = trees.columns
    left, right = np.split(trees.values, 2)
    sign = _signs(len(lowest), trees.count)
    subtrees = ev.add(ev.mul_plain(ev.take(x, lowest.tolist()), sign * (left - right)), sign * right)
    subtrees = subtrees.with_bound(np.maximum(np.abs(left), np.abs(right)))
    terms = [subtrees] if not above else ev.mul_pairs([(indicators(ev, x, above), subtrees)])
    return _sum(ev, terms[0], trees.count)


def indicators(ev: Evaluator, x: CipherTensor, columns: Sequence[Columns]) -> CipherTensor:
    """Per path 0, or +1 or -1 where it is taken: -1 where it goes right an odd number of times.

    Shape (samples, paths). Neighbouring levels are multiplied pairwise, then pairs of pairs: ceil(log2(levels))
    steps, each of them one round on an additive scheme.
    """
    segments = [ev.join([bits, less]) for bits, less in (_sides(ev, x, level) for level in columns)]
    while len(segments) > 1:
        pairs = list(zip(segments[::2], segments[1::2], strict=False))
        products = ev.mul_pairs([_factors(ev, top, bottom) for top, bottom in pairs])
        merged = [_with_last(ev, top, product) for (top, _), product in zip(pairs, products, strict=True)]
        segments = merged + segments[2 * len(pairs) :]
    return segments[0]


def _sides(ev: Evaluator, x: CipherTensor, level: Columns) -> tuple[CipherTensor, CipherTensor]:
    """b and b - 1 for the nodes of a level."""
    bits = ev.take(x, level.tolist())
    return bits, ev.sub(bits, 1.0).with_bound(np.array([1.0]))


def _factors(ev: Evaluator, top: CipherTensor, bottom: CipherTensor) -> tuple[CipherTensor, CipherTensor]:
    """Every path of ``top`` beside each of the paths that ``bottom`` continues it with, but the last."""
    width, rest = top.shape[1], bottom.shape[1] - top.shape[1]
    return ev.take(top, [*range(width)] * (rest // width)), ev.take(bottom, range(rest))


def _with_last(ev: Evaluator, top: CipherTensor, product: CipherTensor) -> CipherTensor:
    """``product`` and the last continuation of each path, which is the path itself less the others: no product."""
    width = top.shape[1]
    count = product.shape[1] // width
    sign = _signs(count + 1)
    last = ev.mul_plain(top, sign[-1], log_scale=product.log_scale)
    for place in range(count):
        part = ev.take(product, range(place * width, (place + 1) * width))
        last = (ev.sub if sign[place] == sign[-1] else ev.add)(last, part)
    return ev.join([product, last.with_bound(np.array([1.0]))])


def _signs(paths: int, count: int = 1) -> FloatArray:
    """The sign of each indicator: -1 for an odd number of turns to the right."""
    return np.array([(-1.0) ** (entry // count).bit_count() for entry in range(paths)])


def _sum(ev: Evaluator, x: CipherTensor, count: int) -> CipherTensor:
    """The sum of all columns by halves: first over the paths of each tree, then over the ``count`` trees."""
    while (width := x.shape[1]) > 1:
        half, odd = width // 2, width % 2
        total = ev.add(ev.take(x, range(half)), ev.take(x, range(half, 2 * half)))
        if width > count:  # of the paths of a tree one is taken, so their terms do not add up
            total = total.with_bound(np.maximum(*np.split(x.bound, 2)))
        x = ev.join([total, ev.take(x, [width - 1])]) if odd else total
    return x
