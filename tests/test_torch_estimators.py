"""Networks trained through scikit-learn's interface: deterministic, scaled back, and what hepipe then evaluates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hepipe.errors import UnsupportedModel
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import clear_scores
from hepipe.models.torch_importer import from_torch
from hepipe.study.datasets import load
from hepipe.study.splits import split
from hepipe.study.torch_estimators import TorchClassifier, TorchRegressor

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(5)
X = pd.DataFrame(RNG.normal((50, 0.2), (12, 0.03), (200, 2)), columns=["large", "small"])
Y = 900 + 3 * X["large"] - 500 * X["small"]


def layers(*parts: Any) -> Any:
    return torch.nn.Sequential(*parts)


def linear(inputs: int, outputs: int = 1, **settings: Any) -> Any:
    return torch.nn.Linear(inputs, outputs, **settings)


def small() -> Any:
    return layers(linear(2, 3), torch.nn.Tanh(), linear(3))


def weights(fitted: Any) -> np.ndarray:
    return np.concatenate([part.detach().numpy().ravel() for part in fitted.module_.parameters()])


def test_the_same_rows_module_and_seed_give_the_same_weights_whatever_torch_drew_before() -> None:
    first = TorchRegressor(small(), max_iter=20).fit(X, Y)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = clone(first).fit(X, Y)
    np.testing.assert_array_equal(weights(first), weights(again))
    assert torch.equal(torch.random.get_rng_state(), state), "torch's own generator moved"
    assert not np.array_equal(weights(first), weights(clone(first).set_params(random_state=1).fit(X, Y)))


def test_the_module_given_stays_as_it_was_and_the_trained_one_takes_raw_columns() -> None:
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fitted = TorchRegressor(module).fit(X, Y)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        raw = fitted.module_(torch.tensor(X.to_numpy())).numpy()[:, 0]
    np.testing.assert_array_equal(fitted.predict(X), raw)
    assert list(fitted.feature_names_in_) == list(X.columns)


@pytest.mark.parametrize("module", [layers(linear(2)), layers(linear(2, 3), linear(3))], ids=["one", "two"])
def test_without_an_activation_it_is_the_linear_regression(module: Any) -> None:
    fitted = TorchRegressor(module, alpha=0.0).fit(X, Y + np.sin(X["large"]))
    expected = LinearRegression().fit(X, Y + np.sin(X["large"]))
    np.testing.assert_allclose(fitted.predict(X), expected.predict(X), rtol=1e-5)


def test_its_weight_decay_is_that_of_a_ridge_penalty() -> None:
    rows, labels = make_classification(300, 5, random_state=1)
    alpha = 20.0
    fitted = TorchClassifier(layers(linear(5)), alpha=alpha).fit(rows, labels)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=1 / alpha, tol=1e-8)).fit(rows, labels)
    np.testing.assert_allclose(fitted.predict_proba(rows), expected.predict_proba(rows), atol=1e-4)
    np.testing.assert_array_equal(fitted.predict(rows), expected.predict(rows))


def test_a_classifier_keeps_its_labels_and_is_evaluated_as_it_predicts() -> None:
    rows, numbers = make_classification(200, 4, random_state=2)
    labels = np.array(["healthy", "ill"])[numbers]
    rows[::9, 0] = np.nan
    estimator = make_pipeline(
        SimpleImputer(strategy="median"), TorchClassifier(layers(linear(4, 3), square(), linear(3)))
    )
    estimator.fit(rows, labels)
    fill = estimator[0].statistics_
    model = from_torch(estimator[-1].module_, X_train=rows, classes=estimator.classes_, fill=fill)
    np.testing.assert_array_equal(model.head(clear_scores(model, rows)), estimator.predict(rows))
    assert estimator.score(rows, labels) > np.mean(labels == "ill")


def square() -> Any:
    from hepipe.models.torch_importer import Square

    return Square()


def test_torch_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads()
    TorchRegressor(small(), max_iter=2).fit(X, Y)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "build",
    [
        lambda: linear(2),
        lambda: layers(),
        lambda: layers(torch.nn.ReLU(), linear(2)),
        lambda: layers(linear(2, 3), torch.nn.ReLU()),
        lambda: layers(linear(2, 2)),
        lambda: layers(linear(2, 1, bias=False)),
    ],
    ids=["no Sequential", "empty", "no Linear first", "no Linear last", "two outputs", "no bias"],
)
def test_other_networks_are_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(UnsupportedModel, match="begins and ends with a Linear with bias, of one output"):
        TorchRegressor(build()).fit(X, Y)


def test_other_targets_and_unfitted_ones_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="3 classes"):
        TorchClassifier(small()).fit(X, np.arange(len(X)) % 3)
    with pytest.raises(NotFittedError):
        TorchRegressor(small()).predict(X)


def test_a_constant_column_and_a_constant_target_stay_finite() -> None:
    flat = X.assign(large=7.0)
    assert np.isfinite(TorchRegressor(small()).fit(flat, np.full(len(X), 4.0)).predict(flat)).all()


def test_squares_are_a_polynomial_of_degree_two_a_layer_and_only_relu_follows_the_fold_of_the_salary_law() -> None:
    data = load("salary", offline=True)
    if data.synthetic:
        pytest.skip("the figures are those of the real file")
    parts = split(data)
    train, test = (rows[["healthy_eating", "active_lifestyle"]] for rows in (parts.X_train, parts.X_test))
    schema = from_sklearn(LinearRegression().fit(train, parts.y_train), data.schema).profile.schema
    networks = {
        0.938: layers(linear(2, 8), square(), linear(8)),
        0.992: layers(linear(2, 8), square(), linear(8, 4), square(), linear(4)),
        1.0: layers(linear(2, 8), torch.nn.ReLU(), linear(8)),
    }
    for expected, module in networks.items():
        fitted = TorchRegressor(module).fit(train, parts.y_train)
        assert round(fitted.score(test, parts.y_test), 3) == expected
        model = from_torch(fitted.module_, schema, train)
        np.testing.assert_allclose(model.exact(test)[:, 0], fitted.predict(test), rtol=1e-9)
