"""What a server bore under load, from made-up regimes: table, figure, page; and the benchmark itself, in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hepipe.study.serving import MIXED, Goal, Regime, figure_load, load_page, load_table

ROOT = Path(__file__).parent.parent
CPU = {"server": 1.0, "workers": 4.0, "clients": 0.5, "others": 2.0}
POOLS = Regime(
    "from pools", "paillier", [float(ms) for ms in range(1, 101)], 5.0, 0, 10, 1e-7, CPU, 90, 10,
    [(0, 100.0), (10, 190.0), (15, 200.0), (20, 230.0), (50, 400.0), (90, 210.0), (95, 280.0), (100, 206.0)],
)  # fmt: skip
SOAK = replace(POOLS, name="soak", scheme=MIXED, latencies_ms=[10.0] * 300, ahead=0, late=0, errors=2)


def test_the_table_has_rates_percentiles_and_shares() -> None:
    row, soak = load_table([POOLS, SOAK], cores=2).to_dict("records")
    assert row["a second"] == 20.0
    assert (row["p50 ms"], row["p99 ms"]) == (50.5, pytest.approx(99.01))
    assert (row["blinded ahead %"], row["CPU workers ms"], row["others % of CPU"]) == (90.0, 40.0, 20.0)
    assert (row["MiB"], row["growth %"]) == (206.0, pytest.approx(5.0))  # medians: from 200 when warm to 210 at the end
    assert pd.isna(soak["blinded ahead %"])
    assert soak["errors"] == 2


def test_a_goal_is_a_floor_or_a_ceiling() -> None:
    assert Goal("rate", 40, 40, least=True).met
    assert not Goal("rate", 40, 39.9, least=True).met
    assert Goal("errors", 0, 0, least=False).met
    assert not Goal("errors", 0, 1, least=False).met


def test_the_figure_has_a_mark_for_each_regime_and_the_memory_of_the_longest() -> None:
    picture = figure_load([POOLS, SOAK])
    rates, latencies, memory = picture.axes
    assert [label.get_text() for label in rates.get_yticklabels()] == ["from pools", "soak"]
    assert "20" in [text.get_text() for text in rates.texts]
    assert len(latencies.texts) == 2
    assert memory.lines[0].get_ydata().tolist() == [size for _, size in SOAK.memory]
    assert "soak" in memory.get_xlabel()
    assert picture.png().startswith(b"\x89PNG")


def test_the_page_says_what_was_promised_measured_and_where() -> None:
    machine = {"processor": "P", "cores": 2, "memory_gib": 8.0, "system": "Linux x86_64", "python": "3.11"}
    record = {
        "machine": machine, "clients": 32, "columns": 15, "replays": 0, "online_ms": 3.0, "power_ms": 28.0,
        "command": "make load", "commit": "abc", "date": "2026-01-01", "data": "rows, sha256 123",
    }  # fmt: skip
    goals = [Goal("rate", 40, 20.0, least=True), Goal("errors", 0, 0, least=False)]
    page = load_page(record, load_table([POOLS, SOAK], 2), goals)
    assert "| rate | ≥ 40 | 20 | no |" in page
    assert "| errors | ≤ 0 | 0 | yes |" in page
    assert "| from pools | paillier | 100 | 0 | 20 |" in page
    for part in ("32 clients", "`make load`", "Commit abc, 2026-01-01", "P, 2 cores", "(load.png)", "28 ms"):
        assert part in page


@pytest.mark.slow
def test_the_benchmark_runs_in_small_and_writes_everything(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "load.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "load.json").read_text())
    assert record["replays"] == 0
    assert all(row["errors"] == 0 and row["checked"] > 0 for row in record["regimes"])
    assert max(row["largest error"] for row in record["regimes"]) < 1e-4
    assert {path.name for path in tmp_path.iterdir()} == {"load.json", "load.png", "table.csv", "README.md"}
