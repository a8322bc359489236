"""Every decoder under fuzz, each in a process of its own, and a table: ``python -m fuzz [RUNS [SEED [DECODER ...]]]``.

Ends with 1 if a decoder crashed, hung, raised what is no error of hepipe's, grew, or accepted what it should not. The
input is then in ``.cache/fuzz/DECODER``, and ``python -m fuzz.child DECODER FILE`` checks it again.
"""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path

from fuzz.report import fuzz, table
from fuzz.targets import MAKERS

FOLDER = Path(".cache/fuzz")
RUNS = 101_000
"""10^5 mutations at least: the seeds, and what the corpus of an earlier run holds, are inputs too."""
EVALUATED = 5_000
"""Accepted CKKS frames to be computed with in SEAL, in as many runs."""


def main(runs: int, seed: int, names: list[str]) -> int:
    """The exit status."""
    outcomes, faults = [], []
    for name in names:
        start = time.monotonic()
        outcome = fuzz(name, runs, seed, FOLDER / name)
        found = outcome.faults(runs)
        evaluated = outcome.counts.get("notes", {}).get("evaluated", EVALUATED)
        if runs >= RUNS and evaluated < EVALUATED:
            found.append(f"only {evaluated} of {EVALUATED} accepted frames were computed with")
        print(f"{name}: {time.monotonic() - start:.0f} s, {'; '.join(found) or 'no finding'}", flush=True)
        outcomes.append(outcome)
        faults += [f"{name}: {fault}\n{outcome.said}" for fault in found]
    print(f"\nseed {seed}\n{table(outcomes)}")
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(
        main(
            int(given[0]) if given else RUNS,
            int(given[1]) if given[1:] else secrets.randbelow(2**31) + 1,
            given[2:] or list(MAKERS),
        )
    )
