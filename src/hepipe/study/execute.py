"""One notebook, executed by this very interpreter and kept without a trace of the machine it ran on."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop
from papermill.exceptions import PapermillExecutionError

from hepipe.errors import RunFailed
from hepipe.study.progress import BATCH_VARIABLE

Value = bool | int | float | str
"""What a parameter of a notebook can be."""

OnCell = Callable[[int, int], None]
"""Called with the index of a cell that starts, and the number of cells."""

_CELL_FILE = re.compile(r"\S*/ipykernel_\d+/\d+\.py")


class LocalKernel(AsyncKernelManager):
    """A kernel of the running interpreter, reached through sockets in a private folder and not through TCP ports."""

    known: ClassVar[weakref.WeakSet[LocalKernel]] = weakref.WeakSet()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # A "python3" installed for the user may be another interpreter; without folders to search, it is this one.
        self.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        sockets = tempfile.mkdtemp(prefix="hepipe-")
        self.transport = "ipc"
        self.connection_file = os.path.join(sockets, "kernel.json")
        self.ip = os.path.join(sockets, "kernel")
        weakref.finalize(self, shutil.rmtree, sockets, ignore_errors=True)
        LocalKernel.known.add(self)

    async def _async_pre_start_kernel(self, **settings: Any) -> tuple[list[str], dict[str, Any]]:
        # One thread a notebook, as its table says: side by side, waiting threads would take the cores of the others.
        settings["env"] = {"OMP_NUM_THREADS": "1", **os.environ, BATCH_VARIABLE: "1"}
        return await super()._async_pre_start_kernel(**settings)


def end_kernels() -> None:
    """End every kernel at once; the notebooks they ran then fail."""
    for kernel in list(LocalKernel.known):
        process = getattr(kernel.provisioner, "process", None)
        if process is not None and process.poll() is None:
            process.kill()


def execute(notebook: Path, target: Path, parameters: Mapping[str, Value], on_cell: OnCell | None = None) -> None:
    """Run ``notebook`` in the current folder and write the executed copy to ``target``, also when a cell fails.

    RunFailed names the first cell that failed.
    """
    total = len(json.loads(notebook.read_bytes())["cells"]) + bool(parameters)  # papermill injects a cell

    def started(cell: Any, cell_index: int) -> None:
        if on_cell is not None:
            on_cell(cell_index, total)

    try:
        # papermill runs in the thread's event loop, makes one where there is none, and never closes it.
        with closing(ensure_event_loop()):
            papermill.execute_notebook(
                notebook,
                target,
                dict(parameters),
                kernel_name="python3",
                kernel_manager_class=LocalKernel,
                on_cell_start=started,
                progress_bar=False,
            )
    except PapermillExecutionError as error:
        first_line = str(error.evalue).partition("\n")[0]
        raise RunFailed(f"cell [{error.exec_count}]: {error.ename}: {first_line}") from error
    finally:
        if target.is_file():
            _make_portable(notebook, target)


def _make_portable(notebook: Path, target: Path) -> None:
    """Keep of the metadata what describes the run, and of paths only what lies inside the project."""
    executed = json.loads(target.read_bytes())
    run = executed["metadata"].get("papermill", {})
    kept = {key: run[key] for key in ("parameters", "duration", "exception", "version") if key in run}
    executed["metadata"]["papermill"] = {"input": notebook.name, **kept}
    for cell in executed["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
    text = json.dumps(_scrubbed(executed, _places(target)), indent=1, ensure_ascii=False)
    target.write_text(text + "\n", encoding="utf-8")


def _places(target: Path) -> list[tuple[re.Pattern[str], str]]:
    """Absolute folders and what stands for them, the longest first."""
    results = target.parents[2]
    names = {
        results.resolve(): results.name,
        Path.cwd(): ".",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
        Path(tempfile.gettempdir()): "<tmp>",
        Path.home(): "~",
    }
    inner = sorted((place for place in names if len(place.parts) > 1), key=lambda place: -len(str(place)))
    return [(re.compile(re.escape(str(place)) + r"(?![\w-])"), names[place]) for place in inner]


def _scrubbed(node: Any, places: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(node, str):
        node = _CELL_FILE.sub("<cell>", node)
        for pattern, name in places:
            node = pattern.sub(name, node)
        return node
    if isinstance(node, list):
        return [_scrubbed(item, places) for item in node]
    if isinstance(node, dict):
        # Encoded images hold no path, but may by chance hold the letters of one.
        return {key: item if key.startswith("image/") else _scrubbed(item, places) for key, item in node.items()}
    return node
