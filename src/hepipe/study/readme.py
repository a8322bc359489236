"""The generated parts of the README: the latest results and the support tables, between two marks each."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from hepipe.errors import DataError
from hepipe.study.captions import cell
from hepipe.study.report import RANDOM, read_results
from hepipe.study.suite import largest
from hepipe.study.support import model_table, support_table, training_table

COLUMNS = {
    "notebook": "notebook",
    "model": "model",
    "scheme": "scheme",
    "policy": "policy",
    "samples": "rows",
    "security bits": "security bits",
    "metric": "metric",
    "metric clear": "clear",
    "metric encrypted": "encrypted",
    "agreement": "agreement",
    "precision bits (min)": "precision bits",
    "one: total ms": "one row, ms",
    "batch: total ms": "batch, ms a row",
    "rounds": "rounds",
    "KiB up": "KiB up",
    "KiB down": "KiB down",
    "key MiB": "key MiB",
    "reveals": "reveals",
}


def update(readme: Path, results: Path) -> bool:
    """Write all parts anew from ``results``/*/run.json and the code; True if the file changed."""
    after = before = readme.read_text(encoding="utf-8")
    parts = {
        "results": results_part(results),
        "models": markdown(model_table().reset_index()),
        "training": markdown(training_table().reset_index()),
        "support": markdown(support_table().reset_index()),
    }
    for part, content in parts.items():
        after = replaced(after, part, content)
    readme.write_text(after, encoding="utf-8")
    return after != before


def results_part(results: Path) -> str:
    """Of the closing tables of all notebooks each model once, and what they were measured on."""
    frame = read_results(results)
    if frame.empty:
        raise DataError(f"{results}: no results to show: run `make full` first")
    # Prices of single operations are no models, and what the clear scheme finds is a column of the others.
    frame = largest(frame[(frame["data"] != RANDOM) & (frame["scheme"] != "clear")])
    sources = ", ".join(f"{name}{' (synthetic)' if made_up else ''}" for name, made_up in _sources(frame))
    machines = " and ".join(sorted({f"commit {row.commit}, {row.date}" for row in frame.itertuples()}))
    how = "Each scheme with its largest batch. Full profile, both parties on one machine, one thread"
    note = f"Data: {sources}. {how}: {machines}."
    return f"{markdown(frame[list(COLUMNS)].rename(columns=COLUMNS))}\n\n{note}"


def _sources(frame: pd.DataFrame) -> list[tuple[str, bool]]:
    return sorted(set(zip(frame["data"], frame["synthetic"].astype(bool), strict=True)))


def markdown(frame: pd.DataFrame) -> str:
    """A table as GitHub shows it."""
    head = "| " + " | ".join(map(str, frame.columns)) + " |"
    rule = "|" + " --- |" * len(frame.columns)
    rows = [
        "| " + " | ".join(cell(value) for value in row) + " |" for row in frame.astype(object).itertuples(index=False)
    ]
    return "\n".join([head, rule, *rows])


def replaced(text: str, part: str, content: str) -> str:
    """``text`` with ``content`` between the marks of ``part``; DataError if they are not there."""
    pattern = re.compile(rf"(<!-- {part}:begin -->).*?(<!-- {part}:end -->)", re.DOTALL)
    if not pattern.search(text):
        raise DataError(f"the README has no marks <!-- {part}:begin --> and <!-- {part}:end -->")
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n{found[2]}", text)
