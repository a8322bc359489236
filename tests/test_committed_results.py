"""The committed results of the full profile, on real data at secure sizes: as exact as the suite promises.

What depends on the machine, time, is not held here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

FULL = Path(__file__).parent.parent / "results" / "full"
RUNS = sorted(FULL.glob("**/run.json"))
BINNED = r"decision tree|forest of \d+ trees"


def measurements() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every comparison and each of its schemes."""
    for path in RUNS:
        for compared in json.loads(path.read_text(encoding="utf-8"))["comparisons"]:
            for measured in compared["measurements"]:
                yield compared, measured


def training(name: str) -> pd.DataFrame:
    return pd.read_csv(FULL / "07_chd_training" / f"{name}.csv").set_index("way")


def test_every_integer_of_paillier_is_that_of_the_reference() -> None:
    found = [measured["errors"]["exact_integers"] for _, measured in measurements() if measured["scheme"] == "paillier"]
    assert len(found) > 25
    assert all(found)


def test_no_score_is_off_by_more_than_its_plan_allowed() -> None:
    for compared, measured in measurements():
        errors = measured["errors"]
        assert errors["scheme_error"] <= min(errors["bound"], 1e-3), (compared["model"], measured["scheme"])


def test_trees_on_bins_and_labels_agree() -> None:
    table = pd.concat([pd.read_csv(path.with_name("table.csv")) for path in RUNS])
    trees = table[table["model"].str.fullmatch(BINNED) & (table["scheme"] != "clear")]
    assert set(trees["scheme"]) == {"paillier", "ckks"}
    assert (trees["agreement"] == 1).all()
    assert (table.loc[table["metric"] == "accuracy", "agreement"] >= 0.999).all()


def test_no_row_changes_its_cluster_but_near_a_tie() -> None:
    ties = pd.read_csv(FULL / "06_kmeans" / "ties.csv")
    assert (ties["ckks: another cluster, %"] <= ties["within the gap, %"]).all()


@pytest.mark.parametrize(
    ("way", "auc", "weights"),
    [("3 steps, nothing decrypted", 0.005, 1e-3), ("20 steps, refreshed", 0.002, 1e-3)],
)
def test_encrypted_training_on_chd_comes_to_the_converged_model(way: str, auc: float, weights: float) -> None:
    found = training("training").loc[way]
    assert (found["security bits"], found["rows"]) == (128, 3390)
    assert abs(found["AUC - converged"]) <= auc
    assert found["largest error of a weight"] <= weights


def test_the_fit_of_three_owners_is_that_of_the_pooled_rows() -> None:
    fits = pd.read_csv(FULL / "10_salary_owners" / "weights.csv").set_index("fit")
    assert (fits.loc[["sums", "masked"], "difference"] <= 1e-9).all()
