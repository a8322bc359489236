"""The dry run: counts, rounds, bytes and error bounds, without keys or values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hepipe.errors import BudgetExhausted, OutOfRange, ShapeMismatch, Unsupported
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import HEADER_BYTES
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER, ClearParameters

ONE_LANE = replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=3)


def test_operations_count_a_block_of_slots_once() -> None:
    ev = DryEvaluator(TEST_INSECURE_CKKS)
    x = ev.fresh((513, 3), 4.0)
    y = ev.add(ev.matmul_plain(x, np.ones((3, 2))), [1.0, 2.0])
    ev.rerandomize(ev.mul(y, ev.sub(y, y)))
    assert dict(ev.operations) == {
        "encrypt": 6, "mul_plain": 12, "rescale": 4, "add_plain": 4, "add": 4, "mul": 4, "rerandomize": 4,
    }  # fmt: skip
    assert (ev.rounds, ev.bytes_up, ev.bytes_down) == (0, 0, 0)


def test_a_product_is_a_round_on_paillier_and_many_pairs_are_one() -> None:
    ev = DryEvaluator(ONE_LANE)
    x, y = ev.fresh((4, 2), 4.0), ev.fresh((4, 2), 4.0)
    ev.mul(x, x)
    assert (ev.rounds, ev.operations["mask"]) == (1, 8)
    assert ev.bytes_down == HEADER_BYTES + 4 + 8 * 256
    assert ev.bytes_up == HEADER_BYTES + 8 * 256
    ev.mul_pairs([(x, y), (y, y), (x, y)])
    assert (ev.rounds, ev.operations["mask"]) == (2, 8 + 4 * 10)


def test_masked_products_need_one_lane() -> None:
    ev = DryEvaluator(TEST_INSECURE_PAILLIER)
    x = ev.fresh((4, 2), 4.0)
    with pytest.raises(Unsupported, match="plan with lanes=1"):
        ev.mul(x, x)


@pytest.mark.parametrize("parameters", [TEST_INSECURE_CKKS, ONE_LANE, ClearParameters()], ids=lambda p: p.name)
def test_a_dry_run_refuses_what_a_real_one_would(parameters: Any) -> None:
    ev = DryEvaluator(parameters)
    x = ev.fresh((2, 2), 1.0)
    with pytest.raises(ShapeMismatch):
        ev.matmul_plain(x, np.ones((3, 1)))
    with pytest.raises(OutOfRange):
        ev.fresh((2, 2), 2.0**1023)
    for _ in range(parameters.depth):
        x = ev.mul_plain(x, 1.0)
    with pytest.raises(BudgetExhausted):
        ev.mul_plain(x, 1.0)


def test_rotations_are_counted_and_only_the_keys_at_hand_rotate() -> None:
    ev = DryEvaluator(replace(TEST_INSECURE_CKKS, rotations=(1, -1)))
    x = ev.fresh((512, 3), 4.0)
    y = ev.rotate(ev.rotate(x, -1), 513)
    assert ev.operations["rotate"] == 6
    assert ev.rotate(y, 0) is ev.rotate(y, 512) is y
    assert (y.level, y.log_scale) == (x.level, x.log_scale)
    assert ev.error_bound(y) > ev.error_bound(x)
    with pytest.raises(Unsupported, match=r"no Galois key rotates by 2: .* modulo 512, are \[1, 511\]"):
        ev.rotate(x, 2)
    with pytest.raises(ShapeMismatch, match="511 samples in 512 slots do not rotate: pad to slots"):
        ev.rotate(ev.fresh((511, 1), 4.0), 1)
    with pytest.raises(Unsupported, match="lanes"):
        DryEvaluator(ONE_LANE).rotate(DryEvaluator(ONE_LANE).fresh((3, 1), 4.0), 1)


def test_the_peak_is_the_widest_scaled_value_anywhere() -> None:
    ev = DryEvaluator(ONE_LANE)
    x = ev.fresh((1, 1), 8.0)
    assert ev.peak_bits == 28 + 3
    ev.mul_plain(x, 4.0)
    assert 28 + 28 + 5 <= ev.peak_bits < 28 + 28 + 5.01
    ev.fresh((1, 1), 0.0)
    assert ev.peak_bits < 61.01


def test_error_bounds_grow_with_every_step() -> None:
    ev = DryEvaluator(TEST_INSECURE_CKKS)
    x = ev.fresh((1, 2), 4.0)
    steps = [x, ev.add(x, x), ev.mul_plain(x, 3.0), ev.matmul_plain(x, [[3.0], [3.0]]), ev.mul(x, x), ev.rerandomize(x)]
    errors = [ev.error_bound(step) for step in steps]
    assert all(error > errors[0] > 0 for error in errors[1:])
    assert ev.error_bound(ev.sub(x, x)) > ev.error_bound(ev.sub(x, ev.fresh((1, 2), 4.0)))


def test_clear_floats_have_no_error() -> None:
    ev = DryEvaluator(ClearParameters())
    x = ev.fresh((1, 1), 4.0)
    assert ev.error_bound(x) == 0.0
    # A plaintext factor is rounded to its scale in the books of every scheme.
    assert ev.error_bound(ev.mul_plain(x, 2.0)) < 2.0**-38
