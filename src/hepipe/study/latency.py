"""Where the time of one prediction goes when the server is elsewhere: measured on this machine, modelled beyond it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hepipe.study.captions import number
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import INK, Picture, caveats, plain, short, title
from hepipe.study.measure import NETWORKS, REQUEST, Measurement, Network
from hepipe.study.tables import Compared

HERE, THERE = "one process", "own process"
BETWEEN = "between: frames, HTTP, processes"
NETWORK = ("network: round trips", "network: bytes")
PARTS = {
    "client: encrypt, decrypt": "#007a5a",
    "client: its half of the rounds": "#6fb8a0",
    "server: evaluate": "#8a4f9e",
    BETWEEN: "#8a6a00",
    **dict(zip(NETWORK, ("#555555", "#b4b4b4"), strict=True)),
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
    times = network.trips_ms(item.rounds), network.bytes_ms(*item.one_bytes)
    return dict(zip(NETWORK, times, strict=True))


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
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("ms", fontsize=9, color=INK)


def latency_findings(*pairs: Pair) -> list[str]:
    """Two sentences: what the process of its own adds, and where the slowest network is the largest part."""
    table = latency_table(*pairs)
    near, far = (table[table["server"] == where] for where in (THERE, NETWORKS[-1].name))
    between, network = near[f"{BETWEEN} ms"], far[[f"{name} ms" for name in NETWORK]].sum(axis=1)
    slowed = far[network > far["total ms"] - network]
    most = (
        f"most of it for {' and '.join(map(_case, slowed.to_dict('records')))}" if len(slowed) else "nowhere most of it"
    )
    return [
        f"With the server in a process of its own one row takes {_times(near)}; frames, HTTP and processes are "
        f"{number(between.min())} to {number(between.max())} ms of it.",
        f"Over {NETWORKS[-1].name} (modelled) it takes {_times(far)}; the network is {most}.",
    ]


def _times(table: pd.DataFrame) -> str:
    return ", ".join(f"{number(row['total ms'])} ms ({_case(row)})" for row in table.to_dict(orient="records"))


def _case(row: Mapping[Hashable, Any]) -> str:
    return f"{row['model']} on {row['scheme']}"
