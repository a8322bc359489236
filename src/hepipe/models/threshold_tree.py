"""Decision trees with secret thresholds anywhere on published steps, by comparisons under encryption.

Thermometer bits (models.tree) need no comparison, but their thresholds lie on a public grid, and a fine grid costs a
ciphertext a point. Here a column costs one ciphertext, or one a bit, and its thresholds lie between any two numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from hepipe.circuits import sign
from hepipe.circuits.linear import affine
from hepipe.circuits.selection import Columns, Trees, choose
from hepipe.errors import Unsupported, UnsupportedModel
from hepipe.models.quantizer import COMPARISONS, QuantizedProfile, Steps
from hepipe.models.schema import Schema
from hepipe.models.tree import TREES, complete, leaf_value, published_depth
from hepipe.schemes.base import CipherTensor, Evaluator, Feature, FloatArray, Threshold

ERROR_BITS = 16
"""Of the sign polynomials: two levels more than labels need, so that a score says little of how near a threshold is."""
_LABEL_BITS, _VALUE_BITS, _EXACT_BITS = 3.0, 10.0, 20.0
"""Precision asked for unless told otherwise: of a class index, of a value as a part of the spread of the leaves, and
where comparisons are exact."""


@dataclass(frozen=True, eq=False)
class ThresholdTreeModel:
    """A tree padded to the complete tree of its published depth; node j goes left where its number <= thresholds[j].

    columns     per node, level by level, the raw column it tests
    thresholds  per node a whole number
    trees       which node stands where, and the leaves

    Price, for bits the most of any column: comparison="bits" on Paillier 1 round, bits + 1 full exponentiations a node
    and one a leaf, and exact; "sign" on CKKS 1 level, those of circuits.sign for a gap of 2**-(bits + 1), then 1, 2, 2,
    3, 3, 4 at depth 1 to 6. All nodes, padding included, cost the same whatever they test.
    """

    profile: QuantizedProfile
    columns: Columns
    thresholds: Columns
    trees: Trees
    precision_bits: float
    name: str = "decision tree, secret thresholds"

    @property
    def reveals(self) -> str:
        """What the client learns."""
        if self.profile.comparison == "bits":
            return "one leaf value"
        return f"one leaf value; beyond its bit {ERROR_BITS}, how near a value lies to a threshold"

    def prepare(self, X: npt.ArrayLike | pd.DataFrame) -> FloatArray:
        """At the client: see QuantizedProfile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: all comparisons at once, then circuits.selection.choose.

        The stated bound of a class index is that of any tree. Unsupported for bits on a levelled scheme and for the
        sign on an additive one.
        """
        score = choose(ev, self._at_most(ev, x) if self.profile.comparison == "bits" else self._sign(ev, x), self.trees)
        classes = len(self.profile.classes)
        return score.with_bound(np.array([max(classes - 1.0, 1.0)])) if classes else score

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: see LeafProfile.head."""
        return self.profile.head(scores)

    def exact(self, X: npt.ArrayLike | pd.DataFrame) -> FloatArray:
        """What the circuit approximates: the leaf that each row reaches, shape (samples, 1)."""
        left = self.profile.steps.numbers(self.profile.checked(X))[:, self.columns] <= self.thresholds
        path = np.zeros(len(left), dtype=np.int64)
        for level, nodes in enumerate(self.trees.columns):
            path |= ~left[np.arange(len(left)), nodes[path]] << level
        return self.trees.values[path][:, None]

    def _at_most(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """All comparisons as wide as the widest, by bits that are zero: their widths would tell columns apart."""
        widest, first = int(self.profile.steps.bits.max()), ev.take(x, [0])
        padded = ev.join([x, ev.sub(first, first).with_bound(np.array([1.0]))])
        thresholds = []
        for column, number in zip(self.columns.tolist(), self.thresholds.tolist(), strict=True):
            places = self.profile.places(column)
            thresholds.append(Threshold([*places, *[x.shape[1]] * (widest - len(places))], number))
        return ev.at_most(padded, thresholds)

    def _sign(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """[number - threshold - 1/2 < 0], as parts of 2**bits - 1.5, which no such difference exceeds."""
        if Feature.SELECT in ev.features:
            raise Unsupported("an additive scheme compares bits: import the model with comparison='bits'")
        largest = self.profile.steps.largest
        spread = largest - 0.5
        weights = np.zeros((len(largest), len(self.columns)))
        weights[self.columns, np.arange(len(self.columns))] = (largest / 2 / spread)[self.columns]
        offsets = (largest[self.columns] / 2 - self.thresholds - 0.5) / spread[self.columns]
        differences = affine(ev, x, weights, offsets).with_bound(np.array([1.0]))
        return sign.negative(ev, differences, 0.5 / spread.max(), ERROR_BITS)


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
