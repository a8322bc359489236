"""A decoder's process, what is held against it, and the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_SECONDS = 1.0
"""Of processor time for one input; more is a hang."""
MOST_MEGABYTES = 256
"""That resident memory may grow by."""
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """How a process ended, what it counted (nothing if it was killed), and the end of what it said."""

    name: str
    code: int
    counts: dict[str, Any]
    said: str
    findings: list[Path]

    def faults(self, runs: int) -> list[str]:
        """Why this is no success; empty if it is one."""
        found = [f"the process ended with {self.code}"] if self.code else []
        found += [f"an input is a finding: {path}" for path in self.findings]
        if not self.counts:
            return [*found, "it left no counts"]
        if self.counts["inputs"] < runs:
            found.append(f"{self.counts['inputs']} inputs of {runs}")
        if self.counts["rss_growth_mb"] >= MOST_MEGABYTES:
            found.append(f"resident memory grew by {self.counts['rss_growth_mb']:.0f} MB")
        if not (self.counts["accepted"] and self.counts["refused"]):
            found.append("it did not both accept and refuse: the inputs do not reach the decoder")
        if self.counts["sealed"] is not None and self.counts["sealed"] < self.counts["inputs"] / 2:
            found.append(f"only {self.counts['sealed']} inputs have a right digest")
        return found


def fuzz(name: str, runs: int, seed: int, folder: Path) -> Outcome:
    """Fuzz one decoder in a process of its own, from the inputs in ``folder/corpus`` if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    before = set(_findings(folder))
    # libFuzzer's small blocks stay between SEAL's large ones, so that a common heap grows without a leak.
    apart = {"MALLOC_MMAP_THRESHOLD_": "4096", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-m", "fuzz.child", name, str(runs), str(seed), str(folder)],
        env=os.environ | apart | {"PYTHONPATH": path}, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    counts = json.loads(result.read_text()) if result.exists() else {}
    findings = [path for path in _findings(folder) if path not in before]
    return Outcome(name, child.returncode, counts, (child.stdout + child.stderr)[-4000:], findings)


def _findings(folder: Path) -> list[Path]:
    return sorted(path for kind in ("crash", "timeout", "oom", "leak") for path in folder.glob(f"{kind}-*"))


def table(outcomes: list[Outcome]) -> str:
    """A line a decoder."""
    head = ("decoder", "inputs", "digest right", "accepted", "refused by", "slowest ms", "RSS + MB", "besides")
    rows = [head, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(outcome: Outcome) -> tuple[str, ...]:
    counts = outcome.counts
    if not counts:
        return (outcome.name, *["-"] * 6, f"ended with {outcome.code}")
    sealed = "-" if counts["sealed"] is None else f"{counts['sealed']:,}"
    refused = ", ".join(f"{name} {count:,}" for name, count in counts["refused"].items())
    besides = ", ".join(f"{name} in SEAL {count:,}" for name, count in counts["notes"].items())
    return (
        outcome.name, f"{counts['inputs']:,}", sealed, f"{counts['accepted']:,}", refused,
        f"{counts['slowest_ms']:.1f}", f"{counts['rss_growth_mb']:.0f}", besides,
    )  # fmt: skip
