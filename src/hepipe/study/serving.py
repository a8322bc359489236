"""What a server bears under load: the regimes that `make load` measured as a table, a figure and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from hepipe.study.captions import cell
from hepipe.study.drawing import COLOURS, OTHER_COLOURS, Picture, dots, key, log_axis, plain, room, title
from hepipe.study.readme import markdown

MIXED = "both"
"""Stands for the scheme of a regime in which Paillier and CKKS alternate."""
_SHADES = COLOURS | {MIXED: OTHER_COLOURS[0]}
WARM = 0.1
"""Share of a regime's requests that warm it up; memory in the next such share is compared with that at its end."""


@dataclass(frozen=True)
class Regime:
    """One closed loop of all clients: the next request of each leaves when its last was answered.

    latencies_ms   of every answer; ``seconds`` from the first request to the last answer
    errors         answers that were refused, lost or bound to another request
    checked        answers that were decrypted; ``largest_error`` their distance from the score in the clear
    cpu_s          of server, workers, clients, and of others on the machine in that time
    ahead, late    blinding factors made before the request came, and while it waited
    memory         (requests answered, MiB resident in server and workers), in order of time
    """

    name: str
    scheme: str
    latencies_ms: Sequence[float]
    seconds: float
    errors: int
    checked: int
    largest_error: float
    cpu_s: Mapping[str, float]
    ahead: int
    late: int
    memory: Sequence[tuple[int, float]]

    @property
    def rate(self) -> float:
        """Predictions a second."""
        return len(self.latencies_ms) / self.seconds

    @property
    def growth(self) -> float:
        """By how much of itself memory grew from the second tenth of the requests to the last, by their medians.

        Requests on their way come and go, 0.7 MB each under CKKS, so that a single sample says little.
        """
        count = self.memory[-1][0]
        warm = [size for done, size in self.memory if WARM * count <= done <= 2 * WARM * count]
        late = [size for done, size in self.memory if done >= (1 - WARM) * count]
        return median(late) / median(warm or late) - 1

    def percentile(self, share: float) -> float:
        """A percentile of the latency in ms."""
        return float(np.percentile(self.latencies_ms, share))


@dataclass(frozen=True)
class Goal:
    """What was promised of a regime, and what came out; ``least`` is a floor, else a ceiling."""

    what: str
    goal: float
    measured: float
    least: bool

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.measured >= self.goal if self.least else self.measured <= self.goal


def load_table(regimes: Sequence[Regime], cores: int) -> pd.DataFrame:
    """A line for each regime; CPU in ms a request, that of others as a share of the machine."""
    rows = []
    for each in regimes:
        count = len(each.latencies_ms)
        made = each.ahead + each.late
        rows.append(
            {
                "regime": each.name,
                "scheme": each.scheme,
                "requests": count,
                "errors": each.errors,
                "a second": each.rate,
                "p50 ms": each.percentile(50),
                "p95 ms": each.percentile(95),
                "p99 ms": each.percentile(99),
                "blinded ahead %": 100 * each.ahead / made if made else None,
                **{f"CPU {party} ms": 1e3 * each.cpu_s[party] / count for party in ("server", "workers", "clients")},
                "others % of CPU": 100 * each.cpu_s["others"] / (cores * each.seconds),
                "MiB": each.memory[-1][1],
                "growth %": 100 * each.growth,
                "checked": each.checked,
                "largest error": each.largest_error,
            }
        )
    return pd.DataFrame(rows)


def figure_load(regimes: Sequence[Regime]) -> Picture:
    """Predictions a second, latency from the median to the 99th percentile, and memory over the longest regime."""
    names = [each.name for each in regimes]
    colours = {scheme: _SHADES[scheme] for scheme in dict.fromkeys(each.scheme for each in regimes)}
    picture = Picture(12, 1.8 + 0.45 * len(regimes))
    rates, latencies, memory = picture.subplots(1, 3)
    for axes, label, values in (
        (rates, "predictions a second (log)", [each.rate for each in regimes]),
        (latencies, "latency in ms, p50 to p99 (log)", [_spread(each) for each in regimes]),
    ):
        series = {
            scheme: [value if each.scheme == scheme else None for each, value in zip(regimes, values, strict=True)]
            for scheme in colours
        }
        dots(axes, names, series, colours)
        log_axis(axes, "x", label)
        room(axes, [number for value in values for number in np.atleast_1d(value)])
    latencies.set_yticklabels([])
    longest = max(regimes, key=lambda each: len(each.latencies_ms))
    plain(memory)
    memory.plot(*zip(*longest.memory, strict=True), color=_SHADES[longest.scheme], linewidth=2)
    memory.set_ylim(0, 1.25 * max(size for _, size in longest.memory))
    memory.set_xlabel(f"requests answered, {longest.name}", fontsize=9)
    memory.set_ylabel("MiB of server and workers", fontsize=9)
    key(picture, colours)
    title(picture, "A server under load")
    return picture


def load_page(record: Mapping[str, Any], table: pd.DataFrame, goals: Sequence[Goal]) -> str:
    """The page that shows a run: what was promised, what came out, on which machine."""
    machine = record["machine"]
    promised = pd.DataFrame([{**asdict(goal), "met": goal.met} for goal in goals])
    promised["goal"] = [f"{'≥' if goal.least else '≤'} {cell(goal.goal)}" for goal in goals]
    lines = [
        "# A server under load",
        f"`hepipe serve` on loopback, {record['clients']} clients with keys of their own in one other process, all on "
        f"the same {machine['cores']} cores; one row of the CHD logistic model ({record['columns']} columns) a "
        "request, encrypted beforehand. Each client sends its next request when its last was answered.",
        "![rates, latency and memory](load.png)",
        markdown(promised.drop(columns="least")),
        markdown(table),
        "*Counted*: the pools of blinding factors are empty, so every full power r^n is made while the load runs. "
        "*From pools*: after a time without requests, in which idle workers filled them. *Soak*: Paillier and CKKS in "
        "turn. Every answer's binding to its request was checked, and of each regime at least one answer in ten was "
        "decrypted and compared with the score in the clear. CPU is milliseconds a request; others is what the machine "
        f"did besides. Requests answered from a stored reply: {record['replays']}.",
        "What a Paillier prediction costs a worker alone, in one process on this machine: "
        f"{cell(record['online_ms'])} ms online and {cell(record['power_ms'])} ms for its blinding factor.",
        f"Command: `{record['command']}`. Commit {record['commit']}, {record['date']}. Data: {record['data']}. "
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}.",
    ]
    return "\n\n".join(lines) + "\n"


def _spread(each: Regime) -> tuple[float, float, float]:
    return each.percentile(50), each.percentile(50), each.percentile(99)
