"""How a batch looks while it runs: live bars on a terminal, one line for each notebook elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from hepipe.study.batch import Outcome


class PlainProgress:
    """A line when a notebook starts and one when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started: set[str] = set()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to close."""

    def cell(self, name: str, index: int, total: int) -> None:
        """Announce a notebook at its first cell."""
        if name not in self._started:
            self._started.add(name)
            self._console.print(f"{name}: {total} cells", highlight=False, markup=False)

    def done(self, outcome: Outcome) -> None:
        """Say how it ended."""
        self._console.print(ending(outcome), highlight=False, markup=False, soft_wrap=True)


class LiveProgress:
    """A bar for each notebook, moved on by its cells."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def cell(self, name: str, index: int, total: int) -> None:
        """Move the notebook's bar."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
            self._totals[name] = total
        self._progress.update(self._tasks[name], completed=index)

    def done(self, outcome: Outcome) -> None:
        """Stop the bar, full when every cell ran."""
        task = self._tasks.get(outcome.name)
        if task is not None:
            if outcome.error is None:
                self._progress.update(task, completed=self._totals[outcome.name])
            self._progress.stop_task(task)
        if outcome.error is not None:
            self._progress.console.print(ending(outcome), highlight=False, markup=False, soft_wrap=True)


def progress(console: Console) -> PlainProgress | LiveProgress:
    """The form that suits the console."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def ending(outcome: Outcome) -> str:
    """One line on how a notebook ended."""
    state = "done" if outcome.error is None else f"FAILED in {outcome.error}"
    return f"{outcome.name}: {state} ({outcome.seconds:.1f} s)"


def summary(outcomes: Sequence[Outcome]) -> str:
    """The closing words on a batch; a failed notebook is named with its error and its place."""
    count = f"{len(outcomes)} notebook{'s' * (len(outcomes) != 1)}"
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return f"{count} done"
    kept = ", ".join(str(outcome.folder / f"{outcome.name}.ipynb") for outcome in failed)
    head = f"{len(failed)} of {count} failed; kept with the error: {kept}"
    return "\n".join([head, *map(ending, failed)])
