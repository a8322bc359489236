"""Measurements: phases timed apart, errors in bits, a network model, and what machine they came from."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

PHASES = ("encrypt", "upload", "evaluate", "rerandomize", "download", "decrypt")
"""In the order in which a query goes through them; upload and download are the packing and strict parsing of frames."""
REQUEST = "request"
"""Stands for all phases between the first and the last where the server is elsewhere."""
ANSWERS = "answers"
"""The client's half of the rounds, which lies within "evaluate" or "request"."""
_PACKAGES = ("hepipe", "tenseal", "phe", "gmpy2", "numpy", "scikit-learn", "pandas", "torch")


class Stopwatch:
    """Wall-clock milliseconds by phase, one list entry a repeat."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block and file it under ``phase``."""
        start = time.perf_counter()
        yield
        self.times.setdefault(phase, []).append(1e3 * (time.perf_counter() - start))


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each phase over the repeats, for ``samples`` rows at once.

    answers  of "evaluate" or "request", what the client's half of the rounds took
    """

    samples: int
    phases: dict[str, list[float]]
    answers: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, samples: int, watch: Stopwatch) -> Timing:
        """What a stopwatch has filed."""
        phases = {phase: times for phase, times in watch.times.items() if phase != ANSWERS}
        return cls(samples, phases, watch.times.get(ANSWERS, []))

    def median(self, phase: str) -> float:
        """Median of one phase, in ms for all samples together."""
        return median(self.phases[phase])

    @property
    def answered(self) -> float:
        """Median ms of the client's half of the rounds."""
        return median(self.answers) if self.answers else 0.0

    @property
    def totals(self) -> list[float]:
        """Sum over the phases, one entry a repeat."""
        return [sum(times) for times in zip(*self.phases.values(), strict=True)]

    @property
    def total(self) -> float:
        """Median total in ms."""
        return median(self.totals)

    @property
    def spread(self) -> float:
        """Half the range of the totals over the repeats, relative to their median."""
        return (max(self.totals) - min(self.totals)) / 2 / self.total if self.total else 0.0


@dataclass(frozen=True)
class ErrorBudget:
    """Where a difference between an encrypted score and the model's comes from.

    approximation_error  max |circuit in the clear - exact model|: zero for linear circuits
    scheme_error         max |decrypted - same circuit in the clear|
    bound                what the plan allowed for the scheme error
    exact_integers       True if every decrypted integer equals the integer reference; None where there is none
    """

    approximation_error: float
    scheme_error: float
    bound: float
    exact_integers: bool | None = None

    @property
    def precision_bits(self) -> float:
        """-log2 of the scheme error; infinite for none."""
        return precision_bits(self.scheme_error)


@dataclass(frozen=True)
class Network:
    """A path between client and server: round-trip time in ms, bandwidth each way in Mbit/s."""

    name: str
    rtt_ms: float
    up_mbit: float
    down_mbit: float

    def transfer_ms(self, rounds: int, bytes_up: int, bytes_down: int) -> float:
        """Modelled time on the wire: one round trip for the query itself, one a round, and the bytes."""
        return self.trips_ms(rounds) + self.bytes_ms(bytes_up, bytes_down)

    def trips_ms(self, rounds: int) -> float:
        """Of that the round trips."""
        return (rounds + 1) * self.rtt_ms

    def bytes_ms(self, bytes_up: int, bytes_down: int) -> float:
        """Of that the bytes."""
        return 8e-3 * (bytes_up / self.up_mbit + bytes_down / self.down_mbit)


NETWORKS = (
    Network("data centre", 0.5, 10_000, 10_000),
    Network("broadband", 20, 40, 100),
    Network("mobile", 60, 10, 30),
)


@dataclass(frozen=True)
class Measurement:
    """One scheme under one policy: what the plan said, what came out, what it cost.

    bytes_up, bytes_down  of the batch; one_bytes, up and down, of the query of one row
    """

    scheme: str
    policy: str
    security_bits: int
    insecure: bool
    reveals: str
    levels: int
    rounds: int
    parameters: dict[str, Any]
    metric_clear: float
    metric_encrypted: float
    agreement: float
    disagreements: tuple[int, int]
    p_value: float
    errors: ErrorBudget
    keygen_ms: float
    offline_ms: float
    one: Timing
    batch: Timing
    bytes_up: int
    bytes_down: int
    one_bytes: tuple[int, int]
    key_bytes: int
    slots: int
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        """Whether the server was in another process, so that its phases were timed as one."""
        return REQUEST in self.batch.phases

    def network_ms(self, network: Network) -> float:
        """Modelled latency of the batch: compute + rounds * RTT + bytes / bandwidth."""
        return self.batch.total + network.transfer_ms(self.rounds, self.bytes_up, self.bytes_down)


def precision_bits(error: float) -> float:
    """-log2 of an error; infinite for none."""
    return -math.log2(error) if error > 0 else math.inf


def machine() -> dict[str, Any]:
    """What a measurement depends on: processor, cores, memory, versions. No host or user name."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def commit() -> str:
    """The commit of the working tree, with a mark if it has changes; empty outside a checkout.

    What runs write, results and the README's tables, is no change: the first notebook would mark the second.
    """
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        written = (":(top)", ":(top,exclude)results", ":(top,exclude)README.md")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *written)
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + "-dirty" * bool(changed)


def _git(*words: str) -> str:
    here = Path(__file__).parent
    run = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
