"""Decision trees and forests from scikit-learn: padded, with public or secret thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted

from hepipe.circuits.selection import Trees
from hepipe.errors import UnsupportedModel
from hepipe.models.schema import Schema
from hepipe.models.step_profile import COMPARISONS, QuantizedProfile, Steps
from hepipe.models.threshold_tree import ThresholdTreeModel
from hepipe.models.tree import DecisionTreeModel
from hepipe.models.tree_profile import BinProfile, check_grids
from hepipe.schemes.base import FloatArray

TREES = (DecisionTreeClassifier, DecisionTreeRegressor)
FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
MAX_DEPTH = 6
TIE_MARGIN = 2.0**-10
"""A probability closer than this to one half has no label that survives the noise of CKKS."""
_LABEL_BITS, _VALUE_BITS, _EXACT_BITS = 3.0, 10.0, 20.0
"""Precision asked for unless told otherwise: of a class index, of a value as a part of the spread of the leaves, and
where comparisons are exact."""


def tree_from_sklearn(
    estimator: Any,
    schema: Schema,
    grids: Any,
    *,
    on_bins: bool,
    fill: FloatArray | None = None,
    depth: int | None = None,
    output: str = "label",
) -> DecisionTreeModel:
    """The model of a fitted tree or forest of depth 6 at most, with one output.

    schema   of the raw columns, in the estimator's order
    grids    the published points of each column: ``Binner.grids_``
    on_bins  the estimator was fitted on bin numbers (``Binner``): predictions agree on every input. Else on raw
             values: each threshold moves to the nearest point of its grid, and inputs between the two may differ
    depth    the depth that is published and padded to; default the estimator's max_depth, else its own depth
    output   "label": a leaf holds its class; "probability": of two classes that of the second, as in every forest,
             whose label is unsure where the trees' mean is nearer to one half than the scheme's error

    UnsupportedModel for what does not fit, sklearn's NotFittedError before ``fit``.
    """
    check_is_fitted(estimator)
    fitted, forest = _members(estimator)
    classes = tuple(estimator.classes_.tolist()) if hasattr(estimator, "classes_") else ()
    grids = check_grids(grids, len(schema.columns))
    if not any(map(len, grids)) and not any(one.get_depth() for one in fitted):
        # Constant columns make a constant tree; a point that no value exceeds gives it the one bit that is encrypted.
        grids = (schema.high[:1], *grids[1:])
    kind = "classification" if classes else "regression"
    profile = BinProfile.of(kind, schema, 1, fill, grids=grids, classes=classes)
    leaf = leaf_value(classes, "probability" if forest else output, len(fitted))
    padded = published_depth(estimator, fitted, depth)
    parts = [complete(one.tree_, padded, partial(_column, one.tree_, profile, on_bins), leaf) for one in fitted]
    columns = tuple(np.column_stack(level).ravel() for level in zip(*(part.columns for part in parts), strict=True))
    trees = Trees(columns, np.column_stack([part.values for part in parts]).ravel())
    if forest:
        return DecisionTreeModel(profile, trees, f"forest of {len(fitted)} trees", "the sum of the trees' leaves")
    return DecisionTreeModel(profile, trees)


def _members(estimator: Any) -> tuple[list[Any], bool]:
    if not isinstance(estimator, (*TREES, *FORESTS)) or estimator.n_outputs_ != 1:
        raise UnsupportedModel(f"{type(estimator).__name__} is not a tree or a forest with one output")
    forest = isinstance(estimator, FORESTS)
    return (list(estimator.estimators_), True) if forest else ([estimator], False)


def published_depth(estimator: Any, fitted: list[Any], depth: int | None) -> int:
    """The depth to pad to: the one asked for, else the estimator's max_depth or its own; UnsupportedModel over 6."""
    deepest = max(one.get_depth() for one in fitted)
    published = max(min(estimator.max_depth or deepest, MAX_DEPTH), 1) if depth is None else depth
    if not max(deepest, 1) <= published <= MAX_DEPTH:
        raise UnsupportedModel(
            f"a tree of depth {deepest} padded to {published}: the depth must be at least the tree's and at most "
            f"{MAX_DEPTH}, since every leaf of the complete tree is paid for: fit with max_depth={MAX_DEPTH} or less"
        )
    return published


def leaf_value(classes: tuple[Any, ...], output: str, count: int) -> Callable[[FloatArray], float]:
    """What a leaf holds, from scikit-learn's values of the node; of a forest its share of the mean."""
    if output not in ("label", "probability"):
        raise UnsupportedModel(f"output={output!r}: use 'label' or 'probability'")
    if not classes:
        return lambda value: float(value[0]) / count
    if output == "label":
        return lambda value: float(value.argmax())
    if len(classes) != 2:
        raise UnsupportedModel(f"a probability, or a forest's mean of them, takes two classes, not {len(classes)}")
    return lambda value: _probability(value, count)


def _probability(value: FloatArray, count: int) -> float:
    probability = float(value[1] / value.sum())
    if count == 1 and abs(probability - 0.5) < TIE_MARGIN:
        raise UnsupportedModel(f"a leaf of probability {probability:.4f} has no clear label: use output='label'")
    return probability / count


def complete(tree: Any, depth: int, column: Callable[[int], int], leaf: Callable[[FloatArray], float]) -> Trees:
    """One tree, padded: below a leaf that is too high, nodes that test any column and leaves that all repeat it.

    column  of each node, level by level, the column of bits that it tests; any below a leaf
    leaf    what a leaf holds, of scikit-learn's values of the node
    """
    nodes, columns = np.array([0]), []
    for _ in range(depth):
        columns.append(np.array([column(node) for node in nodes.tolist()]))
        children = np.concatenate([tree.children_left[nodes], tree.children_right[nodes]])
        nodes = np.where(children < 0, np.tile(nodes, 2), children)
    return Trees(tuple(columns), np.array([leaf(tree.value[node, 0]) for node in nodes.tolist()]))


def _column(tree: Any, profile: BinProfile, on_bins: bool, node: int) -> int:
    """The bit that a node tests; any, here the first, below a leaf."""
    if tree.children_left[node] < 0:
        return 0
    feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
    grid = profile.grids[feature]
    if not len(grid):
        raise UnsupportedModel(f"the tree splits column {profile.schema.names[feature]!r}, whose grid has no point")
    place = int(threshold) if on_bins else int(np.abs(grid - threshold).argmin())
    if place >= len(grid):
        raise UnsupportedModel(
            f"threshold {threshold:.6g} of column {profile.schema.names[feature]!r} is no bin of a grid of {len(grid)} "
            "points: pass on_bins=False for a tree fitted on raw values"
        )
    return int(profile.first_columns[feature]) + place


def threshold_tree_from_sklearn(
    estimator: Any,
    schema: Schema,
    steps: Steps,
    *,
    comparison: str = "sign",
    fill: FloatArray | None = None,
    depth: int | None = None,
    X_train: npt.ArrayLike | None = None,
) -> ThresholdTreeModel:
    """The model of a fitted tree of depth 6 at most, with one output.

    schema      of the raw columns, in the estimator's order
    steps       the published steps of each column: ``Quantizer.steps_``
    comparison  "sign" for levelled schemes, "bits" for additive ones: the client encrypts other things for each
    depth       the depth that is published and padded to; default the estimator's max_depth, else its own depth
    X_train     None for an estimator fitted on numbers (``Quantizer``): predictions agree on every input. For one
                fitted on raw values its filled training rows: each threshold moves to the middle of two numbers

    UnsupportedModel for what does not fit, and for a raw threshold nearer to its training values than steps can tell.
    """
    check_is_fitted(estimator)
    if not isinstance(estimator, TREES) or estimator.n_outputs_ != 1:
        raise UnsupportedModel(f"{type(estimator).__name__} is not a tree with one output: use a Binner for a forest")
    if comparison not in COMPARISONS:
        raise UnsupportedModel(f"comparison={comparison!r}: use one of {list(COMPARISONS)}")
    classes = tuple(estimator.classes_.tolist()) if hasattr(estimator, "classes_") else ()
    kind = "classification" if classes else "regression"
    profile = QuantizedProfile.of(kind, schema, 1, fill, classes=classes, steps=steps, comparison=comparison)
    rows = None if X_train is None else np.asarray(X_train, dtype=np.float64)
    nodes: list[int] = []

    def numbered(node: int) -> int:
        nodes.append(node)
        return len(nodes) - 1

    depth = published_depth(estimator, [estimator], depth)
    trees = complete(estimator.tree_, depth, numbered, leaf_value(classes, "label", 1))
    comparisons = np.array([_comparison(estimator.tree_, node, profile, rows) for node in nodes], dtype=np.int64)
    columns, thresholds = comparisons.T
    return ThresholdTreeModel(profile, columns, thresholds, trees, _precision_bits(profile, trees.values))


def _comparison(tree: Any, node: int, profile: QuantizedProfile, rows: FloatArray | None) -> tuple[int, int]:
    """(column, threshold); any, here the first and zero, below a leaf."""
    if tree.children_left[node] < 0:
        return 0, 0
    column, threshold = int(tree.feature[node]), float(tree.threshold[node])
    number = math.floor(threshold) if rows is None else _moved(column, threshold, profile, rows)
    if not 0 <= number < profile.steps.largest[column]:
        raise UnsupportedModel(
            f"threshold {threshold:.6g} of column {profile.schema.names[column]!r} is outside its numbers 0 to "
            f"{profile.steps.largest[column]:.0f}: give X_train for a tree fitted on raw values"
        )
    return column, number


def _moved(column: int, threshold: float, profile: QuantizedProfile, rows: FloatArray) -> int:
    """The number whose upper end is nearest to a raw threshold among those that leave every row on its side."""
    values, steps = rows[:, column], profile.steps
    numbers, left = steps.numbers(rows)[:, column], values <= threshold
    least, beyond = numbers[left].max(initial=0), numbers[~left].min(initial=steps.largest[column])
    if least >= beyond:
        raise UnsupportedModel(
            f"threshold {threshold:.6g} of column {profile.schema.names[column]!r} lies between the training values "
            f"{values[left].max(initial=-np.inf):.6g} and {values[~left].min(initial=np.inf):.6g}, which its "
            f"{steps.bits[column]} bits do not tell apart: put hepipe's Quantizer before the tree"
        )
    nearest = round((threshold - float(steps.low[column])) / float(steps.step[column]) - 0.5)
    return min(max(nearest, int(least)), int(beyond) - 1)


def _precision_bits(profile: QuantizedProfile, leaves: FloatArray) -> float:
    if profile.comparison == "bits":
        return _EXACT_BITS
    return _LABEL_BITS if profile.classes else _VALUE_BITS - math.log2(float(np.ptp(leaves)) or 1.0)
