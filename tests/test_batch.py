"""The batch runner, on throw-away notebooks."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from rich.console import Console

from hepipe.errors import RunFailed
from hepipe.study.batch import PROFILES, Outcome, plan_batch, run_batch
from hepipe.study.batch_progress import progress, summary
from hepipe.study.execute import LocalKernel

PARAMETERS = """\
N_QUERIES = 500  # rows, from 1
REPEATS = 5  # from 1
SECURITY_BITS = 128  # bits: 0, 128, 192 or 256
OUT = "results/full/x"  # folder"""
MEET = """import time
from pathlib import Path
Path(OUT, "here").touch()
end = time.monotonic() + 60
while len(list(Path(OUT).parent.glob("*/here"))) < 2:
    assert time.monotonic() < end, "not side by side"
    time.sleep(0.05)"""
WRITE = """from pathlib import Path
Path(OUT, "table.csv").write_text(f"scheme,policy,n,repeats\\nclear,none,{N_QUERIES},{REPEATS}\\n")"""


def write_notebook(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS) -> Path:
    code = [new_code_cell(source) for source in cells]
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {name}?"), first, *code], metadata=kernel), path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "notebooks"


class Recorder:
    def __init__(self) -> None:
        self.cells: list[tuple[str, int, int]] = []
        self.outcomes: list[Outcome] = []

    def cell(self, name: str, index: int, total: int) -> None:
        self.cells.append((name, index, total))

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


# --- what will be run ------------------------------------------------------------------------------------------------


def test_jobs_come_in_the_order_of_names_with_the_parameters_of_the_profile(place: Path) -> None:
    write_notebook(place, "01_b")
    write_notebook(place, "00_a", parameters="REPEATS = 5  # from 1")
    jobs = plan_batch(profile="smoke")
    assert [job.name for job in jobs] == ["00_a", "01_b"]
    assert jobs[0].parameters == {"REPEATS": 1}
    assert jobs[1].parameters == {
        "N_QUERIES": 8,
        "REPEATS": 1,
        "SECURITY_BITS": 0,
        "OUT": "results/smoke/01_b",
    }


def test_only_smoke_is_insecure_and_full_changes_nothing(place: Path) -> None:
    write_notebook(place, "00_a")
    assert plan_batch(profile="full")[0].parameters == {"OUT": "results/full/00_a"}
    assert [name for name, values in PROFILES.items() if values.get("SECURITY_BITS", 128) == 0] == ["smoke"]
    with pytest.raises(RunFailed, match="SECURITY_BITS=0 makes insecure"):
        plan_batch(profile="quick", parameters={"SECURITY_BITS": "0"})


def test_given_parameters_win_over_the_profile_and_reach_only_who_has_them(place: Path) -> None:
    write_notebook(place, "00_a", parameters='RATE = 0.5  # share\nFAST = False  # or True\nNAME = "x"  # any')
    write_notebook(place, "01_b")
    given = {"N_QUERIES": "7", "RATE": "1", "FAST": "True", "NAME": "5"}
    first, second = plan_batch(parameters=given)
    assert first.parameters == {"RATE": 1.0, "FAST": True, "NAME": "5"}
    assert second.parameters["N_QUERIES"] == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"N_QUERYS": "7"}, "no selected notebook has a parameter 'N_QUERYS': known are N_QUERIES, OUT, REPEATS"),
        ({"N_QUERIES": "many"}, "N_QUERIES='many' is not of type int"),
        ({"N_QUERIES": "2.5"}, "is not of type int"),
        ({"N_QUERIES": "True"}, "is not of type int"),
        ({"OUT": "elsewhere"}, "OUT is set by the runner"),
    ],
)
def test_a_wrong_parameter_is_an_error(place: Path, given: dict[str, str], message: str) -> None:
    write_notebook(place, "00_a")
    with pytest.raises(RunFailed, match=message):
        plan_batch(parameters=given)


def test_notebooks_are_chosen_by_name_number_or_path(place: Path) -> None:
    for name in ("00_a", "01_b", "02_c"):
        write_notebook(place, name)
    assert [job.name for job in plan_batch(["02", "notebooks/00_a.ipynb"])] == ["00_a", "02_c"]
    with pytest.raises(RunFailed, match="no notebook is called '03': there are"):
        plan_batch(["03"])


def test_what_does_not_exist_is_an_error(place: Path) -> None:
    with pytest.raises(RunFailed, match="no notebooks in notebooks/: run from the root"):
        plan_batch()
    with pytest.raises(RunFailed, match="no profile is called 'slow'"):
        plan_batch(profile="slow")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_notebook_is_an_error_before_anything_runs(place: Path, text: str) -> None:
    write_notebook(place, "00_a").write_text(text)
    with pytest.raises(RunFailed, match=r"00_a\.ipynb: not a notebook"):
        plan_batch()


# --- how it is run ---------------------------------------------------------------------------------------------------


@pytest.mark.notebooks
def test_a_failed_notebook_is_kept_and_named_and_the_others_run(place: Path) -> None:
    write_notebook(place, "00_a", "1 / 0", WRITE)
    write_notebook(place, "01_b", "import os", "os._exit(3)")
    write_notebook(place, "02_c", WRITE)
    watch = Recorder()
    outcomes = run_batch(plan_batch(), watch=watch)
    assert [outcome.name for outcome in outcomes] == ["00_a", "01_b", "02_c"]
    assert outcomes[0].error == "cell [3]: ZeroDivisionError: division by zero"
    assert "DeadKernelError" in (outcomes[1].error or "")
    assert outcomes[2].error is None
    assert sorted(watch.outcomes, key=lambda outcome: outcome.name) == outcomes
    kept = (place.parent / "results/quick/00_a/00_a.ipynb").read_text()
    assert "division by zero" in kept
    assert (
        (place.parent / "results/quick/02_c/table.csv").read_text().endswith(f",500,{PROFILES['quick']['REPEATS']}\n")
    )
    assert not (place.parent / "results/quick/00_a/table.csv").exists()


@pytest.mark.notebooks
def test_a_run_leaves_nothing_of_the_run_before(place: Path) -> None:
    write_notebook(place, "00_a", WRITE)
    run_batch(plan_batch(parameters={"N_QUERIES": "1"}))
    stale = place.parent / "results/quick/00_a/stale.png"
    stale.touch()
    run_batch(plan_batch(parameters={"N_QUERIES": "2"}))
    folder = place.parent / "results"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "quick/00_a/00_a.ipynb",
        "quick/00_a/table.csv",
    }
    assert not (folder / ".earlier").exists()
    assert (folder / "quick/00_a/table.csv").read_text().endswith(f",2,{PROFILES['quick']['REPEATS']}\n")


@pytest.mark.notebooks
@pytest.mark.parametrize(("wanted", "threads"), [(None, "1"), ("2", "2")])
def test_the_kernel_is_this_interpreter_in_this_folder_with_one_thread_unless_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, wanted: str | None, threads: str
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    look = "import json, os, sys, pathlib; variables = [os.environ[n] for n in ('HEPIPE_BATCH', 'OMP_NUM_THREADS')]"
    keep = "pathlib.Path(OUT, 'seen').write_text(json.dumps([sys.executable, os.getcwd(), *variables]))"
    write_notebook(place, "00_a", look, keep)
    (outcome,) = run_batch(plan_batch())
    seen = json.loads((outcome.folder / "seen").read_text())
    assert seen == [sys.executable, str(place.parent), "1", threads]


@pytest.mark.notebooks
def test_a_run_closes_its_event_loop(place: Path) -> None:
    write_notebook(place, "00_a", "pass")
    gc.collect()  # what earlier tests left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        run_batch(plan_batch())
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []


@pytest.mark.notebooks
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_executed_notebook_says_nothing_of_the_machine(
    place: Path, tmp_path_factory: pytest.TempPathFactory, elsewhere: bool
) -> None:
    out = tmp_path_factory.mktemp("out") if elsewhere else Path("results")
    load = "import os, sys, pathlib, tempfile, warnings"
    show = "print(os.getcwd(), sys.executable, pathlib.Path.home(), tempfile.gettempdir(), pathlib.Path(OUT).resolve())"
    write_notebook(place, "00_a", load, show, "warnings.warn('careful')", "raise ValueError(sys.prefix)")
    (outcome,) = run_batch(plan_batch(out=out))
    text = (outcome.folder / "00_a.ipynb").read_text()
    nbformat.validate(nbformat.reads(text, as_version=4))
    for trace in (str(place.parent), sys.prefix, str(Path.home()) + "/", "ipykernel_", tempfile.gettempdir()):
        assert trace not in text, trace
    assert "careful" in text
    metadata = json.loads(text)["metadata"]["papermill"]
    assert set(metadata) == {"input", "parameters", "duration", "exception", "version"}


@pytest.mark.notebooks
def test_the_summary_waits_for_the_others_also_side_by_side(place: Path) -> None:
    write_notebook(place, "00_a", MEET, WRITE)
    write_notebook(place, "01_b", MEET, WRITE)
    found = 'from pathlib import Path; assert len(list(Path(OUT).parent.glob("*/table.csv"))) == 2'
    write_notebook(place, "09_summary", found)
    watch = Recorder()
    outcomes = run_batch(plan_batch(), parallel=2, watch=watch)
    assert [outcome.error for outcome in outcomes] == [None, None, None]
    assert {total for _, _, total in watch.cells} == {4, 5}


@pytest.mark.notebooks
def test_an_interrupted_batch_ends_its_kernel_and_leaves_earlier_results(place: Path) -> None:
    earlier = place.parent / "results/quick/00_a/table.csv"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    started = 'Path = __import__("pathlib").Path; Path(OUT, "started").touch(); import time; time.sleep(60)'
    write_notebook(place, "00_a", started)
    write_notebook(place, "01_b", WRITE)

    def interrupt() -> None:
        while not (earlier.parent / "started").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_batch(plan_batch())
    assert time.monotonic() - start < 30
    assert earlier.read_text() == "earlier"
    assert [path.name for path in earlier.parent.iterdir()] == ["table.csv"]
    assert not (earlier.parent.parent / "01_b").exists()
    processes = [getattr(kernel.provisioner, "process", None) for kernel in LocalKernel.known]
    assert [process for process in processes if process is not None and process.poll() is None] == []


# --- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_names_what_runs_and_what_failed(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    failed = Outcome("01_b", Path("results/quick/01_b"), 2.0, "cell [3]: ValueError: [/x]")
    with progress(console) as watch:
        watch.cell("00_a", 0, 5)
        watch.cell("01_b", 3, 5)
        watch.done(Outcome("00_a", Path("results/quick/00_a"), 1.0))
        watch.done(failed)
    shown = console.file.getvalue()
    assert "00_a" in shown
    assert "01_b: FAILED in cell [3]: ValueError: [/x] (2.0 s)" in shown
    assert ("5/5" in shown) == terminal
    assert "kept with the error: results/quick/01_b/01_b.ipynb" in summary([failed])
