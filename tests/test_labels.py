"""Encrypted labels over clear rows: the closed form on both schemes, exact on Paillier, and no label at the trainer."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

import hepipe
from hepipe.errors import IllPosed, OutOfRange, ShapeMismatch
from hepipe.models.schema import Column
from hepipe.schemes.parameters import ClearParameters
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.secret import SecretKey
from hepipe.training.labels import LabelsModel, labels_only
from object_graph import floats, reachable

PAY = Column("pay", -40.0, 60.0)
SICK = Column("sick", 0.0, 1.0)


def rows(seed: int, samples: int = 40, features: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3, 5, (samples, features)) * np.logspace(0, 2, features)
    y = np.clip(X @ np.logspace(0, -2, features) + rng.normal(0, 2, samples), -40, 60)
    return pd.DataFrame(X, columns=[f"c{i}" for i in range(features)]), pd.DataFrame({"pay": y})


@cache
def parties(scheme: str, alpha: float = 0.5) -> tuple[LabelsModel, Any, Any, Any]:
    model = labels_only(rows(0)[0], PAY, alpha)
    plan = hepipe.plan(model, scheme, samples=40, security_bits=0)
    client = hepipe.Client(plan)
    return model, plan, client, hepipe.Server(model, client.public_bytes(), allow_insecure=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), features=st.integers(1, 4), alpha=st.sampled_from([0.0, 0.2, 7.0]))
def test_the_circuit_in_the_clear_is_scikit_learn_s_fit(seed: int, features: int, alpha: float) -> None:
    X, y = rows(seed, features=features)
    model = labels_only(X, PAY, alpha)
    client = hepipe.Client(hepipe.plan(model, "clear", samples=40))
    found = client.head(client.decrypt(hepipe.Server(model, client.public()).evaluate(client.encrypt(y))))
    expected = (Ridge(alpha=alpha) if alpha else LinearRegression()).fit(X, y["pay"])
    assert np.abs(found - np.append(expected.coef_, expected.intercept_)).max() < 1e-9


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_weights_are_right_to_what_the_plan_promises_and_bytes_exact(scheme: str) -> None:
    _, plan, client, server = parties(scheme)
    X, y = rows(0)
    upload = client.pack(client.encrypt(y))
    download = server.pack(server.evaluate(server.unpack(upload)))
    found = client.head(client.decrypt(client.unpack(download)))
    expected = Ridge(alpha=0.5).fit(X, y["pay"])
    assert np.abs(found - np.append(expected.coef_, expected.intercept_)).max() <= plan.error_bound <= 2.0**-20
    assert (len(upload), len(download), len(client.public_bytes())) == (plan.bytes_up, plan.bytes_down, plan.key_bytes)
    assert (plan.levels, plan.rounds) == (1, 0)
    if scheme == "ckks":
        assert plan.parameters.sums_samples
    else:
        assert plan.parameters.lanes == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-40, 60), min_size=40, max_size=40))
def test_paillier_s_integers_are_those_of_the_reference(labels: list[float]) -> None:
    model, plan, client, server = parties("paillier")
    y = np.array(labels)[:, None]
    found = client.decrypt_integers(server.evaluate(client.encrypt(y)))
    scales = {name: getattr(plan.parameters, name) for name in ("log_scale", "log_plain_scale", "depth")}
    scheme = scheme_of(ClearParameters(**scales, exact=True))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.prepare(y), model.profile.input_bound)
    exact = scheme.decryptor(keys.secret).decrypt_integers(model.forward(scheme.evaluator(keys), x))
    assert found.tolist() == exact.tolist()


def test_a_constant_label_is_the_intercept() -> None:
    _, plan, client, server = parties("paillier")
    found = client.head(client.decrypt(server.evaluate(client.encrypt(np.full((40, 1), 23.5)))))
    assert np.abs(found - [0, 0, 0, 23.5]).max() <= plan.error_bound


@pytest.mark.parametrize("scheme", ["clear", "paillier", "ckks"])
def test_the_logistic_weights_solve_the_equations_of_the_second_order_loss(scheme: str) -> None:
    X, pay = rows(3, samples=60)
    y = pd.DataFrame({"sick": (pay["pay"] > 5).astype(int)})
    alpha = 2.0
    model = labels_only(X, SICK, alpha, kind="logistic")
    plan = hepipe.plan(model, scheme, samples=60, security_bits=0)
    client = hepipe.Client(plan)
    found = client.head(
        client.decrypt(hepipe.Server(model, client.public(), allow_insecure=True).evaluate(client.encrypt(y)))
    )
    z = X.to_numpy() @ found[:-1] + found[-1]
    gradient = X.to_numpy().T @ (0.5 + z / 4 - y["sick"]) + alpha * found[:-1]
    size = np.abs(X.to_numpy()).sum()
    assert np.abs(gradient).max() < size * max(size * plan.error_bound, 1e-12)
    assert abs((0.5 + z / 4 - y["sick"]).sum()) < max(size * plan.error_bound, 1e-9)
    fitted = client.profile.estimator(found)
    assert isinstance(fitted, LogisticRegression)
    assert alpha == 1 / fitted.C
    assert np.allclose(fitted.predict_proba(X)[:, 1], expit(z), atol=1e-12)
    assert (fitted.predict(X) == (z > 0)).all()


def test_the_second_order_sigma_is_off_by_at_most_a_48th_of_the_cube() -> None:
    z = np.linspace(-6, 6, 10_001)
    assert (np.abs(expit(z) - (0.5 + z / 4)) <= np.abs(z) ** 3 / 48 + 1e-15).all()


def test_the_fitted_estimator_can_be_served_encrypted() -> None:
    X, y = rows(0)
    _, _, client, server = parties("paillier")
    fitted = client.profile.estimator(client.decrypt(server.evaluate(client.encrypt(y))))
    assert np.abs(fitted.predict(X) - Ridge(alpha=0.5).fit(X, y["pay"]).predict(X)).max() < 1e-3
    model = hepipe.from_sklearn(fitted)
    reader = hepipe.Client(hepipe.plan(model, "paillier", samples=2, security_bits=0))
    served = reader.predict(hepipe.Server(model, reader.public(), allow_insecure=True), X.iloc[:2])
    assert np.abs(served - fitted.predict(X.iloc[:2])).max() < 2.0**-18


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_the_trainer_holds_no_label_and_no_weight(scheme: str) -> None:
    model, _, client, server = parties(scheme)
    _, y = rows(0)
    x = client.encrypt(y)
    result = server.evaluate(x)
    weights = client.decrypt(result)
    hidden = {*map(float, y["pay"]), *map(float, model.prepare(y).ravel()), *map(float, weights.ravel())}
    seen = reachable([server, x, result])
    assert not any(isinstance(item, SecretKey) for item in seen)
    assert floats(seen).isdisjoint(hidden)
    assert floats(reachable([y.to_numpy(), weights])) & hidden


def test_what_cannot_be_fitted_is_refused() -> None:
    X, y = rows(0)
    with pytest.raises(IllPosed, match="depend on each other"):
        labels_only(np.repeat(X.to_numpy()[:, :1], 2, axis=1), PAY)
    with pytest.raises(IllPosed, match="column 1 is constant"):
        labels_only(X.assign(c1=4.0), PAY, 1.0)
    with pytest.raises(OutOfRange, match="a penalty is"):
        labels_only(X, PAY, -1.0)
    with pytest.raises(OutOfRange, match="takes 0 and 1"):
        labels_only(X, PAY, kind="logistic")
    model, _, client, server = parties("paillier")
    with pytest.raises(ShapeMismatch, match="39 labels for 40 rows"):
        server.evaluate(client.encrypt(y.iloc[:39]))
    with pytest.raises(OutOfRange, match="column 'pay'"):
        client.encrypt(y + 100)
    assert labels_only(np.repeat(X.to_numpy()[:, :1], 2, axis=1), PAY, 1.0).projection.shape == (40, 3)
    assert model.prepare(y).shape == (40, 1)
