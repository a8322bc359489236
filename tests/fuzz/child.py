"""One decoder under atheris, in a process that it may take down: ``python -m fuzz.child DECODER RUNS SEED FOLDER``.

Writes ``FOLDER/result.json`` at its end, and an input that was a finding into the same folder. With a file in place of
RUNS and SEED, ``python -m fuzz.child DECODER FILE``, it checks that one input.
"""

from __future__ import annotations

import atexit
import json
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import atheris

from fuzz.report import MOST_MEGABYTES, MOST_SECONDS

MOST_BYTES = 1 << 17
_INSTRUMENTED = ["hepipe.schemes", "hepipe.models", "hepipe.service", "hepipe.protocol", "hepipe.circuits"]


def resident_megabytes(most: bool = False) -> float:
    """Of this process now, or the most there ever was. getrusage would count those of the process that started it."""
    name = "VmHWM:" if most else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


class Run:
    """What is counted of one decoder."""

    def __init__(self, target: Any, folder: Path) -> None:
        from hepipe.errors import HepipeError

        self._typed, self._target, self._folder = HepipeError, target, folder
        self._base_mb, self._slowest_s, self._refused = resident_megabytes(), 0.0, Counter[str]()
        self._inputs = self._sealed = self._accepted = 0

    def one(self, data: bytes) -> None:
        """An input: refused by a typed error or accepted, in time; else atheris reports what is raised here."""
        self._inputs += 1
        if self._target.sealed:
            self._sealed += self._target.sealed(data)
        start = time.process_time()
        try:
            self._target.check(data)
            self._accepted += 1
        except self._typed as error:
            self._refused[type(error).__name__] += 1
        seconds = time.process_time() - start
        self._slowest_s = max(self._slowest_s, seconds)
        assert seconds < MOST_SECONDS, f"one input took {seconds:.2f} s"

    def mutate(self, data: bytes, most: int, seed: int) -> bytes:
        """A changed input for libFuzzer."""

        def havoc(piece: bytes) -> bytes:
            return bytes(atheris.Mutate(bytes(piece), len(piece) + 64))

        rng = Random(seed)
        # What is refused stays in the corpus too, and most of its offspring is refused for the same reason.
        parent = rng.choice(self._target.seeds) if rng.randrange(3) == 0 else bytes(data)
        try:
            return bytes(self._target.change(parent, rng, havoc)[:most])
        except Exception:  # an input so far off its form that a change of form fails: libFuzzer would end here
            return havoc(parent)[:most]

    def write(self) -> None:
        """The counts, for the process that started this one."""
        peak_mb = resident_megabytes(most=True)
        fields = {
            "decoder": self._target.name, "inputs": self._inputs, "accepted": self._accepted,
            "sealed": self._sealed if self._target.sealed else None, "refused": dict(self._refused.most_common()),
            "slowest_ms": 1e3 * self._slowest_s, "rss_growth_mb": peak_mb - self._base_mb, "notes": self._target.notes,
        }  # fmt: skip
        (self._folder / "result.json").write_text(json.dumps(fields))


def main(name: str, *more: str) -> None:
    """Fuzz, or check one input."""
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz import targets

        target = targets.target(name)
    if len(more) == 1:
        return target.check(Path(more[0]).read_bytes())
    runs, seed, folder = int(more[0]), int(more[1]), Path(more[2])
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for place, data in enumerate(target.seeds):
        target.check(data)
        (corpus / f"seed-{place}").write_bytes(data)
    run = Run(target, folder)
    # libFuzzer's own limit goes by getrusage; it ends an input that would take all memory, the report is exact.
    limit_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10) + MOST_MEGABYTES
    atexit.register(run.write)
    options = [f"-atheris_runs={runs}", f"-seed={seed}", f"-max_len={MOST_BYTES}", f"-rss_limit_mb={limit_mb}"]
    options += [f"-artifact_prefix={folder}/", "-timeout=60", "-print_final_stats=0", "-verbosity=0", str(corpus)]
    atheris.Setup([sys.argv[0], *options], run.one, custom_mutator=run.mutate, internal_libfuzzer=True)
    atheris.Fuzz()
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
