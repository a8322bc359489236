"""Networks from torch: their predictions, their activations as modules, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from hepipe.errors import UnsupportedModel
from hepipe.models import torch_importer
from hepipe.models.importers import mlp_from_sklearn
from hepipe.models.logistic import clear_scores
from hepipe.models.schema import Column, Schema
from hepipe.models.torch_importer import from_torch
from hepipe.study.datasets import load
from hepipe.study.splits import split

RNG = np.random.default_rng(17)
SCHEMA = Schema((Column("age", 20, 80), Column("pulse", 40, 120), Column("smoker", 0, 1)))
ROWS = np.column_stack([RNG.uniform(20, 80, 120), RNG.uniform(40, 120, 120), RNG.integers(0, 2, 120)])
FRAME = pd.DataFrame(ROWS, columns=["age", "pulse", "smoker"])
MEAN, STD = FRAME.mean().to_numpy(), FRAME.std(ddof=0).to_numpy()
SCALED = ((FRAME - MEAN) / STD).to_numpy()
SCALING: dict[str, Any] = {"slope": 1 / STD, "offset": -MEAN / STD}


def network(*layers: Any, seed: int = 0) -> Any:
    """A torch network with small random weights, in float64."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    return torch.nn.Sequential(*(layer() for layer in layers)).double()


def linear(inputs: int, outputs: int) -> Any:
    return lambda: pytest.importorskip("torch").nn.Linear(inputs, outputs)


def square() -> Any:
    pytest.importorskip("torch")
    return torch_importer.Square()


def cubic() -> Any:
    pytest.importorskip("torch")
    return torch_importer.Cubic((0.1, 0.5, 0.25, -0.05))


def output_of(module: Any, X: np.ndarray = SCALED) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return np.asarray(module(torch.tensor(X)).numpy())


def test_every_torch_network_scores_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for layers in (
        (linear(3, 5), square, linear(5, 2)),
        (linear(3, 5), cubic, linear(5, 2)),
        (linear(3, 5), square, linear(5, 4), cubic, linear(4, 1)),
        (linear(3, 4), nn.ReLU, linear(4, 4), nn.Tanh, linear(4, 1), nn.Sigmoid),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Identity()), nn.Dropout, square, linear(4, 1)),
        (lambda: nn.Linear(3, 4, bias=False), square),
        (linear(3, 4), square),
        (lambda: nn.Linear(3, 1),),
    ):
        module = network(*layers).eval()
        model = from_torch(module, SCHEMA, FRAME, **SCALING)
        assert np.allclose(model.exact(FRAME), output_of(module), rtol=1e-9, atol=1e-9)
        assert np.allclose(clear_scores(model, FRAME, "client"), output_of(module), rtol=1e-9, atol=1e-9)


def test_a_classifier_s_last_sigmoid_or_softmax_is_left_to_the_client() -> None:
    torch = pytest.importorskip("torch")
    for end, outputs in ((torch.nn.Sigmoid, 1), (lambda: torch.nn.Softmax(dim=1), 3)):
        module = network(linear(3, 4), square, linear(4, outputs), end)
        classes = ["no", "yes"] if outputs == 1 else ["a", "b", "c"]
        model = from_torch(module, SCHEMA, classes=classes, **SCALING)
        likely = output_of(module)
        index = (likely[:, 0] > 0.5).astype(int) if outputs == 1 else likely.argmax(axis=1)
        assert model.head(clear_scores(model, FRAME)).tolist() == np.array(classes)[index].tolist()
        assert len(model.layers) == 2


def test_square_and_cubic_are_trained_as_such() -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor([1.5, -2.0], requires_grad=True)
    torch_importer.Square()(z).sum().backward()
    assert z.grad.tolist() == [3.0, -4.0]
    trained, fixed = torch_importer.Cubic(), torch_importer.Cubic((1.0, 2.0, 3.0, 4.0), trainable=False)
    assert (trained.coefficients.requires_grad, fixed.coefficients.requires_grad) == (True, False)
    assert fixed(torch.tensor([2.0])).item() == 1 + 4 + 12 + 32
    trained(torch.tensor([2.0])).sum().backward()
    assert trained.coefficients.grad.tolist() == [1.0, 2.0, 4.0, 8.0]
    with pytest.raises(UnsupportedModel, match="3 coefficients: a cubic has 4"):
        torch_importer.Cubic((1.0, 2.0, 3.0))


def test_torch_saves_and_loads_the_activations_by_name() -> None:
    torch = pytest.importorskip("torch")
    module = network(linear(3, 2), cubic, linear(2, 2), square)
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    assert type(loaded[1]) is torch_importer.Cubic
    assert (output_of(loaded) == output_of(module)).all()
    with pytest.raises(AttributeError, match="no attribute 'Quartic'"):
        torch_importer.Quartic  # noqa: B018


def test_later_training_does_not_change_the_model() -> None:
    torch = pytest.importorskip("torch")
    module = network(linear(3, 2), square, linear(2, 1))
    model = from_torch(module, SCHEMA)
    before = model.exact(FRAME)
    with torch.no_grad():
        module[0].weight.mul_(2.0)
    assert (model.exact(FRAME) == before).all()


def test_without_a_schema_names_come_from_the_training_rows_but_no_range_does() -> None:
    module = network(linear(3, 2), square)
    columns = from_torch(module, X_train=FRAME).profile.schema.columns
    assert [(c.name, c.low, c.high) for c in columns] == [(name, -(2.0**16), 2.0**16) for name in FRAME]
    assert from_torch(module).profile.schema.names == ("x0", "x1", "x2")


def test_modules_that_cannot_be_read_are_refused_by_name() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for module, message in (
        (nn.Sequential(nn.Linear(3, 2), nn.GELU()), "layer 1, GELU, cannot be evaluated .*: use Linear, ReLU,"),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), "layer 0, ReLU, does not follow a Linear"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Tanh()), "layer 2, Tanh, does not follow a Linear"),
        (nn.Sequential(nn.Dropout()), "at least one Linear"),
        (nn.Bilinear(3, 3, 1), "Bilinear is no nn.Sequential"),
    ):
        with pytest.raises(UnsupportedModel, match=message):
            from_torch(module, SCHEMA)
    with pytest.raises(UnsupportedModel, match="2 outputs, 3 classes"):
        from_torch(nn.Linear(3, 2), SCHEMA, classes=[0, 1, 2])


def test_the_fold_of_the_salary_law_needs_a_relu_and_squares_follow_it_less_well() -> None:
    torch = pytest.importorskip("torch")
    data = load("salary")
    if data.synthetic:
        pytest.skip("the figures are those of the real file")
    parts = split(data)
    scaler, mean, std = StandardScaler().fit(parts.X_train), parts.y_train.mean(), parts.y_train.std()
    inputs, target = scaler.transform(parts.X_train), (parts.y_train - mean) / std
    scaling: dict[str, Any] = {"slope": 1 / scaler.scale_, "offset": -scaler.mean_ / scaler.scale_}
    estimator = MLPRegressor(hidden_layer_sizes=(16,), solver="lbfgs", alpha=1e-3, max_iter=3000, random_state=0)
    exact = mlp_from_sklearn(estimator.fit(inputs, target), data.schema, **scaling).rescaled(std, mean)
    squares = network(linear(4, 16), square, linear(16, 1))
    optimiser = torch.optim.LBFGS(squares.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimiser.zero_grad()
        error = ((squares(torch.tensor(inputs))[:, 0] - torch.tensor(target.to_numpy())) ** 2).mean()
        error.backward()
        return error

    optimiser.step(loss)
    trained = from_torch(squares, data.schema, parts.X_train, **scaling).rescaled(std, mean)
    for model, policy, fit in ((exact, "client", 1.0), (trained, "polynomial", 0.937)):
        assert round(float(r2_score(parts.y_test, clear_scores(model, parts.X_test, policy))), 3) == fit
