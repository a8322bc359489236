"""A pass of logistic training over the encrypted CHD rows: hepipe against TenSEAL's tutorial way, in one process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

# One thread for everyone; read by the libraries when they are imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pandas as pd
import tenseal as ts
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hepipe
from hepipe.study.measure import commit, machine
from hepipe.training.descent import Descent
from hepipe.training.parties import Owner, Trainer
from hepipe.training.plan import plan_training
from hepipe.training.rehearsal import row_bound, trajectory
from hepipe.training.whitening import Whitening

TUTORIAL_ROWS = 12
"""The tutorial's way takes one vector a row; its cost is the same for every row."""
WAYS = {
    "hepipe, 3 steps, nothing decrypted": {"steps": 3},
    "hepipe, 4 steps, nothing decrypted": {"steps": 4},
    "hepipe, 20 steps, refreshed": {"steps": 20, "refresh": True},
    "hepipe, 20 Nesterov steps, refreshed": {"steps": 20, "refresh": True, "momentum": True},
}


def tutorial_pass(rows: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """One vector a row, encrypted weights, sigmoid of degree 3, gradients summed row by row; weights stay encrypted."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[40, 21, 21, 21, 21, 21, 21, 40], n_threads=1)
    context.global_scale = 2**21
    context.generate_galois_keys()
    weights, bias = ts.ckks_vector(context, [0.1] * rows.shape[1]), ts.ckks_vector(context, [0.0])
    start = time.process_time()
    data = [
        (ts.ckks_vector(context, x.tolist()), ts.ckks_vector(context, [float(y)]))
        for x, y in zip(rows, labels, strict=True)
    ]
    encrypted = time.process_time()
    slope, offset = 0, 0
    for x, y in data:
        surplus = (x.dot(weights) + bias).polyval([0.5, 0.197, 0, -0.004]) - y
        slope, offset = slope + x * surplus, offset + surplus
    done = time.process_time()
    return {"encrypt ms a row": 1e3 * (encrypted - start) / len(rows), "ms a row": 1e3 * (done - encrypted) / len(rows)}


def hepipe_training(descent: Descent, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The whole training with every phase apart, all messages as frames; CPU seconds of both parties."""
    plan = plan_training(descent, rows.shape[1], row_bound=row_bound(rows))
    start = time.process_time()
    owner = Owner(plan)
    trainer = Trainer(plan, owner.public_bytes())
    keyed = time.process_time()
    trainer.receive(owner.encrypt(rows))
    encrypted = time.process_time()
    link = owner.link()
    for _ in trainer.run(link):
        pass
    trained = time.process_time()
    weights = owner.weights(trainer.result())
    each = (trained - encrypted) / descent.steps
    return weights, {
        "encrypt ms a row": 1e3 * (encrypted - keyed) / len(rows),
        "ms a row": 1e3 * each / len(rows),
        "s a pass": each,
        "s in all": time.process_time() - start,
        "error of a weight": float(np.abs(weights - trajectory(plan.descent, rows)[-1]).max()),
        "estimated": plan.error_estimate,
        "N": plan.parameters.poly_modulus_degree,
        "rotations a step": plan.operations["rotate"] / descent.steps,
        "keys MiB": plan.key_bytes / 2**20,
        "up MiB": plan.bytes_up / 2**20,
        "rounds": link.transcript.rounds,
    }


def measure() -> tuple[pd.DataFrame, str]:
    """A line for every way; ``ratio`` is against the tutorial's milliseconds a row."""
    data = hepipe.load("chd")
    parts = train_test_split(data.X, data.y, test_size=0.2, stratify=data.y, random_state=0)
    imputer = SimpleImputer(strategy="median").fit(parts[0])
    X, X_test, y, y_test = imputer.transform(parts[0]), imputer.transform(parts[1]), parts[2] == 1, parts[3] == 1
    converged = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y)
    whitening = Whitening.fit(X)
    rows = whitening.fold(X, y.to_numpy())
    table = {"scikit-learn, converged": {"AUC": roc_auc_score(y_test, converged.decision_function(X_test))}}
    few = slice(TUTORIAL_ROWS)
    table["tenseal tutorial"] = tutorial_pass(whitening.transform(X)[few, 1:], y.to_numpy()[few])
    table["tenseal tutorial"]["s a pass"] = table["tenseal tutorial"]["ms a row"] * len(rows) / 1e3
    for name, settings in WAYS.items():
        weights, table[name] = hepipe_training(Descent(len(rows), **settings), rows)
        coef, intercept = whitening.unfold(weights)
        table[name]["AUC"] = roc_auc_score(y_test, X_test @ coef + intercept)
    frame = pd.DataFrame.from_dict(table, orient="index").rename_axis("way")
    frame.insert(0, "ratio", frame.loc["tenseal tutorial", "ms a row"] / frame["ms a row"])
    return frame, f"{data.source}, synthetic: {data.synthetic}, {len(rows)} training rows, {rows.shape[1] - 1} features"


def main() -> None:
    table, source = measure()
    print(f"CHD logistic training, {source}; CPU seconds, one thread")
    print(table.T.to_string(float_format=lambda value: f"{value:.4g}"))
    out = Path("results/bench")
    out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "commit": commit(), "ways": json.loads(table.to_json(orient="index"))}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
