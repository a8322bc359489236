"""Rows per second where depth is paid: a private tree and a network, hepipe against phe and TenSEAL used plainly."""

from __future__ import annotations

import os
import secrets
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
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

import hepipe
from hepipe.circuits.activation import IDENTITY, SQUARE
from hepipe.models.binner import Binner
from hepipe.models.logistic import clear_scores
from hepipe.models.mlp import mlp
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from record import write

REPEATS = 3
COLUMNS = ["age", "totChol", "sysBP", "BMI", "glucose"]
Scorer = Callable[[Any], np.ndarray]


def phe_tree(model: Any) -> Scorer:
    """The same path costs with one EncryptedNumber a bit and a short blinding factor, nothing re-randomised."""
    public, private = phe.generate_paillier_keypair(n_length=3072)
    levels, leaves = model.trees.columns, model.trees.values

    def score(rows: np.ndarray) -> np.ndarray:
        scores = []
        for row in rows:
            bits = [public.encrypt(int(bit)) for bit in row]
            costs: list[Any] = [0]
            for columns in levels:
                turned = [bits[column] for column in columns]
                left = [cost + (1 - bit) for cost, bit in zip(costs, turned, strict=True)]
                costs = [*left, *(cost + bit for cost, bit in zip(costs, turned, strict=True))]
            answers = [
                cost * (1 + secrets.randbelow(2**40)) + int(leaf) for cost, leaf in zip(costs, leaves, strict=True)
            ]
            opened = [private.decrypt(answer) for answer in answers]
            scores.append(min(opened))
        return np.array(scores)

    return score


def tutorial_network(model: Any) -> Scorer:
    """One vector a row, ``x.mm(W) + b`` a layer, squared between them."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 34, 34, 34, 56], n_threads=1)
    context.global_scale = 2**34
    context.generate_galois_keys()
    (w1, b1), (w2, b2) = [(layer.weights.tolist(), layer.intercept.tolist()) for layer in model.layers]

    def score(rows: np.ndarray) -> np.ndarray:
        encrypted = [ts.ckks_vector(context, row.tolist()) for row in rows]
        return np.array([((x.mm(w1) + b1).square().mm(w2) + b2).decrypt()[0] for x in encrypted])

    return score


def hepipe_scorer(model: Any, scheme: str, rows: int) -> Scorer:
    planned = hepipe.plan(model, scheme, rows)
    client = hepipe.Client(planned)
    server = hepipe.Server(model, client.public_bytes())

    def score(X: Any) -> np.ndarray:
        request = client.pack(client.encrypt(X))
        reply = server.pack(server.evaluate(server.unpack(request), client.link()))
        return client.decrypt(client.unpack(reply))[:, 0]

    return score


def tree_of(data: Any) -> Any:
    X = data.X[COLUMNS]
    schema = Schema(tuple(column for column in data.schema.columns if column.name in COLUMNS))
    tree = DecisionTreeClassifier(max_depth=4, class_weight="balanced", random_state=0)
    return hepipe.from_sklearn(make_pipeline(SimpleImputer(strategy="median"), Binner(31), tree).fit(X, data.y), schema)


def network_of(data: Any) -> Any:
    """15-16-1 with squares; its weights are random, since they do not change what it costs."""
    generator = np.random.default_rng(0)
    maps = [
        (generator.normal(size=(15, 16)) / 15, generator.normal(size=16) / 15, SQUARE),
        (generator.normal(size=(16, 1)) / 16, np.zeros(1), IDENTITY),
    ]
    return mlp(Profile.of("regression", data.schema, 1, fill=data.X.median().to_numpy()), maps)


def ways(data: Any) -> dict[str, tuple[str, Scorer, Any, np.ndarray]]:
    """By name: the peer it is measured against, the scorer, its rows, and the scores they have in the clear."""
    tree, network = tree_of(data), network_of(data)
    X, small = data.X, data.X[COLUMNS]
    tree_scores, scores = clear_scores(tree, small)[:, 0], clear_scores(network, X)[:, 0]
    return {
        "phe tree": ("phe tree", phe_tree(tree), tree.prepare(small[:1]), tree_scores),
        "hepipe tree, paillier": ("phe tree", hepipe_scorer(tree, "paillier", 1), small[:1], tree_scores),
        "hepipe tree, ckks": ("phe tree", hepipe_scorer(tree, "ckks", len(X)), small, tree_scores),
        "tenseal network": ("tenseal network", tutorial_network(network), network.prepare(X[:8]), scores),
        "hepipe network, paillier": ("tenseal network", hepipe_scorer(network, "paillier", 4), X[:4], scores),
        "hepipe network, ckks": ("tenseal network", hepipe_scorer(network, "ckks", len(X)), X, scores),
    }


def measure(data: Any) -> pd.DataFrame:
    """Every way once a repeat, in turn, so that a change of the machine's speed meets them all alike."""
    cases = ways(data)
    times: dict[str, list[float]] = {name: [] for name in cases}
    errors: dict[str, float] = {}
    for repeat in range(REPEATS + 1):
        for name, (_, score, rows, expected) in cases.items():
            start = time.process_time()
            scores = score(rows)
            if repeat:  # the first is the warm-up
                times[name].append((time.process_time() - start) / len(scores))
            errors[name] = float(np.abs(scores - expected[: len(scores)]).max())
    rows = {
        name: {
            "rows": len(cases[name][2]),
            "ms per row": 1e3 * median(times[name]),
            "rows per second": 1 / median(times[name]),
            "ratio": median(times[cases[name][0]]) / median(times[name]),
            "spread %": 50 * (max(times[name]) - min(times[name])) / median(times[name]),
            "largest error": errors[name],
        }
        for name in cases
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("way")


def main() -> None:
    data = hepipe.load("chd")
    table = measure(data)
    print(f"Tree of depth 4 on 5 columns and network 15-16-1 of squares, {data.source}, synthetic: {data.synthetic}")
    print("CPU time, one thread; ratio: against phe (tree) or TenSEAL's tutorial way (network) in this run\n")
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))
    write("depth", data, ways=table.to_dict("index"))


if __name__ == "__main__":
    main()
