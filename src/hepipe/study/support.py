"""What each scheme can do, read off the classes themselves: what one cannot do is declared there, with the reason."""

from __future__ import annotations

import inspect
from typing import Any

import pandas as pd

from hepipe.protocol.interactive import Interactive
from hepipe.schemes.base import Evaluator
from hepipe.schemes.ckks import CkksEvaluator
from hepipe.schemes.clear import ClearEvaluator
from hepipe.schemes.paillier import PaillierEvaluator

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
