"""What stands under a table, so that it can be quoted alone, and the sentences that its numbers allow."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from hepipe.study.datasets import Dataset
from hepipe.study.measure import NETWORKS, Measurement
from hepipe.study.tables import Compared, gap, security

WIDE = 9
"""A table with more columns, and few rows, is shown on its side: a line for each quantity, a column for each scheme."""

PLAN_NOTE = "From a dry run, before any key exists: the cheapest parameters with this precision; sizes are exact."
"""Stands under a table of plans."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table with the text under it, as a notebook or a terminal shows it; ``frame`` has the raw numbers."""

    frame: pd.DataFrame = field(repr=False)
    footer: str = ""

    def __repr__(self) -> str:
        return f"{self._shown().to_string()}\n\n{self.footer}"

    def _repr_html_(self) -> str:
        paragraphs = "".join(f"<p><small>{html.escape(line)}</small></p>" for line in self.footer.splitlines())
        return self._shown().to_html(border=0) + paragraphs

    def _shown(self) -> pd.DataFrame:
        columns = {name: [_in_column(str(name), value) for value in self.frame[name]] for name in self.frame}
        shown = pd.DataFrame(columns, dtype=object)
        head = str(shown.columns[0])
        if len(shown.columns) <= WIDE or 2 * len(shown) > len(shown.columns):
            return shown.set_index(head)
        turned = shown.iloc[:, 1:].T
        turned.columns = pd.Index(shown[head], name=head)
        return turned


def cell(value: Any) -> str:
    """A value in at most four digits: a dash for none, "exact" for infinitely many bits."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "exact" if math.isinf(value) else number(value)
    return str(value)


def _in_column(name: str, value: Any) -> str:
    # A metric is quoted to four decimals, trailing zeros included.
    known = isinstance(value, float) and math.isfinite(value)
    return f"{value:.4f}" if known and name.startswith("metric") else cell(value)


def number(value: float) -> str:
    """Four significant digits, no exponent where it can be avoided."""
    if value and abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def with_footer(frame: pd.DataFrame, dataset: Dataset | None, *comparisons: Compared) -> Table:
    """``frame`` with what must be known to quote it; ``dataset`` is None for random numbers."""
    return Table(frame, footer(dataset, *comparisons))


def footer(dataset: Dataset | None, *comparisons: Compared) -> str:
    """Security, data, how it was timed, what was counted: a line each."""
    measured = [item for compared in comparisons for item in compared.measurements]
    return "\n".join(
        [
            f"Security: {_security(measured)}",
            f"Data: {data_text(dataset)}. {_samples(comparisons)}",
            f"Timed: {_repeats(measured)} after one warm-up, medians; 1 thread, both parties on one machine. 'one' is "
            "a query of one row; 'batch' is one query of all rows, in ms per row. Keys and tables exist before."
            + _elsewhere(measured),
            "Counted: every byte of frames and rounds of a batch, parsed and checked ('wire'); public keys apart. "
            + _networks(),
        ]
    )


def data_text(dataset: Dataset | None) -> str:
    """Name, origin and digest; generated rows say so."""
    if dataset is None:
        return "random numbers, uniform in [-1, 1]"
    kind = "SYNTHETIC" if dataset.synthetic else "real"
    return f"{dataset.name}, {kind} ({dataset.source}; sha256 {dataset.sha256[:12]})"


def _security(measured: Sequence[Measurement]) -> str:
    levels = {item.scheme: security(item) for item in measured if item.scheme != "clear"}
    if not levels:
        return "nothing is encrypted."
    weak = [scheme for scheme, bits in levels.items() if bits == "insecure"]
    if weak:
        return f"INSECURE test keys ({', '.join(weak)}): these costs say nothing about secure sizes."
    if len(set(levels.values())) > 1:
        return "NOT EQUAL: " + ", ".join(f"{scheme} {bits} bits" for scheme, bits in levels.items()) + "."
    bits = next(iter(levels.values()))
    return f"{bits} bits for {' and '.join(levels)} (Paillier by NIST SP 800-57, CKKS by the HE standard v1.1)."


def _samples(comparisons: Sequence[Compared]) -> str:
    models: dict[str, list[str]] = {}
    for one in comparisons:
        models.setdefault(f"{counted(one.samples, 'row')}, metric {one.metric}", []).append(one.model)
    return "; ".join(f"{' and '.join(names)}: {rows}" for rows, names in models.items())


def counted(count: int, noun: str) -> str:
    """A number of things, with the plural where there is not one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _repeats(measured: Sequence[Measurement]) -> str:
    counts = sorted({len(item.batch.totals) for item in measured})
    return " and ".join(map(str, counts)) + (" repeat" if counts == [1] else " repeats")


def _elsewhere(measured: Sequence[Measurement]) -> str:
    if not any(item.elsewhere for item in measured):
        return ""
    return " Server elsewhere: 'wire' is all that lies between, its evaluation included, as the client sees it."


def _networks() -> str:
    paths = (f"{n.name} {n.rtt_ms:g} ms, {n.up_mbit:g}/{n.down_mbit:g} Mbit/s up/down" for n in NETWORKS)
    return f"Networks are modelled: {'; '.join(paths)}."


def findings(compared: Compared) -> list[str]:
    """At most four sentences on a comparison, every number computed."""
    hidden = [item for item in compared.measurements if item.scheme != "clear"]
    if not hidden:
        return [f"Only the clear scheme was run: {compared.metric} {compared.measurements[0].metric_clear:.4f}."]
    said = [_quality(compared, hidden), _precision(hidden), _cost(hidden), _traffic(hidden)]
    return [sentence for sentence in said if sentence]


def gap_sentence(gaps: pd.DataFrame) -> str:
    """One sentence on ``uncertainty.cv_gaps``: how far each model lies from the baseline, and whether that is a gap."""
    difference = next(str(name) for name in gaps if str(name).startswith("minus "))
    parts = [
        f"{row['model']} {row[difference]:+.4f} ± {row['standard error']:.4f} {row['metric']} (p = {row['p']:.2g}, gap "
        f"{row['gap']})"
        for row in gaps.to_dict(orient="records")
        if f"minus {row['model']}" != difference
    ]
    return f"Fold for fold, {difference}: {'; '.join(parts)}."


_SPELLED = {"ckks": "CKKS", "paillier": "Paillier"}


def _scheme(item: Measurement) -> str:
    return _SPELLED.get(item.scheme, item.scheme)


def _quality(compared: Compared, hidden: Sequence[Measurement]) -> str:
    known = not math.isnan(hidden[0].metric_clear)
    parts = []
    for item in hidden:
        tested = f" (p = {item.p_value:.2g})" if compared.metric == "accuracy" else ""
        metric = f"{compared.metric} {item.metric_encrypted:.4f}, gap {gap(item)}{tested}, "
        parts.append(f"{_scheme(item)} {metric if known else ''}agreement {100 * item.agreement:.2f} %")
    clear = f" the clear {compared.metric} is {hidden[0].metric_clear:.4f}; encrypted" if known else ""
    return f"On {compared.samples} rows{clear}: {'; '.join(parts)}."


def _precision(hidden: Sequence[Measurement]) -> str:
    parts = [
        f"{_scheme(item)} is {_right(item.errors.precision_bits)}"
        + (", its integers equal to the reference" if item.errors.exact_integers else "")
        for item in hidden
    ]
    approximation = max(item.errors.approximation_error for item in hidden)
    beside = f", beside an approximation error of {approximation:.3g} that every scheme shares" if approximation else ""
    return f"Of the scores, {'; '.join(parts)}{beside}."


def _right(bits: float) -> str:
    return "exact" if math.isinf(bits) else f"right to {bits:.1f} bits"


def _cost(hidden: Sequence[Measurement]) -> str:
    parts = [
        f"{_scheme(item)} takes {number(item.one.total)} ms for one row and "
        f"{number(item.batch.total / item.batch.samples)} ms a row in a batch"
        for item in hidden
    ]
    if len(hidden) == 2:
        slow, fast = sorted(hidden, key=lambda item: -item.batch.total)
        parts.append(f"in a batch {_scheme(fast)} is {slow.batch.total / fast.batch.total:.2g} times faster")
    return f"{'; '.join(parts)}."


def _traffic(hidden: Sequence[Measurement]) -> str:
    slow = NETWORKS[-1]
    parts = [
        f"{_scheme(item)} sends {number(item.bytes_up / 2**10)} KiB up and {number(item.bytes_down / 2**10)} KiB down "
        f"in {counted(item.rounds, 'round')}, {number(item.network_ms(slow))} ms a batch over {slow.name} (modelled)"
        for item in hidden
    ]
    return f"{'; '.join(parts)}."
