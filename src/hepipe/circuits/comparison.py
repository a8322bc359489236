"""Which of several encrypted numbers is the least, and nothing else of them.

All pairs are compared at once. Where a scheme can blind (Paillier) the index is selected by how often each number
loses; elsewhere it is a sum of products of indicators.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from hepipe.circuits import sign
from hepipe.errors import ShapeMismatch
from hepipe.schemes.base import CipherTensor, Evaluator, Feature
from hepipe.schemes.dry import reveals_too

LARGEST = 1 - 2.0**-8
"""Of a difference of distances, and the gap: less than 1 by what rounding takes, or each comparison had a bit more."""
_INDEX_ERROR = 0.25
"""What the polynomials may put on an index; a half would make it the next one."""


def nearest(ev: Evaluator, distances: CipherTensor, gap: float) -> CipherTensor:
    """The index of the least of each row's distances.

    distances  shape (samples, k), k >= 2, no two further apart than LARGEST - gap
    gap        rows whose least two differ by less may get another index: on an additive scheme of a number within the
               gap of the least (of equal numbers the lower index), on a levelled one any. More than the error of a
               difference, or no comparison would be right
    price      additive: 2 rounds, for each of k (k - 1) / 2 pairs a comparison of as many bits as the distances have,
               and k full exponentiations; levelled: circuits.sign.price(-log2(gap), ..) + ceil(log2(k - 1))
    reveals    the index; on a levelled scheme also how near the polynomials came to 0 and 1, which says how near a tie
               the row is; to the server nothing
    """
    count = distances.shape[1]
    if count < 2:
        raise ShapeMismatch(f"the least of {count} numbers: give at least two")
    pairs = list(itertools.combinations(range(count), 2))
    lower, upper = zip(*pairs, strict=True)
    differences = ev.sub(ev.take(distances, upper), ev.take(distances, lower))
    # They are off by less than the gap: so these bounds are true as well, and tighter.
    if Feature.SELECT in ev.features:
        wins = ev.negative(differences.with_bound(np.array([LARGEST])), gap)
        return ev.select(losses(ev, wins, count), np.arange(count))
    reveals_too(ev, "how near a tie a row is")
    wins = sign.negative(ev, differences.with_bound(np.array([1.0])), gap, _error_bits(count))
    return index(ev, wins, count)


def losses(ev: Evaluator, wins: CipherTensor, count: int) -> CipherTensor:
    """For each number how many of the others are nearer, up to its sign: zero for the least alone. Price 0 / 0.

    wins  a column a pair i < j, in the order of itertools.combinations: 1 if number j is strictly less than number i
    """
    place = {pair: column for column, pair in enumerate(itertools.combinations(range(count), 2))}
    columns = []
    for j in range(count):
        # Number j beats those before it by ``wins`` and those after it by 1 - wins: together one less than count.
        after = [ev.take(wins, [place[j, i]]) for i in range(j + 1, count)]
        before = [ev.take(wins, [place[i, j]]) for i in range(j)]
        if not before:
            columns.append(_total(ev, after))
            continue
        missing = ev.sub(_total(ev, before), float(j))
        columns.append(ev.sub(missing, _total(ev, after)) if after else missing)
    return ev.join(columns).with_bound(np.array([count - 1.0]))


def index(ev: Evaluator, wins: CipherTensor, count: int) -> CipherTensor:
    """The sum over j of j * [number j beats all others], for ``wins`` as in ``losses``. Price ceil(log2(count - 1)).

    Multilinear in the indicators, so for any of them in [0, 1] it lies between 0 and count - 1.
    """
    place = {pair: column for column, pair in enumerate(itertools.combinations(range(count), 2))}
    # wins, then wins - 1, which is less by a sign than the indicator of the opposite.
    both = ev.join([wins, ev.sub(wins, 1.0).with_bound(wins.bound)])
    others = [[o for o in range(count) if o != j] for j in range(1, count)]
    factors = []
    for turn in range(count - 1):
        opponents = [each[turn] for each in others]
        columns = [place[o, j] if o < j else len(place) + place[j, o] for j, o in enumerate(opponents, start=1)]
        factors.append(ev.take(both, columns))
    product = _product(ev, factors)
    tail = total = ev.take(product, [count - 2])
    for j in range(count - 2, 0, -1):
        # Indicator j has count - 1 - j factors of the opposite sign. Each is added j times: once in every tail.
        tail = (ev.sub if (count - 1 - j) % 2 else ev.add)(tail, ev.take(product, [j - 1]))
        total = ev.add(total, tail)
    return total.with_bound(np.array([count - 1 + 2 * _INDEX_ERROR]))


def _error_bits(count: int) -> int:
    """So that the errors of count - 1 factors, j times for number j, stay below ``_INDEX_ERROR``."""
    return math.ceil(math.log2(count * (count - 1) ** 2 / 2 / _INDEX_ERROR))


def _total(ev: Evaluator, columns: list[CipherTensor]) -> CipherTensor:
    total = columns[0]
    for column in columns[1:]:
        total = ev.add(total, column)
    return total


def _product(ev: Evaluator, factors: list[CipherTensor]) -> CipherTensor:
    """By halves: neighbours, then pairs of neighbours."""
    while len(factors) > 1:
        pairs = list(zip(factors[::2], factors[1::2], strict=False))
        factors = ev.mul_pairs(pairs) + factors[2 * len(pairs) :]
    return factors[0]
