"""How every figure of the suite looks: one palette, log axes with units, labels at the marks."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from hepipe.study.captions import number
from hepipe.study.datasets import Dataset
from hepipe.study.measure import Measurement

COLOURS = {"clear": "#6e6e6e", "paillier": "#c1440e", "ckks": "#0068a8"}
"""Of the schemes, told apart with any colour vision and in grey."""
OTHER_COLOURS = ("#007a5a", "#8a4f9e", "#8a6a00")
INK, GRID = "#222222", "#dddddd"
DPI = 110
_DODGE = 0.26


class Picture(Figure):
    """A figure that a notebook shows without any plotting state, and that saves the same everywhere."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained", facecolor="white", dpi=DPI)
        self._drawn = b""

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self) -> bytes:
        """The picture as a PNG file; drawn again only after a change."""
        if self.stale or not self._drawn:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", metadata={"Software": None})
            self._drawn, self.stale = buffer.getvalue(), False
        return self._drawn


def colour(scheme: str, known: Sequence[str] = ()) -> str:
    """The colour of a scheme; one that is not in the palette gets the next free one of its place in ``known``."""
    if scheme in COLOURS:
        return COLOURS[scheme]
    others = [name for name in known if name not in COLOURS]
    return OTHER_COLOURS[others.index(scheme) % len(OTHER_COLOURS) if scheme in others else 0]


def title(picture: Picture, text: str, *caveats: str) -> None:
    """What a figure is about, and under it in capitals what forbids to quote it."""
    lines = [text, " · ".join(caveats)] if caveats else [text]
    picture.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)


def caveats(dataset: Dataset | None, measurements: Sequence[Measurement]) -> list[str]:
    """What forbids to quote a figure: generated data, test keys."""
    synthetic = dataset is not None and dataset.synthetic
    insecure = any(item.insecure for item in measurements)
    return ["SYNTHETIC DATA"] * synthetic + ["INSECURE TEST KEYS"] * insecure


def weak_keys(table: pd.DataFrame) -> list[str]:
    """The same for a table with a column of security bits."""
    return ["INSECURE TEST KEYS"] if (table["security bits"] == "insecure").any() else []


def plain(axes: Axes) -> None:
    """No frame, light grid behind the marks."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, labelcolor=INK, labelsize=9)
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=0.8)


def log_axis(axes: Axes, which: str, label: str) -> None:
    """A log axis with plain numbers at the decades and the unit in its label."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(base=10, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_label_text(label, fontsize=9, color=INK)


def short(value: float) -> str:
    """A tick or mark in few characters: 1200 as 1.2k, 3e6 as 3M, small ones as powers of ten."""
    if value <= 0 or not math.isfinite(value):
        return ""
    if value < 1e-3:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"$10^{{{int(exponent)}}}$" if mantissa == "1" else rf"${mantissa}\cdot10^{{{int(exponent)}}}$"
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return number(float(f"{value:.3g}"))


def dots(
    axes: Axes,
    rows: Sequence[str],
    series: Mapping[str, Sequence[Any]],
    colours: Mapping[str, str],
    shapes: Mapping[str, Sequence[str]] | None = None,
    text: Callable[[float], str] = short,
) -> None:
    """A line for each of ``rows``, the first on top, with a labelled mark for each series.

    series  for each row a value, or (value, least, largest) with a bar; None leaves the place empty
    shapes  of the marks, by series and row; round by default
    """
    plain(axes)
    axes.grid(False, axis="y")
    for place, (name, values) in enumerate(series.items()):
        shift = (place - (len(series) - 1) / 2) * _DODGE
        for row, value in enumerate(values):
            if value is not None:
                _dot(axes, row + shift, value, colours[name], shapes[name][row] if shapes else "o", text)
    for row in range(len(rows) - 1):
        axes.axhline(row + 0.5, color=GRID, linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _dot(axes: Axes, height: float, value: Any, shade: str, shape: str, text: Callable[[float], str]) -> None:
    middle, least, largest = value if isinstance(value, tuple) else (value, value, value)
    axes.plot([least, largest], [height, height], color=shade, linewidth=2, alpha=0.5)
    axes.plot([middle], [height], shape, color=shade, markersize=6)
    axes.annotate(
        text(middle), (largest, height), xytext=(6, 0), textcoords="offset points",
        va="center", fontsize=8.5, color=shade,
    )  # fmt: skip


def room(axes: Axes, values: Sequence[float], left: float = 0.05, right: float = 0.22, decades: float = 1) -> None:
    """Limits of a log x axis: ``values``, at least ``decades``, and at each side room for labels, as a share of it."""
    low, high = math.log10(min(values)), math.log10(max(values))
    spare = max(decades - (high - low), 0) / 2
    low, high = low - spare, high + spare
    span = high - low
    axes.set_xlim(10 ** (low - left * span), 10 ** (high + right * span))
    if span < 2:  # decades alone would leave one tick, or none
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=9))


def key(picture: Picture, colours: Mapping[str, str]) -> None:
    """The names of the series in their colours, above the panels at the right."""
    handles = [picture.axes[0].plot([], [], "o", color=shade)[0] for shade in colours.values()]
    legend = picture.legend(
        handles, list(colours), loc="outside upper right", ncols=len(handles), frameon=False, fontsize=10,
        handletextpad=0.1, columnspacing=1.2, labelcolor=list(colours.values()),
    )  # fmt: skip
    legend.set_in_layout(True)
