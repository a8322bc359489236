"""Rows per second of encrypted CHD scoring: hepipe against phe and TenSEAL as their own documentation uses them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

# One thread for everyone; read by the libraries when they are imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pandas as pd
import phe
import tenseal as ts
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hepipe
from hepipe.models.logistic import clear_scores
from hepipe.study.plan import Plan
from record import write

REPEATS = 5
ROWS = {"phe": 4, "tenseal tutorial": 60}
"""The slow ways score their first rows only; their cost is the same for every row."""
Scorer = Callable[[Any], np.ndarray]


def phe_scorer(w: np.ndarray, b: float) -> Scorer:
    public, private = phe.generate_paillier_keypair(n_length=3072)

    def score(rows: np.ndarray) -> np.ndarray:
        encrypted = [[public.encrypt(float(v)) for v in row] for row in rows]
        return np.array(
            [private.decrypt(sum(c * float(k) for c, k in zip(row, w, strict=True)) + b) for row in encrypted]
        )

    return score


def tenseal_context() -> ts.Context:
    context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1)
    context.global_scale = 2**40
    return context


def tutorial_scorer(w: np.ndarray, b: float) -> Scorer:
    context = tenseal_context()
    context.generate_galois_keys()

    def score(rows: np.ndarray) -> np.ndarray:
        encrypted = [ts.ckks_vector(context, row.tolist()) for row in rows]
        return np.array([(x.dot(w.tolist()) + b).decrypt()[0] for x in encrypted])

    return score


def tensor_scorer(w: np.ndarray, b: float) -> Scorer:
    context = tenseal_context()
    weights = ts.plain_tensor(w[:, None].tolist())

    def score(rows: np.ndarray) -> np.ndarray:
        parts = [rows[i : i + 4096] for i in range(0, len(rows), 4096)]
        results = [ts.ckks_tensor(context, part[:, None, :].tolist(), batch=True).mm(weights) + b for part in parts]
        return np.concatenate([np.array(result.decrypt().tolist()).ravel() for result in results])

    return score


def hepipe_scorer(model: Any, planned: Plan, pools: bool = False) -> tuple[Scorer, Callable[[], float]]:
    client = hepipe.Client(planned)
    server = hepipe.Server(model, client.public_bytes())

    def prepare() -> float:
        start = time.perf_counter()
        if pools:
            client.fill(planned.operations["encrypt"])
            server.fill(planned.operations["rerandomize"])
        return time.perf_counter() - start

    def score(X: Any) -> np.ndarray:
        request = client.pack(client.encrypt(X))
        reply = server.pack(server.evaluate(server.unpack(request)))
        return client.decrypt(client.unpack(reply))[:, 0]

    return score, prepare


def ways(model: Any, X: pd.DataFrame) -> dict[str, tuple[Scorer, Callable[[], float], Any]]:
    # The peers score what hepipe encrypts: the same prepared features, the same weights.
    rows, w, b = model.prepare(X), model.weights[:, 0], float(model.intercept[0])
    paillier = hepipe.plan(model, "paillier", len(X))
    found: dict[str, Any] = {
        "phe": (phe_scorer(w, b), lambda: 0.0, rows[: ROWS["phe"]]),
        "tenseal tutorial": (tutorial_scorer(w, b), lambda: 0.0, rows[: ROWS["tenseal tutorial"]]),
        "tenseal tensor": (tensor_scorer(w, b), lambda: 0.0, rows),
        "hepipe paillier": (*hepipe_scorer(model, paillier), X),
        "hepipe paillier, pools": (*hepipe_scorer(model, paillier, pools=True), X),
    }
    for bits in (20, 19, 17):
        planned = hepipe.plan(model, "ckks", len(X), precision_bits=bits)
        found[f"hepipe ckks, {bits} bits"] = (*hepipe_scorer(model, planned), X)
    return found


def measure(model: Any, X: pd.DataFrame) -> pd.DataFrame:
    """Every way once a repeat, in turn, so that a change of the machine's speed meets them all alike."""
    reference, cases = clear_scores(model, X)[:, 0], ways(model, X)
    times: dict[str, list[float]] = {name: [] for name in cases}
    ahead: dict[str, float] = {}
    errors: dict[str, float] = {}
    for repeat in range(REPEATS + 1):
        for name, (score, prepare, data) in cases.items():
            ahead[name] = prepare()
            start = time.perf_counter()
            scores = score(data)
            if repeat:  # the first is the warm-up
                times[name].append((time.perf_counter() - start) / len(scores))
            errors[name] = max(errors.get(name, 0.0), float(np.abs(scores - reference[: len(scores)]).max()))
    rows = {
        name: {
            "rows": len(data),
            "ms per row": 1e3 * median(times[name]),
            "rows per second": 1 / median(times[name]),
            "spread %": 50 * (max(times[name]) - min(times[name])) / median(times[name]),
            "largest error": errors[name],
            "offline ms per row": 1e3 * ahead[name] / len(data),
        }
        for name, (_, _, data) in cases.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("way")
    peer = ["tenseal tutorial" if "tenseal" in way or "ckks" in way else "phe" for way in table.index]
    table.insert(3, "ratio", table["rows per second"] / table.loc[peer, "rows per second"].to_numpy())
    return table


def main() -> None:
    data = hepipe.load("chd")
    estimator = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression())
    model = hepipe.from_sklearn(estimator.fit(data.X, data.y), data.schema)
    table = measure(model, data.X)
    print(f"CHD logistic scores, {data.source}, synthetic: {data.synthetic}")
    print("ratio: rows per second against phe (Paillier) or TenSEAL's tutorial way (CKKS) in this run\n")
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))
    write("scoring", data, ways=table.to_dict("index"))


if __name__ == "__main__":
    main()
