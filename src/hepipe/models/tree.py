"""Decision trees and small forests on thermometer bits of public grids (circuits/selection.py).

The client learns one leaf value a row, of a forest only the sum over its trees, besides what is published: grids,
padded depth, number of trees. It does not learn thresholds, features, leaves or the path; the server learns nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits.selection import Trees, choose
from hepipe.models.tree_profile import BinProfile
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples


@dataclass(frozen=True, eq=False)
class DecisionTreeModel:
    """A tree padded to the complete tree of its published depth, or several of them summed.

    Price of one tree: Paillier 0 levels, 0 rounds, 2**depth full exponentiations a row and exact; CKKS 1, 2, 2, 3, 3, 4
    levels at depth 1 to 6. A forest costs the same levels; on Paillier still no round, and twice the exponentiations a
    tree.
    """

    profile: BinProfile
    trees: Trees
    name: str = "decision tree"
    reveals: str = "one leaf value"

    def prepare(self, X: Samples) -> FloatArray:
        """At the client: see BinProfile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: see circuits.selection.choose. The stated bound of a class index is that of any tree."""
        score = choose(ev, x, self.trees)
        classes = len(self.profile.classes)
        return score.with_bound(np.array([max(classes - 1.0, 1.0)])) if classes else score

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: see LeafProfile.head."""
        return self.profile.head(scores)
