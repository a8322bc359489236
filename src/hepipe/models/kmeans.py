"""k-means: the cluster of an encrypted row, revealed as an index and nothing else, or as distances.

|x - c|**2 is |x|**2 - 2 x.c + |c|**2, and |x|**2 is the same for all clusters: without it, distances are linear in x.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.utils.validation import check_is_fitted

from hepipe.circuits.comparison import LARGEST, nearest
from hepipe.circuits.linear import affine
from hepipe.errors import UnsupportedModel
from hepipe.models.linear import LinearModel
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray

CLUSTERERS = (KMeans, MiniBatchKMeans)
GAP_BITS = 10.0
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

    def prepare(self, X: npt.ArrayLike | pd.DataFrame) -> FloatArray:
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

    def exact(self, X: npt.ArrayLike | pd.DataFrame) -> FloatArray:
        """What the circuit approximates: the index of the least distance, shape (samples, 1), or the distances."""
        distances = self._distances(X)
        return distances if self.profile.reveal == "distances" else distances.argmin(axis=1)[:, None] * 1.0

    def near_a_tie(self, X: npt.ArrayLike | pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which rows lie within the gap, shape (samples,)."""
        least = np.sort(self._distances(X), axis=1)
        return np.asarray(least[:, 1] - least[:, 0] < self.gap)

    def _distances(self, X: npt.ArrayLike | pd.DataFrame) -> FloatArray:
        return np.asarray(self.prepare(X) @ self.weights + self.intercept)


def kmeans_from_sklearn(
    estimator: Any,
    schema: Schema,
    *,
    fill: FloatArray | None = None,
    slope: FloatArray | float = 1.0,
    offset: FloatArray | float = 0.0,
    reveal: str = "index",
    gap_bits: float = GAP_BITS,
    X_train: npt.ArrayLike | pd.DataFrame | None = None,
) -> KMeansModel:
    """The model of a fitted KMeans or MiniBatchKMeans that was trained on slope * x + offset.

    schema    of the raw columns, in the estimator's order; the narrower its ranges, the finer the gap
    reveal    "index", or "distances", which is cheap and gives the centroids away
    gap_bits  fineness of the gap: each bit costs about a level of CKKS, and two bits of every comparison on Paillier
    X_train   raw rows of which ``ties_within`` is counted

    UnsupportedModel for one cluster, or for two centroids that coincide; sklearn's NotFittedError before ``fit``.
    """
    check_is_fitted(estimator)
    centroids = np.asarray(estimator.cluster_centers_, dtype=np.float64)
    if reveal not in REVEALS:
        raise UnsupportedModel(f"reveal={reveal!r}: use one of {list(REVEALS)}")
    if not gap_bits >= 1:
        raise UnsupportedModel(f"gap_bits={gap_bits}: a gap is a part of the range, half of it at most")
    profile = ClusterProfile.of(
        "classification", schema, 1 if reveal == "index" else len(centroids), fill, reveal=reveal, count=len(centroids)
    )
    constants = (centroids * (centroids - 2 * offset)).sum(axis=1)
    linear = LinearModel.of(profile, -2 * (slope * centroids).T, constants)
    if reveal == "distances":
        return KMeansModel(profile, linear.weights, linear.intercept, name="k-means, distances")
    gap = 2.0**-gap_bits
    weights, intercept = _scaled(linear.weights, linear.intercept, LARGEST - gap)
    model = KMeansModel(profile, weights, intercept, gap)
    if X_train is None:
        return model
    return KMeansModel(profile, weights, intercept, gap, float(model.near_a_tie(X_train).mean()))


def _scaled(weights: FloatArray, intercept: FloatArray, spread: float) -> tuple[FloatArray, FloatArray]:
    """Distances whose differences have the bound ``spread``, less the mean over the clusters, which decides nothing."""
    pairs = list(itertools.combinations(range(len(intercept)), 2))
    if not pairs:
        raise UnsupportedModel("one cluster: every row belongs to it, and nothing needs to be computed")
    bounds = [np.abs(weights[:, i] - weights[:, j]).sum() + abs(intercept[i] - intercept[j]) for i, j in pairs]
    if min(bounds) == 0:
        raise UnsupportedModel("two centroids coincide: their rows tie everywhere; fit with fewer clusters")
    factor = spread / max(bounds)
    return factor * (weights - weights.mean(axis=1, keepdims=True)), factor * (intercept - intercept.mean())
