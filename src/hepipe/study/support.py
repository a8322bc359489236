"""What each scheme can do, read off the code: operations from their marks, models from what a plan says of them."""

from __future__ import annotations

import inspect
from typing import Any

import pandas as pd

from hepipe.errors import Unsupported
from hepipe.protocol.interactive import Interactive
from hepipe.schemes.base import Evaluator
from hepipe.schemes.ckks import CkksEvaluator
from hepipe.schemes.clear import ClearEvaluator
from hepipe.schemes.paillier import PaillierEvaluator
from hepipe.study.examples import EXAMPLES
from hepipe.study.plan import POLICIES, Plan, plan

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
    count, unit = (planned.levels, "level") if levelled else (planned.rounds, "round")
    also = f", {planned.rounds} round{'s' * (planned.rounds != 1)}" if levelled and planned.rounds else ""
    return f"{count} {unit}{'s' * (count != 1)}{also}: {planned.reveals}"
