"""scikit-learn estimators that train a torch network in the clear, so that cross-validation and pipelines take one.

    module = nn.Sequential(nn.Linear(15, 16), Square(), nn.Linear(16, 1))
    estimator = make_pipeline(SimpleImputer(), TorchClassifier(module)).fit(X_train, y_train)
    model = hepipe.from_torch(estimator[-1].module_, schema, X_train, classes=estimator.classes_)

Inputs and a regression's target are standardised for the training; both scalings are then folded into the first and the
last Linear, so ``module_`` maps raw columns to raw scores. The whole training set is one batch of L-BFGS in float64, so
the same rows, module and seed give the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from hepipe.errors import UnsupportedModel
from hepipe.schemes.base import FloatArray

_HISTORY = 20
"""Steps that L-BFGS remembers."""


class _TorchEstimator(BaseEstimator):  # type: ignore[misc]
    """What both share.

    module        nn.Sequential that begins and ends with a Linear, of one output; it is copied, and its Linears drawn
                  anew from ``random_state`` (a Cubic begins with the coefficients it has)
    alpha         weight decay: alpha / 2 / rows * the sum of squares of all Linear weights joins the mean loss
    max_iter      steps of L-BFGS at most
    module_       the trained network, float64, from raw columns to raw scores
    """

    def __init__(self, module: Any, *, alpha: float = 1e-3, max_iter: int = 500, random_state: int = 0) -> None:
        self.module = module
        self.alpha = alpha
        self.max_iter = max_iter
        self.random_state = random_state

    def _fit(self, X: npt.ArrayLike, target: FloatArray, loss: Callable[[Any, Any], Any]) -> None:
        scaler = StandardScaler().fit(X)
        network = _prepared(self.module, self.random_state)
        with _one_thread():
            _train(network, scaler.transform(X), target, loss, self.alpha, self.max_iter)
        _fold_inputs(network[0], 1 / scaler.scale_, -scaler.mean_ / scaler.scale_)
        self.module_ = network

    def _scores(self, X: npt.ArrayLike) -> FloatArray:
        check_is_fitted(self)
        torch: Any = import_module("torch")
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        with torch.no_grad():
            return np.asarray(self.module_(torch.tensor(rows)).numpy()[:, 0])


class TorchRegressor(RegressorMixin, _TorchEstimator):  # type: ignore[misc]
    """Least squares of one target by a torch network: see the module's docstring for what is folded."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Train on (samples, features) and (samples,)."""
        rows, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        mean, deviation = float(target.mean()), float(target.std()) or 1.0
        self._fit(rows, (target - mean) / deviation, import_module("torch").nn.functional.mse_loss)
        _fold_outputs(self.module_[-1], deviation, mean)
        return self

    def predict(self, X: npt.ArrayLike) -> FloatArray:
        """The values, shape (samples,)."""
        return self._scores(X)


class TorchClassifier(ClassifierMixin, _TorchEstimator):  # type: ignore[misc]
    """Cross-entropy of two classes by a torch network whose one output is the logit of the second class."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Train on (samples, features) and (samples,); UnsupportedModel unless there are two classes."""
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        self.classes_ = np.unique(labels)
        if len(self.classes_) != 2:
            raise UnsupportedModel(f"{len(self.classes_)} classes: a network with one logit tells two apart")
        target = (labels == self.classes_[1]).astype(np.float64)
        self._fit(rows, target, import_module("torch").nn.functional.binary_cross_entropy_with_logits)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The classes, shape (samples,)."""
        return np.asarray(self.classes_[(self._scores(X) > 0).astype(int)])

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """The probabilities of both classes, shape (samples, 2)."""
        second = 1 / (1 + np.exp(-self._scores(X)))
        return np.column_stack([1 - second, second])


def _prepared(module: Any, seed: int) -> Any:
    """A float64 copy whose Linears are drawn from ``seed``, without touching torch's own generator."""
    torch: Any = import_module("torch")
    ends = [module[0], module[-1]] if type(module).__name__ == "Sequential" and len(module) else []
    if not ends or any(type(end).__name__ != "Linear" or end.bias is None for end in ends) or ends[1].out_features != 1:
        raise UnsupportedModel("give an nn.Sequential that begins and ends with a Linear with bias, of one output")
    network = copy.deepcopy(module).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in network:
            if type(part).__name__ == "Linear":
                part.reset_parameters()
    return network


def _train(
    network: Any, X: FloatArray, y: FloatArray, loss: Callable[[Any, Any], Any], alpha: float, max_iter: int
) -> None:
    torch: Any = import_module("torch")
    inputs, target = torch.tensor(X), torch.tensor(y)
    weights = [part.weight for part in network if type(part).__name__ == "Linear"]
    optimiser = torch.optim.LBFGS(
        network.parameters(), max_iter=max_iter, history_size=_HISTORY, line_search_fn="strong_wolfe"
    )

    def objective() -> Any:
        optimiser.zero_grad()
        decay = sum((weight**2).sum() for weight in weights)
        value = loss(network(inputs)[:, 0], target) + alpha / 2 / len(y) * decay
        value.backward()
        return value

    optimiser.step(objective)


def _fold_inputs(first: Any, slope: FloatArray, offset: FloatArray) -> None:
    """The Linear for raw inputs, where it was trained on slope * raw + offset."""
    torch: Any = import_module("torch")
    with torch.no_grad():
        first.bias += first.weight @ torch.tensor(offset)
        first.weight *= torch.tensor(slope)


def _fold_outputs(last: Any, factor: float, shift: float) -> None:
    """The Linear for outputs factor * y + shift."""
    with import_module("torch").no_grad():
        last.weight *= factor
        last.bias.mul_(factor).add_(shift)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On networks this small threads cost more than they bring, and a sum would depend on their number."""
    torch: Any = import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
