"""``hepipe export``, ``hepipe serve`` and ``hepipe predict`` as processes of their own, on rows of the real data.

    python tests/service/two_shells.py [NAME ...]

predicts under every named model and every scheme that it has, at 128 bits, and prints what agreed: a few minutes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import hepipe
from hepipe.models.bundle import load
from hepipe.models.logistic import clear_scores
from hepipe.study.fitted_models import FITTED_MODELS
from hepipe.study.splits import split

ROWS = 2
TOGETHER = 6
"""Models of one server, which keeps 16 keys for whoever asks."""
LONG_S = "600"
SCHEMES = {"heart-tree-bits": "paillier", "heart-tree-sign": "ckks"}
POLICIES = {"chd-network-relu": "client"}
BITS = {"salary-polynomial3-server": "10", "salary-network-square": "10"}
"""What CKKS reaches for the sums of large salaries that these models compute on several levels."""


def run(*words: str | Path) -> str:
    """A command in a process of its own; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "hepipe", *map(str, words)],
        capture_output=True, text=True, env=os.environ | {"HEPIPE_PASSPHRASE": "twelve characters and more"},
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def export(folder: Path, name: str) -> None:
    """``hepipe export``, for the schemes and with the policy that the model has."""
    words = ["--schemes", SCHEMES.get(name, "paillier,ckks"), "--policy", POLICIES.get(name, "polynomial")]
    words += ["--precision-bits", BITS[name]] if name in BITS else []
    run("export", name, folder / f"{name}.zip", "--samples", str(ROWS), *words)


@contextmanager
def serving(models: Path) -> Iterator[str]:
    """``hepipe serve``: its URL."""
    words = [sys.executable, "-m", "hepipe", "serve", models, "--state", models.parent / "state", "--port", "0"]
    words += ["--workers", "1", "--deadline", LONG_S]
    with (models.parent / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line.startswith("serving at http://127.0.0.1:"), (models.parent / "log").read_text()
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def rows_of(name: str) -> Any:
    """The first test rows of the model's data set."""
    return split(hepipe.load(name.split("-")[0])).X_test.iloc[:ROWS]


def predicted(url: str, folder: Path, name: str, scheme: str) -> np.ndarray:
    """``hepipe predict``."""
    rows_of(name).to_csv(folder / "in.csv", index=False)
    words = ["--url", url, "--model", name, "--scheme", scheme, "--policy", POLICIES.get(name, "polynomial")]
    found = run("predict", folder / "in.csv", *words, "--keys", folder / "keys", "--deadline", LONG_S)
    return pd.read_csv(io.StringIO(found))["prediction"].to_numpy()


def expected(models: Path, name: str, scheme: str) -> np.ndarray:
    """The same circuit in the clear, from the very bundle that is served."""
    bundle = load(models / f"{name}.zip")
    scores = clear_scores(bundle.model, rows_of(name), bundle.settings.policy, selects=scheme == "paillier")
    return np.asarray(bundle.model.head(scores))


def schemes_of(name: str) -> list[str]:
    """What the model is exported for."""
    return SCHEMES.get(name, "paillier,ckks").split(",")


def main(names: Sequence[str]) -> None:
    """Every model and scheme, one line each."""
    print("| model | policy | scheme | clear | encrypted | largest difference | s, two processes |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for start in range(0, len(names), TOGETHER):
        with tempfile.TemporaryDirectory() as place:
            show(Path(place), names[start : start + TOGETHER])


def show(folder: Path, names: Sequence[str]) -> None:
    """The lines of some models on one server."""
    models = folder / "models"
    for name in names:
        export(models, name)
    with serving(models) as url:
        for name, scheme in [(each, scheme) for each in names for scheme in schemes_of(each)]:
            start = time.perf_counter()
            found, clear = predicted(url, folder, name, scheme), expected(models, name, scheme)
            values = [" ".join(f"{value:.6g}" for value in each) for each in (clear, found)]
            difference = [f"{np.abs(found - clear).max():.1e}", f"{time.perf_counter() - start:.1f}"]
            line = [name, POLICIES.get(name, "polynomial"), scheme, *values, *difference]
            print("|", " | ".join(line), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(FITTED_MODELS))
