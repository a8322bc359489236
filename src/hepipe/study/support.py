"""What each scheme can do, read off the code: operations from their marks, models from what a plan says of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pandas as pd

from hepipe.errors import Unsupported
from hepipe.protocol.interactive import Interactive
from hepipe.schemes.base import Evaluator
from hepipe.schemes.ckks import CkksEvaluator
from hepipe.schemes.clear import ClearEvaluator
from hepipe.schemes.paillier import PaillierEvaluator
from hepipe.study.examples import EXAMPLES, SCHEMA, X
from hepipe.study.plan import POLICIES, Plan, plan
from hepipe.training.aggregate import KeyHolder
from hepipe.training.descent import Descent
from hepipe.training.labels import labels_only
from hepipe.training.lloyd import lloyd_plan
from hepipe.training.masked import MaskedKeyHolder
from hepipe.training.plan import plan_training

EVALUATORS: dict[str, Any] = {"clear": ClearEvaluator, "paillier": PaillierEvaluator, "ckks": CkksEvaluator}


def operations() -> list[str]:
    """The operations of the Evaluator protocol, in its order."""
    return [name for name, member in vars(Evaluator).items() if inspect.isfunction(member) and not name.startswith("_")]


def support_table() -> pd.DataFrame:
    """A row an operation, a column a scheme: "yes", "by rounds" where Interactive adds it, or "no"."""
    rows = {name: {scheme: _cell(kind, name) for scheme, kind in EVALUATORS.items()} for name in operations()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("operation")


def _cell(evaluator: Any, name: str) -> str:
    if not hasattr(getattr(evaluator, name), "reason"):
        return "yes"
    additive = hasattr(evaluator.mul, "reason")
    by_rounds = Interactive.by_rounds | (Interactive.by_rounds_if_additive if additive else set())
    return "by rounds" if name in by_rounds else "no"


def model_table() -> pd.DataFrame:
    """A row a kind of model, a column a scheme and policy: levels or rounds, and what the client learns.

    A dash under policy "client" where it would be the same protocol, under either where no parameters do it.
    """
    rows = {name: _ways(make()) for name, make in EXAMPLES.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def training_table() -> pd.DataFrame:
    """A row a way to train: levels or rounds, and what is revealed, to the owner of the data unless it says to whom."""
    three, many = Descent(4000, steps=3), Descent(4000, steps=20, refresh=True)
    labels = labels_only(X, SCHEMA.columns[0], alpha=1.0)
    ways: dict[str, Callable[[str], Any]] = {
        "logistic regression, 3 steps of descent": lambda scheme: plan_training(three, 4, scheme),
        "logistic regression, 20 steps, refreshed": lambda scheme: plan_training(many, 4, scheme),
        "linear or logistic regression, labels encrypted": lambda scheme: plan(labels, scheme, len(X)),
        "k-means, 5 iterations": lambda scheme: lloyd_plan(SCHEMA, len(X), 3, 5, scheme),
        "ridge regression of several owners": lambda scheme: _pooled(KeyHolder, 0, scheme),
        "the same, masked": lambda scheme: _pooled(MaskedKeyHolder, 1, scheme),
    }
    rows = {name: {scheme: _trained(way, scheme) for scheme in ("paillier", "ckks")} for name, way in ways.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("training")


def _pooled(holder: type[KeyHolder], rounds: int, scheme: str) -> Any:
    if scheme != "paillier":
        raise Unsupported("exact sums of several owners are added under Paillier")
    return SimpleNamespace(rounds=rounds, reveals=f"to the key holder {holder.learns}")


def _trained(way: Callable[[str], Any], scheme: str) -> str:
    try:
        planned = way(scheme)
    except Unsupported:
        return "–"
    levels = getattr(planned, "levels", 0) if scheme == "ckks" else 0
    counts = [(levels, "level")] * bool(levels) + [(planned.rounds, "round")] * bool(planned.rounds or not levels)
    return f"{', '.join(_counted(*each) for each in counts)}: {planned.reveals}"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' * (count != 1)}"


def _ways(model: Any) -> dict[str, str]:
    cells = {}
    for scheme in ("paillier", "ckks"):
        usual, asked = (_planned(model, scheme, policy) for policy in POLICIES)
        cells[f"{scheme}, polynomial"] = _described(usual)
        same = asked is None or (usual is not None and asked.reveals == usual.reveals)
        cells[f"{scheme}, client"] = "–" if same else _described(asked)
    return cells


def _planned(model: Any, scheme: str, policy: str) -> Plan | None:
    try:
        return plan(model, scheme, samples=1, policy=policy)
    except Unsupported:
        return None


def _described(planned: Plan | None) -> str:
    if planned is None:
        return "–"
    levelled = planned.parameters.name == "ckks"
    cost = _counted(planned.levels, "level") if levelled else _counted(planned.rounds, "round")
    also = f", {_counted(planned.rounds, 'round')}" if levelled and planned.rounds else ""
    return f"{cost}{also}: {planned.reveals}"
