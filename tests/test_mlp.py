"""Networks, also from scikit-learn: their predictions on every scheme, their ranges, and what is refused."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier, MLPRegressor

from hepipe.circuits.activation import IDENTITY, SQUARE, on_request, power_series
from hepipe.circuits.functions import RELU
from hepipe.errors import OutOfRange, UnsupportedModel
from hepipe.models.importers import mlp_from_sklearn
from hepipe.models.logistic import clear_scores
from hepipe.models.mlp import HEADROOM, MlpModel, mlp, network_profile
from hepipe.models.schema import Column, Schema
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import ClearParameters
from hepipe.study.plan import plan

pytestmark = pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
RNG = np.random.default_rng(17)
SCHEMA = Schema((Column("age", 20, 80), Column("pulse", 40, 120), Column("smoker", 0, 1)))
ROWS = np.column_stack([RNG.uniform(20, 80, 120), RNG.uniform(40, 120, 120), RNG.integers(0, 2, 120)])
FRAME = pd.DataFrame(ROWS, columns=["age", "pulse", "smoker"])
MEAN, STD = FRAME.mean().to_numpy(), FRAME.std(ddof=0).to_numpy()
SCALED = ((FRAME - MEAN) / STD).to_numpy()
TARGET = SCALED[:, 0] * SCALED[:, 1] + 0.5 * SCALED[:, 2]
SCALING: dict[str, Any] = {"slope": 1 / STD, "offset": -MEAN / STD}


@cache
def fitted(kind: str, activation: str = "relu", hidden: tuple[int, ...] = (4,), classes: int = 2) -> Any:
    settings: dict[str, Any] = {"hidden_layer_sizes": hidden, "activation": activation, "solver": "lbfgs"}
    settings |= {"max_iter": 200, "random_state": 0, "alpha": 0.1}
    if kind == "regressor":
        return MLPRegressor(**settings).fit(SCALED, TARGET)
    return MLPClassifier(**settings).fit(SCALED, pd.qcut(TARGET, classes, labels=[f"c{i}" for i in range(classes)]))


def encrypted_scores(model: Any, scheme: str, rows: int, bits: float = 14, policy: str = "polynomial") -> Any:
    """(scores, the encrypted result, plan, transcript, client) of the first rows."""
    planned = plan(model, scheme, rows, policy, precision_bits=bits, security_bits=0 if scheme == "paillier" else 128)
    client = Client(planned)
    server = Server(model, client.public(), policy, allow_insecure=True)
    link = client.link()
    result = server.evaluate(client.encrypt(FRAME[:rows]), link)
    return client.decrypt(result), result, planned, link.transcript, client


# --- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
def test_every_activation_scores_as_sklearn_does(activation: str, hidden: tuple[int, ...]) -> None:
    estimator = fitted("regressor", activation, hidden)
    model = mlp_from_sklearn(estimator, SCHEMA, **SCALING)
    assert np.allclose(model.exact(FRAME)[:, 0], estimator.predict(SCALED), rtol=1e-9, atol=1e-9)
    assert np.allclose(clear_scores(model, FRAME, "client"), model.exact(FRAME), rtol=1e-9, atol=1e-9)
    assert np.allclose(model.head(model.exact(FRAME)), estimator.predict(SCALED), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_a_classifier_gives_sklearn_s_labels(activation: str, classes: int) -> None:
    estimator = fitted("classifier", activation, classes=classes)
    model = mlp_from_sklearn(estimator, SCHEMA, **SCALING)
    assert (model.head(clear_scores(model, FRAME, "client")) == estimator.predict(SCALED)).all()
    assert model.profile.outputs == (1 if classes == 2 else 3)
    assert model.profile.kind == "classification"


def test_affine_maps_with_nothing_between_them_are_one() -> None:
    model = mlp_from_sklearn(fitted("regressor", "identity", (4, 3)), SCHEMA, **SCALING)
    assert [one.weights.shape for one in model.layers] == [(3, 1)]
    assert model.name == "3-1 network, linear"
    planned = plan(model, "ckks", 4)
    assert (planned.levels, planned.rounds) == (1, 0)


def test_the_name_tells_widths_and_activations() -> None:
    assert mlp_from_sklearn(fitted("regressor"), SCHEMA).name == "3-4-1 network, relu"


def test_an_estimator_must_be_a_fitted_network_with_one_label() -> None:
    with pytest.raises(NotFittedError):
        mlp_from_sklearn(MLPRegressor(), SCHEMA)
    two_labels = MLPClassifier(hidden_layer_sizes=(2,), solver="lbfgs", max_iter=5)
    with pytest.warns(UserWarning, match="lbfgs failed to converge"):
        two_labels.fit(SCALED, np.column_stack([TARGET > 0, TARGET > 1]))
    with pytest.raises(UnsupportedModel, match="no one label a row"):
        mlp_from_sklearn(two_labels, SCHEMA)
    with pytest.raises(UnsupportedModel, match="takes 3 inputs, the schema has 2"):
        mlp_from_sklearn(fitted("regressor"), Schema(SCHEMA.columns[:2]))


def test_missing_values_are_filled_at_the_client() -> None:
    model = mlp_from_sklearn(fitted("regressor"), SCHEMA, fill=MEAN.round(), **SCALING)
    holes = FRAME.astype(float).mask(RNG.uniform(size=FRAME.shape) < 0.2)
    filled = holes.fillna(dict(zip(FRAME.columns, MEAN.round(), strict=True)))
    assert (model.exact(holes) == model.exact(filled)).all()


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_the_range_of_the_training_rows_is_recorded_and_that_of_the_schema_guaranteed() -> None:
    estimator = fitted("regressor", "tanh", (4, 3))
    model = mlp_from_sklearn(estimator, SCHEMA, X_train=FRAME, **SCALING)
    x = SCALED
    for one, w, b in zip(model.layers, estimator.coefs_, estimator.intercepts_, strict=True):
        z = x @ w + b
        assert one.recorded == pytest.approx(np.abs(z).max(), rel=1e-9)
        assert one.recorded <= one.bound
        x = np.tanh(z)
    assert [one.recorded for one in mlp_from_sklearn(estimator, SCHEMA, **SCALING).layers] == [None] * 3


@given(st.integers(0, 2**32 - 1), st.sampled_from([SQUARE, on_request(RELU)]))
def test_no_input_that_the_client_encrypts_leaves_the_guaranteed_range(seed: int, activation: Any) -> None:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(3, 4)), rng.normal(size=4), activation
    last = rng.normal(size=(4, 2)), rng.normal(size=2), IDENTITY
    model = mlp(network_profile(SCHEMA, 2, None), [first, last])
    corners = np.array(np.meshgrid(*([-1.0, 1.0],) * 3)).reshape(3, -1).T
    x = np.vstack([corners, rng.uniform(-1, 1, (20, 3))])
    for one in model.layers:
        assert np.abs(one.pre_activations(x)).max() <= one.bound * (1 + 1e-12)
        x = one.activation.exact(one.pre_activations(x))


def test_the_guarantee_of_a_first_layer_is_reached_at_a_corner() -> None:
    model = mlp(network_profile(SCHEMA, 1, None), [([[2.0], [-1.0], [0.5]], [0.25], SQUARE)])
    corner = [[80.0, 40.0, 1.0]]
    raw = 2 * 80 - 40 + 0.5 + 0.25
    assert model.layers[0].pre_activations(model.prepare(corner))[0, 0] == pytest.approx(raw)
    assert model.layers[0].bound == pytest.approx(2 * 30 + 40 + 0.25 + abs(2 * 50 - 80 + 0.25 + 0.25))


def test_an_input_outside_the_schema_is_refused_before_it_is_encrypted() -> None:
    model = mlp_from_sklearn(fitted("regressor"), SCHEMA, X_train=FRAME, degree=2, **SCALING)
    with pytest.raises(OutOfRange, match="row 1, column 'pulse': 121"):
        Client(plan(model, "clear", 2)).encrypt([[30, 60, 1], [30, 121, 0]])


def test_a_polynomial_is_fitted_to_the_recorded_range_or_else_to_the_guaranteed_one() -> None:
    estimator = fitted("regressor", "tanh")
    seen = mlp_from_sklearn(estimator, SCHEMA, X_train=FRAME, degree=3, **SCALING)
    unseen = mlp_from_sklearn(estimator, SCHEMA, degree=3, **SCALING)
    domains = [model.layers[0].activation.polynomial.domain for model in (seen, unseen)]  # type: ignore[union-attr]
    assert domains == [HEADROOM * seen.layers[0].recorded, unseen.layers[0].bound]
    assert seen.layers[1].activation is IDENTITY


def test_the_error_of_the_polynomials_is_within_their_own_times_the_weights_after() -> None:
    estimator = fitted("regressor", "tanh")
    errors = []
    for degree in (3, 7, 11):
        model = mlp_from_sklearn(estimator, SCHEMA, X_train=FRAME, degree=degree, **SCALING)
        errors.append(np.abs(clear_scores(model, FRAME) - model.exact(FRAME)).max())
        fit = model.layers[0].activation.polynomial
        assert fit is not None
        assert errors[-1] <= fit.max_error * np.abs(estimator.coefs_[1]).sum() + 1e-9
    assert errors == sorted(errors, reverse=True)


def test_without_a_degree_policy_polynomial_is_refused_with_advice() -> None:
    model = mlp_from_sklearn(fitted("regressor"), SCHEMA)
    for scheme in ("clear", "ckks", "paillier"):
        with pytest.raises(UnsupportedModel, match="train with Square or Cubic instead, or plan with policy='client'"):
            plan(model, scheme, 4)


def test_outputs_on_another_scale_cost_nothing() -> None:
    estimator = fitted("regressor")
    model = mlp_from_sklearn(estimator, SCHEMA, **SCALING).rescaled(1080.0, 2227.0)
    assert np.allclose(model.exact(FRAME)[:, 0], 1080 * estimator.predict(SCALED) + 2227, rtol=1e-12)
    ending = mlp(network_profile(SCHEMA, 4, None), [(np.ones((3, 4)), np.zeros(4), SQUARE)])
    with pytest.raises(UnsupportedModel, match="end in an affine map"):
        ending.rescaled(2.0)


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="the training diverged"):
        mlp(network_profile(SCHEMA, 1, None), [([[1.0], [np.nan], [0.0]], [0.0], IDENTITY)])


# --- encrypted -------------------------------------------------------------------------------------------------------


def network(*widths: int, activation: Any = SQUARE) -> MlpModel:
    """Random weights, with this activation after every layer but the last."""
    rng, sizes = np.random.default_rng(2), list(pairwise(widths))
    maps = [(rng.uniform(-0.6, 0.6, size), rng.uniform(-0.6, 0.6, size[1]), activation) for size in sizes]
    return mlp(network_profile(SCHEMA, widths[-1], None), [*maps[:-1], (*maps[-1][:2], IDENTITY)], FRAME, **SCALING)


def square_network() -> MlpModel:
    return network(3, 6, 2)


def cubic_network() -> MlpModel:
    return network(3, 3, 1, activation=power_series("cubic", (0.1, 0.5, 0.25, -0.05)))


def relu_network() -> MlpModel:
    return mlp_from_sklearn(fitted("regressor", "relu", (3,)), SCHEMA, X_train=FRAME, degree=2, **SCALING)


def deep_network() -> MlpModel:
    return network(3, 3, 2, 1)


MODELS = {"square": (square_network, 3, 1), "cubic": (cubic_network, 4, 2), "relu of degree 2": (relu_network, 3, 1),
          "two squares": (deep_network, 5, 2)}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_depth_is_paid_in_levels_on_ckks(name: str) -> None:
    made, levels, _ = MODELS[name]
    model = made()
    scores, _, planned, seen, _ = encrypted_scores(model, "ckks", 40)
    assert (planned.levels, planned.rounds, seen.rounds, planned.reveals) == (levels, 0, 0, "scores")
    assert planned.error_bound <= 2.0**-14
    assert np.abs(scores - clear_scores(model, FRAME[:40])).max() <= planned.error_bound


@pytest.mark.parametrize("name", MODELS)
def test_and_in_rounds_on_paillier_whose_integers_are_those_of_the_reference(name: str) -> None:
    made, levels, rounds = MODELS[name]
    model = made()
    scores, result, planned, seen, client = encrypted_scores(model, "paillier", 2)
    assert (planned.levels, planned.rounds, seen.rounds, planned.reveals) == (levels, rounds, rounds, "scores")
    assert np.abs(scores - clear_scores(model, FRAME[:2])).max() <= planned.error_bound
    given = planned.parameters
    scheme = ClearScheme(ClearParameters(given.depth, given.log_scale, given.log_plain_scale, exact=True))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.prepare(FRAME[:2]), model.profile.input_bound)
    reference = scheme.decryptor(keys.secret).decrypt_integers(model.forward(scheme.evaluator(keys), x))
    assert client.decrypt_integers(result).tolist() == reference.tolist()


def test_the_transcript_has_the_bytes_of_the_plan() -> None:
    model = square_network()
    _, result, planned, seen, client = encrypted_scores(model, "paillier", 3)
    request = client.pack(client.encrypt(FRAME[:3]))
    assert planned.bytes_up == len(request) + seen.bytes_up
    assert planned.bytes_down == len(client.pack(result)) + seen.bytes_down


def test_a_hidden_layer_is_one_round_however_wide_it_is() -> None:
    wide = network(3, 12, 1)
    ev = DryEvaluator(plan(wide, "paillier", 2, precision_bits=8, security_bits=0).parameters)
    wide.forward(ev, ev.fresh((2, 3), 1.0))
    assert (ev.rounds, ev.operations["mask"]) == (1, 24)


def test_an_input_beyond_the_recorded_range_gets_a_wrong_score_but_never_an_overflow() -> None:
    narrow = FRAME[(FRAME - MEAN).abs().lt(0.3 * STD)[["age", "pulse"]].all(axis=1)]
    model = mlp_from_sklearn(fitted("regressor", "tanh"), SCHEMA, X_train=narrow, degree=3, **SCALING)
    planned = plan(model, "ckks", 2, precision_bits=10)
    client = Client(planned)
    far = pd.DataFrame({"age": [20, 80], "pulse": [120, 40], "smoker": [0, 1]})
    scores = client.decrypt(Server(model, client.public()).evaluate(client.encrypt(far)))
    assert np.abs(scores - clear_scores(model, far)).max() <= planned.error_bound
    assert np.abs(scores - model.exact(far)).max() > 1
