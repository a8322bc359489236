"""Polynomial regression with the powers at the client and at the server: equal scores, different prices."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from hepipe.errors import OutOfRange, UnsupportedModel
from hepipe.models.importers import from_sklearn
from hepipe.models.linear import LinearModel
from hepipe.models.logistic import clear_scores
from hepipe.models.polynomial_regression import (
    PolynomialModel,
    PolynomialProfile,
    monomials,
    polynomial_regression,
    rebased,
)
from hepipe.models.schema import Column, Schema
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import ClearParameters
from hepipe.study.datasets import load
from hepipe.study.plan import plan
from hepipe.study.splits import split

RNG = np.random.default_rng(23)
SCHEMA = Schema((Column("age", 16, 70), Column("healthy", 0, 10), Column("active", 0, 10)))
FRAME = pd.DataFrame(
    {"age": RNG.uniform(18, 64, 300), "healthy": RNG.integers(0, 11, 300), "active": RNG.integers(0, 11, 300)}
)
TARGET = 550 + (581 * FRAME["healthy"] - 232 * FRAME["active"]).abs()
WAYS = ("client", "server")


@cache
def fitted(degree: int = 3, interaction_only: bool = False, bias: bool = True) -> Any:
    features = PolynomialFeatures(degree, interaction_only=interaction_only, include_bias=bias)
    return make_pipeline(StandardScaler(), features, Ridge(1e-3)).fit(FRAME, TARGET)


def model_of(pipeline: Any, powers: str, schema: Schema = SCHEMA, **more: Any) -> Any:
    scaler, features, last = (step for _, step in pipeline.steps)
    scaling = {"slope": 1 / scaler.scale_, "offset": -scaler.mean_ / scaler.scale_}
    return polynomial_regression(
        features.powers_, last.coef_, last.intercept_, schema, powers=powers, **scaling, **more
    )


def encrypted(model: Any, scheme: str, rows: int, bits: float = 8) -> Any:
    planned = plan(model, scheme, rows, precision_bits=bits, security_bits=0 if scheme == "paillier" else 128)
    client = Client(planned)
    link = client.link()
    result = Server(model, client.public(), allow_insecure=True).evaluate(client.encrypt(FRAME[:rows]), link)
    return client.decrypt(result), result, planned, link.transcript, client


@pytest.mark.parametrize("powers", WAYS)
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("interaction_only", [False, True])
def test_every_degree_predicts_as_the_pipeline_does(degree: int, interaction_only: bool, powers: str) -> None:
    for bias in (True, False):
        pipeline = fitted(degree, interaction_only, bias)
        model = model_of(pipeline, powers)
        assert np.abs(clear_scores(model, FRAME)[:, 0] - pipeline.predict(FRAME)).max() < 1e-6
        assert np.abs(model.head(clear_scores(model, FRAME)) - pipeline.predict(FRAME)).max() < 1e-6


@pytest.mark.parametrize("powers", WAYS)
def test_several_outputs_and_no_lower_degrees(powers: str) -> None:
    both = np.column_stack([TARGET, -TARGET])
    pipeline = make_pipeline(StandardScaler(), PolynomialFeatures((3, 4)), LinearRegression()).fit(FRAME, both)
    model = model_of(pipeline, powers)
    assert np.abs(clear_scores(model, FRAME) - pipeline.predict(FRAME)).max() < 1e-6


@pytest.mark.parametrize("powers", WAYS)
def test_missing_values_are_filled_before_powers_are_made(powers: str) -> None:
    model = model_of(fitted(), powers, fill=np.array([40.0, 5.0, 5.0]))
    holes = FRAME.astype(float).mask(RNG.uniform(size=FRAME.shape) < 0.2)
    assert (model.prepare(holes) == model.prepare(holes.fillna({"age": 40, "healthy": 5, "active": 5}))).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_the_change_of_basis_is_exact(seed: int, features: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    powers = PolynomialFeatures(degree).fit(np.zeros((1, features))).powers_
    weights, a, b = rng.normal(size=(len(powers), 2)), rng.uniform(-3, 3, features), rng.uniform(-3, 3, features)
    basis, changed = rebased(powers, weights, a, b)
    u = rng.uniform(-1, 1, (20, features))
    before, after = monomials(a * u + b, powers) @ weights, monomials(u, basis) @ changed
    assert np.abs(before - after).max() <= 1e-9 * max(1.0, np.abs(before).max())
    assert basis.sum(axis=1).tolist() == sorted(basis.sum(axis=1).tolist())
    assert len({tuple(row) for row in basis.tolist()}) == len(basis) == len(powers)


def test_the_client_s_profile_publishes_the_monomials_and_nothing_of_the_weights() -> None:
    pipeline = fitted(2)
    model, other = model_of(pipeline, "client"), model_of(fitted(2, False, False), "client")
    assert isinstance(model, LinearModel)
    assert isinstance(model.profile, PolynomialProfile)
    assert model.profile.powers.tolist() == other.profile.powers.tolist()  # type: ignore[attr-defined]
    assert model.profile.powers.tolist() == [
        [1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0], [1, 1, 0], [1, 0, 1], [0, 2, 0], [0, 1, 1], [0, 0, 2]
    ]  # fmt: skip
    assert model.profile.input_bound.tolist() == [1.0] * 9
    row = model.prepare([[70, 0, 7.5]])[0]
    assert row.tolist() == [1, -1, 0.5, 1, -1, 0.5, 1, -0.5, 0.25]


def test_every_prepared_monomial_keeps_its_bound_also_for_narrower_inputs() -> None:
    profile = model_of(fitted(4), "client").profile.narrowed(8.0)
    corners = np.array(np.meshgrid(*([-8.0, 8.0],) * 3)).reshape(3, -1).T
    assert (np.abs(profile.prepare(corners)) <= profile.input_bound).all()
    assert np.allclose(np.abs(profile.prepare(corners)).max(axis=0), profile.input_bound)


@pytest.mark.parametrize("powers", WAYS)
def test_an_input_outside_its_range_is_refused(powers: str) -> None:
    with pytest.raises(OutOfRange, match="row 0, column 'healthy': 11"):
        model_of(fitted(), powers).prepare([[30, 11, 0]])


@pytest.mark.parametrize(("degree", "levels", "rounds"), [(1, 1, 0), (2, 2, 1), (3, 3, 2), (4, 3, 2)])
def test_powers_at_the_client_are_paid_in_ciphertexts_and_at_the_server_in_depth(
    degree: int, levels: int, rounds: int
) -> None:
    count = len(fitted(degree).steps[1][1].powers_) - 1
    for powers, depth, asked, columns in (("client", 1, 0, count), ("server", levels, rounds, 3)):
        model = model_of(fitted(degree), powers)
        assert len(model.profile.input_bound) == columns
        for scheme in ("ckks", "paillier"):
            planned = plan(model, scheme, 2, precision_bits=4, security_bits=0 if scheme == "paillier" else 128)
            assert planned.levels == depth
            assert planned.rounds == (asked if scheme == "paillier" else 0)
            assert planned.reveals == "scores"


def test_one_round_makes_all_products_of_a_depth_and_a_square_masks_one_factor() -> None:
    ev = DryEvaluator(plan(model_of(fitted(4), "server"), "paillier", 1, precision_bits=4, security_bits=0).parameters)
    model = model_of(fitted(4), "server")
    model.forward(ev, ev.fresh((1, 3), 1.0))
    # Degree 2: 3 squares, 3 products; 3: 10 products; 4: of 15 monomials 6 are squares of those of degree 2.
    assert ev.operations["mul"] == 6 + 10 + 15
    assert ev.operations["mask"] == (3 + 2 * 3) + (2 * 10) + (6 + 2 * 9)


def test_monomials_that_the_pipeline_has_not_are_made_only_as_factors() -> None:
    model = model_of(fitted(3, True), "server")
    assert isinstance(model, PolynomialModel)
    assert [len(weights) for weights in model.weights] == [3, 3, 1]
    assert model.name == "polynomial of degree 3, powers at the server"


@pytest.mark.parametrize("powers", WAYS)
@pytest.mark.parametrize("degree", [2, 4])
def test_on_ckks_both_ways_keep_the_precision_of_the_plan(powers: str, degree: int) -> None:
    model = model_of(fitted(degree), powers)
    scores, _, planned, _, _ = encrypted(model, "ckks", 20)
    assert planned.error_bound <= 2.0**-8
    assert np.abs(scores - clear_scores(model, FRAME[:20])).max() <= planned.error_bound


@pytest.mark.parametrize("powers", WAYS)
@pytest.mark.parametrize("degree", [2, 3, 4])
def test_on_paillier_both_ways_give_the_very_integers_of_the_reference(powers: str, degree: int) -> None:
    model = model_of(fitted(degree), powers)
    scores, result, planned, seen, client = encrypted(model, "paillier", 2)
    assert np.abs(scores - clear_scores(model, FRAME[:2])).max() <= planned.error_bound
    given = planned.parameters
    scheme = ClearScheme(ClearParameters(given.depth, given.log_scale, given.log_plain_scale, exact=True))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.prepare(FRAME[:2]), model.profile.input_bound)
    reference = scheme.decryptor(keys.secret).decrypt_integers(model.forward(scheme.evaluator(keys), x))
    assert client.decrypt_integers(result).tolist() == reference.tolist()
    assert seen.rounds == planned.rounds
    assert planned.bytes_up == len(client.pack(client.encrypt(FRAME[:2]))) + seen.bytes_up
    assert planned.bytes_down == len(client.pack(result)) + seen.bytes_down


def test_what_is_refused() -> None:
    exponents = PolynomialFeatures(5).fit(FRAME).powers_
    with pytest.raises(UnsupportedModel, match="degree 5, powers='client': use 1 to 4"):
        polynomial_regression(exponents, np.ones(56), 0.0, SCHEMA)
    with pytest.raises(UnsupportedModel, match="powers='nowhere'"):
        model_of(fitted(), "nowhere")
    with pytest.raises(NotFittedError):
        from_sklearn(make_pipeline(PolynomialFeatures(2), Ridge()), SCHEMA)


def test_the_fold_of_the_salary_law_is_followed_better_by_each_degree() -> None:
    data = load("salary")
    if data.synthetic:
        pytest.skip("the figures are those of the real file")
    parts = split(data)
    found = []
    for degree in (1, 2, 3, 4):
        pipeline = make_pipeline(StandardScaler(), PolynomialFeatures(degree), Ridge(1e-3))
        pipeline.fit(parts.X_train, parts.y_train)
        scores = [clear_scores(model_of(pipeline, powers, data.schema), parts.X_test)[:, 0] for powers in WAYS]
        for one in scores:
            assert np.abs(one - pipeline.predict(parts.X_test)).max() < 1e-6
        found.append(round(float(r2_score(parts.y_test, scores[0])), 3))
    assert found == [0.851, 0.937, 0.985, 0.991]
