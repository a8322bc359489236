"""Every fault many times, and a table of how each ended: ``python -m faults --times 20 --out FILE [NAME ...]``."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faults import FAULTS, judged
from faults.scene import DEADLINE_S, GRACE_S, Ending, Scene

HEAD = f"""# Faults

Each is injected into a server process while a client predicts. Its requests end in the right scores, within the plan's
error bound of the clear ones, or in a typed error, within {DEADLINE_S:g} + {GRACE_S:g} s an attempt. Another tenant
predicts before, during and after it and gets the right scores, and the stored reply of its session; where the server
itself is restarted, replies are forgotten and keys are not. A fault does several things, so it has several requests.

This table is written by `make faults`. Recovery is the time from the failed request to the same client's next right
scores, a new worker process included where none is idle.

| fault | times | requests | right result | typed error, by kind | slowest, s | recovery, s: median, worst |
| --- | ---: | ---: | ---: | --- | ---: | --- |"""


def row(name: str, times: int, endings: list[Ending]) -> str:
    """A line of the table."""
    errors = Counter(ending.how for ending in endings if ending.how != "right")
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(errors.items())) or "-"
    slowest = max((ending.seconds for ending in endings), default=0.0)
    waits = [ending.recovery_s for ending in endings if ending.recovery_s is not None]
    waited = f"{statistics.median(waits):.1f}, {max(waits):.1f}" if waits else "-"
    right = len(endings) - errors.total()
    return f"| {name} | {times} | {len(endings)} | {right} | {kinds} | {slowest:.1f} | {waited} |"


def repeated(scene: Scene, name: str, times: int, failed: list[str]) -> list[Ending]:
    """The endings of a fault; what must not happen goes to ``failed``."""
    endings = []
    for number in range(times):
        try:
            endings += judged(scene, FAULTS[name], number)
        except Exception as error:  # whatever it is, it is no typed error
            failed.append(f"{name}, time {number + 1}: {type(error).__name__}: {error}")
    return endings


def lines(times: int, names: list[str], failed: list[str]) -> Iterator[str]:
    """The table, as it comes."""
    yield HEAD
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        try:
            for name in names:
                yield row(name, times, repeated(scene, name, times, failed))
        finally:
            scene.close()
    yield f"\n{len(names)} faults, {times} times each, on {os.cpu_count()} cores: {len(failed)} ended as none may."
    yield from failed


def main(times: int, out: Path | None, names: list[str]) -> int:
    """Run them, print the table and write it; 1 if one ended as none may."""
    failed: list[str] = []
    table = []
    for line in lines(times, names or list(FAULTS), failed):
        print(line, flush=True)
        table.append(line)
    if out is not None:
        out.write_text("\n".join(table) + "\n")
    return bool(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the faults; all by default")
    given = parser.parse_args()
    sys.exit(main(given.times, given.out, given.names))
