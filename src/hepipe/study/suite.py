"""Many models at once: what each reaches against what it costs, in one notebook and across the suite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hepipe.study.captions import number
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
    short,
    title,
    weak_keys,
)
from hepipe.study.measure import Measurement
from hepipe.study.tables import Compared

MARKERS = {"o": "circle", "^": "triangle", "D": "diamond", "s": "square", "P": "plus", "X": "cross"}
"""By what is revealed beside the result, in the order in which it appears; the circle stands for nothing."""
NOTHING = "nothing"
NEAR = 0.01
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
    table = table[table["scheme"] != "clear"]
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


def _reached(row: pd.Series) -> str:
    price = (
        f"{row['levels']} levels and {row['rounds']} rounds on {row['scheme']}, {number(row['one row ms'])} ms a row"
    )
    return f"{row['metric encrypted']:.4f} ({row['model']}, {price})"


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
    once = results.sort_values("samples", kind="stable").drop_duplicates(case, keep="last")
    return once.sort_values(case, key=lambda column: column.map(list(results[column.name].unique()).index))


def figure_summary(results: pd.DataFrame) -> Picture:
    """Quality and cost of every model, policy and scheme of ``read_results``; the mark says what is revealed.

    A model that several notebooks measured on the same data is shown once, each scheme with its largest batch. Bars are
    one standard error of an accuracy, from the number of rows it was measured on.
    """
    results = largest(results[results["metric encrypted"].notna()])
    cases = [part for _, part in results.groupby(["data", "model", "policy"], sort=False)]
    picture = Picture(12, 1.8 + 0.5 * len(cases))
    if not cases:
        title(picture, "No results yet")
        return picture
    names = {str(name): colour(str(name)) for name in results["scheme"].unique()}
    revealed = [_revealed(part["reveals"].iloc[0]) for part in cases]
    marks = dict(zip(dict.fromkeys([NOTHING, *revealed]), cycle(MARKERS), strict=False))
    panels = picture.subplots(1, 3, sharey=True, width_ratios=(1.2, 1, 1))
    for axes, (take, text) in zip(panels, _PANELS, strict=True):
        series = {name: [_of(part, name, take) for part in cases] for name in names}
        dots(axes, [_case(part) for part in cases], series, names, [marks[what] for what in revealed], text)
    _label_summary(panels, results)
    key(picture, names)
    synthetic = ["SYNTHETIC DATA"] if results["synthetic"].any() else []
    title(picture, "Quality against cost", *synthetic, *weak_keys(results))
    said = ", ".join(f"{MARKERS[marks[what]]} {what}" for what in dict.fromkeys(revealed))
    picture.supxlabel(f"Revealed to the client beside the result: {said}", fontsize=9, color=INK)
    return picture


def _quality(row: pd.Series) -> tuple[float, float, float]:
    value = float(row["metric encrypted"])
    error = math.sqrt(value * (1 - value) / row["samples"]) if row["metric"] == "accuracy" else 0.0
    return value, value - error, value + error


_PANELS: tuple[tuple[Callable[[pd.Series], Any], Callable[[float], str]], ...] = (
    (_quality, lambda value: f"{value:.4f}"),
    (lambda row: float(row["one: total ms"]), short),
    (lambda row: float(row["batch: total ms"]), short),
)
"""What each panel of the summary takes of a row, and how it writes it."""


def _label_summary(panels: Sequence[Axes], results: pd.DataFrame) -> None:
    quality, one, batch = panels
    quality.set_xlim(min(0.0, float(results["metric encrypted"].min())), 1.3)
    quality.set_xticks(np.arange(0, 1.1, 0.2))
    quality.set_xlabel("metric, encrypted; bars: one standard error", fontsize=9, color=INK)
    for axes, column, label in ((one, "one: total ms", "one row a query"), (batch, "batch: total ms", "a batch")):
        log_axis(axes, "x", f"ms per row, {label} (log)")
        room(axes, list(results[column]))


def _revealed(reveals: str) -> str:
    """What is revealed beside the result: the part after the semicolon."""
    return reveals.partition("; ")[2] or NOTHING


def _of(part: pd.DataFrame, scheme: str, take: Callable[[pd.Series], Any]) -> Any:
    rows = part[part["scheme"] == scheme]
    return take(rows.iloc[0]) if len(rows) else None


def _case(part: pd.DataFrame) -> str:
    row = part.iloc[0]
    policy = "" if row["policy"] == "polynomial" else f", policy {row['policy']}"
    counts = " or ".join(map(str, sorted(set(part["samples"]), reverse=True)))
    return f"{row['model']}{policy}\n{row['data']}, {counts} rows, {row['metric']}"
