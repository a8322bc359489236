"""k-means: the cluster of an encrypted row, revealed as an index and nothing else, or as distances.

|x - c|**2 is |x|**2 - 2 x.c + |c|**2, and |x|**2 is the same for all clusters: without it, distances are linear in x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.circuits.comparison import nearest
from hepipe.circuits.linear import affine
from hepipe.models.profile import Profile
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, Samples

REVEALS = {
    "index": "cluster index",
    "distances": "cluster index; distances to all centroids, hence the centroids after d + 1 queries",
}
_PRECISION_BITS = {"index": 3.0, "distances": 20.0}


@dataclass(frozen=True, eq=False)
class ClusterProfile(Profile):
    """Raw inputs to scaled ones, scores to cluster numbers.

    reveal  "index": a score is a cluster's number; "distances": a score a cluster, the least is the nearest
    count   how many clusters
    """

    reveal: str = "index"
    count: int = 2

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """Cluster numbers, int32 of shape (samples,)."""
        if self.reveal == "distances":
            return np.asarray(scores.argmin(axis=1).astype(np.int32))
        return np.asarray(np.rint(scores[:, 0]).clip(0, self.count - 1).astype(np.int32))


@dataclass(frozen=True, eq=False)
class KMeansModel:
    """distances = prepared @ weights + intercept, but for a term that all clusters share; then the least of them.

    gap          published, reveal="index" only: a row whose two least distances differ by less may get another
                 cluster, on Paillier another that is as near, on CKKS any. Its unit is the largest difference of two
                 distances that the schema allows, of which it is 2**-gap_bits
    ties_within  the share of the training rows that lie within the gap; None if they were not given

    Price of k clusters: reveal="index" on Paillier 2 rounds, k (k - 1) / 2 comparisons and k full exponentiations a
    row, on CKKS 1 level, those of the sign, and ceil(log2(k - 1)); "distances" 1 level and 0 rounds on both.
    Reveals to the client the index; on CKKS also how close to 0 and 1 the sign's polynomials came, so that the
    centroids are hidden on Paillier only. Distances give the centroids away after d + 1 queries of d columns.
    """

    profile: ClusterProfile
    weights: FloatArray
    intercept: FloatArray
    gap: float = 0.0
    ties_within: float | None = None
    name: str = "k-means"

    @property
    def reveals(self) -> str:
        """What the client learns."""
        return REVEALS[self.profile.reveal]

    @property
    def precision_bits(self) -> float:
        """What a plan aims at unless told otherwise: an eighth for an index."""
        return _PRECISION_BITS[self.profile.reveal]

    def prepare(self, X: Samples) -> FloatArray:
        """At the client: see Profile.prepare."""
        return self.profile.prepare(X)

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """At the server: the distances, or the index of the least."""
        distances = affine(ev, x, self.weights, self.intercept)
        if self.profile.reveal == "distances":
            return distances
        return nearest(ev, distances, self.gap)

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """At the client: see ClusterProfile.head."""
        return self.profile.head(scores)

    def exact(self, X: Samples) -> FloatArray:
        """What the circuit approximates: the index of the least distance, shape (samples, 1), or the distances."""
        distances = self._distances(X)
        return distances if self.profile.reveal == "distances" else distances.argmin(axis=1)[:, None] * 1.0

    def near_a_tie(self, X: Samples) -> npt.NDArray[np.bool_]:
        """Which rows lie within the gap, shape (samples,)."""
        least = np.sort(self._distances(X), axis=1)
        return np.asarray(least[:, 1] - least[:, 0] < self.gap)

    def _distances(self, X: Samples) -> FloatArray:
        return np.asarray(self.prepare(X) @ self.weights + self.intercept)
