"""The leaks that notebooks 03 and 06 show are the real ones: thresholds from one query, centroids from d + 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from hepipe.errors import OutOfRange
from hepipe.models.schema import Schema
from hepipe.schemes.parameters import PaillierParameters
from hepipe.study.leaks import centroids, differences


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_one_query_reads_every_column_and_every_threshold(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-9, 9, (60, 5))
    tree = DecisionTreeRegressor(max_depth=depth, random_state=0).fit(X, rng.normal(size=60))
    read = differences(tree, Schema.unknown(5, bound=9), security_bits=0)
    inner = tree.tree_.feature >= 0
    assert len(read) == inner.sum() > 0
    assert read["node"].tolist() == np.flatnonzero(inner).tolist()
    assert read["column read"].tolist() == read["column"].tolist()
    assert read["threshold"].tolist() == tree.tree_.threshold[inner].tolist()
    assert (read["threshold read"] - read["threshold"]).abs().max() <= 2.0**-30  # float64 beside a probe of 2**23


def test_a_threshold_that_would_be_taken_for_another_column_is_refused() -> None:
    tree = DecisionTreeClassifier().fit([[0.0], [2.0**21]], [0, 1])
    with pytest.raises(OutOfRange, match="below 2\\*\\*19"):
        differences(tree, Schema.unknown(1, bound=2.0**21), security_bits=0)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_d_plus_1_queries_read_every_centroid(seed: int, count: int, d: int) -> None:
    centres = np.random.default_rng(seed).uniform(-50, 50, (count, d))
    names = [f"x{i}" for i in range(d)]
    read = centroids(centres, names, security_bits=0)
    assert read["cluster"].tolist() == list(range(count))
    np.testing.assert_array_equal(read[names], centres)
    # half a unit of the weights -2c, halved; the answers, below 2**15, are read as float64
    bound = 2.0 ** -(PaillierParameters.log_plain_scale + 2) + 2.0**-37
    assert np.abs(read[[f"{name} read" for name in names]].to_numpy() - centres).max() <= bound
