"""One call that measures a model under several schemes: the same rows, the same security, every phase apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, r2_score

from hepipe.errors import ShapeMismatch
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.base import CipherTensor, FloatArray
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters
from hepipe.study.measure import ErrorBudget, Measurement, Stopwatch, Timing
from hepipe.study.plan import Plan, plan
from hepipe.study.progress import steps
from hepipe.study.tables import closing_table

ProgressMode = Literal["auto", "off"]


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
    X: npt.ArrayLike | pd.DataFrame,
    y: npt.ArrayLike | None = None,
    schemes: Sequence[str] | str = ("clear", "paillier", "ckks"),
    policies: Sequence[str] | str = ("polynomial",),
    repeats: int = 5,
    security_bits: int = 128,
    precision_bits: float | None = None,
    progress: ProgressMode = "auto",
) -> Comparison:
    """Predict X under each scheme and policy ``repeats`` times after a warm-up, the first row alone and all as a batch.

    schemes, policies  sequences, or one comma-separated string as notebooks pass them
    y                  true targets, for accuracy (classification) or R2 (regression); None leaves both NaN

    Every query travels through frames, so that packing and parsing are counted. Nothing is pre-computed in the timed
    phases; ``offline_ms`` says how much of them could be.
    """
    rows = len(np.asarray(X))
    if rows < 1 or (y is not None and len(np.asarray(y)) != rows):
        raise ShapeMismatch(
            f"{rows} rows of X and {None if y is None else len(np.asarray(y))} of y: pass as many, at least 1"
        )
    cases = [(scheme, policy) for scheme in _names(schemes) for policy in _names(policies)]
    measurements = []
    for scheme, policy in steps(cases, "compare", progress, ", ".join):
        planned = plan(model, scheme, rows, policy, precision_bits=precision_bits, security_bits=security_bits)
        measurements.append(_measure(model, planned, X, y, repeats))
    metric = "accuracy" if model.profile.kind == "classification" else "R2"
    return Comparison(model.name, metric, rows, measurements)


def _names(given: Sequence[str] | str) -> list[str]:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


def _measure(model: Any, planned: Plan, X: Any, y: Any, repeats: int) -> Measurement:
    keygen, offline = Stopwatch(), Stopwatch()
    with keygen("keygen"):
        client = Client(planned)
        server = Server(model, client.public_bytes(), planned.policy, allow_insecure=True)
    one = batch = Stopwatch()
    for watch in (Stopwatch(), *[one] * repeats):  # the first is the warm-up
        scores, traffic, result = _query(client, server, X[:1], watch)
    if len(X) > 1:  # a batch of one row has just been measured
        batch = Stopwatch()
        for watch in (Stopwatch(), *[batch] * repeats):
            scores, traffic, result = _query(client, server, X, watch)
    with offline("pools"):
        ahead = _fill(planned, client, server, model)
    reference = clear_scores(model, X, planned.policy, selects=planned.parameters.name == "paillier")
    exact_scores = model.exact(X) if hasattr(model, "exact") else reference
    errors = ErrorBudget(
        approximation_error=float(np.abs(reference - exact_scores).max()),
        scheme_error=float(np.abs(scores - reference).max()),
        bound=planned.error_bound,
        exact_integers=_equals_integer_reference(model, planned, client, result, X),
    )
    quality = _quality(model, exact_scores, scores, y, planned.error_bound)
    return Measurement(
        scheme=planned.parameters.name, policy=planned.policy, security_bits=planned.security_bits,
        insecure=planned.parameters.insecure, reveals=planned.reveals, levels=planned.levels, rounds=traffic[2],
        parameters=dataclasses.asdict(planned.parameters), errors=errors, **quality,
        keygen_ms=keygen.times["keygen"][0], offline_ms=offline.times["pools"][0] if ahead else 0.0,
        one=Timing(1, one.times), batch=Timing(len(scores), batch.times), bytes_up=traffic[0], bytes_down=traffic[1],
        key_bytes=planned.key_bytes, slots=planned.parameters.slots, operations=planned.operations,
    )  # fmt: skip


def _query(
    client: Client, server: Server, X: Any, watch: Stopwatch
) -> tuple[FloatArray, tuple[int, int, int], CipherTensor]:
    """One prediction from raw rows to scores, with (bytes up, bytes down, rounds) and the encrypted result."""
    link = client.link()
    with watch("encrypt"):
        x = client.encrypt(X)
    with watch("upload"):
        request = client.pack(x)
        x = server.unpack(request)
    with watch("evaluate"):
        y = server.forward(x, link)
    with watch("rerandomize"):
        y = server.rerandomize(y)
    with watch("download"):
        reply = server.pack(y)
        y = client.unpack(reply)
    with watch("decrypt"):
        scores = client.decrypt(y)
    seen = link.transcript
    return scores, (len(request) + seen.bytes_up, len(reply) + seen.bytes_down, seen.rounds), y


def _fill(planned: Plan, client: Client, server: Server, model: Any) -> bool:
    """Make ahead the randomness that one batch takes; False where the scheme has none to make."""
    if planned.parameters.name != "paillier":
        return False
    operations = planned.operations
    client.fill(operations["encrypt"])
    server.fill(operations["rerandomize"] + operations.get("mask", 0))
    return True


def _equals_integer_reference(model: Any, planned: Plan, client: Client, result: CipherTensor, X: Any) -> bool | None:
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
