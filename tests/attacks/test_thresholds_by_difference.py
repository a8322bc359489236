"""Encrypted-Medical-Predictions sends back Enc(x - t) for every node of its tree."""

from __future__ import annotations

import numpy as np
from client_tree import FEATURES, GRID, LEAVES, entries, tree_parties
from client_view import phe_keys
from scipy import stats

PROBE = [10_000.0, 20_000.0, 30_000.0]
"""One query from far outside: the thousands of an answer name the feature, the rest is the threshold."""


def old_server(ciphertexts: list, thresholds: np.ndarray) -> list:
    return [ciphertexts[feature] - float(t) for feature, t in zip(FEATURES, thresholds, strict=True)]


def read_off(differences: list[float]) -> list[tuple[int, float]]:
    """Feature and threshold of every node."""
    nearest = [int(np.abs(np.array(PROBE) - value).argmin()) for value in differences]
    return [(feature, PROBE[feature] - value) for feature, value in zip(nearest, differences, strict=True)]


def test_one_query_reads_every_feature_and_threshold() -> None:
    public, private = phe_keys()
    thresholds = np.array([313.25, 702.5, 77.0])
    answer = old_server([public.encrypt(x) for x in PROBE], thresholds)
    assert read_off([private.decrypt(c) for c in answer]) == list(enumerate(thresholds))


def test_an_answer_of_ours_holds_one_leaf_and_nothing_else_to_read() -> None:
    client, server = tree_parties(3, 6, 1)
    x = [999.0, 0.0, 0.0]  # right, then left: the second leaf of the second node
    values = entries(client, server, x)
    scale = 2 ** int(client.public().parameters.log_plain_scale)
    leaves = [value / scale for value in values if abs(value) < 2**900]
    assert len(values) == len(LEAVES)
    assert leaves == [client.decrypt(server.evaluate(client.encrypt([x])))[0, 0]]
    secret = GRID[[3, 6, 1]]
    for size in (1, scale):
        read = {threshold for _, threshold in read_off([value / size for value in values])}
        assert read.isdisjoint(secret)


def test_what_surrounds_the_leaf_is_uniform_whatever_the_tree() -> None:
    """KS at level 1e-6, 240 values a tree: it would see a tenth of them within a quarter of the range."""
    x, samples = [0.0, 0.0, 0.0], []
    for thresholds in ((1, 2, 3), (8, 7, 6)):
        client, server = tree_parties(*thresholds)
        n = int(client.public().public.n)
        hidden = [v % n / n for _ in range(80) for v in entries(client, server, x) if abs(v) >= 2**900]
        assert len(hidden) == 3 * 80
        assert stats.kstest(hidden, "uniform").pvalue > 1e-6
        samples.append(hidden)
    assert stats.ks_2samp(*samples).pvalue > 1e-6
