"""The figures of the notebooks, each from measurements alone; generated data and test keys are named in the title."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hepipe.study.captions import counted
from hepipe.study.crossover import HOME, encrypted, equal_rtt, equal_up_mbit, with_rtt, with_up_mbit
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
from hepipe.study.measure import NETWORKS, Measurement, Timing
from hepipe.study.tables import STAGES, Compared


def figure_phases(compared: Compared, dataset: Dataset | None) -> Picture:
    """Milliseconds per sample by phase, one row and a batch side by side; bars span the repeats."""
    picture, names = Picture(10, 4.2), _names(compared.measurements)
    left, right = picture.subplots(1, 2, sharey=True)
    for axes, timings, label in (
        (left, [item.one for item in compared.measurements], "one row a query"),
        (right, [item.batch for item in compared.measurements], f"{counted(compared.samples, 'row')} a query"),
    ):
        series = {name: _phases(timing, name) for name, timing in zip(names, timings, strict=True)}
        dots(axes, [*STAGES, "total"], series, names)
        log_axis(axes, "x", "ms per row (log)")
        room(axes, [value[0] for values in series.values() for value in values if value])
        axes.set_title(label, fontsize=10, loc="left", color=INK)
    key(picture, names)
    title(picture, f"Time by phase: {compared.model}", *caveats(dataset, compared.measurements))
    return picture


def figure_bytes(compared: Compared, dataset: Dataset | None) -> Picture:
    """KiB that travel for one batch, and once for the keys."""
    picture, names = Picture(8, 2.8), _names(compared.measurements)
    axes, rows = picture.subplots(), counted(compared.samples, "row")
    series = {
        name: [value / 2**10 for value in (item.bytes_up, item.bytes_down, item.key_bytes)]
        for name, item in zip(names, compared.measurements, strict=True)
    }
    dots(axes, [f"up, {rows}", f"down, {rows}", "public keys, once"], series, names)
    log_axis(axes, "x", "KiB (log)")
    room(axes, [value for values in series.values() for value in values])
    key(picture, names)
    title(picture, f"Bytes: {compared.model}", *caveats(dataset, compared.measurements))
    return picture


def figure_precision(compared: Compared, dataset: Dataset | None) -> Picture:
    """The error budget: largest scheme error measured and allowed, and the approximation error all schemes share."""
    hidden = [item for item in compared.measurements if item.scheme != "clear"] or compared.measurements
    picture, names = Picture(8, 1.6 + 0.7 * len(hidden)), _names(hidden)
    axes = picture.subplots()
    plain(axes)
    axes.grid(False, axis="y")
    shown = []
    for place, (name, item) in enumerate(zip(names, hidden, strict=True)):
        errors = item.errors
        marks = [
            (errors.scheme_error, "o", names[name], f"measured {errors.precision_bits:.1f} bits"),
            (errors.bound, "|", names[name], f"promised {-np.log2(errors.bound or 1):.1f} bits"),
            (errors.approximation_error, "D", INK, f"polynomial {short(errors.approximation_error)}"),
        ]
        for error, marker, shade, text in marks:
            if error > 0:
                shown.append(error)
                _mark(axes, error, place, marker, shade, text)
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.35, -0.6)
    log_axis(axes, "x", "largest error of a score (log)")
    room(axes, shown or [1.0], 0.15, 0.15, decades=1.5)
    title(picture, f"Error budget: {compared.model}", *caveats(dataset, compared.measurements))
    return picture


def _mark(axes: Axes, error: float, place: float, marker: str, shade: str, text: str) -> None:
    promise = marker == "|"  # its label goes below, where it cannot meet that of the measurement
    axes.plot([error], [place], marker, color=shade, markersize=16 if promise else 7, markeredgewidth=2)
    axes.annotate(
        text, (error, place), xytext=(0, -14 if promise else 9), textcoords="offset points", ha="center",
        va="top" if promise else "bottom", fontsize=8.5, color=shade,
    )  # fmt: skip


def figure_network(compared: Compared, dataset: Dataset | None) -> Picture:
    """Modelled latency of one batch against the network: a round costs a round trip, a byte its bandwidth."""
    picture, names = Picture(8, 4), _names(compared.measurements)
    axes = picture.subplots()
    plain(axes)
    places = ["this machine", *(f"{n.name}\n{n.rtt_ms:g} ms, {n.up_mbit:g}/{n.down_mbit:g} Mbit/s" for n in NETWORKS)]
    lines = [[item.batch.total, *(item.network_ms(n) for n in NETWORKS)] for item in compared.measurements]
    gap = (max(map(max, lines)) / min(map(min, lines))) ** 0.06
    heights = _apart([values[-1] for values in lines], gap)
    for name, item, values, height in zip(names, compared.measurements, lines, heights, strict=True):
        axes.plot(values, "o-", color=names[name], linewidth=2)
        _end_label(axes, len(places) - 1, height, f"{name}, {counted(item.rounds, 'round')}", names[name])
    axes.set_xticks(range(len(places)), places)
    axes.set_xlim(-0.3, len(places) - 0.1)
    log_axis(axes, "y", f"ms for {counted(compared.samples, 'row')} (log)")
    title(picture, f"Latency with a network (modelled): {compared.model}", *caveats(dataset, compared.measurements))
    return picture


def _apart(values: Sequence[float], factor: float) -> list[float]:
    """The values, the upper of two closer than ``factor`` moved up: heights of labels that do not meet."""
    heights, floor = [0.0] * len(values), 0.0
    for place in np.argsort(values):
        heights[place] = floor = max(values[place], floor * factor)
    return heights


def _end_label(axes: Axes, x: float, y: float, text: str, shade: str) -> None:
    axes.annotate(
        text, (x, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9, color=shade,
        annotation_clip=False,
    )  # fmt: skip


def figure_networks(comparisons: Sequence[Compared], dataset: Dataset | None) -> Picture:
    """Modelled latency of a query over the networks: a panel for each comparison, in rows of four.

    Policies other than "polynomial" are dashed.
    """
    across = min(4, len(comparisons))
    picture, names = Picture(3.1 * across, 0.9 + 2.9 * math.ceil(len(comparisons) / across)), _all_names(comparisons)
    panels = picture.subplots(math.ceil(len(comparisons) / across), across, sharey=True, squeeze=False).ravel()
    for axes, compared in zip(panels, comparisons, strict=False):
        plain(axes)
        for item in compared.measurements:
            values = [item.batch.total, *(item.network_ms(network) for network in NETWORKS)]
            line = "o-" if item.policy == "polynomial" else "o--"
            axes.plot(values, line, color=names[item.scheme], linewidth=2, markersize=4)
        axes.set_xticks(range(1 + len(NETWORKS)), ["no\nnetwork", *(n.name.replace(" ", "\n") for n in NETWORKS)])
        axes.tick_params(axis="x", labelsize=8)
        log_axis(axes, "y", "ms a query (log)" if axes.get_subplotspec().is_first_col() else "")
        _panel_title(axes, compared)
    for axes in panels[len(comparisons) :]:
        axes.set_visible(False)
    key(picture, names)
    weak = [item for compared in comparisons for item in compared.measurements]
    title(picture, "Latency over the networks (modelled)", *caveats(dataset, weak))
    return picture


def figure_crossover(comparisons: Sequence[Compared], dataset: Dataset | None) -> Picture:
    """Modelled latency against round-trip time (above) and bandwidth (below); rings where two schemes are equal."""
    picture, names = Picture(3.1 * max(len(comparisons), 2), 6.4), _all_names(comparisons)
    names.pop("clear", None)
    sweeps = (
        (np.geomspace(0.1, 1000, 60), with_rtt, equal_rtt, f"RTT in ms (log), {HOME.up_mbit:g} Mbit/s up", "ms"),
        (
            np.geomspace(1, 10_000, 60),
            with_up_mbit,
            equal_up_mbit,
            f"Mbit/s up (log), RTT {HOME.rtt_ms:g} ms",
            "Mbit/s",
        ),
    )
    grid = picture.subplots(2, len(comparisons), sharey=True, squeeze=False)
    for panels, (places, network, equal, label, unit) in zip(grid, sweeps, strict=True):
        for axes, compared in zip(panels, comparisons, strict=True):
            plain(axes)
            for item in encrypted(compared):
                values = [item.network_ms(network(float(place))) for place in places]
                axes.plot(places, values, color=names[item.scheme], linewidth=2)
            log_axis(axes, "x", label)
            log_axis(axes, "y", "ms a query (log)" if axes.get_subplotspec().is_first_col() else "")
            _panel_title(axes, compared)
            _ring(axes, encrypted(compared), network, equal, unit)
    key(picture, names)
    weak = [item for compared in comparisons for item in compared.measurements]
    title(picture, "Where the winner changes (modelled)", *caveats(dataset, weak))
    return picture


def _ring(axes: Axes, items: Sequence[Measurement], network: Any, equal: Any, unit: str) -> None:
    place = equal(*items) if len(items) == 2 else math.nan
    left, right = axes.get_xlim()
    if left < place < right:
        height, late = items[0].network_ms(network(place)), place > left * (right / left) ** 0.6
        below = unit == "ms" and not late  # lines against the round-trip time rise, those against bandwidth fall
        axes.plot([place], [height], "o", color="white", markeredgecolor=INK, markeredgewidth=2, markersize=9)
        axes.annotate(
            f"equal at {short(place)} {unit}", (place, height), xytext=(0, -18 if below else 12),
            textcoords="offset points", ha="right" if late and unit == "ms" else "left", fontsize=8.5, color=INK,
        )  # fmt: skip


def _panel_title(axes: Axes, compared: Compared) -> None:
    rows = counted(compared.samples, "row")
    lines = compared.model.replace(", ", "\n", 1)
    others = {item.policy for item in compared.measurements} - {"polynomial"}
    dashed = "".join(f", dashed: policy {policy}" for policy in sorted(others))
    axes.set_title(f"{lines}, {rows}{dashed}", fontsize=9, loc="left", color=INK)


def _all_names(comparisons: Sequence[Compared]) -> dict[str, str]:
    known = list(dict.fromkeys(item.scheme for compared in comparisons for item in compared.measurements))
    return {scheme: colour(scheme, known) for scheme in known}


def figure_primitives(table: pd.DataFrame) -> Picture:
    """What each primitive costs a value: alone in its ciphertext, and with every slot filled."""
    picture = Picture(10, 4.4)
    names = {str(name): colour(str(name)) for name in table["scheme"].unique()}
    panels = picture.subplots(1, 2, sharey=True)
    for axes, (_, part), label in zip(
        panels, table.groupby("filled"), ("one value a ciphertext", "every slot filled"), strict=True
    ):
        rows = list(table["operation"].unique())
        series = {name: [_value(part, name, row) for row in rows] for name in names}
        dots(axes, rows, series, names)
        log_axis(axes, "x", "ms per value (log)")
        room(axes, [value for values in series.values() for value in values if value])
        axes.set_title(label, fontsize=10, loc="left", color=INK)
    key(picture, names)
    title(picture, "The price of one operation", *weak_keys(table))
    return picture


def _value(part: pd.DataFrame, scheme: str, operation: str) -> float | None:
    found = part.loc[(part["scheme"] == scheme) & (part["operation"] == operation), "ms per value"]
    return float(found.iloc[0]) if len(found) else None


def figure_slots(curve: pd.DataFrame) -> Picture:
    """Cost of a value against the number of values sent together; a line ends its fall where the slots are full."""
    picture = Picture(8, 4.4)
    axes = picture.subplots()
    plain(axes)
    for scheme, part in curve.groupby("scheme", sort=False):
        shade, slots = colour(str(scheme)), int(part["slots"].iloc[0])
        x, y = part["values"].to_numpy(), part["ms per value"].to_numpy()
        axes.plot(x, y, "o-", color=shade, linewidth=2, markersize=5)
        _end_label(axes, x[-1], y[-1], str(scheme), shade)
        if scheme != "clear":  # where nothing is encrypted nothing fills up
            at = float(np.exp(np.interp(np.log(slots), np.log(x), np.log(y))))
            axes.plot([slots], [at], "s", color="white", markeredgecolor=shade, markeredgewidth=2, markersize=10)
            axes.annotate(
                f"{slots} slots full", (slots, at), xytext=(0, -16), textcoords="offset points", ha="right",
                fontsize=9, color=shade,
            )  # fmt: skip
    log_axis(axes, "x", "values in one query (log)")
    log_axis(axes, "y", "ms per value (log)")
    axes.set_xlim(0.8, 4 * float(curve["values"].max()))
    title(picture, "Slots change everything: encrypt, multiply, re-randomise, decrypt", *weak_keys(curve))
    return picture


def figure_uncertainty(
    spread: Sequence[float], marks: Mapping[str, float], metric: str, label: str, dataset: Dataset | None
) -> Picture:
    """Single published figures against how far the metric moves when only the rows are drawn anew."""
    picture = Picture(8, 3.4)
    axes = picture.subplots()
    plain(axes)
    axes.grid(False, axis="y")
    axes.hist(spread, bins=24, color="#c4c4c4", edgecolor="white")
    top = axes.get_ylim()[1]
    for place, (name, value) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        # The leftmost stands highest, so that its text runs above the others.
        height = top * (1.05 + 0.14 * (len(marks) - place))
        axes.plot([value, value], [0, height], color=INK, linewidth=1.2)
        text = f"{name} {value:.4f}"
        axes.annotate(text, (value, height), xytext=(4, -8), textcoords="offset points", fontsize=8.5, color=INK)
    axes.set_ylim(0, top * (1.15 + 0.14 * len(marks)))
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.3 * (right - left))
    axes.set_yticks([])
    axes.set_xlabel(f"{metric}; grey: {label}", fontsize=9, color=INK)
    title(picture, f"{metric[:1].upper()}{metric[1:]} of a single split says little", *caveats(dataset, []))
    return picture


def figure_gaps(gaps: pd.DataFrame, dataset: Dataset | None) -> Picture:
    """How far each model of ``uncertainty.cv_gaps`` lies from the baseline: a panel a metric, bars of two errors."""
    difference = next(str(name) for name in gaps if str(name).startswith("minus "))
    gaps = gaps[gaps["model"] != difference.removeprefix("minus ")]
    metrics, models = list(gaps["metric"].unique()), [str(name) for name in gaps["model"].unique()]
    picture = Picture(4.5 * len(metrics), 1.4 + 0.45 * len(models))
    for axes, metric in zip(picture.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        part = gaps[gaps["metric"] == metric]
        bars = [
            (mean, mean - 2 * error, mean + 2 * error) for mean, error in part[[difference, "standard error"]].values
        ]
        dots(axes, models, {difference: bars}, {difference: INK}, text=lambda value: f"{value:+.4f}")
        axes.axvline(0, color=INK, linewidth=1)
        far = max(abs(end) for bar in bars for end in bar) or 1e-3
        axes.set_xlim(-1.1 * far, 1.8 * far)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"{metric} {difference}; bars: two standard errors", fontsize=9, color=INK)
    title(picture, "A bar across zero is no gap", *caveats(dataset, []))
    return picture


def _names(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The name of each series and its colour; the policy is named only where there are several."""
    policies = {item.policy for item in measurements}
    known = [item.scheme for item in measurements]
    names = [item.scheme if len(policies) == 1 else f"{item.scheme}, {item.policy}" for item in measurements]
    return {name: colour(scheme, known) for name, scheme in zip(names, known, strict=True)}


def _phases(timing: Timing, name: str) -> list[tuple[float, float, float] | None]:
    """(median, least, largest) ms per sample of each stage and of the total; without encryption only the total."""
    total = np.array(timing.totals) / timing.samples
    whole = (float(np.median(total)), float(total.min()), float(total.max()))
    if name.startswith("clear"):
        return [*(None for _ in STAGES), whole]
    parts: list[tuple[float, float, float] | None] = []
    for phases in STAGES.values():
        known = [timing.phases[phase] for phase in phases if phase in timing.phases]
        times = np.sum(known, axis=0) / timing.samples
        parts.append((float(np.median(times)), float(times.min()), float(times.max())) if known else None)
    return [*parts, whole]
