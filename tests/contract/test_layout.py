"""The contract of what moves columns and selects values: the same on every scheme, the dry run included."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import Party
from hepipe.errors import MalformedFrame, OutOfRange, ScaleMismatch, ShapeMismatch, Unsupported
from hepipe.schemes.base import Feature
from hepipe.schemes.frames import BLINDED, Kind, parse
from hepipe.schemes.wire import pack_tensor, unpack_tensor

VALUES = np.array([[1.0, -2.0, 3.5], [0.0, 4.0, -0.25]])


def test_take_is_numpy_s_and_costs_nothing(small: Party) -> None:
    x, dry = small.encryptor.encrypt(VALUES, [1.0, 4.0, 3.5]), small.dry()
    y = small.evaluator.take(x, [2, 0, 2])
    planned = dry.take(dry.fresh(VALUES.shape, [1.0, 4.0, 3.5]), [2, 0, 2])
    assert np.abs(small.decryptor.decrypt(y) - VALUES[:, [2, 0, 2]]).max() < 1e-3
    assert (
        (y.shape, y.level, y.log_scale)
        == (planned.shape, planned.level, planned.log_scale)
        == ((2, 3), x.level, x.log_scale)
    )
    assert y.bound.tolist() == planned.bound.tolist() == [3.5, 1.0, 3.5]
    assert set(dry.operations) == {"encrypt"}


def test_join_stands_tensors_side_by_side_at_their_lowest_level(small: Party) -> None:
    ev, dry = small.evaluator, small.dry()
    x, planned = small.encryptor.encrypt(VALUES, 4.0), dry.fresh(VALUES.shape, 4.0)
    y = ev.join([x, ev.take(x, [0])])
    other = dry.join([planned, dry.take(planned, [0])])
    assert np.abs(small.decryptor.decrypt(y) - VALUES[:, [0, 1, 2, 0]]).max() < 1e-3
    assert (y.shape, y.level, y.bound.tolist()) == (other.shape, other.level, other.bound.tolist())
    lower = ev.mul_plain(x, 1.0, log_scale=x.log_scale + 1)
    with pytest.raises(ScaleMismatch, match="wrong number"):
        ev.join([x, lower])


@pytest.mark.parametrize("columns", [[], [3], [-1]])
def test_columns_that_are_not_there_are_refused(small: Party, columns: list[int]) -> None:
    x = small.encryptor.encrypt(VALUES, 4.0)
    with pytest.raises(ShapeMismatch, match="of 3 features"):
        small.evaluator.take(x, columns)


def test_other_samples_cannot_stand_beside(small: Party) -> None:
    x, y = small.encryptor.encrypt(VALUES, 4.0), small.encryptor.encrypt(VALUES[:1], 4.0)
    with pytest.raises(ShapeMismatch, match="side by side"):
        small.evaluator.join([x, y])


COSTS = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 2.0, 0.0]])
CHOICES = np.array([10.0, -20.5, 0.25])


def test_select_gives_the_value_whose_cost_is_zero_or_says_why_not(small: Party) -> None:
    ev = small.evaluator
    costs = small.encryptor.encrypt(COSTS, 4.0)
    if Feature.SELECT not in ev.features:
        with pytest.raises(Unsupported, match="products of indicators"):
            ev.select(costs, CHOICES)
        return
    if small.parameters.slots != 1 and small.parameters.name == "paillier":
        with pytest.raises(Unsupported, match="lanes=1"):
            ev.select(costs, CHOICES)
        return
    chosen = ev.rerandomize(ev.select(costs, CHOICES))
    assert small.decryptor.decrypt(chosen)[:, 0].tolist() == [-20.5, 10.0, 0.25]
    with pytest.raises(ShapeMismatch, match="give one a column"):
        ev.select(costs, CHOICES[:2])


TWO_GROUPS = np.array([[0.0, 2.0, 1.0, 0.0], [3.0, 0.0, 0.0, 1.0]])
SUMMANDS = np.array([10.0, -20.5, 0.25, 4.0])


def test_select_from_groups_gives_the_sum_of_their_values(small: Party) -> None:
    ev, costs = small.evaluator, small.encryptor.encrypt(TWO_GROUPS, 4.0)
    if Feature.SELECT not in ev.features or (small.parameters.slots != 1 and small.parameters.name == "paillier"):
        with pytest.raises(Unsupported):
            ev.select(costs, SUMMANDS, 2)
        return
    chosen, dry = ev.rerandomize(ev.select(costs, SUMMANDS, 2)), small.dry()
    planned = dry.select(dry.fresh(TWO_GROUPS.shape, 4.0), SUMMANDS, 2)
    assert small.decryptor.decrypt(chosen)[:, 0].tolist() == [14.0, -20.25]
    assert set(chosen.bound) == set(planned.bound) == {30.5}
    assert (chosen.level, chosen.log_scale) == (0, planned.log_scale)
    for groups in (0, 3):
        with pytest.raises(ShapeMismatch, match=f"do not make {groups} groups"):
            ev.select(costs, SUMMANDS, groups)


@pytest.fixture
def one_lane() -> Party:
    from conftest import SMALL, party_of

    return party_of(SMALL["paillier-one-lane"])


def test_a_selected_value_travels_blinded_and_takes_no_arithmetic(one_lane: Party) -> None:
    ev = one_lane.evaluator
    chosen = ev.rerandomize(ev.select(one_lane.encryptor.encrypt(COSTS, 4.0), CHOICES))
    frame = pack_tensor(chosen, one_lane.bundle)
    assert parse(frame, Kind.TENSOR).flags == BLINDED
    assert one_lane.decryptor.decrypt(unpack_tensor(frame, one_lane.bundle))[:, 0].tolist() == [-20.5, 10.0, 0.25]
    for call in (lambda: ev.add(chosen, 1.0), lambda: ev.mul_plain(chosen, 2.0), lambda: ev.take(chosen, [0])):
        with pytest.raises(Unsupported, match="select last"):
            call()


def test_a_row_without_one_cost_of_zero_is_an_error_and_not_a_number(one_lane: Party) -> None:
    ev = one_lane.evaluator
    for row in ([[1.0, 2.0, 3.0]], [[0.0, 0.0, 1.0]]):
        chosen = ev.rerandomize(ev.select(one_lane.encryptor.encrypt(np.array(row), 4.0), CHOICES))
        with pytest.raises(OutOfRange, match="where one is selected"):
            one_lane.decryptor.decrypt(chosen)


def test_only_paillier_with_one_lane_may_say_that_it_blinds(encrypting: Party) -> None:
    from dataclasses import replace

    x = encrypting.evaluator.rerandomize(encrypting.encryptor.encrypt(np.ones((2, 1)), 2.0))
    frame = pack_tensor(replace(x, blinded=1), encrypting.bundle)
    if encrypting.parameters.name == "paillier" and encrypting.parameters.lanes == 1:
        assert unpack_tensor(frame, encrypting.bundle).blinded == 1
        return
    with pytest.raises(MalformedFrame):
        unpack_tensor(frame, encrypting.bundle)
