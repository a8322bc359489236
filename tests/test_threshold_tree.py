"""Trees with secret thresholds: agreement on every scheme, what is published, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import hepipe
from hepipe.circuits.sign import price
from hepipe.errors import Unsupported, UnsupportedModel
from hepipe.models.logistic import clear_scores
from hepipe.models.quantizer import Quantizer
from hepipe.models.schema import Column, Schema
from hepipe.models.step_profile import steps_of
from hepipe.models.threshold_tree import ERROR_BITS, ThresholdTreeModel
from hepipe.models.tree_importer import threshold_tree_from_sklearn
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters
from hepipe.study.plan import Plan, plan

RNG = np.random.default_rng(5)
SCHEMA = Schema((Column("age", 20, 80), Column("smokes", 0, 1), Column("pulse", 40, 140), Column("dose", -1, 1)))


def rows(count: int, rng: np.random.Generator) -> np.ndarray:
    age, smokes = rng.integers(20, 80, count), rng.integers(0, 2, count)
    return np.column_stack([age, smokes, rng.normal(80, 15, count).clip(40, 140), rng.uniform(-1, 1, count)])


TRAIN, FRESH = rows(400, RNG), rows(400, RNG)
SCORE = TRAIN[:, 0] / 30 + TRAIN[:, 1] * (TRAIN[:, 2] > 75) + TRAIN[:, 3] ** 2 + RNG.normal(0, 0.2, 400)
BINARY = np.where(np.median(SCORE) < SCORE, "sick", "well")
THREE = np.digitize(SCORE, np.quantile(SCORE, [0.3, 0.7])) * 10
STEPS = steps_of(TRAIN, 6)


def fitted(estimator: Any, target: Any, bits: int = 6) -> Any:
    return make_pipeline(Quantizer(bits), clone(estimator)).fit(TRAIN, target)


def model_of(estimator: Any, comparison: str = "sign") -> ThresholdTreeModel:
    model = hepipe.from_sklearn(estimator, SCHEMA, comparison=comparison)
    assert isinstance(model, ThresholdTreeModel)
    return model


def predicted(model: ThresholdTreeModel, X: Any, planned: Plan) -> tuple[np.ndarray, np.ndarray]:
    """(scores, predictions) through frames, whose rounds and bytes are those of the plan."""
    client = Client(planned)
    server = Server(model, client.public_bytes(), allow_insecure=True)
    x, link = client.pack(client.encrypt(X)), client.link()
    y = server.pack(server.evaluate(server.unpack(x), link))
    assert link.transcript.rounds == planned.rounds
    assert len(x) + link.transcript.bytes_up == planned.bytes_up
    assert len(y) + link.transcript.bytes_down == planned.bytes_down
    scores = client.decrypt(client.unpack(y))
    return scores, np.asarray(client.head(scores))


# Agreement

ESTIMATORS = [
    (DecisionTreeClassifier(max_depth=4, random_state=0), BINARY),
    (DecisionTreeClassifier(max_depth=3, random_state=0), THREE),
    (DecisionTreeClassifier(max_depth=1), BINARY),
    (DecisionTreeClassifier(splitter="random", max_depth=2, random_state=1), THREE),
]
ids = [f"depth {e.max_depth}" for e, _ in ESTIMATORS]


@pytest.mark.parametrize(("estimator", "target"), ESTIMATORS, ids=ids)
@pytest.mark.parametrize("comparison", ["sign", "bits"])
def test_labels_agree_in_the_clear_on_every_row(estimator: Any, target: Any, comparison: str) -> None:
    both, steps = np.concatenate([TRAIN, FRESH]), fitted(estimator, target)
    model, expected = model_of(steps, comparison), steps.predict(both)
    assert (model.head(model.exact(both)) == expected).all()
    assert (predicted(model, both, plan(model, "clear", len(both)))[1] == expected).all()
    off = np.abs(clear_scores(model, both) - model.exact(both)).max()
    classes, depth = len(set(target)), estimator.max_depth
    assert off <= (depth * (classes - 1) * 2.0**-ERROR_BITS if comparison == "sign" else 0.0)


@pytest.mark.parametrize(("estimator", "target"), ESTIMATORS[:3], ids=ids[:3])
def test_labels_agree_on_ckks_within_the_planned_error(estimator: Any, target: Any) -> None:
    steps, X = fitted(estimator, target, bits=3), FRESH
    model = model_of(steps)
    planned = plan(model, "ckks", len(X), security_bits=0)
    scores, labels = predicted(model, X, planned)
    assert (labels == steps.predict(X)).all()
    assert np.abs(scores - clear_scores(model, X)).max() <= planned.error_bound <= 2.0**-3


@pytest.mark.parametrize(("estimator", "target"), ESTIMATORS[1:], ids=ids[1:])
def test_labels_agree_on_paillier(estimator: Any, target: Any) -> None:
    steps, few = fitted(estimator, target), FRESH[:2]
    model = model_of(steps, "bits")
    scores, labels = predicted(model, few, plan(model, "paillier", len(few), security_bits=0))
    assert (labels == steps.predict(few)).all()
    assert (scores == model.exact(few)).all()


def test_values_agree_to_a_thousandth_of_their_spread() -> None:
    steps, X = fitted(DecisionTreeRegressor(max_depth=2), SCORE, bits=4), FRESH[:100]
    expected, spread = steps.predict(X), np.ptp(steps[-1].tree_.value)
    model = model_of(steps)
    scores, _ = predicted(model, X, plan(model, "ckks", len(X), security_bits=0))
    assert np.abs(scores[:, 0] - expected).max() <= spread * (2.0**-10 + 2 * 2.0**-ERROR_BITS)
    exact = model_of(steps, "bits")
    found, _ = predicted(exact, X[:2], plan(exact, "paillier", 2, security_bits=0))
    assert np.abs(found[:, 0] - expected[:2]).max() <= 2.0**-20


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_thresholds_at_either_end_are_compared_right(bits: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2**bits, (40, 2)) * 1.0
    tree = DecisionTreeClassifier(max_depth=depth, splitter="random", random_state=seed % 1000)
    steps = make_pipeline(Quantizer(bits, [(0, 2**bits - 1)] * 2), tree).fit(X, rng.integers(0, 2, 40))
    schema = Schema(tuple(Column(name, 0, 2**bits - 1) for name in "ab"))
    every = np.stack(np.meshgrid(*[np.unique([0, 1, 2**bits // 2, 2**bits - 1])] * 2), -1).reshape(-1, 2)
    for comparison in ("sign", "bits"):
        model = hepipe.from_sklearn(steps, schema, comparison=comparison)
        assert (model.head(clear_scores(model, every)) == steps.predict(every)).all()


def test_a_pipeline_of_imputer_and_quantizer_agrees_and_estimators_choose_the_comparison() -> None:
    frame = pd.DataFrame(TRAIN, columns=list(SCHEMA.names)).mask(RNG.uniform(size=TRAIN.shape) < 0.1)
    estimator = make_pipeline(SimpleImputer(strategy="median"), Quantizer(3), DecisionTreeClassifier(max_depth=2))
    expected = clone(estimator).fit(frame, BINARY).predict(frame)
    model = model_of(estimator.fit(frame, BINARY))
    assert (model.head(clear_scores(model, frame[["dose", "age", "pulse", "smokes"]])) == expected).all()
    for scheme, count, comparison in (("ckks", 300, "sign"), ("paillier", 1, "bits")):
        ours = hepipe.EncryptedClassifier(estimator, scheme=scheme, security_bits=0, schema=SCHEMA).fit(frame, BINARY)
        assert ours.model_.profile.comparison == comparison
        assert (ours.predict(frame[:count]) == expected[:count]).all()


# Trees on raw values


def test_a_raw_tree_whose_thresholds_keep_their_distance_agrees_with_its_training_rows() -> None:
    X = TRAIN.copy()
    X[:, 2:] = np.round(X[:, 2:] * [0.2, 4]) / [0.2, 4]  # coarser than 8 bits
    tree = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, BINARY)
    model = hepipe.from_sklearn(tree, SCHEMA, X_train=X)
    assert (model.head(clear_scores(model, X)) == tree.predict(X)).all()


def test_a_raw_tree_finer_than_its_steps_is_refused_with_the_gap() -> None:
    tree = DecisionTreeClassifier(max_depth=4, random_state=0).fit(TRAIN, BINARY)
    with pytest.raises(UnsupportedModel, match=r"'dose' lies between .*, which its 8 bits do not tell apart"):
        hepipe.from_sklearn(tree, SCHEMA, X_train=TRAIN)
    with pytest.raises(UnsupportedModel, match="give X_train"):
        hepipe.from_sklearn(tree, SCHEMA)


@pytest.mark.parametrize(("second", "works"), [(20.4, False), (20.6, True), (21.0, True), (30.0, True)])
def test_the_gap_decides(second: float, works: bool) -> None:
    """Ages on whole numbers, split halfway between 20 and the second."""
    X = np.array([[20.0, 0, 40, 0], [second, 0, 40, 0], [80, 0, 40, 0]])
    tree = DecisionTreeRegressor(max_depth=1).fit(X[:2], [1.0, 2.0])
    steps = steps_of(np.array([[20.0, 0, 40, 0], [33, 1, 140, 1], [80, 0, 90, 0.5]]), 8)
    if works:
        model = threshold_tree_from_sklearn(tree, SCHEMA, steps, X_train=X)
        assert clear_scores(model, X[:2])[:, 0] == pytest.approx([1.0, 2.0], abs=1e-3)
    else:
        with pytest.raises(UnsupportedModel, match=r"between the training values 20 and 20\.4, which its 6 bits"):
            threshold_tree_from_sklearn(tree, SCHEMA, steps, X_train=X)


# What is published


@pytest.mark.parametrize(("comparison", "scheme"), [("sign", "ckks"), ("bits", "paillier")])
def test_nothing_that_travels_depends_on_thresholds_columns_or_shape(comparison: str, scheme: str) -> None:
    """The zero tests of 2.4 B are uniform whatever they compare: tests/test_comparison.py."""
    shallow = fitted(DecisionTreeClassifier(max_depth=3, max_leaf_nodes=2, random_state=0), TRAIN[:, 1] > 0)
    deep = fitted(DecisionTreeClassifier(max_depth=3, random_state=0), THREE == 10)
    assert shallow[-1].get_depth() < deep[-1].get_depth()
    plans = [plan(model_of(steps, comparison), scheme, 2, security_bits=0) for steps in (shallow, deep)]
    assert plans[0].operations == plans[1].operations
    assert plans[0].parameters == plans[1].parameters
    assert (plans[0].bytes_up, plans[0].bytes_down) == (plans[1].bytes_up, plans[1].bytes_down)


def test_the_plan_prices_comparisons_and_says_what_they_reveal() -> None:
    steps = fitted(DecisionTreeClassifier(max_depth=4, random_state=0), BINARY)
    bits = plan(model_of(steps, "bits"), "paillier", 3, security_bits=0)
    assert steps[0].steps_.bits.tolist() == [6, 1, 6, 6]
    assert (bits.rounds, bits.levels, bits.reveals) == (1, 0, "one leaf value")
    assert bits.operations["blind"] == 3 * (15 * (6 + 1) + 16)
    sign = plan(model_of(steps), "ckks", 3, security_bits=0)
    assert (sign.rounds, sign.levels) == (0, 1 + price(np.log2(2 * (2**6 - 1.5)), ERROR_BITS) + 3)
    assert sign.reveals == "one leaf value; beyond its bit 16, how near a value lies to a threshold"
    assert sign.operations["encrypt"] == 4


def test_one_message_serves_every_tree_on_the_steps() -> None:
    trees = [fitted(DecisionTreeClassifier(max_depth=2, random_state=s, splitter="random"), BINARY) for s in (1, 2)]
    models = [model_of(steps, "bits") for steps in trees]
    assert models[0].thresholds.tolist() != models[1].thresholds.tolist()
    client = Client(plan(models[0], "paillier", 1, security_bits=0))
    x = client.encrypt(FRESH[:1])
    for steps, model in zip(trees, models, strict=True):
        y = Server(model, client.public(), allow_insecure=True).evaluate(x, client.link())
        assert (client.head(client.decrypt(y)) == steps.predict(FRESH[:1])).all()


def test_a_score_on_ckks_is_a_mean_of_leaves_also_for_an_input_on_a_threshold() -> None:
    """A client that encrypts what is no whole number learns a value between two leaves, and none outside them."""
    model = model_of(fitted(DecisionTreeRegressor(max_depth=3), SCORE))
    scheme = ClearScheme(ClearParameters(depth=32))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(RNG.uniform(-1, 1, (2000, 4)), 1.0)
    scores = scheme.decryptor(keys.secret).decrypt(model.forward(scheme.evaluator(keys), x))
    leaves = model.trees.values
    assert leaves.min() - 1e-9 <= scores.min() <= scores.max() <= leaves.max() + 1e-9


# What is refused


@pytest.mark.parametrize(("comparison", "scheme"), [("bits", "ckks"), ("sign", "paillier")])
def test_each_scheme_compares_in_its_own_way(comparison: str, scheme: str) -> None:
    model = model_of(fitted(DecisionTreeClassifier(max_depth=2), BINARY), comparison)
    with pytest.raises(Unsupported, match="compares"):
        plan(model, scheme, 1, security_bits=0)


def test_what_is_too_deep_for_the_modulus_is_refused() -> None:
    model = model_of(fitted(DecisionTreeClassifier(max_depth=6, random_state=0), BINARY, bits=16))
    with pytest.raises(Unsupported, match="no CKKS parameters"):
        plan(model, "ckks", 1)


def test_what_does_not_fit_is_refused() -> None:
    tree = DecisionTreeClassifier(max_depth=2)
    with pytest.raises(NotFittedError):
        threshold_tree_from_sklearn(tree, SCHEMA, STEPS)
    for steps, message in (
        (fitted(RandomForestClassifier(2, max_depth=2), BINARY), "use a Binner for a forest"),
        (fitted(DecisionTreeRegressor(max_depth=2), np.column_stack([SCORE, SCORE])), "one output"),
        (fitted(DecisionTreeClassifier(random_state=0), BINARY), "depth 1?[0-9] padded to 6"),
    ):
        with pytest.raises(UnsupportedModel, match=message):
            model_of(steps)
    raw = tree.fit(TRAIN, TRAIN[:, 0] > 50)
    with pytest.raises(UnsupportedModel, match=r"'age' is outside its numbers 0 to 1"):
        threshold_tree_from_sklearn(raw, SCHEMA, steps_of(TRAIN, 1))
    with pytest.raises(UnsupportedModel, match="comparison='bit'"):
        model_of(fitted(tree, BINARY), "bit")


# Real data


@pytest.mark.parametrize("name", ["chd", "heart"])
def test_every_row_of_the_real_data_agrees(name: str) -> None:
    data = hepipe.load(name)
    tree = DecisionTreeClassifier(max_depth=4, class_weight="balanced", random_state=0)
    steps = make_pipeline(SimpleImputer(strategy="median"), Quantizer(8), tree).fit(data.X, data.y)
    expected = steps.predict(data.X)
    for comparison in ("sign", "bits"):
        model = hepipe.from_sklearn(steps, data.schema, comparison=comparison)
        assert (model.head(clear_scores(model, data.X)) == expected).all()


@pytest.mark.secure
@pytest.mark.slow
def test_a_secure_ring_agrees_on_all_slots() -> None:
    data = hepipe.load("heart")
    tree = DecisionTreeClassifier(max_depth=2, class_weight="balanced", random_state=0)
    steps = make_pipeline(SimpleImputer(strategy="median"), Quantizer(6), tree).fit(data.X, data.y)
    model, X = hepipe.from_sklearn(steps, data.schema), data.X.sample(16384, replace=True, random_state=0)
    planned = plan(model, "ckks", len(X))
    assert planned.security_bits == 128
    scores, labels = predicted(model, X, planned)
    assert (labels == steps.predict(X)).all()
    assert np.abs(scores - clear_scores(model, X)).max() <= planned.error_bound
