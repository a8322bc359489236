"""Many models at once: what each reaches against what it costs, in one notebook and across the suite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hepipe.study.captions import counted, number
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import (
    INK,
    Picture,
    caveats,
    colour,
    dots,
    key,
    log_axis,
    plain,
    room,
    title,
    weak_keys,
)
from hepipe.study.measure import Measurement
from hepipe.study.report import RANDOM
from hepipe.study.tables import Compared

MARKERS = {"o": "circle", "^": "triangle", "D": "diamond", "s": "square", "P": "plus", "X": "cross"}
"""By what is revealed beside the result, in the order in which it appears; the circle stands for nothing."""
NOTHING = "nothing"
_ROW_INCHES = 0.5
NEAR = 0.001
"""Models this close to the best are as good for ``trade_off_findings``."""
_FAMILIES = ("X", "o", "s", "D", "^", "v", "P")


def trade_off_table(*comparisons: Compared) -> pd.DataFrame:
    """What each model reaches and costs: a row for each model, scheme and policy, however often it was compared.

    metric encrypted  from the comparison of this model and policy with the most rows, on whatever scheme: a scheme that
                      was given few rows is not judged by their luck. *metric rows* says how many
    levels, rounds    that the circuit takes
    one row ms        median latency of a query of one row; it, the batch and the bytes come from the comparison with
                      the most rows on this scheme, *batch rows*
    """
    costs: dict[tuple[str, str, str], dict[str, Any]] = {}
    metrics: dict[tuple[str, str], dict[str, Any]] = {}
    for compared in sorted(comparisons, key=lambda one: one.samples):
        for item in compared.measurements:
            costs[compared.model, item.scheme, item.policy] = _costs(compared, item)
            found = {"metric": compared.metric, "metric encrypted": item.metric_encrypted}
            metrics[compared.model, item.policy] = found | {"metric rows": compared.samples}
    places = dict.fromkeys((one.model, item.scheme, item.policy) for one in comparisons for item in one.measurements)
    return pd.DataFrame(
        [
            {"model": model, "scheme": scheme, "policy": policy} | metrics[model, policy] | costs[model, scheme, policy]
            for model, scheme, policy in places
        ]
    )


def _costs(compared: Compared, item: Measurement) -> dict[str, Any]:
    return {
        "levels": item.levels,
        "rounds": item.rounds,
        "one row ms": item.one.total,
        "batch rows": compared.samples,
        "batch ms a row": item.batch.total / item.batch.samples,
        "KiB up": item.bytes_up / 2**10,
        "KiB down": item.bytes_down / 2**10,
        "reveals": item.reveals,
    }


def trade_off_findings(*comparisons: Compared) -> list[str]:
    """At most three sentences on ``trade_off_table``: what is reached at which price, every number computed."""
    table = trade_off_table(*comparisons)
    table = table[(table["scheme"] != "clear") & table["metric encrypted"].notna()]
    safe = table[[_revealed(text) == NOTHING for text in table["reveals"]]]
    if safe.empty:
        return []
    best, most = (rows.sort_values("metric encrypted", kind="stable").iloc[-1] for rows in (safe, table))
    said = [f"The best {best['metric']} that reveals nothing beside the result is {_reached(best)}."]
    if most["metric encrypted"] > best["metric encrypted"]:
        said.append(f"{_reached(most)} is better still, but reveals {_revealed(most['reveals'])}.")
    near = safe[safe["metric encrypted"] >= best["metric encrypted"] - NEAR]
    fastest = [part.sort_values("one row ms").iloc[0] for _, part in near.groupby("scheme", sort=False)]
    parts = [f"{row['scheme']} with {row['model']}, {number(row['one row ms'])} ms" for row in fastest]
    said.append(f"Within {NEAR} of it, the fastest for one row are {' and '.join(parts)}.")
    return said


def privacy_findings(private: str, *comparisons: Compared) -> list[str]:
    """A sentence for each scheme: what the model named ``private`` costs beside the others, and what those reveal."""
    table = trade_off_table(*comparisons)
    said = []
    for scheme, part in table[table["scheme"] != "clear"].groupby("scheme", sort=False):
        (dear,) = part[part["model"] == private].to_dict(orient="records")
        for cheap in part[part["model"] != private].to_dict(orient="records"):
            ratio = dear["batch ms a row"] / cheap["batch ms a row"]
            price = (
                f"{number(dear['one row ms'])} ms for one row and {number(dear['batch ms a row'])} ms a row in a batch"
            )
            said.append(
                f"On {scheme} {private} takes {price}, {number(ratio)} times as much as {cheap['model']}, and reveals "
                f"{_revealed(dear['reveals'])} beside the result; the other {_revealed(cheap['reveals'])}."
            )
    return said


def _reached(row: pd.Series) -> str:
    depth = f"{counted(row['levels'], 'level')} and {counted(row['rounds'], 'round')} on {row['scheme']}"
    return f"{row['metric encrypted']:.4f} ({row['model']}: {depth}, {number(row['one row ms'])} ms for one row)"


def figure_trade_off(comparisons: Sequence[Compared], dataset: Dataset | None) -> Picture:
    """What is missing to a perfect metric, against levels on CKKS, rounds on Paillier and the latency of one row.

    Models whose names end alike ("..., powers at the client") and that reveal as much are one line, in their order.
    """
    table = trade_off_table(*comparisons)
    table = table[table["scheme"] != "clear"].assign(missing=1 - table["metric encrypted"])
    table["family"] = [_family(str(row.model), str(row.reveals)) for row in table.itertuples()]
    shapes = dict(zip(table["family"].unique(), cycle(_FAMILIES), strict=False))
    picture = Picture(11, 4.6)
    panels = picture.subplots(1, 3, sharey=True, width_ratios=(1, 0.8, 1.4))
    for axes, scheme, column in zip(
        panels, ("ckks", "paillier", None), ("levels", "rounds", "one row ms"), strict=True
    ):
        plain(axes)
        shown = table if scheme is None else table[table["scheme"] == scheme]
        for (name, family), part in shown.groupby(["scheme", "family"], sort=False):
            shade = colour(str(name))
            axes.plot(part[column], part["missing"], shapes[family] + "-", color=shade, markerfacecolor="none")
    names = {str(name): colour(str(name)) for name in table["scheme"].unique()}
    _label_trade_off(panels, f"1 − {table['metric'].iloc[0]} (log)")
    _families(picture, panels[0], shapes)
    key(picture, names)
    title(
        picture, "Quality against cost", *caveats(dataset, [item for one in comparisons for item in one.measurements])
    )
    return picture


def _family(model: str, reveals: str) -> str:
    kind, more = model.rpartition(", ")[2], _revealed(reveals)
    return kind if more == NOTHING else f"{kind}, reveals {more}"


def _label_trade_off(panels: Sequence[Axes], missing: str) -> None:
    levels, rounds, latency = panels
    levels.set_xlabel("levels on CKKS", fontsize=9, color=INK)
    rounds.set_xlabel("rounds on Paillier", fontsize=9, color=INK)
    for axes in (levels, rounds):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.15)
    log_axis(latency, "x", "ms for a query of one row (log)")
    log_axis(levels, "y", missing)


def _families(picture: Picture, axes: Axes, shapes: Mapping[str, str]) -> None:
    marks = [axes.plot([], [], shape, color=INK, markerfacecolor="none")[0] for shape in shapes.values()]
    picture.legend(marks, list(shapes), loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)


def largest(results: pd.DataFrame) -> pd.DataFrame:
    """Of ``report.read_results`` the largest batch of each model on its data, policy and scheme, in their order."""
    case = ["data", "model", "policy", "scheme"]
    once = results.sort_values("samples", ascending=False, kind="stable").drop_duplicates(case)
    return once.sort_values(case, key=lambda column: column.map(list(results[column.name].unique()).index))


def figure_summary(results: pd.DataFrame) -> Picture:
    """Quality and cost of every model and policy of ``read_results``; the mark says what is revealed.

    Quality is that of the decrypted scores of the most rows on any scheme; without a target, the least agreement with
    the model in the clear. Bars are one standard error (SE) of a share of rows. Costs are those of each scheme's
    largest batch, also where several notebooks measured the same model on the same data.
    """
    results = largest(results[results["data"] != RANDOM])
    cases = [part for _, part in results.groupby(["data", "model", "policy"], sort=False)]
    picture = Picture(12, 1.8 + _ROW_INCHES * len(cases))
    if not cases:
        title(picture, "No results yet")
        return picture
    names = {str(name): colour(str(name)) for name in results["scheme"].unique()}
    revealed = dict.fromkeys([NOTHING, *map(_revealed, results["reveals"])])
    marks = dict(zip(revealed, cycle(MARKERS), strict=False))
    shapes = {name: [marks[_revealed(_of(part, name, "reveals") or "")] for part in cases] for name in names}
    quality, *panels = picture.subplots(1, 3, sharey=True, width_ratios=(0.7, 1, 1.1))
    rows = [_case(part) for part in cases]
    dots(quality, rows, {"": [_quality(part) for part in cases]}, {"": INK}, text=lambda value: f"{value:.4f}")
    _label_quality(quality, cases)
    for axes, (column, label) in zip(panels, _COSTS.items(), strict=True):
        dots(axes, rows, {name: [_of(part, name, column) for part in cases] for name in names}, names, shapes)
        log_axis(axes, "x", f"ms per row, {label} (log)")
        room(axes, list(results[column]))
        axes.tick_params(axis="x", labelsize=8)
    key(picture, names)
    synthetic = ["SYNTHETIC DATA"] if results["synthetic"].any() else []
    title(picture, "Quality against cost", *synthetic, *weak_keys(results))
    said = [f"{MARKERS[mark]}: {what}" for what, mark in marks.items()]
    lines = "\n".join("  ·  ".join(said[place : place + 3]) for place in range(0, len(said), 3))
    picture.supxlabel(f"Revealed to the client beside the result\n{lines}", fontsize=9, color=INK)
    return picture


_COSTS = {"one: total ms": "one row a query", "batch: total ms": "all rows a query"}
"""Columns of the closing table that the summary shows, and how it calls them."""


def _reference(part: pd.DataFrame) -> pd.Series:
    """The row with the most samples, encrypted before clear."""
    order = part.assign(hidden=part["scheme"] != "clear").sort_values(["samples", "hidden"], kind="stable")
    return order.iloc[-1]


def _metric(row: pd.Series) -> str:
    return str(row["metric"]) if pd.notna(row["metric encrypted"]) else "agreement"


def _quality(part: pd.DataFrame) -> tuple[float, float, float]:
    row = _reference(part)
    metric = _metric(row)
    value = float(part["agreement"].min() if metric == "agreement" else row["metric encrypted"])
    error = 0.0 if metric == "R2" else math.sqrt(value * (1 - value) / row["samples"])
    return value, value - error, value + error


def _label_quality(axes: Axes, cases: Sequence[pd.DataFrame]) -> None:
    axes.set_xlim(min(0.0, *(_quality(part)[1] for part in cases)), 1.45)
    axes.set_xticks(np.arange(0, 1.1, 0.25))
    axes.set_xlabel("metric, encrypted; bars: 1 SE", fontsize=9, color=INK)


def _revealed(reveals: str) -> str:
    """What is revealed beside the result: the part after the semicolon."""
    return reveals.partition("; ")[2] or NOTHING


def _of(part: pd.DataFrame, scheme: str, column: str) -> Any:
    rows = part[part["scheme"] == scheme]
    return rows[column].iloc[0] if len(rows) else None


def _case(part: pd.DataFrame) -> str:
    """Model, policy, data, rows by scheme and metric; the agreement where it is not full on every scheme."""
    row = _reference(part)
    policy = "" if row["policy"] == "polynomial" else f", policy {row['policy']}"
    counts = " or ".join(map(str, sorted(set(part["samples"]), reverse=True)))
    least = part["agreement"].min()
    agreement = f", agreement {100 * least:.2f} %" if least < 1 and _metric(row) != "agreement" else ""
    return f"{row['model']}{policy}\n{row['data']}, {counts} rows, {_metric(row)}{agreement}"
