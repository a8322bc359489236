"""Trainings side by side on the same rows: quality by step, every phase apart, TenSEAL's tutorial way timed as well.

The tutorial's way is written anew here from its description: a vector a row, weights encrypted, gradients added row by
row. It uses TenSEAL as its users do, which is the only place in hepipe that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tenseal
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_auc_score

from hepipe.schemes.base import FloatArray
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import COLOURS, INK, OTHER_COLOURS, Picture, plain, title
from hepipe.study.measure import Stopwatch
from hepipe.study.progress import steps as progressing
from hepipe.training.descent import Descent
from hepipe.training.parties import Owner, Trainer
from hepipe.training.plan import TrainingPlan, plan_training
from hepipe.training.rehearsal import largest_rate, row_bound, trajectory
from hepipe.training.whitening import Whitening

Labels = npt.NDArray[np.bool_]
_SHADES = (COLOURS["ckks"], *OTHER_COLOURS, COLOURS["paillier"])
_SPAN = 0.04
TUTORIAL_MODULUS = (40, *(21,) * 6, 40)
"""N = 8192 and a scale of 2**21: the tutorial's."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a training learns from and is judged by: complete columns, true where the second class is."""

    X: FloatArray = field(repr=False)
    y: Labels = field(repr=False)
    X_test: FloatArray = field(repr=False)
    y_test: Labels = field(repr=False)

    @classmethod
    def of(cls, split: Any, fill: Any) -> Rows:
        """From a split, its gaps filled by an imputer that learns from the training rows only."""
        X, X_test = fill.fit_transform(split.X_train), fill.transform(split.X_test)
        return cls(np.asarray(X), split.y_train.to_numpy() == 1, np.asarray(X_test), split.y_test.to_numpy() == 1)

    def first(self, count: int) -> Rows:
        """The first ``count`` training rows; all of them for 0."""
        return Rows(self.X[: count or None], self.y[: count or None], self.X_test, self.y_test)


@dataclass(frozen=True)
class Quality:
    """Of scores on test rows: how well they rank, and the mean log-loss of their sigmoid, which a descent lessens."""

    auc: float
    log_loss: float

    @classmethod
    def of(cls, y: Labels, scores: FloatArray) -> Quality:
        """From logits."""
        return cls(float(roc_auc_score(y, scores)), float(np.logaddexp(0, np.where(y, -scores, scores)).mean()))


@dataclass(frozen=True, eq=False)
class Learnt:
    """One way of training: its plan, quality on the test rows after every step, the largest error of a weight, times.

    ``curve`` (a line a step) and ``error`` come from the same polynomial descent in the clear: nothing is decrypted to
    draw it. ``quality`` is that of the decrypted weights.
    """

    way: str
    plan: TrainingPlan
    curve: list[Quality] = field(repr=False)
    quality: Quality
    error: float
    watch: Stopwatch = field(repr=False)
    rounds: int

    @property
    def seconds_a_pass(self) -> float:
        """Of one step over all rows, both parties; the median, since the first step is cheaper."""
        return float(np.median(self.watch.times["step"])) / 1e3


def learn(
    ways: Mapping[str, Mapping[str, Any]], rows: Rows, scheme: str = "ckks", security_bits: int = 128
) -> list[Learnt]:
    """Train ``rows`` each way: settings of Descent by name, the rate at most the largest safe one.

    All messages travel as frames, so packing and parsing are counted.
    """
    whitening = Whitening.fit(rows.X)
    folded, test = whitening.fold(rows.X, rows.y), whitening.transform(rows.X_test)
    learnt = []
    for way in progressing(list(ways), "train"):
        descent = Descent(len(folded), **ways[way])
        safe = Descent(len(folded), **{**ways[way], "rate": largest_rate(descent, folded)})
        plan = plan_training(safe, folded.shape[1], scheme, row_bound(folded), security_bits=security_bits)
        weights, watch, rounds = _trained(plan, folded)
        path = trajectory(plan.descent, folded)
        *curve, final = (Quality.of(rows.y_test, test @ after) for after in [*path, weights])
        error = float(np.abs(weights - path[-1]).max())
        learnt.append(Learnt(way, plan, curve, final, error, watch, rounds))
    return learnt


def _trained(plan: TrainingPlan, folded: FloatArray) -> tuple[FloatArray, Stopwatch, int]:
    watch = Stopwatch()
    with watch("keys"):
        owner = Owner(plan)
        trainer = Trainer(plan, owner.public_bytes(), allow_insecure=True)
    with watch("encrypt"):
        trainer.receive(owner.encrypt(folded))
    link = owner.link()
    run = trainer.run(link)
    for _ in range(plan.descent.steps):
        with watch("step"):
            next(run)
    with watch("decrypt"):
        weights = owner.weights(trainer.result())
    return weights, watch, link.transcript.rounds


@dataclass(frozen=True)
class Tutorial:
    """Milliseconds a row of TenSEAL's tutorial way, timed on ``rows`` rows."""

    rows: int
    encrypt_ms: float
    step_ms: float


def tutorial(rows: Rows, count: int = 12) -> Tutorial:
    """Forward and backward over the first ``count`` rows as the tutorial does it, one thread."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=list(TUTORIAL_MODULUS), n_threads=1)
    context.global_scale = 2**21
    context.generate_galois_keys()
    white = Whitening.fit(rows.X).transform(rows.X[:count])[:, 1:]
    weights, bias = tenseal.ckks_vector(context, [0.1] * white.shape[1]), tenseal.ckks_vector(context, [0.0])
    watch = Stopwatch()
    with watch("encrypt"):
        data = [
            (tenseal.ckks_vector(context, x.tolist()), tenseal.ckks_vector(context, [float(y)]))
            for x, y in zip(white, rows.y[:count], strict=True)
        ]
    slope: Any = 0
    offset: Any = 0
    with watch("step"):
        for x, y in data:
            surplus = (x.dot(weights) + bias).polyval([0.5, 0.197, 0, -0.004]) - y
            slope, offset = slope + x * surplus, offset + surplus
    encrypt, step = (watch.times[phase][0] / len(data) for phase in ("encrypt", "step"))
    return Tutorial(len(data), encrypt, step)


def training_plans(learnt: Sequence[Learnt]) -> pd.DataFrame:
    """What was known before any key was made."""
    return pd.DataFrame(
        {
            "way": item.way,
            "N or modulus": getattr(item.plan.parameters, "poly_modulus_degree", None)
            or item.plan.parameters.modulus_bits,
            "levels": item.plan.levels,
            "rounds": item.plan.rounds,
            "rate": item.plan.descent.rate,
            "error of a weight, at most": item.plan.error_estimate,
            "MiB up": item.plan.bytes_up / 2**20,
            "MiB down": item.plan.bytes_down / 2**20,
            "key MiB": item.plan.key_bytes / 2**20,
            "the owner learns": item.plan.reveals,
        }
        for item in learnt
    )


def training_table(learnt: Sequence[Learnt], reference: Quality, baseline: Tutorial | None = None) -> pd.DataFrame:
    """Quality and cost; ``reference`` is that of the converged model, ``baseline`` what a pass is compared with."""
    table = pd.DataFrame(
        {
            "way": item.way,
            "scheme": item.plan.parameters.name,
            "security bits": item.plan.security_bits or "insecure",
            "rows": item.plan.descent.rows,
            "steps": item.plan.descent.steps,
            "AUC": item.quality.auc,
            "AUC - converged": item.quality.auc - reference.auc,
            "log-loss": item.quality.log_loss,
            "largest error of a weight": item.error,
            "keys s": sum(item.watch.times["keys"]) / 1e3,
            "encrypt s": sum(item.watch.times["encrypt"]) / 1e3,
            "pass s": item.seconds_a_pass,
            "rounds": item.rounds,
        }
        for item in learnt
    )
    if baseline:
        table["times faster a pass"] = baseline.step_ms * table["rows"] / (1e3 * table["pass s"])
    return table


def training_findings(learnt: Sequence[Learnt], reference: Quality, baseline: Tutorial) -> list[str]:
    """At most four sentences in which every number is computed."""
    finest, table = min(learnt, key=lambda item: item.error), training_table(learnt, reference, baseline)
    fastest = table.sort_values("times faster a pass").iloc[-1]
    silent = [item for item in learnt if item.rounds == 0]
    sentences = [
        f"The AUC of the encrypted trainings lies between {table['AUC'].min():.4f} and {table['AUC'].max():.4f}; the "
        f"converged model in the clear has {reference.auc:.4f}.",
        f"Weights agree with the same descent in the clear to {finest.error:.1g} at best ({finest.way}) and to "
        f"{table['largest error of a weight'].max():.1g} at worst.",
        f"A pass over {fastest['rows']} rows takes {fastest['pass s']:.2f} s ({fastest['way']}), "
        f"{fastest['times faster a pass']:.0f} times less than row by row.",
    ]
    if silent:
        most = max(item.plan.descent.steps for item in silent)
        sentences.append(
            f"With nothing decrypted on the way the levels end after {most} steps here; with refresh never."
        )
    return sentences


def safe_rates(rows: Rows, descents: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The largest step size, of up to 64, that keeps every score in the polynomial's domain."""
    folded = Whitening.fit(rows.X).fold(rows.X, rows.y)
    found = {way: largest_rate(Descent(len(folded), rate=64.0, **more), folded) for way, more in descents.items()}
    return pd.DataFrame({"way": list(found), "largest safe step size": list(found.values())})


def figure_learning(learnt: Sequence[Learnt], reference: Quality, dataset: Dataset | None) -> Picture:
    """Log-loss and AUC of the test rows by step, against the converged model; a dot is what was decrypted."""
    picture = Picture(10, 3.8)
    left, right = picture.subplots(1, 2)
    for axes, name, text in ((left, "log_loss", "log-loss"), (right, "auc", "AUC")):
        plain(axes)
        converged = getattr(reference, name)
        axes.axhline(converged, color=INK, linewidth=1.2, label=f"scikit-learn, converged ({_both(reference)})")
        for place, item in enumerate(learnt):
            values, shade = [getattr(quality, name) for quality in item.curve], _SHADES[place % len(_SHADES)]
            label = f"{item.way} ({_both(item.quality)})"
            axes.plot(range(1, len(values) + 1), values, color=shade, linewidth=1.6, label=label)
            axes.plot([len(values)], [getattr(item.quality, name)], "o", color=shade, markersize=5)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, converged - _SPAN / 2), max(high, converged + _SPAN))  # noise shall not fill a panel
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step", fontsize=9, color=INK)
        axes.set_title(f"{text} of the test rows", fontsize=10, loc="left", color=INK)
    right.legend(loc="upper right", frameon=False, fontsize=8, labelcolor="linecolor", handlelength=1)
    caveats = ["SYNTHETIC DATA"] * bool(dataset and dataset.synthetic)
    caveats += ["INSECURE TEST KEYS"] * any(not item.plan.security_bits for item in learnt)
    title(picture, "Training on encrypted rows, step by step", *caveats)
    return picture


def _both(quality: Quality) -> str:
    return f"{quality.log_loss:.4f}, {quality.auc:.4f}"
