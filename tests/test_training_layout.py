"""Turned diagonals: both products with a matrix, exactly, with the rotations and key switches that are promised."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.errors import Unsupported
from hepipe.schemes.base import CipherTensor, FloatArray, KeySet
from hepipe.schemes.ckks import CkksEvaluator, CkksScheme
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import CkksParameters, ClearParameters
from hepipe.training.layout import Columns, Diagonals, Layout
from tails import worst_of_many

SMALL = CkksParameters(1024, (56, 36, 36, 36, 60), 36.0, insecure=True)
CLEAR = ClearScheme(ClearParameters(depth=8))


class Counting:
    """SEAL's evaluator, counting what is called."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls = inner, dict.fromkeys(("rotate_vector", "relinearize_inplace"), 0)

    def __getattr__(self, name: str) -> Any:
        if name in self.calls:
            self.calls[name] += 1
        return getattr(self.inner, name)


@cache
def ckks(columns: int) -> tuple[Diagonals, CkksScheme, KeySet]:
    layout = Diagonals(columns, SMALL.slots)
    scheme = CkksScheme(dataclasses.replace(SMALL, rotations=layout.rotations))
    return layout, scheme, scheme.keygen()


def products(layout: Layout, scheme: Any, keys: KeySet, ev: Any, rows: FloatArray, v: FloatArray) -> list[FloatArray]:
    """M v, M^T 1 and 0.5 * M^T (u s) with s = u + 1, decrypted."""
    encryptor, decryptor = scheme.encryptor(keys.secret), scheme.decryptor(keys.secret)
    data = [encryptor.encrypt(values, 1.0) for values in layout.arrange(rows)]
    weights = encryptor.encrypt(laid_out(layout, v), 1.0)
    u = layout.scores(ev, data, weights)
    s = [ev.add(block, 1.0) for block in u]
    gradient = layout.gradient(ev, data, u, s, 0.5)
    scores = np.concatenate([decryptor.decrypt(block).ravel() for block in u])[: len(rows)]
    return [scores, *(layout.weights(decryptor.decrypt(x)) for x in (layout.totals(ev, data), gradient))]


def laid_out(layout: Layout, v: FloatArray) -> FloatArray:
    if isinstance(layout, Columns):
        return v[None, :]
    assert isinstance(layout, Diagonals)
    period = np.pad(v, (0, layout.padded - layout.columns))
    return np.tile(period, layout.slots // layout.padded)[:, None]


def expected(rows: FloatArray, v: FloatArray) -> list[FloatArray]:
    u = rows @ v
    return [u, rows.sum(axis=0), 0.5 * rows.T @ (u * (u + 1))]


def example(rows: int, columns: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (rows, columns)), rng.uniform(-1, 1, columns) / columns


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_both_layouts_give_both_products(rows: int, columns: int, spare: int, seed: int) -> None:
    matrix, v = example(rows, columns, seed)
    padded = Diagonals(columns, 1 << 20).padded
    for layout in (Diagonals(columns, padded << spare), Columns(columns)):  # few slots make several blocks
        keys = CLEAR.keygen()
        found = products(layout, CLEAR, keys, CLEAR.evaluator(keys), matrix, v)
        for got, want in zip(found, expected(matrix, v), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * rows)


@pytest.mark.parametrize(("rows", "columns"), [(512, 16), (700, 5), (3, 2), (100, 9)])
def test_ckks_agrees_to_its_planned_error(rows: int, columns: int) -> None:
    layout, scheme, keys = ckks(columns)
    matrix, v = example(rows, columns, seed=columns)
    found = products(layout, scheme, keys, scheme.evaluator(keys), matrix, v)
    for got, want, bound in zip(found, expected(matrix, v), planned_errors(layout, scheme, rows), strict=True):
        error = np.abs(got - want).max()
        assert 0 < error <= bound


def planned_errors(layout: Diagonals, scheme: CkksScheme, rows: int) -> list[float]:
    dry = DryEvaluator(scheme.parameters)
    data = [dry.fresh(shape, 1.0) for shape in layout.shapes(rows)]
    u = layout.scores(dry, data, dry.fresh((layout.slots, 1), 1.0))
    s = [dry.add(block, 1.0) for block in u]
    results = [u[0], layout.totals(dry, data), layout.gradient(dry, data, u, s, 0.5)]
    return [worst_of_many(dry, x) for x in results]


@pytest.mark.parametrize(("rows", "columns"), [(512, 16), (700, 5), (40, 9)])
def test_key_switches_are_those_of_the_docstring(rows: int, columns: int) -> None:
    layout, scheme, keys = ckks(columns)
    ev = CkksEvaluator(keys.public, keys.evaluation)
    counting = ev._seal = Counting(ev._seal)
    matrix, v = example(rows, columns, 0)
    products(layout, scheme, keys, ev, matrix, v)
    count, b, g = len(layout.shapes(rows)), layout.babies, layout.giants
    windows = int(math.log2(layout.slots / layout.padded))
    scores = b - 1 + (2 * g - 1) * count
    totals = b - 1 + windows
    gradient = (layout.padded + 2 * g - 2) * count + 2 * b - 1 + windows
    assert sum(counting.calls.values()) == scores + totals + gradient


def test_a_step_on_15_features_is_far_below_a_full_sum_for_every_column() -> None:
    layout = Diagonals(16, 8192)
    assert (layout.padded, layout.babies, layout.giants) == (16, 4, 4)
    assert layout.rotations == (-4, -1, 1, 4, *(16 << i for i in range(9)))
    dry = DryEvaluator(CkksParameters(16384, (54, *(46,) * 3, 60), 46.0, rotations=layout.rotations))
    data = [dry.fresh(shape, 1.0) for shape in layout.shapes(3390)]
    u = [x.with_bound(np.ones(1)) for x in layout.scores(dry, data, dry.fresh((8192, 1), 1.0))]
    layout.gradient(dry, data, u, u, 2.0**-12)
    assert dry.operations["rotate"] == 24  # and 24 relinearizations, against 16 * 13 rotations for full sums


def test_no_galois_key_beyond_those_named_is_there() -> None:
    _, scheme, keys = ckks(16)
    x = scheme.encryptor(keys.secret).encrypt(np.ones((SMALL.slots, 1)), 1.0)
    with pytest.raises(Unsupported, match="no Galois key rotates by 2"):
        scheme.evaluator(keys).rotate(x, 2)


def test_every_slot_of_a_gradient_holds_a_weight_and_no_partial_sum() -> None:
    layout, scheme, keys = ckks(5)
    matrix, _ = example(100, 5, 1)
    data = [scheme.encryptor(keys.secret).encrypt(values, 1.0) for values in layout.arrange(matrix)]
    slots = scheme.decryptor(keys.secret).decrypt(layout.totals(scheme.evaluator(keys), data))
    period = np.pad(matrix.sum(axis=0), (0, 3))
    assert np.abs(slots[:, 0] - np.tile(period, SMALL.slots // 8)).max() < 2.0**-12


def test_blocks_share_the_last_key_switches() -> None:
    layout = Diagonals(16, 512)
    counts = []
    for rows in (512, 1024):
        dry = DryEvaluator(dataclasses.replace(SMALL, rotations=layout.rotations))
        layout.totals(dry, [dry.fresh(shape, 1.0) for shape in layout.shapes(rows)])
        counts.append(dry.operations["rotate"])
    assert counts[0] == counts[1]


def total(x: CipherTensor, scheme: CkksScheme, keys: KeySet) -> FloatArray:
    return np.asarray(scheme.decryptor(keys.secret).decrypt(x))


def test_a_sum_of_products_is_relinearized_once_and_its_parts_stay_usable() -> None:
    _, scheme, keys = ckks(5)
    ev = CkksEvaluator(keys.public, keys.evaluation)
    counting = ev._seal = Counting(ev._seal)
    values = np.linspace(-1, 1, 20).reshape(10, 2)
    x = scheme.encryptor(keys.secret).encrypt(values, 1.0)
    square, cross = ev.mul(x, x), ev.mul(x, ev.take(x, [1, 0]))
    together, apart = ev.add(square, cross), ev.sub(square, square)
    assert counting.calls["relinearize_inplace"] == 0
    np.testing.assert_allclose(total(together, scheme, keys), values**2 + values * values[:, ::-1], atol=2.0**-18)
    assert counting.calls["relinearize_inplace"] == 2  # one a column
    np.testing.assert_allclose(total(apart, scheme, keys), 0, atol=2.0**-18)
    np.testing.assert_allclose(total(square, scheme, keys), values**2, atol=2.0**-18)
