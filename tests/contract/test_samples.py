"""The contract of what moves and adds samples: rotations and sums, on every scheme that declares them, and dry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepipe.errors import BudgetExhausted, OutOfRange, ShapeMismatch, Unsupported
from hepipe.schemes.base import CipherTensor, Feature
from hepipe.schemes.fixedpoint import to_fixed
from tails import worst_of_many

if TYPE_CHECKING:
    from conftest import Party

FloatArray = npt.NDArray[np.float64]
RNG = np.random.default_rng(20240608)
shared: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


class Pair:
    """A tensor and its dry twin, walked through one circuit together."""

    def __init__(self, party: Party, x: CipherTensor, dry: CipherTensor) -> None:
        self.party, self.x, self.dry = party, x, dry

    def __getattr__(self, name: str) -> Any:
        def step(*arguments: Any) -> Pair:
            twins = [a.dry if isinstance(a, Pair) else a for a in arguments]
            reals = [a.x if isinstance(a, Pair) else a for a in arguments]
            dry = getattr(self.party.dry(), name)(self.dry, *twins)
            return Pair(self.party, getattr(self.party.evaluator, name)(self.x, *reals), dry)

        return step

    def check(self, expected: FloatArray) -> None:
        """Right to within the planned error; books alike."""
        assert (self.x.shape, self.x.level, self.x.log_scale) == (self.dry.shape, self.dry.level, self.dry.log_scale)
        assert np.allclose(self.x.bound, self.dry.bound, rtol=1e-12)
        found = self.party.decryptor.decrypt(self.x)
        assert found.shape == expected.shape == self.x.shape
        slack = 2.0**-45 * max(1.0, float(np.abs(expected).max()))
        assert np.abs(found - expected).max() <= worst_of_many(self.party.dry(), self.dry) + slack


def fresh(party: Party, values: FloatArray, bound: float = 8.0) -> Pair:
    return Pair(party, party.encryptor.encrypt(values, bound), party.dry().fresh(values.shape, bound))


def rows(samples: int, features: int = 2) -> FloatArray:
    return RNG.uniform(-8, 8, (samples, features))


def test_real_and_dry_features_agree_on_samples(small: Party) -> None:
    both = Feature.SUM_SAMPLES | Feature.ROTATE
    assert small.evaluator.features & both == small.scheme.features & both == small.dry().features & both


def test_what_is_not_declared_is_refused_with_the_way_out(small: Party) -> None:
    for ev, x in ((small.evaluator, fresh(small, rows(3)).x), (small.dry(), fresh(small, rows(3)).dry)):
        if Feature.SUM_SAMPLES not in small.scheme.features:
            with pytest.raises(Unsupported, match=r"lanes=1|CkksParameters"):
                ev.sum_samples(x)
        if Feature.ROTATE not in small.scheme.features:
            with pytest.raises((Unsupported, ShapeMismatch), match=r"lanes|pad to slots"):
                ev.rotate(x, 1)


@settings(max_examples=15, **shared)
@given(samples=st.just(512) | st.integers(1, 600), step=st.sampled_from([1, -1]))
def test_sums_are_right_linear_and_unmoved_by_rotation(summing: Party, samples: int, step: int) -> None:
    party = summing
    samples = samples % 13 + 1 if party.parameters.name == "paillier" else samples
    a, b = rows(samples), rows(samples)
    x, y = fresh(party, a), fresh(party, b)
    x.sum_samples().check(a.sum(axis=0, keepdims=True))
    assert x.sum_samples().x.level == x.x.level
    assert (x.sum_samples().x.bound == 8.0 * samples).all()
    x.add(y).sum_samples().check((a + b).sum(axis=0, keepdims=True))
    x.sum_samples().add(y.sum_samples()).check((a + b).sum(axis=0, keepdims=True))
    if party.parameters.name == "clear" or (party.parameters.name, samples) == ("ckks", party.parameters.slots):
        x.rotate(step).sum_samples().check(a.sum(axis=0, keepdims=True))


@settings(max_examples=10, **shared)
@given(samples=st.integers(1, 1100), k=st.integers(1, 3))
def test_weighted_sums_are_right_feature_by_feature(summing: Party, samples: int, k: int) -> None:
    party = summing
    samples = samples % 13 + 1 if party.parameters.name == "paillier" else samples
    values, weights = rows(samples), RNG.uniform(-2, 2, (samples, k))
    x = fresh(party, values)
    total = x.sum_samples(weights)
    total.check((values.T @ weights).reshape(1, -1))
    assert total.x.level == x.x.level - 1
    assert (total.x.bound[:k] >= 8.0 * np.abs(weights).sum(axis=0)).all()
    if party.exact:
        scaled = to_fixed(weights, party.parameters.log_plain_scale)
        exact = (to_fixed(values, party.parameters.log_scale).T @ scaled).reshape(1, -1)
        decryptor: Any = party.decryptor
        assert decryptor.decrypt_integers(total.x).tolist() == exact.tolist()


def test_sums_of_the_sum_and_with_no_weight_are_still_right(summing: Party) -> None:
    party, values = summing, rows(5)
    once = fresh(party, values).sum_samples()
    once.sum_samples().check(values.sum(axis=0, keepdims=True))
    once.sum_samples([[0.5]]).check(values.sum(axis=0, keepdims=True) / 2)
    fresh(party, values).sum_samples(np.zeros((5, 1))).check(np.zeros((1, 2)))


def test_what_was_added_to_all_samples_is_not_summed_over_empty_slots(summing: Party) -> None:
    """A constant that is written into every slot would be counted once an empty slot: 512 times here, not 5."""
    party, values = summing, rows(5)
    fresh(party, values).add(1.0).sum_samples().check(values.sum(axis=0, keepdims=True) + 5)
    fresh(party, values).sub(np.array([1.0, -2.0])).sum_samples().check(
        values.sum(axis=0, keepdims=True) + np.array([-5.0, 10.0])
    )
    moved = fresh(party, values).mul_plain(0.5).add(3.0)
    moved.sum_samples().check(values.sum(axis=0, keepdims=True) / 2 + 15)
    if party.multiplies:
        one = fresh(party, values).add(1.0)
        one.mul(one).sum_samples().check(((values + 1) ** 2).sum(axis=0, keepdims=True))


@pytest.mark.parametrize("samples", [511, 512, 513, 1024])
def test_blocks_are_added_before_they_are_folded(rotating: Party, samples: int) -> None:
    party = rotating
    values, dry = rows(samples), party.dry()
    fresh(party, values).add(1.0).sum_samples().check(values.sum(axis=0, keepdims=True) + samples)
    dry.sum_samples(dry.fresh(values.shape, 8.0))
    assert dry.operations["rotate"] == 2 * 9
    assert dry.operations["add"] == 2 * (9 + (samples > 512))
    weights = np.ones((samples, 2))
    dry.sum_samples(dry.fresh(values.shape, 8.0), weights)
    assert dry.operations["rotate"] == 2 * 9 + 4 * 9
    assert dry.operations["rescale"] == 4


def test_sums_are_checked_before_any_arithmetic(summing: Party) -> None:
    party = summing
    x = fresh(party, rows(3))
    for weights in (np.ones(3), np.ones((2, 1)), np.ones((3, 0))):
        with pytest.raises(ShapeMismatch, match=r"use \(samples, k\)"):
            party.evaluator.sum_samples(x.x, weights)
    with pytest.raises(OutOfRange, match="finite"):
        party.evaluator.sum_samples(x.x, [[np.nan], [0.0], [1.0]])
    for _ in range(party.parameters.depth):
        x = x.mul_plain(1.0)
    with pytest.raises(BudgetExhausted, match="sum_samples needs 1 level"):
        x.sum_samples(np.ones((3, 1)))
    if party.parameters.name != "clear":
        largest = x.x.with_bound(np.full(2, 2.0 ** (party.parameters.capacity_bits(0) - x.x.log_scale - 1)))
        with pytest.raises(OutOfRange, match="sum_samples"):
            party.evaluator.sum_samples(largest)
