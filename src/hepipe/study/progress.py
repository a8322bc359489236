"""Progress of long work: a live bar in a terminal or an open notebook, plain lines in a batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

from rich.progress import track

Item = TypeVar("Item")
BATCH_VARIABLE = "HEPIPE_BATCH"
"""Set by the batch runner, so that executed notebooks hold no dead widgets."""


def steps(
    items: Sequence[Item], label: str, mode: Literal["auto", "off"] = "auto", name: Callable[[Item], str] = str
) -> Iterator[Item]:
    """The items, with progress shown as they are taken; ``name`` says what a line calls one."""
    live = not os.environ.get(BATCH_VARIABLE) and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    if mode == "off":
        yield from items
    elif live:
        yield from track(items, description=label, transient=True)
    else:
        for number, item in enumerate(items, 1):
            print(f"{label} {number}/{len(items)}: {name(item)}", flush=True)
            yield item
