"""The price of an operation: every operation of every scheme, alone and with full slots."""

from __future__ import annotations

import pandas as pd
import pytest

from hepipe.study import primitives
from hepipe.study.primitives import OPERATIONS, measure_primitives, primitive_table, side_by_side, slot_curve

QUICK = {"repeats": 1, "security_bits": 0}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return primitive_table("clear,paillier,ckks", **QUICK)


def test_every_operation_is_timed_alone_and_filled(table: pd.DataFrame) -> None:
    assert len(table) == 3 * 2 * len(OPERATIONS)
    assert (table["ms"] > 0).all()
    for _, row in table.iterrows():
        assert row["ms per value"] * row["samples"] == pytest.approx(row["ms"])
        assert row["samples"] == (row["slots"] if row["filled"] else 1)
    assert set(table.loc[table["scheme"] != "clear", "security bits"]) == {"insecure"}


def test_a_product_is_a_round_on_paillier_and_a_level_on_ckks(table: pd.DataFrame) -> None:
    products = table[(table["operation"] == "multiply two ciphertexts") & ~table["filled"]].set_index("scheme")
    assert products["rounds"].to_dict() == {"clear": 0, "paillier": 1, "ckks": 0}
    assert products["levels"].to_dict() == {"clear": 1, "paillier": 1, "ckks": 1}
    assert products.loc["paillier", "slots"] == 1
    assert products.loc["paillier", "KiB"] > 3 * 1024 / 4 / 1024  # two factors down, one product up
    sums = table[table["operation"] == "add two ciphertexts"]
    assert (sums["levels"] == 0).all()
    assert (sums["rounds"] == 0).all()


def test_sizes_are_those_of_frames(table: pd.DataFrame) -> None:
    paillier = table[(table["scheme"] == "paillier") & (table["operation"] == "encrypt")]
    assert (paillier["KiB"] * 1024 > 1024 // 4).all()
    assert paillier["KiB"].nunique() == 1  # a full ciphertext is as large as an empty one


def test_slots_make_a_value_cheaper(table: pd.DataFrame) -> None:
    for scheme in ("paillier", "ckks"):
        costs = table[(table["scheme"] == scheme) & (table["operation"] == "re-randomise")].set_index("filled")
        assert costs.loc[True, "ms per value"] < costs.loc[False, "ms per value"] / 3


def test_any_number_of_values_can_be_asked_for() -> None:
    table = measure_primitives("ckks", samples=700, **QUICK)
    assert set(table["samples"]) == {700}
    assert list(table["operation"]) == list(OPERATIONS)


def test_side_by_side_has_a_row_an_operation(table: pd.DataFrame) -> None:
    wide = side_by_side(table)
    assert list(wide["operation"]) == list(OPERATIONS)
    assert wide.shape == (len(OPERATIONS), 1 + 3 * 3)
    assert wide.notna().all(axis=None)


def test_the_curve_goes_beyond_the_slots() -> None:
    curve = slot_curve("ckks", **QUICK)
    slots = int(curve["slots"].iloc[0])
    assert curve["values"].iloc[0] == 1
    assert slots in set(curve["values"])
    assert curve["values"].iloc[-1] == 4 * slots
    assert curve["values"].is_monotonic_increasing
    assert curve["ms per value"].iloc[-1] < curve["ms per value"].iloc[0] / 10


def test_the_factor_is_no_power_of_two() -> None:
    assert 0 < primitives.FACTOR < 1
    assert (primitives.FACTOR * 2**20) % 1 != 0
