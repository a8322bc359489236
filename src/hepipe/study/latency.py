"""Where the time of one prediction goes when the server is elsewhere: measured on this machine, modelled beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hepipe.study.captions import number
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import INK, Picture, caveats, plain, short, title
from hepipe.study.measure import NETWORKS, REQUEST, Measurement, Network
from hepipe.study.tables import Compared

HERE, THERE = "one process", "own process"
PARTS = {
    "client: encrypt, decrypt": "#007a5a",
    "client: its half of the rounds": "#6fb8a0",
    "server: evaluate": "#8a4f9e",
    "between: frames, HTTP, processes": "#8a6a00",
    "network: round trips": "#555555",
    "network: bytes": "#b4b4b4",
}
"""The parts of a latency, in the order in which they are stacked, and their colours."""
_ACROSS = 3

Pair = tuple[Compared, Compared]
"""The same model and rows, in one process and with the server elsewhere."""


def latency_table(*pairs: Pair) -> pd.DataFrame:
    """ms of a query of one row by part: in one process, with the server in a process of its own, over networks.

    server: evaluate  is what it takes in one process, re-randomisation included: a client can time the whole request
                      only. What the request takes beyond that and the client's half of the rounds lies *between*
    network           modelled, on top of the process of its own: (1 + rounds) * RTT, and bytes / bandwidth
    """
    rows = []
    for here, there in pairs:
        for item in there.measurements:
            local = next(one for one in here.measurements if (one.scheme, one.policy) == (item.scheme, item.policy))
            for where, parts in _places(local, item):
                head = {"model": here.model, "scheme": item.scheme, "server": where}
                rows.append(head | {f"{name} ms": parts.get(name, 0.0) for name in PARTS})
    table = pd.DataFrame(rows)
    return table.assign(**{"total ms": table[[f"{name} ms" for name in PARTS]].sum(axis=1)})


def _places(local: Measurement, remote: Measurement) -> Iterator[tuple[str, dict[str, float]]]:
    server = local.one.median("evaluate") - local.one.answered + local.one.median("rerandomize")
    yield HERE, _parts(local, local.one.median("upload") + local.one.median("download") + server, server)
    measured = _parts(remote, remote.one.median(REQUEST) - remote.one.answered, server)
    yield THERE, measured
    for network in NETWORKS:
        yield network.name, measured | _modelled(remote, network)


def _parts(item: Measurement, beside: float, server: float) -> dict[str, float]:
    """``beside`` is what passes between encrypting and decrypting, without the client's half of the rounds."""
    evaluated = min(server, beside)
    values = (item.one.median("encrypt") + item.one.median("decrypt"), item.one.answered, evaluated, beside - evaluated)
    return dict(zip(PARTS, values, strict=False))


def _modelled(item: Measurement, network: Network) -> dict[str, float]:
    trips, sizes = list(PARTS)[-2:]
    return {trips: network.trips_ms(item.rounds), sizes: network.bytes_ms(*item.one_bytes)}


def figure_latency(dataset: Dataset | None, *pairs: Pair) -> Picture:
    """``latency_table`` as stacked bars, a panel for each model and scheme."""
    table = latency_table(*pairs)
    cases = list(table.groupby(["model", "scheme"], sort=False))
    lines = math.ceil(len(cases) / _ACROSS)
    picture = Picture(12, 1.5 + 2.3 * lines)
    panels = picture.subplots(lines, _ACROSS, sharey=True, squeeze=False).ravel()
    for axes, ((model, scheme), part) in zip(panels, cases, strict=False):
        _stacked(axes, part)
        axes.set_title(f"{str(model).replace(', ', chr(10), 1)}, {scheme}", fontsize=9, loc="left", color=INK)
    for axes in panels[len(cases) :]:
        axes.set_visible(False)
    bars = [_bar(panels[0], shade) for shade in PARTS.values()]
    picture.legend(bars, list(PARTS), loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    weak = [item for _, there in pairs for item in there.measurements]
    title(picture, "Latency of one row, networks modelled", *caveats(dataset, weak))
    return picture


def _bar(axes: Axes, shade: str) -> Any:
    """A bar of nothing, for a legend."""
    return axes.barh([0], [0], color=shade)


def _stacked(axes: Axes, part: pd.DataFrame) -> None:
    plain(axes)
    axes.grid(False, axis="y")
    places, left = range(len(part)), pd.Series(0.0, part.index)
    for name, shade in PARTS.items():
        axes.barh(places, part[f"{name} ms"], left=left, color=shade, height=0.66)
        left = left + part[f"{name} ms"]
    for place, total in zip(places, left, strict=True):
        axes.annotate(
            f"{short(total)} ms", (total, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5,
            color=INK,
        )  # fmt: skip
    axes.set_yticks(places, part["server"])
    axes.set_ylim(len(part) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * float(left.max()))
    axes.set_xlabel("ms", fontsize=9, color=INK)


def latency_findings(*pairs: Pair) -> list[str]:
    """Two sentences: what the process of its own adds, and which part is the largest over the slowest network."""
    table = latency_table(*pairs)
    said = []
    for where, text in ((THERE, "With the server in a process of its own"), (NETWORKS[-1].name, "Over {}")):
        parts = []
        for row in table[table["server"] == where].to_dict(orient="records"):
            largest = max(PARTS, key=lambda name: row[f"{name} ms"])
            parts.append(f"{row['model']} on {row['scheme']} {number(row['total ms'])} ms, most of it '{largest}'")
        said.append(f"{text.format(where)} one row takes {'; '.join(parts)}.")
    return said
