"""Every notebook runs in the smoke profile, through the runner that readers use, and leaves what it should."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from hepipe.study.batch import Outcome, plan_batch, run_batch

ROOT = Path(__file__).resolve().parents[2]
COMPARING = [
    "01_salary_linear",
    "02_chd_logistic",
    "03_chd_tree",
    "04_salary_network",
    "05_chd_mlp",
    "06_kmeans",
    "07_chd_training",
    "08_network",
    "10_salary_owners",
    "11_heart_trees",
    "12_remote_prediction",
]
SUITE = ["00_two_schemes", *COMPARING, "09_summary"]
COLUMNS = {
    "scheme",
    "policy",
    "security bits",
    "metric clear",
    "metric encrypted",
    "agreement",
    "precision bits (min)",
    "approximation error",
    "one: total ms",
    "batch: total ms",
    "rounds",
    "KiB up",
    "KiB down",
    "key MiB",
    "reveals",
}
FIGURES = 4


def test_the_suite_is_complete() -> None:
    stems = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert stems >= set(SUITE)


@pytest.mark.slow
@pytest.mark.notebooks
def test_every_notebook_runs_in_the_smoke_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcomes = run_batch(plan_batch(profile="smoke", out=tmp_path))
    for outcome in outcomes:
        print(f"{outcome.name}: {outcome.seconds:.1f} s of 30 s")
    assert {outcome.name: outcome.error for outcome in outcomes if outcome.error} == {}
    for outcome in outcomes:
        check_executed(outcome)
    for outcome in outcomes:
        if outcome.name in COMPARING:
            check_closing_table(outcome.folder)


def check_executed(outcome: Outcome) -> None:
    executed = nbformat.read(outcome.folder / f"{outcome.name}.ipynb", as_version=4)
    nbformat.validate(executed)
    assert len(list(outcome.folder.glob("*.png"))) <= FIGURES
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    noise = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert [text for text in noise if "SyntheticDataWarning" not in text] == [], f"{outcome.name} writes to stderr"
    assert str(ROOT) not in (outcome.folder / f"{outcome.name}.ipynb").read_text(encoding="utf-8")


def check_closing_table(folder: Path) -> None:
    table = pd.read_csv(folder / "table.csv", keep_default_na=False)
    assert set(table.columns) >= COLUMNS
    assert set(table["scheme"]) == {"clear", "paillier", "ckks"}
    assert set(table.loc[table["scheme"] != "clear", "security bits"]) == {"insecure"}, "test keys are not marked"
    assert (2.0 ** -table["precision bits (min)"].astype(float) <= 1e-3).all(), "a score is off by more than 1e-3"
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert {"machine", "commit", "data"} <= set(run)
    assert str(ROOT) not in json.dumps(run)
