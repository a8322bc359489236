"""One call that measures a model under several schemes: the same rows, the same security, every phase apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, r2_score

from hepipe.errors import OutOfRange, ShapeMismatch, Unsupported
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client
from hepipe.schemes.base import CipherTensor, FloatArray, Samples
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters
from hepipe.study.measure import ErrorBudget, Measurement, Stopwatch, Timing
from hepipe.study.plan import plan
from hepipe.study.progress import steps
from hepipe.study.queries import Elsewhere, Found, Here, Parties, There
from hepipe.study.tables import closing_table

ProgressMode = Literal["auto", "off"]
REMOTE = ", server elsewhere"
"""Follows the name of a model that another process evaluated."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The measurements of one model, a row for each scheme and policy."""

    model: str
    metric: str
    samples: int
    measurements: list[Measurement]

    def table(self) -> pd.DataFrame:
        """The closing table: the same columns in every notebook."""
        return closing_table(self)


def compare(
    model: Any,
    X: Samples,
    y: npt.ArrayLike | None = None,
    schemes: Sequence[str] | str = ("clear", "paillier", "ckks"),
    policies: Sequence[str] | str = ("polynomial",),
    repeats: int = 5,
    security_bits: int = 128,
    precision_bits: float | None = None,
    progress: ProgressMode = "auto",
    server: Elsewhere | None = None,
) -> Comparison:
    """Predict X under each scheme and policy ``repeats`` times, the first row alone and all as a batch.

    repeats            timed, at least one, after one warm-up with the first row
    schemes, policies  sequences, or one comma-separated string as notebooks pass them
    y                  true targets, for accuracy (classification) or R2 (regression); None leaves both NaN
    server             a RemoteServer or MailboxServer that evaluates ``model`` in place of this process. The plans are
                       its own; Unsupported for one with another policy, less security or less precision than wanted

    Every query travels through frames, so that packing and parsing are counted. Nothing is pre-computed in the timed
    phases; ``offline_ms`` says how much of them could be.
    """
    if repeats < 1:
        raise OutOfRange(f"repeats={repeats}: time a query at least once")
    rows = len(np.asarray(X))
    if rows < 1 or (y is not None and len(np.asarray(y)) != rows):
        raise ShapeMismatch(
            f"{rows} rows of X and {None if y is None else len(np.asarray(y))} of y: pass as many, at least 1"
        )
    cases = [(scheme, policy) for scheme in _names(schemes) for policy in _names(policies)]
    measurements = []
    wanted = {"precision_bits": precision_bits, "security_bits": security_bits}
    for scheme, policy in steps(cases, "compare", progress, ", ".join):
        planned: Any
        if server is None:
            planned = plan(model, scheme, rows, policy, **wanted)  # type: ignore[arg-type]
        else:
            planned = _published(server, scheme, rows, policy, **wanted)  # type: ignore[arg-type]
        measurements.append(_measure(model, planned, server, X, y, repeats))
    metric = "accuracy" if model.profile.kind == "classification" else "R2"
    return Comparison(model.name + REMOTE * (server is not None), metric, rows, measurements)


def _published(
    server: Elsewhere, scheme: str, rows: int, policy: str, precision_bits: float | None, security_bits: int
) -> Any:
    """A server's own plan, if it gives what is wanted."""
    planned, most = server.plan(scheme), math.inf if precision_bits is None else 2.0**-precision_bits
    for given, fits in (
        (f"policy {planned.policy!r}", planned.policy == policy),
        (f"{planned.samples} rows at once", planned.samples >= rows),
        (f"{planned.security_bits} bits of security", planned.security_bits >= security_bits),
        (f"an error of {planned.error_bound:g}", planned.error_bound <= most),
    ):
        if not fits:
            raise Unsupported(f"the server plans for {given}, which is not what is wanted here: export the model anew")
    return planned


def _names(given: Sequence[str] | str) -> list[str]:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


def _measure(model: Any, planned: Any, server: Elsewhere | None, X: Any, y: Any, repeats: int) -> Measurement:
    keygen = Stopwatch()
    with keygen("keygen"):
        parties = Here(model, planned) if server is None else There(server, planned)
    try:
        parties.query(X[:1], Stopwatch())  # the warm-up: keys, tables and code are those of the batch as well
        one = batch = _repeated(parties, X[:1], repeats)
        if len(X) > 1:  # a batch of one row has just been measured
            batch = _repeated(parties, X, repeats)
        offline_ms = parties.offline_ms()
    finally:
        parties.close()
    (first, alone), (found, together) = one, batch
    scores = found.scores
    reference = clear_scores(model, X, planned.policy, selects=planned.parameters.name == "paillier")
    exact_scores = model.exact(X) if hasattr(model, "exact") else reference
    errors = ErrorBudget(
        approximation_error=float(np.abs(reference - exact_scores).max()),
        scheme_error=float(np.abs(scores - reference).max()),
        bound=planned.error_bound,
        exact_integers=_equals_integer_reference(model, planned, parties.client, found.result, X),
    )
    quality = _quality(model, exact_scores, scores, y, planned.error_bound)
    return Measurement(
        scheme=planned.parameters.name, policy=planned.policy, security_bits=planned.security_bits,
        insecure=planned.parameters.insecure, reveals=planned.reveals, levels=planned.levels, rounds=found.rounds,
        parameters=dataclasses.asdict(planned.parameters), errors=errors, **quality,
        keygen_ms=keygen.times["keygen"][0], offline_ms=offline_ms, one=Timing.of(1, alone),
        batch=Timing.of(len(scores), together), bytes_up=found.bytes_up, bytes_down=found.bytes_down,
        one_bytes=(first.bytes_up, first.bytes_down), key_bytes=planned.key_bytes, slots=planned.parameters.slots,
        operations=getattr(planned, "operations", {}),  # which a server elsewhere does not publish
    )  # fmt: skip


def _repeated(parties: Parties, X: Any, repeats: int) -> tuple[Found, Stopwatch]:
    watch = Stopwatch()
    for _ in range(repeats):
        found = parties.query(X, watch)
    return found, watch


def _equals_integer_reference(model: Any, planned: Any, client: Client, result: CipherTensor, X: Any) -> bool | None:
    """Whether Paillier's integers are those of the same circuit on plain integers; None for other schemes."""
    given = planned.parameters
    if given.name != "paillier":
        return None
    scheme = ClearScheme(ClearParameters(given.depth, given.log_scale, given.log_plain_scale, exact=True))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.prepare(X), model.profile.input_bound)
    expected = scheme.decryptor(keys.secret).decrypt_integers(model.forward(scheme.evaluator(keys, planned.policy), x))
    return bool((client.decrypt_integers(result) == expected).all())


def _quality(model: Any, exact: FloatArray, scores: FloatArray, y: Any, bound: float) -> dict[str, Any]:
    """Metric in the clear and encrypted, agreement, and the exact paired test (McNemar) where labels differ."""
    clear, encrypted = model.head(exact), model.head(scores)
    truth = None if y is None else np.asarray(y)
    if model.profile.kind != "classification":
        near = np.abs(encrypted - clear) <= bound
        metrics = [np.nan if truth is None else _r2(truth, found) for found in (clear, encrypted)]
        return _labelled(metrics, float(near.mean()), (0, 0))
    agreement = float((clear == encrypted).mean())
    if truth is None:
        return _labelled([np.nan] * 2, agreement, (0, 0))
    right_clear, right_encrypted = clear == truth, encrypted == truth
    discordant = (int((right_clear & ~right_encrypted).sum()), int((~right_clear & right_encrypted).sum()))
    return _labelled([float(accuracy_score(truth, found)) for found in (clear, encrypted)], agreement, discordant)


def _r2(truth: FloatArray, found: FloatArray) -> float:
    """R2, which a single row does not have."""
    return float(r2_score(truth, found)) if len(truth) > 1 else np.nan


def _labelled(metrics: list[float], agreement: float, discordant: tuple[int, int]) -> dict[str, Any]:
    total = sum(discordant)
    p_value = float(binomtest(discordant[0], total).pvalue) if total else 1.0
    names = ("metric_clear", "metric_encrypted", "agreement", "disagreements", "p_value")
    return dict(zip(names, (*metrics, agreement, discordant, p_value), strict=True))
