"""InfoCrypt returns the distances to all centroids: linear functions of the centroids once |x| is known."""

from __future__ import annotations

import numpy as np
from client_view import phe_keys, solved

RNG = np.random.default_rng(6)
CENTROIDS = RNG.uniform(-5, 5, (3, 4))
QUERIES = np.vstack([np.zeros(4), np.eye(4)])
"""d + 1 points."""


def centroids_from(distances: np.ndarray) -> np.ndarray:
    """d_j - |x|^2 = -2 x c_j + |c_j|^2 is affine in x; its slope is the centroid."""
    return solved(QUERIES, distances - (QUERIES**2).sum(axis=1, keepdims=True))[:-1].T / -2


def test_d_plus_1_answers_of_the_old_system_are_the_centroids() -> None:
    public, private = phe_keys()
    distances = np.empty((5, 3))
    for row, query in enumerate(QUERIES):
        x, square = [public.encrypt(float(v)) for v in query], public.encrypt(float(query @ query))
        for j, centroid in enumerate(CENTROIDS):
            crossed = sum((c * float(-2 * v) for c, v in zip(x, centroid, strict=True)), start=square)
            distances[row, j] = private.decrypt(crossed + float(centroid @ centroid))
    assert np.abs(centroids_from(distances) - CENTROIDS).max() < 1e-9
