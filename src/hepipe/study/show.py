"""Tables on a terminal, turned on their side, so that they fit a narrow window: a column for each scheme."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hepipe.errors import DataError
from hepipe.study.captions import cell
from hepipe.study.plan import Plan
from hepipe.study.report import RUN, TABLE
from hepipe.study.tables import plan_table

HEAD = "scheme"
SUMMARY = "_summary"
"""How the name of a notebook ends that reads the results of the others."""


def show_results(console: Console, folders: Sequence[Path]) -> int:
    """Print the closing table of each folder that has one, then where figures lie; return how many folders had one.

    That of a summary only repeats the others and is left out.
    """
    found = [folder for folder in folders if (folder / TABLE).is_file() and not folder.name.endswith(SUMMARY)]
    for folder in found:
        for model, part in _by_model(_read_table(folder / TABLE)):
            console.print(sideways(f"{folder.name}: {model}" if model else folder.name, part))
        console.print(_footer(folder), markup=False, highlight=False, soft_wrap=True)
    for folder in folders:
        figures = sorted(path.name for path in folder.glob("*.png"))
        if figures:
            console.print(f"figures: {folder}/ ({', '.join(figures)})", markup=False, highlight=False, soft_wrap=True)
    return len(found)


def show_plans(console: Console, title: str, plans: Sequence[Plan]) -> None:
    """Print what plans promise, and their parameters."""
    more = {
        "levels left": [plan.parameters.depth - plan.levels for plan in plans],
        "fresh ciphertext KiB": [
            plan.parameters.ciphertext_bytes(plan.parameters.depth, True) / 2**10 for plan in plans
        ],
        "result ciphertext KiB": [plan.parameters.ciphertext_bytes(0) / 2**10 for plan in plans],
    }
    console.print(sideways(title, plan_table(*plans).assign(**more)))
    for plan in plans:
        console.print(str(plan.parameters), markup=False, highlight=False, soft_wrap=True)


def sideways(title: str, frame: pd.DataFrame) -> Table:
    """A table with a line for each quantity and a column for each row of ``frame``, headed by its scheme."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(no_wrap=True)
    shown = frame.astype(object).map(cell)
    for name in shown.get(HEAD, pd.Series("", index=shown.index)):
        table.add_column(escape(name), justify="right")
    for column in shown.columns.drop(HEAD, errors="ignore"):
        table.add_row(escape(str(column)), *map(escape, shown[column]))
    return table


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a table ({error}): run its notebook again") from error


def _by_model(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A table for each model, since more than a few columns do not fit."""
    if "model" not in frame.columns:
        return [("", frame)]
    return [(str(name), part.drop(columns="model")) for name, part in frame.groupby("model", sort=False)]


def _footer(folder: Path) -> str:
    """What must stand under the table; kept beside it."""
    try:
        return str(json.loads((folder / RUN).read_text(encoding="utf-8"))["footer"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{folder}: no {RUN} says how this was measured"
