"""The command line: what it prints and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import hepipe.__main__ as cli
from hepipe.models.bundle import Settings, load
from hepipe.models.logistic import clear_scores
from hepipe.study import doctor
from test_batch import WRITE, write_notebook


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, words)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "notebooks"


def test_version_and_help() -> None:
    assert call("--version").output == "hepipe 0.1.0\n"
    for command in ("run", "plan", "table", "doctor"):
        assert command in call("--help").output
        assert call(command, "--help").exit_code == 0


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    code = "import sys, hepipe; had = set(sys.modules); import hepipe.__main__; print(*set(sys.modules) - had)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "pandas", "sklearn", "tenseal", "papermill", "matplotlib", "hepipe.study.batch"}
    assert heavy.isdisjoint(run.stdout.split())


# --- run and table ---------------------------------------------------------------------------------------------------


def test_run_refuses_an_unknown_parameter_and_names_the_known(place: Path) -> None:
    write_notebook(place, "00_a")
    for words in (("-p", "N_QUERYS", "5"), ("--parameter", "N_QUERYS=5")):
        result = call("run", *words)
        assert result.exit_code == 1
        assert "no selected notebook has a parameter 'N_QUERYS': known are N_QUERIES" in result.stderr
    assert not (place.parent / "results").exists()
    assert call("run", "-p", "N_QUERIES").exit_code == 1


@pytest.mark.notebooks
def test_run_shows_the_tables_where_the_figures_lie_and_what_failed(place: Path) -> None:
    write_notebook(place, "00_a", WRITE, 'Path(OUT, "cost.png").touch()')
    write_notebook(place, "01_b", "1 / 0")
    result = call("run", "-p", "N_QUERIES", "-5", "--profile", "smoke")
    assert result.exit_code == 1
    assert "figures: results/smoke/00_a/ (cost.png)" in result.output
    assert "-5" in result.output
    assert "00_a: done" in result.output
    assert "01_b: FAILED in cell [3]: ZeroDivisionError: division by zero" in result.output
    assert "1 of 2 notebooks failed; kept with the error: results/smoke/01_b/01_b.ipynb" in result.output
    passed = call("run", "00", "--profile", "smoke")
    assert passed.exit_code == 0
    assert "1 notebook done" in passed.output


def test_table_turns_the_closing_tables_on_their_side(place: Path) -> None:
    folder = place.parent / "results/full/00_a"
    folder.mkdir(parents=True)
    head = "model,scheme,metric clear,precision,key MiB,reveals"
    (folder / "table.csv").write_text(f"{head}\nm,paillier,0.70359281,inf,12345.6,[scores]\nm,ckks,0.7,20.5,,\n")
    (folder / "run.json").write_text('{"footer": "Measured somewhere."}')
    result = call("table", "full")
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if line.strip()]
    assert ["00_a:", "m"] in lines
    assert ["paillier", "ckks"] in lines
    assert ["metric", "clear", "0.7036", "0.7"] in lines
    assert ["key", "MiB", "12,346", "–"] in lines
    assert ["reveals", "[scores]", "–"] in lines
    assert ["precision", "exact", "20.5"] in lines
    assert ["Measured", "somewhere."] in lines


def test_table_without_results_says_what_makes_them(place: Path) -> None:
    result = call("table", "full")
    assert result.exit_code == 1
    assert "hepipe run --profile full makes them" in result.stderr


# --- plan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["salary-linear", "chd-logistic", "chd-logistic-sigmoid3"])
def test_plan_of_a_named_model(model: str) -> None:
    result = call("plan", "--model", model, "--samples", "10", "--schemes", "clear,paillier,ckks")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["security", "bits", "none", "128", "128"] in lines
    assert ["levels", "left", "0", "0", "0"] in lines
    assert ["rounds", "0", "2" if model.endswith("sigmoid3") else "0", "0"] in lines
    assert "modulus_bits=3072" in result.output


@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_plan_of_a_file_of_coefficients(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.json"
    columns = [["age", 18, 70], ["hours", 0, 60]]
    path.write_text(json.dumps({"kind": kind, "coef": [1.5, -2], "intercept": 3, "columns": columns}))
    result = call("plan", "--file", str(path), "--schemes", "ckks", "--security-bits", "0")
    assert result.exit_code == 0, result.output
    assert f"{kind} regression, 64 rows" in " ".join(result.output.split())
    assert "insecure" in result.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"kind": "linear", "coef": [1], "intercept": 0}', "'columns' is missing"),
        ('{"kind": "tree", "coef": [1], "intercept": 0, "columns": [["a", 0, 1]]}', "kind is 'tree'"),
        (
            '{"kind": "linear", "coef": [1, 2], "intercept": 0, "columns": [["a", 0, 1]]}',
            "one number for each of the 1",
        ),
        ('{"kind": "linear", "coef": [], "intercept": 0, "columns": []}', "no column"),
        ('{"kind": "linear", "coef": [NaN], "intercept": 0, "columns": [["a", 0, 1]]}', "not a finite number"),
        ('{"kind": "linear", "coef": [1], "intercept": 0, "columns": [["a", 1, 0]]}', "not a finite interval"),
    ],
)
def test_a_bad_file_is_refused_with_the_form_it_should_have(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    result = call("plan", "--file", str(path))
    assert result.exit_code == 1
    assert reason in result.stderr
    assert 'expected {"kind"' in result.stderr


def test_plan_refuses_what_does_not_exist() -> None:
    for words, reason in (
        (("--model", "x"), "no model is called 'x'"),
        (("--schemes", "rsa"), "no scheme named 'rsa'"),
        (("--security-bits", "100"), "security_bits=100"),
    ):
        result = call("plan", *words)
        assert result.exit_code == 1
        assert reason in result.stderr


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_finds_this_installation_in_order() -> None:
    result = call("doctor")
    assert result.exit_code == 0, result.output
    for name in ("python", "tenseal", "gmpy2", "papermill", "SEAL format", "data chd", "data salary"):
        assert f"ok    {name}" in result.output or f"note  {name}" in result.output


def test_doctor_names_the_fix_and_exits_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from phe import util

    monkeypatch.setattr(util, "HAVE_GMP", False)
    result = call("doctor")
    assert result.exit_code == 1
    assert "WRONG phe with gmpy2" in result.output
    assert f"fix: {sys.executable} -m pip install --force-reinstall --no-deps gmpy2 phe" in result.output


def test_doctor_sees_another_seal_a_missing_package_and_an_altered_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hepipe.schemes import seal

    monkeypatch.setattr(seal, "FORMAT_VERSION", (9, 9))
    monkeypatch.setattr(doctor, "NEEDED", ("no_such_package",))
    (tmp_path / "framingham.csv").write_text("altered")
    monkeypatch.setenv("HEPIPE_DATA_DIR", str(tmp_path))
    found = {check.name: check for check in doctor.checks()}
    assert "hepipe reads (9, 9)" in found["SEAL format"].found
    assert found["no_such_package"].fails
    assert "pip install no_such_package" in found["no_such_package"].fix
    assert found["data chd"].fails
    assert "not the expected file" in found["data chd"].found


def test_doctor_notes_data_that_only_looks_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hepipe.study import datasets

    monkeypatch.setattr(datasets, "_REPOSITORY", tmp_path)
    monkeypatch.setattr(datasets, "manifest", datasets.manifest)
    monkeypatch.setenv("HEPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HEPIPE_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    source = Path(doctor.__file__).parents[3] / "datasets/sources.toml"
    (tmp_path / "datasets/sources.toml").write_bytes(source.read_bytes())
    check = doctor._data("chd")
    assert not check.ok
    assert not check.fails
    assert check.found.startswith("generated:")
    assert "offline=False" in check.fix


def test_readme_is_written_from_the_results_and_then_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parent.parent
    monkeypatch.chdir(tmp_path)
    parts = ("results", "models", "training", "support")
    Path("README.md").write_text("".join(f"<!-- {part}:begin --><!-- {part}:end -->" for part in parts))
    assert "written" in call("readme", "--out", str(root / "results")).stdout
    assert "| by rounds |" in Path("README.md").read_text()
    assert "up to date" in call("readme", "--out", str(root / "results")).stdout


# --- export -----------------------------------------------------------------------------------------------------------


def test_export_writes_a_bundle_that_loads_as_the_model(tmp_path: Path) -> None:
    numbers = tmp_path / "model.json"
    numbers.write_text(
        json.dumps({"kind": "linear", "coef": [1.5, -2], "intercept": 3, "columns": [["a", 0, 9], ["b", 0, 1]]})
    )
    out = tmp_path / "models" / "wages.zip"  # a folder that is not there yet
    result = call("export", str(numbers), str(out), "--schemes", "ckks", "--samples", "4", "--model-version", "2")
    assert result.exit_code == 0, result.output
    bundle = load(out)
    assert (bundle.name, bundle.version, bundle.settings) == ("wages", "2", Settings(("ckks",), samples=4))
    assert bundle.digest in result.output
    assert clear_scores(bundle.model, [[2.0, 1.0]]).tolist() == [[4.0]]
    again = call("export", str(numbers), str(out))
    assert again.exit_code == 1
    assert "never overwritten" in again.stderr
    refused = call("export", str(numbers), str(tmp_path / "m"), "--precision-bits", "300")
    assert refused.exit_code == 1
    assert not (tmp_path / "m").exists()
