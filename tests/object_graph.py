"""What a party holds: every object that can be reached from it."""

from __future__ import annotations

import gc
import types

import numpy as np

_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def reachable(root: object) -> list[object]:
    """Every object that can be reached from ``root``, without wandering into modules, classes and their code."""
    seen: set[int] = set()
    stack, found = [root], []
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, _CODE):
            continue
        seen.add(id(item))
        found.append(item)
        stack.extend(gc.get_referents(item))
        if isinstance(item, np.ndarray) and item.dtype == object:  # numpy shows the collector nothing of these
            stack.extend(item.ravel().tolist())
    return found


def floats(items: list[object]) -> set[float]:
    """The numbers among these objects and in their arrays."""
    arrays = [item for item in items if isinstance(item, np.ndarray) and item.dtype == np.float64]
    return {item for item in items if isinstance(item, float)} | {float(v) for a in arrays for v in a.ravel()}
