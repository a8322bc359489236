"""The sign polynomial: minimax stages, the table of depths, levels as priced, and the precision of CKKS."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.circuits.chebyshev import depth
from hepipe.circuits.sign import MARGIN, PRODUCTS, composite, minimax, negative, price
from hepipe.errors import BudgetExhausted, OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor
from hepipe.schemes.dry import DryEvaluator, smooth
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, CkksParameters, ClearParameters
from hepipe.schemes.registry import scheme_of

DEEP = ClearParameters(depth=64)


@cache
def party(parameters: Any) -> tuple[Any, Any, Any]:
    scheme: Any = scheme_of(parameters)
    keys = scheme.keygen()
    return scheme.encryptor(keys.secret), scheme.evaluator(keys), scheme.decryptor(keys.secret)


def signs(parameters: Any, values: np.ndarray, gap: Any, error_bits: float, bound: Any = 1.0) -> tuple[np.ndarray, Any]:
    """(values, tensor) of ``negative``."""
    encryptor, ev, decryptor = party(parameters)
    y = negative(ev, encryptor.encrypt(values, bound), gap, error_bits)
    return decryptor.decrypt(y), y


def apart(alpha: float, count: int) -> np.ndarray:
    """Both signs, from the gap to 1, the gap itself most often."""
    sizes = np.concatenate([np.full(count // 4, 2.0**-alpha), np.geomspace(2.0**-alpha, 1, count - count // 4)])
    return (sizes * np.where(np.arange(count) % 2, 1, -1))[:, None]


def composed(stages: Any, x: np.ndarray) -> np.ndarray:
    for stage in stages:
        x = stage.series(x)
    return x


# The polynomials


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 12), st.sampled_from(list(PRODUCTS)))
def test_no_odd_polynomial_is_nearer(alpha: float, degree: int) -> None:
    """De la Vallee Poussin: an error that alternates at (degree + 1) / 2 + 1 points with peaks >= e has no better."""
    low = 2.0**-alpha
    series, error = minimax(low, degree)
    assert (series.coef[::2] == 0).all()
    x = np.linspace(low * (1 - MARGIN), 1 + low * MARGIN, 50_001)
    off = series(x) - 1
    assert np.abs(off).max() <= error + 1e-14
    if error > 1e-9:  # below, the rounding of float64 has zeros of its own
        runs = np.split(off, np.flatnonzero(np.diff(np.sign(off))) + 1)
        assert len(runs) == (degree + 1) // 2 + 1
        assert min(np.abs(run).max() for run in runs) >= error * (1 - 1e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 12), st.floats(1, 20))
def test_the_composite_is_right_beyond_the_gap_and_bounded_within(alpha: float, error_bits: float) -> None:
    stages = composite(alpha, error_bits)
    gap = 2.0**-alpha
    x = np.concatenate([np.geomspace(gap, 1, 20_001), np.linspace(0, gap, 2001)])
    x = np.concatenate([x, -x])
    y = x
    for stage in stages[:-1]:
        y = stage.series(y)
        assert np.abs(y).max() <= 1 + 1e-12
    y = composed(stages, x)
    outside = np.abs(x) >= gap
    assert np.abs(y - (x < 0))[outside].max() <= 2.0**-error_bits
    assert -1e-12 <= y.min() <= y.max() <= 1 + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 12), st.floats(1, 20), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_noise_within_the_margin_grows_by_the_slope_at_most(
    alpha: float, error_bits: float, part: float, seed: int
) -> None:
    x = np.random.default_rng(seed).uniform(2.0**-alpha, 1, 500)
    stages = composite(alpha, error_bits)
    for place, stage in enumerate(stages):
        noise = part * stage.margin
        grown = np.abs(composed(stages[place:], x + noise) - composed(stages[place:], x)).max()
        assert grown <= stage.slope * abs(noise) * (1 + 1e-6) + 1e-15
        x = np.abs(stage.series(x + noise))


# (alpha, depth, bits of the sign) without a margin for noise, as known from greedy searches.
KNOWN = [(4, 6, 4.7), (4, 7, 9.2), (4, 8, 17.6), (4, 9, 29.7), (6, 8, 5.4), (6, 9, 9.0), (6, 10, 12.5), (6, 11, 24),
         (7, 10, 7.0), (7, 11, 13.4), (7, 12, 25.8), (8, 11, 7.4), (8, 12, 14.2), (8, 13, 27), (10, 13, 5.5),
         (10, 14, 10.3), (10, 15, 20), (12, 16, 10.2), (12, 17, 14.5), (12, 18, 27.8)]  # fmt: skip


@pytest.mark.parametrize(("alpha", "levels", "bits"), KNOWN)
def test_depths_are_those_of_the_table_within_a_bit(alpha: float, levels: int, bits: float) -> None:
    assert price(alpha, bits - 0.8) <= levels
    found = composed(composite(alpha, bits - 0.8), np.geomspace(2.0**-alpha, 1, 100_001))
    reached = found.max() / (1 - found.max())  # tau, for a sign in [1 - tau, 1 + tau] brought into [0, 1]
    assert -math.log2(reached) >= bits - 1


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 10), st.floats(1, 12), st.floats(0, 2), st.floats(0, 2))
def test_more_is_never_cheaper(alpha: float, error_bits: float, nearer: float, sharper: float) -> None:
    assert price(alpha, error_bits) <= price(alpha + nearer, error_bits + sharper)


# Under encryption

CASES = [(4, 10), (6, 10), (8, 8), (9, 5), (10, 11), (12, 11)]


def chain(alpha: float, error_bits: float, bits: int = 40) -> CkksParameters:
    levels = price(alpha, error_bits)
    return CkksParameters(1024, (60, *(bits,) * levels, 60), float(bits), insecure=True)


@pytest.mark.parametrize(("alpha", "error_bits"), CASES)
def test_ckks_takes_the_levels_priced_and_keeps_the_error_of_the_polynomial(alpha: int, error_bits: int) -> None:
    """Over all slots, the worst |x| in a quarter of them; the noise must not double the error."""
    parameters, x = chain(alpha, error_bits), apart(alpha, 512)
    found, y = signs(parameters, x, 2.0**-alpha, error_bits)
    clear, _ = signs(DEEP, x, 2.0**-alpha, error_bits)
    assert y.level == 0
    assert np.abs(clear - (x < 0)).max() <= 2.0**-error_bits
    assert np.abs(found - (x < 0)).max() <= 2.0 ** (1 - error_bits)
    dry = DryEvaluator(parameters)
    z = negative(dry, dry.fresh(x.shape, 1.0), 2.0**-alpha, error_bits)
    assert (z.level, z.log_scale, z.bound.tolist()) == (y.level, y.log_scale, y.bound.tolist())
    assert np.abs(found - clear).max() <= dry.error_bound(z) < 2.0 ** -min(11, error_bits)
    assert dry.operations["mul"] == sum(PRODUCTS[stage.series.degree()] for stage in composite(alpha, error_bits))


@pytest.mark.secure
@pytest.mark.slow
def test_a_secure_ring_keeps_it_too() -> None:
    parameters = CkksParameters(32768, (60, *(40,) * 14, 60), 40.0)
    x = apart(10, 16384)
    found, y = signs(parameters, x, 2.0**-10, 10)
    assert y.level == 0
    assert np.abs(found - (x < 0)).max() <= 2.0**-10 + 2.0**-11


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(2.0**-6, 1), min_size=3, max_size=3), st.floats(0.25, 400), st.integers(0, 2**32 - 1))
def test_each_feature_has_its_own_bound_and_gap_for_one_level_more(gaps: list[float], bound: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = np.array([bound, 1.0, 3.0])
    gap = limits * gaps
    x = rng.uniform(gap, limits, (64, 3)) * rng.choice([-1, 1], (64, 3))
    found, y = signs(DEEP, x, gap, 8, limits)
    assert np.abs(found - (x < 0)).max() <= 2.0**-8
    assert DEEP.depth - y.level == price(float(np.log2(1 / np.array(gaps)).max()), 8) + 1


def test_a_value_inside_the_gap_gives_something_between_the_two() -> None:
    found, y = signs(DEEP, np.array([[0.0], [2.0**-9], [-(2.0**-9)]]), 2.0**-6, 8)
    assert found[0, 0] == pytest.approx(0.5)
    assert 0 < found[1, 0] < 0.5 < found[2, 0] < 1
    assert y.bound.tolist() == [1.0]


# What the dry run says


def test_noise_beyond_the_margin_is_refused_and_not_amplified() -> None:
    """At a scale of 2**24 the noise of N = 32768 hides a gap of 2**-10."""
    dry = DryEvaluator(chain(10, 6, 24))
    with pytest.raises(OutOfRange, match="larger scale"):
        negative(dry, dry.fresh((1, 1), 1.0), 2.0**-10, 6)


def test_a_stated_slope_replaces_the_worst_case_in_a_dry_run_only() -> None:
    parameters = CkksParameters(1024, (60, 40, 60), 40.0, insecure=True)
    dry = DryEvaluator(parameters)
    x = dry.fresh((1, 2), 1.0)
    own = dry.mul_plain(CipherTensor(np.zeros((2, 2)), x.shape, x.level, x.log_scale, x.bound, x.key_id), 1000.0)
    y = smooth(dry, lambda v: dry.mul_plain(v, 1000.0), x, 0.5, 1.0)
    assert y.data[0].tolist() == (own.data[0] + 0.5 * x.data[0]).tolist()
    assert y.data[1] == pytest.approx(np.hypot(own.data[1], 0.5 * x.data[1]))
    encryptor, ev, decryptor = party(parameters)
    c = encryptor.encrypt([[0.5]], 1.0)
    assert decryptor.decrypt(smooth(ev, lambda v: ev.add(v, 1.0), c, 0.0, 0.0)) == pytest.approx(1.5)


def test_a_value_added_to_itself_doubles_its_noise() -> None:
    dry = DryEvaluator(CkksParameters(1024, (60, 40, 60), 40.0, insecure=True))
    x = dry.fresh((1, 1), 1.0)
    assert dry.error_bound(dry.add(x, x)) == 2 * dry.error_bound(x)
    assert dry.error_bound(dry.add(x, dry.fresh((1, 1), 1.0))) == pytest.approx(math.sqrt(2) * dry.error_bound(x))


# What is refused


def test_what_has_no_sign_polynomial_is_refused() -> None:
    encryptor, ev, _ = party(DEEP)
    x = encryptor.encrypt([[0.5, 0.5]], 1.0)
    for gap in (0.0, -0.1, 1.5, [0.5, np.nan]):
        with pytest.raises(OutOfRange, match="0 < gap <= bound"):
            negative(ev, x, gap, 8)
    for alpha, bits in ((40.0, 4.0), (4.0, 41.0), (20.0, 30.0)):
        with pytest.raises(Unsupported, match="error_bits"):
            price(alpha, bits)
    short = DryEvaluator(ClearParameters(depth=4))
    with pytest.raises(BudgetExhausted, match="plan with depth"):
        negative(short, short.fresh((1, 1), 1.0), 2.0**-8, 8)


@pytest.mark.parametrize("parameters", [TEST_INSECURE_PAILLIER, ClearParameters(exact=True)], ids=["paillier", "exact"])
def test_additive_schemes_compare_by_rounds_instead(parameters: Any) -> None:
    dry = DryEvaluator(parameters)
    with pytest.raises(Unsupported, match="by rounds"):
        negative(dry, dry.fresh((1, 1), 1.0), 0.5, 8)


def test_the_first_use_computes_the_coefficients_and_the_second_does_not() -> None:
    assert composite(5.0, 9.0) is composite(5.0, 9.0)
    for first, second in pairwise([stage.margin for stage in composite(10.0, 11.0)]):
        assert first < second


@pytest.mark.parametrize("degree", list(PRODUCTS))
def test_every_degree_on_offer_fills_its_depth(degree: int) -> None:
    assert 2 ** depth(degree) == degree + 1
