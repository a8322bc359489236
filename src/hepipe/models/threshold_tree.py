"""Decision trees with secret thresholds anywhere on published steps, by comparisons under encryption.

Thermometer bits (models.tree) need no comparison, but their thresholds lie on a public grid, and a fine grid costs a
ciphertext a point. Here a column costs one ciphertext, or one a bit, and its thresholds lie between any two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits import sign
from hepipe.circuits.linear import affine
from hepipe.circuits.selection import Columns, Trees, choose
from hepipe.errors import Unsupported
from hepipe.models.step_profile import QuantizedProfile
from hepipe.schemes.base import CipherTensor, Evaluator, Feature, FloatArray, Samples, Threshold

ERROR_BITS = 16
"""Of the sign polynomials: two levels more than labels need, so that a score says little of how near a threshold is."""


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

    def prepare(self, X: Samples) -> FloatArray:
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

    def exact(self, X: Samples) -> FloatArray:
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
