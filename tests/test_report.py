"""Tables say what they must, and what is written can be read back, quoted and trusted."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hepipe
from hepipe.errors import DataError, OutOfRange
from hepipe.models.linear import linear_regression, logit_model
from hepipe.models.schema import Column, Schema
from hepipe.study import report
from hepipe.study.captions import Table, cell, data_text, findings, footer
from hepipe.study.compare import Comparison
from hepipe.study.datasets import Dataset
from hepipe.study.measure import NETWORKS, Measurement, Stopwatch
from hepipe.study.queries import Here
from hepipe.study.tables import STAGES, gap, security

COLUMNS = [
    *("scheme", "policy", "model", "samples", "security bits", "metric", "metric clear", "metric encrypted"),
    *("agreement", "precision bits (min)", "approximation error"),
    *(f"one: {name} ms" for name in (*STAGES, "total")),
    "one: spread ±%",
    *(f"batch: {name} ms" for name in (*STAGES, "total")),
    "batch: spread ±%",
    *("rounds", "KiB up", "KiB down", "key MiB", "reveals"),
]
ROWS = 12


@pytest.fixture(scope="module")
def compared() -> Comparison:
    """A logistic regression on all schemes, with test keys."""
    rng = np.random.default_rng(1)
    X = rng.uniform(-1, 1, (ROWS, 3))
    model = logit_model([1.0, -2.0, 0.5], 0.1, (0, 1), Schema(tuple(Column(name, -1, 1) for name in "abc")))
    y = (X @ [1.0, -2.0, 0.5] + 0.1 + rng.normal(0, 0.3, ROWS) > 0).astype(int)
    return hepipe.compare(model, X, y, repeats=2, security_bits=0, progress="off")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    schema = Schema((Column("a", 0, 1),))
    return Dataset(
        "toy", "a toy", False, "ab" * 32, pd.DataFrame({"a": [0]}), pd.Series([1]), schema, schema.columns[0]
    )


def changed(compared: Comparison, **fields: object) -> Comparison:
    """The comparison with every measurement altered."""
    return replace(compared, measurements=[replace(item, **fields) for item in compared.measurements])  # type: ignore[arg-type]


def by_scheme(compared: Comparison) -> dict[str, Measurement]:
    return {item.scheme: item for item in compared.measurements}


def test_the_closing_table_has_the_same_columns_everywhere(compared: Comparison) -> None:
    table = compared.table()
    assert list(table.columns) == COLUMNS
    assert list(table["scheme"]) == ["clear", "paillier", "ckks"]
    assert list(report.closing_table(compared, compared).columns) == COLUMNS
    assert len(report.closing_table(compared, compared)) == 6


def test_one_row_is_its_own_batch_and_is_measured_once() -> None:
    model = logit_model([1.0, -2.0], 0.1, (0, 1), Schema((Column("a", -1, 1), Column("b", -1, 1))))
    (measured,) = hepipe.compare(model, [[0.5, 0.25]], schemes="ckks", repeats=2, progress="off").measurements
    assert measured.batch == measured.one
    assert (measured.batch.samples, len(measured.batch.totals)) == (1, 2)


def test_one_row_warms_up_and_nothing_else_goes_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, query = [], Here.query

    def counted(parties: Here, X: Any, watch: Stopwatch) -> Any:
        sizes.append(len(X))
        return query(parties, X, watch)

    monkeypatch.setattr(Here, "query", counted)
    model = linear_regression([1.0, -2.0], 0.1, Schema((Column("a", -1, 1), Column("b", -1, 1))))
    (found,) = hepipe.compare(model, [[0.5, 0.25]] * 3, schemes="clear", repeats=2, progress="off").measurements
    assert sizes == [1, 1, 1, 3, 3]
    assert (len(found.one.totals), len(found.batch.totals)) == (2, 2)


def test_what_is_never_timed_is_refused() -> None:
    model = linear_regression([1.0, -2.0], 0.1, Schema((Column("a", -1, 1), Column("b", -1, 1))))
    with pytest.raises(OutOfRange, match="at least once"):
        hepipe.compare(model, [[0.5, 0.25]], schemes="clear", repeats=0)


def test_a_single_value_has_no_r2_and_no_warning_either() -> None:
    model = linear_regression([1.0, -2.0], 0.1, Schema((Column("a", -1, 1), Column("b", -1, 1))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = hepipe.compare(model, [[0.5, 0.25]], [0.1], schemes="clear", repeats=1, progress="off").measurements
    assert math.isnan(found.metric_encrypted)
    assert found.agreement == 1


def test_a_footer_names_the_models_of_as_many_rows_together(compared: Comparison) -> None:
    alone = replace(compared, model="another", samples=1)
    lines = report.footer(None, compared, replace(compared, model="a third"), alone).splitlines()
    name = compared.model
    assert lines[1].endswith(f". {name} and a third: 12 rows, metric accuracy; another: 1 row, metric accuracy")


def test_a_gap_sentence_leaves_out_the_baseline() -> None:
    rows = [{"model": name, "metric": "AUC", "minus a": d, "standard error": 0.1, "p": 0.25, "gap": "none"}
            for name, d in (("a", 0.0), ("b", 0.0125))]  # fmt: skip
    expected = "Fold for fold, minus a: b +0.0125 ± 0.1000 AUC (p = 0.25, gap none)."
    assert report.gap_sentence(pd.DataFrame(rows)) == expected


def test_security_is_a_number_or_says_why_not(compared: Comparison) -> None:
    assert list(compared.table()["security bits"]) == ["none", "insecure", "insecure"]
    secure = replace(by_scheme(compared)["ckks"], insecure=False, security_bits=128)
    assert security(secure) == 128


def test_times_are_medians_per_sample_and_add_up(compared: Comparison) -> None:
    item, row = by_scheme(compared)["ckks"], compared.table().set_index("scheme").loc["ckks"]
    assert row["batch: total ms"] == pytest.approx(np.median(item.batch.totals) / ROWS)
    assert row["one: total ms"] == pytest.approx(np.median(item.one.totals))
    wire = item.batch.median("upload") + item.batch.median("download")
    assert row["batch: wire ms"] == pytest.approx(wire / ROWS)
    # Two repeats: the median of sums is the sum of medians.
    assert sum(row[f"batch: {stage} ms"] for stage in STAGES) == pytest.approx(row["batch: total ms"])
    totals = item.one.totals
    assert row["one: spread ±%"] == pytest.approx(100 * (max(totals) - min(totals)) / 2 / np.median(totals))


def test_bytes_are_those_of_the_plan(compared: Comparison) -> None:
    for item, (_, row) in zip(compared.measurements, compared.table().iterrows(), strict=True):
        assert row["KiB up"] == item.bytes_up / 1024
        assert row["KiB down"] == item.bytes_down / 1024
        assert row["key MiB"] == item.key_bytes / 2**20


def test_the_error_budget_holds_and_paillier_is_exact(compared: Comparison) -> None:
    table = report.error_budget_table(compared).set_index("scheme")
    assert (table["scheme error"] <= table["scheme error allowed"]).all()
    assert (table["precision bits (min)"] >= table["precision bits promised"]).all()
    assert table.loc["paillier", "integers equal"] is True
    assert table.loc["ckks", "integers equal"] is None
    assert (table["approximation error"] == 0).all()


def test_the_cost_table_tells_offline_and_throughput(compared: Comparison) -> None:
    table = report.cost_table(compared).set_index("scheme")
    assert table.loc["paillier", "offline ms"] > 0
    assert table.loc["ckks", "offline ms"] == 0
    assert table.loc["clear", "rows a second"] == pytest.approx(1e3 * ROWS / table.loc["clear", "total ms"])
    assert "encrypt" in table.loc["paillier", "operations"]


def test_the_network_is_compute_and_round_trips_and_bytes(compared: Comparison) -> None:
    table = report.network_table(compared).set_index("scheme")
    item, path = by_scheme(compared)["paillier"], NETWORKS[1]
    wire = path.rtt_ms + 8e-3 * (item.bytes_up / path.up_mbit + item.bytes_down / path.down_mbit)
    assert table.loc["paillier", f"{path.name} ms"] == pytest.approx(item.batch.total + wire)


@pytest.mark.parametrize(
    ("disagreements", "p_value", "agreement", "verdict"),
    [
        ((0, 0), 1.0, 1.0, "none"),
        ((9, 0), 0.004, 0.9, "worse"),
        ((0, 9), 0.004, 0.9, "better"),
        ((1, 2), 1.0, 0.9, "none"),
        ((0, 0), 1.0, 0.9, "not tested"),
    ],
)
def test_a_gap_is_named_only_where_the_exact_test_finds_one(
    compared: Comparison, disagreements: tuple[int, int], p_value: float, agreement: float, verdict: str
) -> None:
    item = replace(compared.measurements[0], disagreements=disagreements, p_value=p_value, agreement=agreement)
    assert gap(item) == verdict


def test_the_paired_table_counts_who_was_right(compared: Comparison) -> None:
    table = report.paired_table(changed(compared, disagreements=(3, 1), p_value=0.625))
    assert list(table["only clear right"]) == [3, 3, 3]
    assert list(table["only encrypted right"]) == [1, 1, 1]
    assert set(table["gap"]) == {"none"}
    assert set(table["exact p"]) == {0.625}
    assert report.paired_table(replace(compared, metric="R2"))["exact p"].isna().all()  # values have no labels to count


def test_plans_are_shown_before_any_key() -> None:
    model = logit_model([1.0], 0.0, (0, 1), Schema((Column("a", -1, 1),)))
    plans = [
        hepipe.plan(model, name, 4, security_bits=bits) for name, bits in (("clear", 128), ("ckks", 128), ("ckks", 0))
    ]
    table = report.plan_table(*plans)
    assert list(table["security bits"]) == ["none", 128, "insecure"]
    assert (table["precision bits, at least"] >= 20).all()
    assert list(table["KiB up"]) == [plan.bytes_up / 1024 for plan in plans]


def test_the_footer_says_what_a_quotation_needs(compared: Comparison, dataset: Dataset) -> None:
    text = footer(dataset, compared)
    for part in (
        "INSECURE",
        "toy, real",
        "sha256 abab",
        f"{ROWS} rows",
        "accuracy",
        "2 repeats",
        "warm-up",
        "1 thread",
    ):
        assert part in text
    assert "modelled" in text


def test_the_footer_states_equal_security_or_denies_it(compared: Comparison, dataset: Dataset) -> None:
    equal = changed(compared, insecure=False, security_bits=128)
    assert "Security: 128 bits for paillier and ckks" in footer(dataset, equal)
    one = replace(equal, measurements=[*equal.measurements[:2], replace(equal.measurements[2], security_bits=192)])
    assert "NOT EQUAL: paillier 128 bits, ckks 192 bits" in footer(dataset, one)
    assert "nothing is encrypted" in footer(dataset, replace(equal, measurements=equal.measurements[:1]))


def test_generated_data_is_marked(compared: Comparison, dataset: Dataset) -> None:
    assert "SYNTHETIC" in footer(replace(dataset, synthetic=True), compared)
    assert "SYNTHETIC" not in footer(dataset, compared)
    assert "random numbers" in data_text(None)


def test_findings_are_at_most_four_and_every_number_is_measured(compared: Comparison) -> None:
    said = findings(changed(compared, insecure=False, security_bits=128))
    assert 1 <= len(said) <= 4
    item = by_scheme(compared)["ckks"]
    assert f"{item.metric_encrypted:.4f}" in said[0]
    assert f"{item.errors.precision_bits:.1f} bits" in said[1]
    assert "CKKS takes" in said[2]
    assert "times faster" in said[2]


def test_findings_without_targets_or_encryption(compared: Comparison) -> None:
    assert "nan" not in " ".join(findings(changed(compared, metric_clear=math.nan, metric_encrypted=math.nan)))
    assert len(findings(replace(compared, measurements=compared.measurements[:1]))) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((1.0, "1"), (0.85102, "0.851"), (123456.7, "123,457"), (4.2e-7, "4.20e-07"), (0.0, "0"), (3, "3")),
        *((math.inf, "exact"), (math.nan, "–"), (None, "–"), (True, "yes"), (False, "no"), ("none", "none")),
    ],
)
def test_cells_have_four_digits(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_wide_table_is_shown_on_its_side_with_its_footer(compared: Comparison, dataset: Dataset) -> None:
    shown = report.with_footer(compared.table(), dataset, compared)
    assert shown._repr_html_().count("<th>") > len(COLUMNS)
    assert "<script" not in Table(pd.DataFrame({"a": ["<script>"]}), "<script>")._repr_html_()
    lines = repr(shown).splitlines()
    assert lines[0].split() == ["scheme", "clear", "paillier", "ckks"]
    assert lines[-1].startswith("Counted:")
    narrow = repr(Table(pd.DataFrame({"a": [1.5], "metric clear": [0.85]})))
    assert "1.5" in narrow
    assert "0.8500" in narrow


def test_what_is_written_reads_back(compared: Comparison, dataset: Dataset, tmp_path: Path) -> None:
    folder = report.write(
        [compared, compared], dataset, tmp_path / "full" / "05_toy", tables={"more": pd.DataFrame({"x": [1]})}
    )
    assert sorted(path.name for path in folder.iterdir()) == ["more.csv", "run.json", "table.csv"]
    results = report.read_results(tmp_path / "full")
    closing = report.closing_table(compared, compared)
    assert list(results["notebook"]) == ["05_toy"] * 6
    assert list(results["data"].unique()) == ["toy"]
    assert not results["synthetic"].any()
    pd.testing.assert_series_equal(results["batch: total ms"], closing["batch: total ms"])
    written = pd.read_csv(folder / "table.csv")
    assert set(written.pop("data")) == {"toy"}
    pd.testing.assert_frame_equal(written, closing, check_dtype=False)


def test_only_the_schemes_asked_for_are_read(compared: Comparison, dataset: Dataset, tmp_path: Path) -> None:
    report.write(compared, dataset, tmp_path / "a")
    assert set(report.read_results(tmp_path, "ckks, clear")["scheme"]) == {"ckks", "clear"}
    assert report.read_results(tmp_path / "nothing").empty


def test_run_json_is_strict_and_complete(compared: Comparison, dataset: Dataset, tmp_path: Path) -> None:
    folder = report.write(changed(compared, metric_clear=math.nan), dataset, tmp_path / "a", name="a name")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    run = json.loads((folder / "run.json").read_text(), parse_constant=refuse)
    assert run["name"] == "a name"
    assert run["data"] == {"name": "toy", "source": "a toy", "sha256": "ab" * 32, "synthetic": False}
    assert run["machine"]["versions"]["tenseal"]
    assert len(run["date"]) == 10
    assert "commit" in run
    measured = run["comparisons"][0]["measurements"][2]
    assert measured["metric_clear"] is None
    assert len(measured["batch"]["phases"]["encrypt"]) == 2  # every repeat, not the median alone
    assert measured["parameters"]["poly_modulus_degree"] == 1024
    assert measured["errors"]["bound"] > 0


def test_what_json_cannot_hold_is_refused_before_anything_is_replaced() -> None:
    with pytest.raises(TypeError, match="has no place in run"):
        report.strict_json({"x": object()})
    text = report.strict_json({"x": [np.float64(1.5), np.int64(2), math.inf, (1, 2)]})
    assert json.loads(text)["x"] == [1.5, 2, None, [1, 2]]


def test_a_file_appears_whole_or_not_at_all(
    compared: Comparison, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = report.write(compared, dataset, tmp_path / "a")
    before = (folder / "table.csv").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write(changed(compared, agreement=0.0), dataset, tmp_path / "a")
    assert (folder / "table.csv").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "table.csv"]


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for text in ('{"format": "hepipe results 0"}', "{", "[]", '{"format": "hepipe results 1"}'):
        (tmp_path / "a" / "run.json").write_text(text)
        with pytest.raises(DataError, match="run its notebook again"):
            report.read_results(tmp_path)


def test_out_is_in_the_repository_also_from_inside_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert report.output_folder("results/x") == Path("results/x")  # some other folder of that name
    (tmp_path / "pyproject.toml").touch()
    assert report.output_folder("results/x") == tmp_path / "results" / "x"
    assert report.output_folder(tmp_path / "y") == tmp_path / "y"
    monkeypatch.chdir(tmp_path)
    assert report.output_folder("results/x") == Path("results/x")


def test_a_summary_has_all_runs_and_is_none_itself(compared: Comparison, dataset: Dataset, tmp_path: Path) -> None:
    report.write(compared, replace(dataset, synthetic=True), tmp_path / "05_toy")
    report.write(compared, None, tmp_path / "06_random")
    results = report.read_results(tmp_path)
    shown = report.summary_table(results)
    assert len(shown.frame) == 6
    assert "05_toy: toy (SYNTHETIC)" in shown.footer
    assert "06_random: random numbers" in shown.footer
    assert "INSECURE" in shown.footer
    report.write_summary(results, tmp_path / "09_summary")
    assert list(pd.read_csv(tmp_path / "09_summary" / "table.csv").columns) == list(report.SUMMARY)
    assert len(report.read_results(tmp_path)) == 6
    assert set(pd.read_csv(tmp_path / "05_toy" / "table.csv")["data"]) == {"toy (SYNTHETIC)"}
    assert set(pd.read_csv(tmp_path / "09_summary" / "table.csv")["data"]) == {"toy (SYNTHETIC)", "random numbers"}


def test_an_empty_summary_says_what_to_do(tmp_path: Path) -> None:
    results = report.read_results(tmp_path)
    assert "hepipe run" in report.summary_table(results).footer
    assert report.summary_findings(results) == []


def test_summary_findings_compare_models_and_schemes(compared: Comparison, dataset: Dataset, tmp_path: Path) -> None:
    report.write(compared, dataset, tmp_path / "05_toy")
    said = report.summary_findings(report.read_results(tmp_path))
    assert len(said) == 3
    assert "2 encrypted runs" in said[0]
    assert "Of 1 models" in said[1]
    assert len(report.summary_findings(report.read_results(tmp_path, "clear,ckks"))) == 1
