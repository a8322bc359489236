"""Which tests run untraced: the tracer makes them a third slower and more, and coverage keeps its bar without them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNTRACED = (
    "attacks",
    "contract/test_laws.py",
    "faults",
    "fuzz",
    "mailbox",
    "notebooks",
    "service",
    "test_cli.py",
    "test_comparison_privacy.py",
    "test_estimators.py",
    "test_readme.py",
    "test_selection_of_sums.py",
    "test_serving.py",
    "test_transcript.py",
    "traps",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Not pytest-cov's ``no_cover``, which does nothing in a process of pytest-xdist: two tracers run there."""
    if not any(HERE / name in (item.path, *item.path.parents) for name in UNTRACED):
        return (yield)
    here, threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        return (yield)
    finally:
        sys.settrace(here)
        threading.settrace(threads)  # type: ignore[arg-type]
