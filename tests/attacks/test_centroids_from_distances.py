"""InfoCrypt returns the distances to all centroids: linear functions of the centroids once |x| is known."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
from client_view import Listening, parties, phe_keys, plaintexts, solved
from scipy import stats
from sklearn.cluster import KMeans

from hepipe.models.importers import kmeans_from_sklearn
from hepipe.models.kmeans import KMeansModel
from hepipe.models.schema import Schema
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import Kind, parse
from hepipe.schemes.paillier_randomness import HolderSource, RandomnessPool

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


def model(reveal: str, centroids: np.ndarray = CENTROIDS) -> KMeansModel:
    estimator = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(centroids)
    return kmeans_from_sklearn(estimator, Schema.unknown(4, bound=8.0), reveal=reveal, gap_bits=4)


def test_our_distances_give_them_away_too_and_their_plan_says_so() -> None:
    client, server, made = parties(model("distances"), "paillier", len(QUERIES))
    seen = client.decrypt(server.evaluate(client.encrypt(QUERIES), client.link()))
    assert np.abs(solved(QUERIES, seen)[:-1].T / -2 - CENTROIDS).max() < 1e-4
    assert "the centroids after d + 1 queries" in made.reveals


@cache
def session(which: int = 0) -> tuple[Any, KMeansModel]:
    """Client, server and plan of one of two models."""
    made = model("index", CENTROIDS if not which else -CENTROIDS)
    client, server, planned = parties(made, "paillier", len(QUERIES))
    # Only to be done in seconds: the key holder draws r^n from the same law, 10 times faster.
    server._evaluator.pool = RandomnessPool(client.public().public, HolderSource(client._keys.secret))
    return (client, server, planned), made


def numbers_seen(client: Client, request: bytes) -> np.ndarray:
    """Every plaintext in a request of a round, a row a sample."""
    frame = parse(request, Kind.MASKED_NUMBERS, Kind.ZERO_TESTS)
    count = struct.unpack_from(">I", frame.body)[0] if frame.kind == Kind.ZERO_TESTS else 0
    body = frame.body[4 + 2 * count if count else 2 :]
    size = len(body) // (frame.samples * frame.features)
    values = plaintexts(client, [int.from_bytes(body[i : i + size], "big") for i in range(0, len(body), size)])
    return np.array(values, dtype=object).reshape(frame.samples, frame.features)


def asked(queries: np.ndarray, which: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, masked numbers, zero tests) of a query."""
    (client, server, _), _ = session(which)
    link = Listening(client)
    labels = client.head(client.decrypt(server.evaluate(client.encrypt(queries), link)))
    first, second = (numbers_seen(client, request) for request in link.requests)
    return labels, first, second


def differences() -> np.ndarray:
    """What a solve is after: slopes and intercepts of the differences, in the model's unit."""
    made = session()[1]
    pairs = [(1, 0), (2, 0), (2, 1)]
    weights = np.column_stack([made.weights[:, j] - made.weights[:, i] for j, i in pairs]) / 8.0
    return np.vstack([weights, [made.intercept[j] - made.intercept[i] for j, i in pairs]])


def test_an_index_leaves_nothing_linear_to_solve() -> None:
    labels, masked, tests = asked(QUERIES)
    (_, _, made), our = session()
    assert (labels == our.exact(QUERIES)[:, 0]).all()
    scale = int(made.parameters.log_scale + made.parameters.log_plain_scale)
    assert masked.shape == (5, 3)
    # Unmasked they would be the answer; each unknown is off by about the mask, 2**80.
    exact = np.column_stack([QUERIES, np.ones(5)]) @ differences()
    assert np.abs(solved(QUERIES, exact) - differences()).max() < 1e-12
    assert np.abs(solved(QUERIES, masked / 2**scale) - differences()).min() > 2.0**40
    # All that is left of a zero test is whether it has a zero; labels and coins have a linear fit, and it is wrong.
    zeros = np.array([[(part == 0).any() for part in np.split(row, 3)] for row in tests], dtype=float)
    for readable in (zeros, np.eye(3)[labels]):
        assert np.abs(solved(QUERIES, readable) - differences()).max() > 0.05


def test_replays_give_the_label_again_and_fair_coins() -> None:
    replays = 20
    rows = np.repeat(QUERIES[1:2], replays, axis=0)
    outcomes = [asked(rows, which) for which in (0, 1)]
    for (labels, masked, tests), which in zip(outcomes, (0, 1), strict=True):
        assert (labels == session(which)[1].exact(QUERIES[1:2])[0, 0]).all()
        assert len({int(v) for v in masked.flat}) == masked.size
        zeros = np.array([[(part == 0).sum() for part in np.split(row, 3)] for row in tests])
        assert zeros.max() == 1
        assert stats.binomtest(int(zeros.sum()), zeros.size).pvalue > 1e-6
    first, second = (masked.astype(np.float64).ravel() for _, masked, _ in outcomes)
    assert stats.ks_2samp(first, second).pvalue > 1e-6


def test_nor_does_the_mean_of_many_replays() -> None:
    labels, masked, _ = asked(np.tile(QUERIES, (4, 1)))
    (_, _, made), _ = session()
    scale = int(made.parameters.log_scale + made.parameters.log_plain_scale)
    means = masked.reshape(4, 5, 3).sum(axis=0) / 4 - 2 ** (scale + 80)
    assert np.abs(solved(QUERIES, means / 2**scale) - differences()).min() > 2.0**40
    assert (labels.reshape(4, 5) == labels[:5]).all()
