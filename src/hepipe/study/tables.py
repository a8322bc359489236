"""The tables of a comparison: the same columns in every notebook, raw numbers with the unit in the name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import pandas as pd

from hepipe.study.measure import NETWORKS, REQUEST, Measurement, Timing, precision_bits
from hepipe.study.plan import Plan
from hepipe.study.uncertainty import SIGNIFICANCE

STAGES = {
    "encrypt": ("encrypt",),
    "evaluate": ("evaluate",),
    "re-randomise": ("rerandomize",),
    "decrypt": ("decrypt",),
    "wire": ("upload", "download", REQUEST),
}
"""Phases as the tables show them; *wire* is the packing and strict parsing of frames both ways, without a network. Of a
server elsewhere it is all that lies between encrypting and decrypting, since a client can tell no more apart."""


class Compared(Protocol):
    """What the tables need of a comparison."""

    @property
    def model(self) -> str:
        """What was evaluated."""
        ...

    @property
    def metric(self) -> str:
        """The name of the metric."""
        ...

    @property
    def samples(self) -> int:
        """Rows of the batch."""
        ...

    @property
    def measurements(self) -> list[Measurement]:
        """A row each."""
        ...


def closing_table(*comparisons: Compared) -> pd.DataFrame:
    """The closing table: a row for each scheme and policy of each comparison, the same columns in every notebook.

    security bits         a number; "none" in the clear, "insecure" for test keys
    metric clear          of the exact model; *metric encrypted* of the decrypted scores, on the same rows
    agreement             share of equal labels, or of predictions within the plan's error bound
    precision bits (min)  -log2 of the largest error of any score against the same circuit in the clear
    one, batch            median ms of one query of one row, and ms per row of one query of all rows, by phase; the
                          spread is half the range of the repeats in per cent of the median
    KiB up, KiB down      of one query of all rows, rounds included
    """
    return _rows(comparisons, _closing)


def error_budget_table(*comparisons: Compared) -> pd.DataFrame:
    """Where a difference between an encrypted and an exact score comes from, and whether the plan's promise was kept.

    approximation error  max |polynomial circuit in the clear - exact model|
    scheme error         max |decrypted - same circuit in the clear|; *allowed* is what the plan promised
    integers equal       whether each decrypted integer equals the integer reference; Paillier only
    """
    return _rows(comparisons, _error_budget)


def cost_table(*comparisons: Compared) -> pd.DataFrame:
    """What a batch takes in all: once a client, offline, by phase, and what was done.

    keys ms     key generation with its tables, and the public keys sent and parsed: once a client
    offline ms  of encrypt, evaluate and re-randomise, the randomness that could be made before the input is known;
                nothing was, so the phases contain it
    """
    return _rows(comparisons, _cost)


def network_table(*comparisons: Compared) -> pd.DataFrame:
    """Modelled latency of one batch: compute + (1 + rounds) * RTT + bytes / bandwidth. Keys travel once, before."""
    return _rows(comparisons, _network)


def paired_table(*comparisons: Compared) -> pd.DataFrame:
    """Whether clear and encrypted predictions differ in quality, row by row: McNemar's test, exact binomial p.

    ``gap`` is "none" where p >= 0.05, also for a regression, which has no labels to test, when every prediction agrees.
    """
    return _rows(comparisons, _paired)


def plan_table(*plans: Plan) -> pd.DataFrame:
    """What each plan promises, before any key exists; sizes are exact, as frames."""
    return pd.DataFrame([_planned(plan) for plan in plans])


def per_sample(timing: Timing, stage: str) -> float:
    """Median ms per sample of one of STAGES; NaN if none of its phases was timed apart."""
    known = [timing.median(phase) for phase in STAGES[stage] if phase in timing.phases]
    return sum(known) / timing.samples if known else math.nan


def security(measured: Measurement) -> int | str:
    """Security bits as a table shows them."""
    if measured.scheme == "clear":
        return "none"
    return "insecure" if measured.insecure else measured.security_bits


def _rows(comparisons: Iterable[Compared], columns: Callable[[Compared, Measurement], dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for compared in comparisons:
        for measured in compared.measurements:
            head = {"scheme": measured.scheme, "policy": measured.policy, "model": compared.model}
            rows.append(head | columns(compared, measured))
    return pd.DataFrame(rows)


def _closing(compared: Compared, measured: Measurement) -> dict[str, Any]:
    return {
        "samples": compared.samples,
        "security bits": security(measured),
        "metric": compared.metric,
        "metric clear": measured.metric_clear,
        "metric encrypted": measured.metric_encrypted,
        "agreement": measured.agreement,
        "precision bits (min)": measured.errors.precision_bits,
        "approximation error": measured.errors.approximation_error,
        **_times("one", measured.one),
        **_times("batch", measured.batch),
        "rounds": measured.rounds,
        "KiB up": measured.bytes_up / 2**10,
        "KiB down": measured.bytes_down / 2**10,
        "key MiB": measured.key_bytes / 2**20,
        "reveals": measured.reveals,
    }


def _times(label: str, timing: Timing) -> dict[str, float]:
    return {
        **{f"{label}: {stage} ms": per_sample(timing, stage) for stage in STAGES},
        f"{label}: total ms": timing.total / timing.samples,
        f"{label}: spread ±%": 100 * timing.spread,
    }


def _error_budget(compared: Compared, measured: Measurement) -> dict[str, Any]:
    errors = measured.errors
    return {
        "metric": compared.metric,
        "metric clear": measured.metric_clear,
        "metric encrypted": measured.metric_encrypted,
        "agreement": measured.agreement,
        "approximation error": errors.approximation_error,
        "scheme error": errors.scheme_error,
        "scheme error allowed": errors.bound,
        "precision bits (min)": errors.precision_bits,
        "precision bits promised": precision_bits(errors.bound),
        "integers equal": errors.exact_integers,
    }


def _cost(compared: Compared, measured: Measurement) -> dict[str, Any]:
    batch = measured.batch
    return {
        "samples": compared.samples,
        "samples a ciphertext": measured.slots,
        "levels": measured.levels,
        "rounds": measured.rounds,
        "keys ms": measured.keygen_ms,
        "offline ms": measured.offline_ms,
        **{f"{stage} ms": batch.samples * per_sample(batch, stage) for stage in STAGES},
        "total ms": batch.total,
        "rows a second": 1e3 * batch.samples / batch.total,
        "operations": listed(measured.operations),
        "parameters": listed(measured.parameters),
    }


def _network(compared: Compared, measured: Measurement) -> dict[str, Any]:
    return {
        "samples": compared.samples,
        "rounds": measured.rounds,
        "KiB up": measured.bytes_up / 2**10,
        "KiB down": measured.bytes_down / 2**10,
        "compute ms": measured.batch.total,
        **{f"{network.name} ms": measured.network_ms(network) for network in NETWORKS},
    }


def _paired(compared: Compared, measured: Measurement) -> dict[str, Any]:
    lost, won = measured.disagreements
    return {
        "samples": compared.samples,
        "metric": compared.metric,
        "encrypted − clear": measured.metric_encrypted - measured.metric_clear,
        "agreement": measured.agreement,
        "only clear right": lost,
        "only encrypted right": won,
        "exact p": measured.p_value if compared.metric == "accuracy" else math.nan,
        "gap": gap(measured),
    }


def gap(measured: Measurement) -> str:
    """The verdict on encrypted against clear: "none", "worse" or "better"."""
    lost, won = measured.disagreements
    if measured.p_value < SIGNIFICANCE:
        return "worse" if lost > won else "better"
    return "none" if lost + won or measured.agreement == 1 else "not tested"


def _planned(plan: Plan) -> dict[str, Any]:
    given = plan.parameters
    return {
        "scheme": given.name,
        "policy": plan.policy,
        "samples": plan.samples,
        "security bits": "none" if given.name == "clear" else "insecure" if given.insecure else plan.security_bits,
        "levels": plan.levels,
        "rounds": plan.rounds,
        "samples a ciphertext": given.slots,
        "precision bits, at least": -math.log2(plan.error_bound) if plan.error_bound else math.inf,
        "key MiB": plan.key_bytes / 2**20,
        "KiB up": plan.bytes_up / 2**10,
        "KiB down": plan.bytes_down / 2**10,
        "reveals": plan.reveals,
        "operations": listed(plan.operations),
    }


def listed(named: dict[str, Any]) -> str:
    """A dictionary as a table cell."""
    return ", ".join(f"{name} {value}" for name, value in named.items())
