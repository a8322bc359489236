"""The sign under a levelled scheme: composite minimax polynomials, least in depth, then in products.

One polynomial of degree 2**depth is never evaluated: a composition of odd polynomials reaches the same at the cost of
the sum of their depths. Each is minimax on the image of the one before it, which is optimal stage by stage, and the
degrees are found by dynamic programming (Lee, Lee, No and Kim, eprint 2020/834). The coefficients are computed here at
first use, by the Remez exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebvander

from hepipe.circuits import chebyshev
from hepipe.errors import OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor, Evaluator, Feature, FloatArray
from hepipe.schemes.dry import smooth

PRODUCTS = {3: 2, 7: 5, 15: 8, 31: 13}
"""Ciphertext products of an odd Chebyshev series, by degree: what circuits.chebyshev takes."""
MARGIN = 2.0**-8
"""The noise that a stage allows for, as a part of the least |x| that it is made for: costs a fiftieth of the bits."""
MOST_LEVELS = 24
MOST_BITS = 40
"""Beyond, the rounding of float64 is a part of what the exchange sees."""
_EXCHANGES = 60
"""They converge quadratically, in ten; at the rounding of float64 they may wander, and any of them will do."""
_GRID = 4096
_GRID_MISSES = 2.0**-14
"""By what part the grid may miss the peaks of 17 half waves: less than (17 pi / 2 / 4096)**2 / 2."""


@dataclass(frozen=True, eq=False)
class Stage:
    """An odd polynomial that brings every |x| in [low, 1] nearer to 1, or, as the last, one that gives [x < 0].

    margin  how much noise x may carry: the series is made for |x| in [low - margin, 1 + margin], and maps it so that
            the next stage has its own margin whole
    slope   a bound on the derivative there of all that follows, this stage included
    """

    series: Chebyshev
    margin: float
    slope: float


def negative(ev: Evaluator, x: CipherTensor, gap: npt.ArrayLike, error_bits: float) -> CipherTensor:
    """[x < 0]: 1 or 0 up to 2**-error_bits, for gap <= |x| <= x.bound, the gap per feature or one for all.

    Always in [0, 1], within the gap as well, so that what it selects is a mean of what there is. Price:
    ``price(alpha, error_bits)`` levels for alpha the largest log2(bound / gap), and one more where some bound is not 1:
    fold 1 / bound into the linear map before. Reveals nothing but the result. Unsupported on additive schemes, which
    compare by rounds.
    """
    if Feature.SELECT in ev.features or Feature.MUL not in ev.features:
        raise Unsupported("the sign polynomial takes a levelled scheme: an additive one compares by rounds")
    gaps = np.broadcast_to(np.asarray(gap, dtype=np.float64), x.bound.shape)
    if not ((gaps > 0) & (gaps <= x.bound)).all():
        raise OutOfRange(f"a gap from {gaps.min():.3g} to {gaps.max():.3g}: needs 0 < gap <= bound, for each feature")
    stages = composite(float(np.log2(x.bound / gaps).max()), float(error_bits))
    if (x.bound != 1).any():
        x = ev.mul_plain(x, 1 / x.bound).with_bound(np.array([1.0]))
    return _composed(ev, stages, x)


def price(alpha: float, error_bits: float) -> int:
    """Levels that ``negative`` takes for |x| in [2**-alpha, 1] with an error of 2**-error_bits."""
    return sum(chebyshev.depth(stage.series.degree()) for stage in composite(alpha, error_bits))


@lru_cache(maxsize=64)
def composite(alpha: float, error_bits: float) -> tuple[Stage, ...]:
    """The stages of [x < 0] on 2**-alpha <= |x| <= 1, the last one off by at most 2**-error_bits.

    Of all compositions of degrees 3, 7, 15 and 31 one of the least depth, and of those one of the fewest products.
    Unsupported where MOST_LEVELS do not do, or where MOST_BITS are too few.
    """
    if alpha < 0 or error_bits > MOST_BITS:
        raise Unsupported(f"alpha={alpha}, error_bits={error_bits}: needs alpha >= 0 and at most {MOST_BITS} bits")
    error = (1 - 2.0**-alpha) / (1 + 2.0**-alpha)
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (error, ())}  # by depth and products
    for depth in range(2, MOST_LEVELS + 1):
        for degree, products in PRODUCTS.items():
            for spent, (error, degrees) in _of_depth(best, depth - chebyshev.depth(degree)):
                reached = minimax(_low(error), degree)[1], (*degrees, degree)
                best[depth, spent + products] = min(best.get((depth, spent + products), reached), reached)
        good = [
            degrees for _, (error, degrees) in sorted(_of_depth(best, depth)) if error / (1 + error) <= 2.0**-error_bits
        ]
        if good:
            return tuple(_stages(alpha, good[0]))
    raise Unsupported(
        f"a sign to {error_bits:.1f} bits for |x| >= 2**-{alpha:.1f} takes more than {MOST_LEVELS} levels: "
        "ask for fewer error_bits, or give a wider gap"
    )


def _of_depth(
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]], depth: int
) -> list[tuple[int, tuple[float, tuple[int, ...]]]]:
    return [(products, found) for (levels, products), found in best.items() if levels == depth]


def _low(error: float) -> float:
    """The least |x| after a stage of this error, once its image [1 - error, 1 + error] is divided by its end."""
    return (1 - error) / (1 + error)


def _stages(alpha: float, degrees: tuple[int, ...]) -> list[Stage]:
    low = 2.0**-alpha
    stages: list[Stage] = []
    for place, degree in enumerate(degrees):
        sign, error = minimax(low, degree)
        series = sign / (1 + error)
        if place == len(degrees) - 1:
            series = (1 - series) / 2
        slope = float(np.abs(series.deriv()(_grid(low))).max())
        stages = [replace(stage, slope=stage.slope * slope) for stage in stages]
        stages.append(Stage(series, MARGIN * low, slope))
        low = _low(error)
    return stages


@lru_cache(maxsize=4096)
def minimax(low: float, degree: int) -> tuple[Chebyshev, float]:
    """The odd polynomial nearest to 1 where x is in [low, 1], give or take the margin, and its largest error there.

    Remez's exchange on a grid: where one and the odd powers are a Chebyshev system, on x > 0, the error of an
    interpolation with alternating signs has as many runs of one sign as there are points, and the peak of each run is
    the next point.
    """
    grid = _grid(low)
    odd = chebvander(grid, degree)[:, 1::2]
    points = np.linspace(0, len(grid) - 1, odd.shape[1] + 1).round().astype(int)
    signs = (-1.0) ** np.arange(len(points))
    for _ in range(_EXCHANGES):
        *solution, level = np.linalg.solve(np.column_stack([odd[points], signs]), np.ones(len(points)))
        error = odd @ solution - 1
        peaks = [run[np.abs(error[run]).argmax()] for run in _runs(np.sign(error))]
        largest = float(np.abs(error).max())
        # More runs than points: the error is down to the rounding of float64, and there is nothing to exchange.
        if largest <= abs(level) * (1 + _GRID_MISSES) or len(peaks) != len(points):
            break
        points = np.array(peaks)
    coefficients = np.zeros(degree + 1)
    coefficients[1::2] = solution
    return Chebyshev(coefficients), largest * (1 + _GRID_MISSES)


def _grid(low: float) -> FloatArray:
    """Points from low to 1 with the margin on both sides, denser at the ends."""
    start, end = low * (1 - MARGIN), 1 + low * MARGIN
    return np.asarray((start + end) / 2 - (end - start) / 2 * np.cos(np.linspace(0, np.pi, _GRID)))


def _runs(signs: FloatArray) -> list[npt.NDArray[np.intp]]:
    return np.split(np.arange(len(signs)), np.flatnonzero(np.diff(signs)) + 1)


def _composed(ev: Evaluator, stages: Sequence[Stage], x: CipherTensor) -> CipherTensor:
    """The composition of the stages, each of which maps |x| <= 1 into itself, gap or not."""
    if not stages:
        return x

    def circuit(v: CipherTensor) -> CipherTensor:
        value = chebyshev.evaluate(ev, v, stages[0].series).with_bound(np.array([1.0]))
        return _composed(ev, stages[1:], value)

    return smooth(ev, circuit, x, stages[0].slope, stages[0].margin)
