"""Results that can be quoted: tables with what must be known beside them, and files with their provenance."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hepipe.errors import DataError
from hepipe.study.captions import PLAN_NOTE, Table, data_text, findings, footer, gap_sentence, number, with_footer
from hepipe.study.datasets import Dataset
from hepipe.study.measure import commit, machine
from hepipe.study.tables import (
    Compared,
    closing_table,
    cost_table,
    error_budget_table,
    network_table,
    paired_table,
    plan_table,
)

__all__ = [
    "PLAN_NOTE",
    "Table",
    "closing_table",
    "cost_table",
    "data_text",
    "error_budget_table",
    "findings",
    "footer",
    "gap_sentence",
    "network_table",
    "output_folder",
    "paired_table",
    "plan_table",
    "read_results",
    "summary_findings",
    "summary_table",
    "with_footer",
    "write",
    "write_summary",
]

FORMAT = "hepipe results 1"
RUN, TABLE = "run.json", "table.csv"
RANDOM = "random numbers"
"""Stands for the data where none was loaded."""


class Picture(Protocol):
    """What ``write`` needs of a figure."""

    def png(self) -> bytes:
        """The picture as a PNG file."""
        ...


def output_folder(out: str | Path) -> Path:
    """``out`` as a folder: a relative one lies in the repository also when a notebook is opened inside notebooks/."""
    path, here = Path(out), Path.cwd()
    inside = here.name == "notebooks" and (here.parent / "pyproject.toml").is_file()
    return path if path.is_absolute() or not inside else here.parent / path


def write(
    comparisons: Compared | Sequence[Compared],
    dataset: Dataset | None,
    out: str | Path,
    *,
    name: str | None = None,
    figures: Mapping[str, Picture] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Path:
    """Write table.csv, run.json, a PNG for each figure and a CSV file for each further table; return the folder.

    name     of the notebook, by default that of the folder
    tables   what is not a comparison (cross-validation, primitives), by the name of its file

    Each file appears whole or not at all, and run.json last. It holds parameters, every repeat, the error budget, the
    machine, versions, commit and date, and the digest of the data: what is needed to quote or repeat the run.
    """
    folder = output_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    given = list(comparisons) if isinstance(comparisons, Sequence) else [comparisons]
    closing, more = closing_table(*given), dict(tables or {})
    _replace(folder / TABLE, closing.assign(data=_label(dataset)).to_csv(index=False).encode())
    for stem, frame in more.items():
        _replace(folder / f"{stem}.csv", frame.to_csv(index=False).encode())
    for stem, figure in (figures or {}).items():
        _replace(folder / f"{stem}.png", figure.png())
    run = {
        "format": FORMAT,
        "name": name or folder.resolve().name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": _data(dataset),
        "commit": commit(),
        "machine": machine(),
        "footer": footer(dataset, *given),
        "table": closing,
        "comparisons": given,
        "tables": more,
    }
    _replace(folder / RUN, strict_json(run).encode())
    return folder


def read_results(folder: str | Path, schemes: str | None = None) -> pd.DataFrame:
    """The closing tables of every run in ``folder``/*/run.json, with notebook, data, synthetic, date and commit.

    schemes  names separated by commas; all by default

    What JSON cannot hold (the infinite precision of the clear scheme) comes back missing. DataError for a file of
    another format.
    """
    frames = [_read(path) for path in sorted(Path(folder).glob(f"*/{RUN}"))]
    results = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*SUMMARY, *_ORIGIN])
    wanted = list(results["scheme"]) if schemes is None else [name.strip() for name in schemes.split(",")]
    return results[results["scheme"].isin(wanted)].reset_index(drop=True)


SUMMARY = (
    *("scheme", "policy", "data", "model", "samples", "security bits", "metric", "metric clear", "metric encrypted"),
    *(
        "agreement",
        "precision bits (min)",
        "one: total ms",
        "batch: total ms",
        "rounds",
        "KiB up",
        "KiB down",
        "key MiB",
        "reveals",
    ),
)
"""Columns of the summary over all notebooks."""
_ORIGIN = ("notebook", "synthetic", "date", "commit")


def summary_table(results: pd.DataFrame) -> Table:
    """The results of ``read_results`` side by side, and what they were measured on."""
    if results.empty:
        return Table(pd.DataFrame(columns=list(SUMMARY)), "No results yet: `hepipe run` makes them.")
    lines = [
        f"{run['notebook']}: {run['data']}{' (SYNTHETIC)' if run['synthetic'] else ''}, {run['date']}, "
        f"commit {run['commit'] or 'unknown'}"
        for run in results.drop_duplicates("notebook").to_dict(orient="records")
    ]
    weak = (results["security bits"] == "insecure").any()
    note = "INSECURE test keys: these costs say nothing about secure sizes." if weak else "Keys: see security bits."
    units = "Times are medians, 1 thread; 'one' a query of one row, 'batch' ms per row of one query of all rows."
    marked = results["data"] + results["synthetic"].map({True: " (SYNTHETIC)", False: ""})
    return Table(results.assign(data=marked)[list(SUMMARY)], "\n".join([note, units, *lines]))


def write_summary(results: pd.DataFrame, out: str | Path, figures: Mapping[str, Picture] | None = None) -> Path:
    """Write table.csv and the figures of a summary; no run.json, so that a summary never counts as a result."""
    folder = output_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / TABLE, summary_table(results).frame.to_csv(index=False).encode())
    for stem, figure in (figures or {}).items():
        _replace(folder / f"{stem}.png", figure.png())
    return folder


def summary_findings(results: pd.DataFrame) -> list[str]:
    """At most three sentences on ``read_results``: quality, time and bytes, every number computed."""
    hidden = results[results["scheme"] != "clear"]
    if hidden.empty:
        return []
    cases = hidden.groupby(["notebook", "model"], sort=False)
    moved = (hidden["metric encrypted"] - hidden["metric clear"]).abs().max()
    said = [
        f"Over {len(hidden)} encrypted runs the least agreement with the clear model is "
        f"{100 * hidden['agreement'].min():.2f} %, and no metric moved by more than {moved:.1e}."
    ]
    if hidden["scheme"].nunique() == 1:
        return said
    for column, unit in (("batch: total ms", "ms a row in a batch"), ("KiB up", "KiB up")):
        least = hidden.loc[cases[column].idxmin(), "scheme"].value_counts()
        ratio = cases[column].max() / cases[column].min()
        wins = " and ".join(f"{scheme} for {count}" for scheme, count in least.items())
        said.append(
            f"Of {len(cases)} models, the fewest {unit} are those of {wins}; the schemes differ by a factor of "
            f"{number(ratio.min())} to {number(ratio.max())}."
        )
    return said


def _read(path: Path) -> pd.DataFrame:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["format"] != FORMAT:
            raise ValueError(f"format {run['format']!r}")
        data = run["data"] or {"name": RANDOM, "synthetic": False}
        frame = pd.DataFrame(run["table"])
        head = {"notebook": run["name"], "data": data["name"], "synthetic": data["synthetic"]}
        return frame.assign(**head, date=run["date"], commit=run["commit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not {FORMAT!r} ({error}): run its notebook again") from error


def strict_json(value: Any) -> str:
    """JSON without NaN or infinity, which become null; data classes by their fields, tables by their rows."""
    return json.dumps(_plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict(orient="records"))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no place in {RUN}")


def _label(dataset: Dataset | None) -> str:
    if dataset is None:
        return RANDOM
    return f"{dataset.name} (SYNTHETIC)" if dataset.synthetic else dataset.name


def _data(dataset: Dataset | None) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {name: getattr(dataset, name) for name in ("name", "source", "sha256", "synthetic")}


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step, so that a reader or an interrupted run never sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
