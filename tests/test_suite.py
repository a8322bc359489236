"""Many models at once: each once, with its largest batch, its price and what it reveals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from hepipe.study import report, suite
from hepipe.study.compare import Comparison
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import COLOURS, Picture
from hepipe.study.measure import PHASES, ErrorBudget, Measurement, Timing
from hepipe.study.suite import figure_summary, figure_trade_off, trade_off_findings, trade_off_table

ASKED = "scores; the argument of every relu"
LINE, CURVE, RELU = "linear regression", "polynomial of degree 4, powers at the server", "2-4-1 network, relu"

LINE_MS = {"clear": 1.0, "paillier": 44.0, "ckks": 5.0}


def measured(scheme: str, quality: float, rows: int, one: float = 8.0, **fields: Any) -> Measurement:
    phases = {phase: [one / len(PHASES)] for phase in PHASES}
    given: dict[str, Any] = {
        "agreement": 1.0, "policy": "polynomial", "reveals": "scores", "levels": 1, "rounds": 0, "insecure": False,
        "security_bits": 128 * (scheme != "clear"), "metric_clear": quality, "metric_encrypted": quality,
    }  # fmt: skip
    return Measurement(
        scheme=scheme, parameters={}, disagreements=(0, 0), p_value=1.0,
        errors=ErrorBudget(0.0, 1e-7, 2e-7), keygen_ms=1.0, offline_ms=0.0, one=Timing(1, phases),
        batch=Timing(rows, phases), bytes_up=2048, bytes_down=1024, one_bytes=(2048, 1024), key_bytes=300, slots=64,
        **given | fields,
    )  # fmt: skip


def compared(model: str, rows: int, *measurements: Measurement) -> Comparison:
    return Comparison(model, "R2", rows, list(measurements))


def suite_of_three() -> list[Comparison]:
    """A line on all schemes; a curve on four rows, then on 200 where they fit; a ReLU that the client is asked for."""
    asked = {"policy": "client", "reveals": ASKED, "rounds": 1}
    return [
        compared(LINE, 200, *(measured(name, 0.85, 200, one) for name, one in LINE_MS.items())),
        compared(
            CURVE, 4, measured("paillier", 0.4, 4, 830.0, levels=3, rounds=2), measured("ckks", 0.4, 4, 50.0, levels=3)
        ),
        compared(CURVE, 200, measured("ckks", 0.99, 200, 46.0, levels=3)),
        compared(RELU, 200, measured("paillier", 1.0, 200, 300.0, **asked), measured("ckks", 1.0, 200, 40.0, **asked)),
    ]  # fmt: skip


def data(synthetic: bool = False) -> Dataset:
    return Dataset("salary", "somewhere", synthetic, "0" * 64, pd.DataFrame(), pd.Series(), None, None)  # type: ignore[arg-type]


def texts(picture: Picture) -> list[str]:
    return [item.get_text() for item in picture.findobj(Text) if isinstance(item, Text) and item.get_visible()]


def test_a_model_stands_once_for_each_scheme_with_its_largest_batch_and_the_metric_of_the_most_rows() -> None:
    table = trade_off_table(*suite_of_three()).set_index(["model", "scheme"])
    assert table.index.is_unique
    assert len(table) == 7
    for scheme, rows, one in (("paillier", 4, 830.0), ("ckks", 200, 46.0)):
        row = table.loc[(CURVE, scheme)]
        assert (row["metric encrypted"], row["metric rows"]) == (0.99, 200)
        assert (row["batch rows"], row["one row ms"]) == (rows, pytest.approx(one))
    assert table.loc[(CURVE, "paillier"), "rounds"] == 2
    assert (table["KiB up"] == 2).all()


def test_policies_of_one_model_are_told_apart() -> None:
    asked, approximated = (measured("ckks", 1.0, 9, policy="client"), measured("ckks", 0.9, 9))
    table = trade_off_table(compared(RELU, 9, asked, approximated))
    assert dict(zip(table["policy"], table["metric encrypted"], strict=True)) == {"client": 1.0, "polynomial": 0.9}


def test_findings_name_the_best_that_reveals_nothing_what_more_would_reveal_and_the_fastest_near_it() -> None:
    best, more, fast = trade_off_findings(*suite_of_three())
    assert "nothing beside the result is 0.9900" in best
    assert CURVE in best
    assert "3 levels" in best
    assert more.startswith("1.0000 (2-4-1 network, relu")
    assert more.endswith("reveals the argument of every relu.")
    assert f"ckks with {CURVE}, 46 ms" in fast
    assert f"paillier with {CURVE}, 830 ms" in fast
    assert LINE not in fast


def test_findings_of_models_that_all_reveal_or_none_that_does() -> None:
    line, *_, relu = suite_of_three()
    assert trade_off_findings(relu) == []
    assert len(trade_off_findings(line)) == 2


def test_the_trade_off_has_a_line_for_each_family_in_the_colour_of_its_scheme() -> None:
    picture = figure_trade_off(suite_of_three(), data(synthetic=True))
    picture.png()
    levels, rounds, latency = picture.axes
    drawn = [len([line for line in axes.get_lines() if len(line.get_xdata())]) for axes in (levels, rounds, latency)]
    assert drawn == [3, 3, 6]
    assert {line.get_color() for line in rounds.get_lines()} == {COLOURS["paillier"]}
    said = texts(picture)
    assert {"powers at the server", "relu, reveals the argument of every relu", "1 − R2 (log)"} <= set(said)
    assert "SYNTHETIC DATA" in picture.get_suptitle()


def test_the_summary_shows_each_model_once_its_quality_cost_and_what_it_reveals(tmp_path: Path) -> None:
    report.write(suite_of_three(), data(synthetic=True), tmp_path / "04")
    report.write(suite_of_three()[:1], data(synthetic=True), tmp_path / "08", name="again")
    picture = figure_summary(report.read_results(tmp_path))
    picture.png()
    names = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert names == [
        f"{LINE}\nsalary, 200 rows, R2", f"{CURVE}\nsalary, 200 or 4 rows, R2",
        f"{RELU}, policy client\nsalary, 200 rows, R2",
    ]  # fmt: skip
    said = " ".join(texts(picture))
    for part in ("circle: nothing", "triangle: the argument of every relu", "0.9900", "830", "SYNTHETIC DATA"):
        assert part in said
    shapes = {str(line.get_marker()) for line in picture.axes[1].get_lines()} & set(suite.MARKERS)
    assert shapes == {"o", "^"}


def test_what_is_revealed_may_differ_by_scheme(tmp_path: Path) -> None:
    near = measured("ckks", 1.0, 9, reveals="index; how near a tie a row is")
    report.write(compared("k-means", 9, measured("paillier", 1.0, 9, reveals="index"), near), data(), tmp_path / "06")
    lines = [
        line for line in figure_summary(report.read_results(tmp_path)).axes[1].get_lines() if len(line.get_xdata()) == 1
    ]
    shapes = {str(line.get_color()): str(line.get_marker()) for line in lines}
    assert (shapes[COLOURS["paillier"]], shapes[COLOURS["ckks"]]) == ("o", "^")


def test_privacy_findings_compare_a_model_with_those_that_reveal_more() -> None:
    leaky = "index; distances"
    said = suite.privacy_findings(
        "k-means",
        compared("k-means", 10, measured("ckks", math.nan, 10, 60.0, reveals="index")),
        compared("k-means, distances", 20, measured("ckks", math.nan, 20, 30.0, reveals=leaky)),
    )
    assert said == [
        "On ckks k-means takes 60 ms for one row and 6 ms a row in a batch, 4 times as much as k-means, distances, and "
        "reveals nothing beside the result; the other distances."
    ]


def test_the_quality_of_a_model_is_that_of_its_most_rows_and_an_agreement_where_there_is_no_target(
    tmp_path: Path,
) -> None:
    groups = [measured(name, math.nan, 40, agreement=share) for name, share in (("paillier", 0.95), ("ckks", 1.0))]
    report.write([*suite_of_three(), compared("k-means", 40, *groups)], data(), tmp_path / "06")
    said = texts(figure_summary(report.read_results(tmp_path)))
    assert "k-means\nsalary, 40 rows, agreement" in said
    assert {"0.8500", "0.9900", "1.0000", "0.9500"} <= set(said)
    assert "0.4000" not in said


def test_each_scheme_keeps_its_largest_batch_in_the_order_of_models_and_schemes(tmp_path: Path) -> None:
    report.write(suite_of_three(), data(), tmp_path / "04")
    kept = suite.largest(report.read_results(tmp_path))
    assert list(zip(kept["model"], kept["scheme"], kept["samples"], strict=True)) == [
        *((LINE, scheme, 200) for scheme in LINE_MS), (CURVE, "paillier", 4), (CURVE, "ckks", 200),
        (RELU, "paillier", 200), (RELU, "ckks", 200),
    ]  # fmt: skip


def test_no_label_of_either_figure_is_cut_off(tmp_path: Path) -> None:
    weak = [
        replace(one, measurements=[replace(m, insecure=True) for m in one.measurements]) for one in suite_of_three()
    ]
    report.write(weak, data(synthetic=True), tmp_path / "04")
    for picture in (figure_trade_off(weak, data(synthetic=True)), figure_summary(report.read_results(tmp_path))):
        assert "INSECURE TEST KEYS" in picture.get_suptitle()
        canvas = FigureCanvasAgg(picture)
        canvas.draw()
        width, height = picture.get_size_inches() * picture.dpi
        ticks = [label for axes in picture.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        for item in picture.findobj(Text):
            if isinstance(item, Text) and item.get_text() and item.get_visible() and item not in ticks:
                box = item.get_window_extent(canvas.get_renderer())
                assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -1, item


def test_a_summary_of_nothing_says_so(tmp_path: Path) -> None:
    assert figure_summary(report.read_results(tmp_path)).get_suptitle() == "No results yet"
