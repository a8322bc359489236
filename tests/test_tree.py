"""Trees from scikit-learn: grids, bits, agreement on every scheme, padding, and what is published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator

import hepipe
from hepipe.errors import KeyMismatch, OutOfRange, ShapeMismatch, UnsupportedModel
from hepipe.models.binner import Binner
from hepipe.models.logistic import clear_scores
from hepipe.models.schema import Column, Schema
from hepipe.models.tree import DecisionTreeModel
from hepipe.models.tree_importer import tree_from_sklearn
from hepipe.models.tree_profile import BinProfile, bin_grid, bin_numbers, check_grids
from hepipe.protocol.parties import Client, Server
from hepipe.study.plan import plan

RNG = np.random.default_rng(3)
NAMES = ("age", "smokes", "pulse", "dose")
SCHEMA = Schema((Column("age", 20, 80), Column("smokes", 0, 1), Column("pulse", 40, 140), Column("dose", -1, 1)))


def rows(count: int, rng: np.random.Generator) -> np.ndarray:
    age, smokes = rng.integers(20, 80, count), rng.integers(0, 2, count)
    return np.column_stack([age, smokes, rng.normal(80, 15, count).clip(40, 140), rng.uniform(-1, 1, count)])


TRAIN, FRESH = rows(400, RNG), rows(300, RNG)
GRIDS = bin_grid(TRAIN, 15)
SCORE = TRAIN[:, 0] / 30 + TRAIN[:, 1] * (TRAIN[:, 2] > 75) + TRAIN[:, 3] ** 2 + RNG.normal(0, 0.2, 400)
BINARY = np.where(np.median(SCORE) < SCORE, "sick", "well")
THREE = np.digitize(SCORE, np.quantile(SCORE, [0.3, 0.7])) * 10


def fitted(estimator: Any, target: Any) -> Any:
    return estimator.fit(bin_numbers(TRAIN, GRIDS), target)


def model_of(estimator: Any, **more: Any) -> DecisionTreeModel:
    return tree_from_sklearn(estimator, SCHEMA, GRIDS, on_bins=True, **more)


def predicted(
    model: DecisionTreeModel, X: Any, scheme: str = "clear", precision_bits: float | None = None
) -> np.ndarray:
    """The model's predictions under a scheme with insecure test parameters, through frames."""
    planned = plan(model, scheme, len(X), security_bits=0, precision_bits=precision_bits)
    client = Client(planned)
    server = Server(model, client.public_bytes(), allow_insecure=True)
    x, link = client.pack(client.encrypt(X)), client.link()
    y = server.pack(server.evaluate(server.unpack(x), link))
    assert link.transcript.rounds == planned.rounds
    assert len(x) + link.transcript.bytes_up == planned.bytes_up
    assert len(y) + link.transcript.bytes_down == planned.bytes_down
    return np.asarray(client.head(client.decrypt(client.unpack(y))))


# Grids and bits

columns_of_data = hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(1, 3)), elements=st.integers(-9, 9))


@settings(max_examples=200)
@given(columns_of_data, st.integers(1, 12))
def test_grids_rise_stay_below_the_largest_value_and_keep_to_their_size(X: np.ndarray, bins: int) -> None:
    for grid, column in zip(bin_grid(X, bins), X.T, strict=True):
        assert len(grid) <= bins
        assert (np.diff(grid) > 0).all()
        assert np.isin(grid, column).all()
        assert (grid < column.max()).all()
        if len(np.unique(column)) <= bins + 1:
            assert grid.tolist() == np.unique(column)[:-1].tolist()


@settings(max_examples=200)
@given(columns_of_data, columns_of_data, st.integers(1, 12))
def test_bits_are_the_unary_code_of_the_bin_number(X: np.ndarray, other: np.ndarray, bins: int) -> None:
    values = np.resize(other, (len(other), X.shape[1]))
    grids = bin_grid(X, bins)
    schema = Schema.unknown(X.shape[1], bound=10)
    profile = BinProfile.of("regression", schema, 1, grids=grids)
    bits, numbers = profile.prepare(values), bin_numbers(values, grids)
    assert bits.shape == (len(values), len(profile.input_bound))
    for feature, (start, grid) in enumerate(zip(profile.first_columns, grids, strict=True)):
        own = bits[:, start : start + len(grid)]
        assert ((own == 0).sum(axis=1) == numbers[:, feature]).all()
        assert (np.diff(own, axis=1) >= 0).all()
        assert (own == (values[:, [feature]] <= grid)).all()


def test_a_column_of_two_values_costs_one_bit_and_a_constant_none() -> None:
    grids = bin_grid(np.array([[0, 5, 1], [1, 5, 2], [1, 5, 3]]), 31)
    assert [grid.tolist() for grid in grids] == [[0.0], [], [1.0, 2.0]]


def test_binner_is_a_scikit_learn_transformer() -> None:
    check_estimator(Binner(), on_skip=None)
    frame = pd.DataFrame(TRAIN, columns=list(NAMES))
    assert Binner(5).fit(frame).get_feature_names_out().tolist() == list(NAMES)


def test_binner_takes_published_grids_instead() -> None:
    step = Binner(grids=([30, 50], [0], [], [-0.5, 0.0, 0.5])).fit(TRAIN)
    assert step.transform([[50, 1, 90, 0.01]]).tolist() == [[1.0, 1.0, 0.0, 2.0]]
    with pytest.raises(UnsupportedModel, match="1 grids for 4 columns"):
        Binner(grids=([1.0],)).fit(TRAIN)


@pytest.mark.parametrize("grid", [[1.0, 1.0], [2.0, 1.0], [np.nan], [np.inf], [[1.0]]])
def test_grids_that_are_none_are_refused(grid: Any) -> None:
    with pytest.raises(UnsupportedModel, match="column 0"):
        check_grids([grid], 1)


def test_a_grid_without_points_is_refused() -> None:
    with pytest.raises(OutOfRange, match="bins=0"):
        bin_grid(TRAIN, 0)


# Agreement

CLASSIFIERS = [
    (DecisionTreeClassifier(max_depth=4, random_state=0), BINARY),
    (DecisionTreeClassifier(max_depth=6, random_state=0), THREE),
    (DecisionTreeClassifier(max_depth=1), THREE),
    (DecisionTreeClassifier(splitter="random", max_depth=5, random_state=1), BINARY),
    (RandomForestClassifier(5, max_depth=3, random_state=0), BINARY),
    (ExtraTreesClassifier(3, max_depth=4, random_state=0), BINARY),
]
REGRESSORS = [
    DecisionTreeRegressor(max_depth=5, random_state=0),
    RandomForestRegressor(4, max_depth=3, random_state=0),
    ExtraTreesRegressor(2, max_depth=2, random_state=0),
]


def name_of(value: Any) -> str:
    return type(value).__name__ if hasattr(value, "fit") else f"{len(set(value))} classes"


@pytest.mark.parametrize(("estimator", "target"), CLASSIFIERS, ids=name_of)
@pytest.mark.parametrize("scheme", ["clear", "ckks"])
def test_labels_agree_on_every_row(estimator: Any, target: Any, scheme: str) -> None:
    estimator, both = fitted(estimator, target), np.concatenate([TRAIN, FRESH])
    assert (predicted(model_of(estimator), both, scheme) == estimator.predict(bin_numbers(both, GRIDS))).all()


@pytest.mark.parametrize(("estimator", "target"), CLASSIFIERS, ids=name_of)
def test_labels_agree_on_paillier(estimator: Any, target: Any) -> None:
    estimator, few = fitted(estimator, target), FRESH[:6]
    assert (predicted(model_of(estimator), few, "paillier") == estimator.predict(bin_numbers(few, GRIDS))).all()


@pytest.mark.parametrize("estimator", REGRESSORS, ids=name_of)
@pytest.mark.parametrize(("scheme", "count"), [("clear", 300), ("ckks", 300), ("paillier", 4)])
def test_values_agree_to_the_precision_asked_for(estimator: Any, scheme: str, count: int) -> None:
    estimator, X = fitted(estimator, SCORE), FRESH[:count]
    expected = estimator.predict(bin_numbers(X, GRIDS))
    assert np.abs(predicted(model_of(estimator), X, scheme, 25) - expected).max() <= 2.0**-25


@pytest.mark.parametrize("scheme", ["clear", "ckks", "paillier"])
def test_probabilities_give_the_same_labels(scheme: str) -> None:
    estimator = fitted(DecisionTreeClassifier(max_depth=3, random_state=0), BINARY)
    model, X = model_of(estimator, output="probability"), FRESH[:8]
    assert np.abs(clear_scores(model, X)[:, 0] - estimator.predict_proba(bin_numbers(X, GRIDS))[:, 1]).max() < 1e-12
    assert (predicted(model, X, scheme) == estimator.predict(bin_numbers(X, GRIDS))).all()


def test_a_pipeline_of_imputer_and_binner_agrees_and_names_its_columns() -> None:
    frame = pd.DataFrame(TRAIN, columns=list(NAMES)).mask(RNG.uniform(size=TRAIN.shape) < 0.1)
    tree = DecisionTreeClassifier(max_depth=4)
    steps = make_pipeline(SimpleImputer(strategy="median"), Binner(15), tree).fit(frame, BINARY)
    model = tree_from_sklearn(tree, SCHEMA, steps[1].grids_, on_bins=True, fill=steps[0].statistics_)
    shuffled = frame[["dose", "age", "pulse", "smokes"]]
    assert (model.head(clear_scores(model, shuffled)) == steps.predict(frame)).all()
    with pytest.raises(OutOfRange, match=r"row 0, column 'age': 81"):
        model.prepare(frame.assign(age=81.0))


def test_raw_thresholds_agree_where_the_grid_has_all_values_and_move_to_the_nearest_point_elsewhere() -> None:
    raw = DecisionTreeClassifier(max_depth=4, random_state=0).fit(TRAIN, BINARY)
    exact = tree_from_sklearn(raw, SCHEMA, bin_grid(TRAIN, 400), on_bins=False)
    assert (exact.head(clear_scores(exact, TRAIN)) == raw.predict(TRAIN)).all()
    stump = DecisionTreeRegressor(max_depth=1).fit([[20, 0, 40, 0], [40, 0, 40, 0]], [1.0, 2.0])  # threshold 30
    for grid, left in (([29.0, 32.0], 29.0), ([27.0, 31.0], 31.0), ([28.0, 32.0], 28.0)):
        snapped = tree_from_sklearn(stump, SCHEMA, [grid, [], [], []], on_bins=False)
        at, above = clear_scores(snapped, [[left, 0, 40, 0], [left + 0.01, 0, 40, 0]])[:, 0]
        assert (at, above) == (1.0, 2.0)


# What is published, and what is refused


def test_shape_is_hidden_by_padding() -> None:
    shallow = fitted(DecisionTreeClassifier(max_depth=4, max_leaf_nodes=3, random_state=0), BINARY)
    deep = fitted(DecisionTreeClassifier(max_depth=4, random_state=0), THREE == 10)
    plans = [plan(model_of(e), "paillier", 3, security_bits=0) for e in (shallow, deep)]
    assert shallow.get_depth() < deep.get_depth() == 4
    assert plans[0].operations == plans[1].operations
    assert plans[0].parameters == plans[1].parameters
    assert (plans[0].bytes_up, plans[0].bytes_down) == (plans[1].bytes_up, plans[1].bytes_down)


def test_a_tree_of_one_leaf_is_padded_too() -> None:
    estimator = fitted(DecisionTreeRegressor(), np.full(400, 2.5))
    model = model_of(estimator, depth=3)
    assert [len(level) for level in model.trees.columns] == [1, 2, 4]
    assert clear_scores(model, FRESH[:3]).tolist() == [[2.5]] * 3
    assert model_of(estimator).trees.values.tolist() == [2.5, 2.5]


@pytest.mark.parametrize("scheme", ["clear", "ckks", "paillier"])
@pytest.mark.parametrize(
    "estimator", [DecisionTreeRegressor(max_depth=2), RandomForestRegressor(2, max_depth=1)], ids=["tree", "forest"]
)
def test_constant_columns_make_a_constant_tree(estimator: Any, scheme: str) -> None:
    constant = np.tile([50.0, 1.0, 80.0, 0.5], (20, 1))
    steps = make_pipeline(Binner(5), estimator).fit(constant, np.full(20, 7.25))
    assert [len(grid) for grid in steps[0].grids_] == [0, 0, 0, 0]
    model = hepipe.from_sklearn(steps, SCHEMA)
    assert model.profile.prepare(FRESH).tolist() == [[1.0]] * len(FRESH)
    rows = np.concatenate([[SCHEMA.low, SCHEMA.high], FRESH[:2]])
    assert np.abs(predicted(model, rows, scheme) - 7.25).max() < 2.0**-20


def test_one_message_serves_every_model_on_the_grids() -> None:
    estimators = [DecisionTreeClassifier(max_depth=3, random_state=seed, splitter="random") for seed in (1, 2)]
    models = [model_of(fitted(estimator, BINARY)) for estimator in estimators]
    assert not np.array_equal(models[0].trees.columns[0], models[1].trees.columns[0])
    client = Client(plan(models[0], "paillier", 5, security_bits=0))
    x = client.encrypt(FRESH[:5])
    for model in models:
        y = Server(model, client.public(), allow_insecure=True).evaluate(x)
        assert (client.head(client.decrypt(y)) == model.head(clear_scores(model, FRESH[:5]))).all()


@pytest.mark.parametrize("scheme", ["ckks", "paillier"])
def test_the_bound_that_travels_is_that_of_the_classes_not_of_the_leaves(scheme: str) -> None:
    only_first = fitted(DecisionTreeClassifier(max_depth=2), THREE)
    object.__setattr__(model := model_of(only_first), "trees", type(model.trees)(model.trees.columns, np.zeros(4)))
    client = Client(plan(model, scheme, 2, security_bits=0))
    y = Server(model, client.public(), allow_insecure=True).evaluate(client.encrypt(FRESH[:2]))
    assert set(y.bound.tolist()) == {2.0}


def test_the_plan_counts_bits_and_says_what_is_revealed() -> None:
    model = model_of(fitted(DecisionTreeClassifier(max_depth=4), BINARY))
    planned = plan(model, "paillier", 3, security_bits=0)
    assert len(model.profile.input_bound) == sum(map(len, GRIDS)) == 15 + 1 + 15 + 15
    assert (planned.parameters.lanes, planned.parameters.log_scale, planned.rounds, planned.levels) == (1, 1, 0, 0)
    assert planned.operations["encrypt"] == 3 * len(model.profile.input_bound)
    assert planned.operations["blind"] == planned.operations["rerandomize"] == 3 * 16
    assert planned.reveals == "one leaf value"
    assert plan(model, "ckks", 3, security_bits=0).levels == 3
    forest = model_of(fitted(RandomForestClassifier(3, max_depth=4), BINARY))
    planned = plan(forest, "paillier", 3, security_bits=0)
    assert (planned.rounds, planned.levels, planned.reveals) == (0, 0, "the sum of the trees' leaves")
    assert planned.operations["blind"] == planned.operations["rerandomize"] == 3 * 2 * 3 * 16


def test_another_clients_query_is_refused() -> None:
    model = model_of(fitted(DecisionTreeClassifier(max_depth=2), BINARY))
    mine, other = (Client(plan(model, "paillier", 1, security_bits=0)) for _ in range(2))
    with pytest.raises(KeyMismatch):
        Server(model, mine.public(), allow_insecure=True).evaluate(other.encrypt(FRESH[:1]))


HALF = np.array([0, 1] * 200)


@pytest.mark.parametrize(
    ("estimator", "target", "more", "message"),
    [
        (DecisionTreeClassifier(random_state=0), BINARY, {}, "depth 1?[0-9] padded to 6"),
        (DecisionTreeClassifier(max_depth=4), BINARY, {"depth": 2}, "depth 4 padded to 2"),
        (DecisionTreeClassifier(max_depth=4), BINARY, {"depth": 7}, "depth 4 padded to 7"),
        (DecisionTreeRegressor(max_depth=2), np.column_stack([SCORE, SCORE]), {}, "one output"),
        (GradientBoostingClassifier(n_estimators=2), BINARY, {}, "GradientBoostingClassifier"),
        (RandomForestClassifier(2, max_depth=2), THREE, {}, "two classes, not 3"),
        (DecisionTreeClassifier(max_depth=2), BINARY, {"output": "logit"}, "output='logit'"),
        (DecisionTreeClassifier(max_depth=1, min_samples_leaf=201), HALF, {"output": "probability"}, "no clear label"),
    ],
)
def test_what_does_not_fit_is_refused(estimator: Any, target: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        model_of(fitted(estimator, target), **more)


def test_unfitted_or_misfitted_trees_are_refused() -> None:
    with pytest.raises(NotFittedError):
        model_of(DecisionTreeClassifier())
    raw = DecisionTreeClassifier(max_depth=4).fit(TRAIN, BINARY)
    with pytest.raises(UnsupportedModel, match="on_bins=False"):
        model_of(raw)
    with pytest.raises(UnsupportedModel, match="'age', whose grid has no point"):
        tree_from_sklearn(raw.fit(TRAIN, TRAIN[:, 0] > 50), SCHEMA, [[]] * 4, on_bins=False)
    model = model_of(fitted(DecisionTreeClassifier(max_depth=1), BINARY))
    with pytest.raises(ShapeMismatch):
        model.prepare(TRAIN[:, :3])


# At secure sizes


@pytest.mark.secure
@pytest.mark.slow
def test_depth_four_on_chd_gives_the_labels_of_scikit_learn() -> None:
    data = hepipe.load("chd")
    names = ["age", "totChol", "sysBP", "BMI", "glucose"]
    schema = Schema(tuple(column for column in data.schema.columns if column.name in names))
    X = data.X[list(schema.names)]
    tree = DecisionTreeClassifier(max_depth=4, class_weight="balanced", random_state=0)
    steps = make_pipeline(SimpleImputer(strategy="median"), Binner(31), tree).fit(X, data.y)
    model = tree_from_sklearn(tree, schema, steps[1].grids_, on_bins=True, fill=steps[0].statistics_)
    for scheme, count in (("paillier", 2), ("ckks", len(X))):
        client = Client(plan(model, scheme, count))
        server = Server(model, client.public_bytes())
        assert (client.predict(server, X[:count]) == steps.predict(X[:count])).all()
