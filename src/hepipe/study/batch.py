"""The batch: the notebooks of a folder, in one of three sizes, executed one after the other or side by side."""

from __future__ import annotations

import ast
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import papermill

from hepipe.errors import HepipeError, RunFailed
from hepipe.study.execute import Value, end_kernels, execute
from hepipe.study.show import SUMMARY

PROFILES: dict[str, dict[str, Value]] = {
    "smoke": {
        **{"N_QUERIES": 8, "SIGMOID_QUERIES": 2, "TREE_QUERIES": 2, "ROUND_QUERIES": 1},
        **{"REPEATS": 1, "CV_REPEATS": 1, "DRAWS": 10, "GAP_BITS": 6, "BITS": 3, "TREES": 2, "SECURITY_BITS": 0},
        **{"STEPS": 3, "TUTORIAL_ROWS": 1, "PAILLIER_ROWS": 2},
    },
    "quick": {
        **{"SIGMOID_QUERIES": 8, "TREE_QUERIES": 2, "ROUND_QUERIES": 1},
        **{"REPEATS": 1, "CV_REPEATS": 1, "DRAWS": 50, "GAP_BITS": 6, "BITS": 3, "TREES": 2},
        **{"STEPS": 6, "TUTORIAL_ROWS": 2, "PAILLIER_ROWS": 2},
    },
    "full": {},
}
"""Parameters of the notebooks by profile. Only *smoke* uses insecure test keys; *full* is what the notebooks say."""


@dataclass(frozen=True)
class Job:
    """One notebook, the folder of its results, and the parameters that differ from those it states."""

    notebook: Path
    folder: Path
    parameters: Mapping[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The notebook's name without its ending."""
        return self.notebook.stem


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended; ``error`` is None when every cell ran."""

    name: str
    folder: Path
    seconds: float
    error: str | None = None


class Watch(Protocol):
    """Who is told how a batch goes on; called from several threads."""

    def cell(self, name: str, index: int, total: int) -> None:
        """Cell ``index`` of ``total`` starts."""
        ...

    def done(self, outcome: Outcome) -> None:
        """A notebook ended."""
        ...


class Silence:
    """A Watch that shows nothing."""

    def cell(self, name: str, index: int, total: int) -> None:
        """Nothing."""

    def done(self, outcome: Outcome) -> None:
        """Nothing."""


def plan_batch(
    names: Sequence[str] = (),
    *,
    profile: str = "quick",
    parameters: Mapping[str, str] | None = None,
    out: Path = Path("results"),
    notebooks: Path = Path("notebooks"),
) -> list[Job]:
    """The jobs of a batch in the order of their names.

    names       notebooks by name, by number ("02") or by path; all of the folder when empty
    profile     "smoke", "quick" or "full": see PROFILES
    parameters  texts by name, over the profile's; each goes to the notebooks that have it

    RunFailed, before anything runs, for a name, profile or parameter that does not exist, and for a value of another
    type than the notebook's own.
    """
    if profile not in PROFILES:
        raise RunFailed(f"no profile is called {profile!r}: use one of {list(PROFILES)}")
    chosen = _chosen(names, notebooks)
    known = {path: _defaults(path) for path in chosen}
    given = dict(parameters or {})
    _check_known(given, known)
    return [_job(path, defaults, profile, given, out) for path, defaults in known.items()]


def run_batch(jobs: Sequence[Job], *, parallel: int = 1, watch: Watch | None = None) -> list[Outcome]:
    """Execute the jobs, ``parallel`` at a time, and say how each ended, in the order of ``jobs``.

    A notebook that fails keeps its executed copy, and the others still run. An interrupted one leaves the results of
    its earlier run untouched.
    """
    summaries = [job for job in jobs if job.name.endswith(SUMMARY)]
    first = [job for job in jobs if job not in summaries]
    outcomes: dict[str, Outcome] = {}
    for group, size in ((first, parallel), (summaries, 1)):
        # A summary reads the results of the others, so it waits for them.
        outcomes |= _run_group(group, max(size, 1), watch or Silence())
    return [outcomes[job.name] for job in jobs]


def _chosen(names: Sequence[str], folder: Path) -> list[Path]:
    found = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not found:
        raise RunFailed(f"no notebooks in {folder}/: run from the root of the repository, or name the folder")
    wanted = [Path(name).name.removesuffix(".ipynb") for name in names]
    for name in wanted:
        if not any(_fits(stem, name) for stem in found):
            raise RunFailed(f"no notebook is called {name!r}: there are {list(found)}")
    return [path for stem, path in found.items() if not wanted or any(_fits(stem, name) for name in wanted)]


def _fits(stem: str, name: str) -> bool:
    return stem == name or stem.split("_")[0] == name


def _defaults(notebook: Path) -> dict[str, Value]:
    """The parameters of a notebook and the values it gives them."""
    try:
        found: dict[str, dict[str, Any]] = papermill.inspect_notebook(notebook)
        return {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}
    except Exception as error:
        raise RunFailed(f"{notebook}: not a notebook whose parameters are plain values ({error})") from error


def _check_known(given: Mapping[str, str], known: Mapping[Path, Mapping[str, Value]]) -> None:
    names = sorted({name for defaults in known.values() for name in defaults})
    for name in given:
        if name == "OUT":
            raise RunFailed("OUT is set by the runner to the folder of each notebook: use --out for all of them")
        if name not in names:
            raise RunFailed(f"no selected notebook has a parameter {name!r}: known are {', '.join(names)}")


def _job(notebook: Path, defaults: Mapping[str, Value], profile: str, given: Mapping[str, str], out: Path) -> Job:
    folder = out / profile / notebook.stem
    typed = {name: _typed(name, text, defaults[name]) for name, text in given.items() if name in defaults}
    values: dict[str, Value] = {**PROFILES[profile], **typed, "OUT": folder.as_posix()}
    if values.get("SECURITY_BITS") == 0 and profile != "smoke":
        raise RunFailed(f"SECURITY_BITS=0 makes insecure test keys, which the profile {profile!r} excludes: use smoke")
    return Job(notebook, folder, {name: value for name, value in values.items() if name in defaults})


def _typed(name: str, text: str, default: Value) -> Value:
    """The text as a value of the type that the notebook gives the parameter."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        kind = type(default).__name__
        raise RunFailed(f"{name}={text!r} is not of type {kind}: give a value such as {default!r}")
    return type(default)(value)


def _run_group(jobs: Sequence[Job], size: int, watch: Watch) -> dict[str, Outcome]:
    # Workers even when there is only one: nbclient handles Ctrl-C in the main thread by going on with the next cell.
    stopped = threading.Event()
    with ThreadPoolExecutor(size) as pool:
        futures = {job.name: pool.submit(_run, job, watch, stopped) for job in jobs}
        try:
            wait(futures.values())
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures.values()):
                end_kernels()  # again and again: one may have been starting
                time.sleep(0.1)
            raise
    return {name: future.result() for name, future in futures.items()}


def _run(job: Job, watch: Watch, stopped: threading.Event) -> Outcome:
    start, error = time.perf_counter(), None
    with _emptied(job.folder, stopped):
        try:
            target = job.folder / job.notebook.name
            execute(job.notebook, target, job.parameters, lambda index, total: watch.cell(job.name, index, total))
        except HepipeError as failure:
            error = str(failure)
        except Exception as failure:  # a kernel that died, a full disk: this notebook fails, the batch goes on
            error = f"{type(failure).__name__}: {failure}"
    outcome = Outcome(job.name, job.folder, time.perf_counter() - start, error)
    if not stopped.is_set():
        watch.done(outcome)
    return outcome


@contextmanager
def _emptied(folder: Path, stopped: threading.Event) -> Iterator[None]:
    """An empty ``folder``; what it held before is dropped at the end, or comes back when the batch was stopped."""
    earlier = folder.parent.parent / ".earlier" / folder.parent.name / folder.name
    shutil.rmtree(earlier, ignore_errors=True)
    if folder.exists():
        earlier.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(earlier)
    folder.mkdir(parents=True)
    yield
    if stopped.is_set():
        shutil.rmtree(folder, ignore_errors=True)
        if earlier.exists():
            earlier.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)
    with suppress(OSError):  # other notebooks of the batch may still keep theirs
        earlier.parent.rmdir()
        earlier.parent.parent.rmdir()
