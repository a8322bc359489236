"""Paillier's scales: neither has a bit to spare, the pair takes the least room, and what is planned runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPRegressor

from hepipe.errors import Unsupported
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import with_sigmoid
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.base import KeySet
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, ClearParameters
from hepipe.study.plan import plan

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(13)
X = RNG.uniform(-4, 4, (200, 5))
Y = X @ RNG.uniform(-3, 3, 5) + RNG.normal(0, 1, 200)
SCHEMA = Schema.unknown(5, 4.0)
NAMES = ["linear", "sigmoid of degree 3", "sigmoid of degree 7", "network", "square", "eighth power"]


@dataclass(frozen=True, eq=False)
class Powers:
    """The sum of x**(2**steps) over two columns."""

    steps: int
    bound: float
    reveals: str = "scores"

    @property
    def profile(self) -> Profile:
        return Profile.of("regression", Schema.unknown(2, bound=self.bound), 1)

    def forward(self, ev: Any, x: Any) -> Any:
        x = ev.mul_plain(x, self.bound)
        for _ in range(self.steps):
            x = ev.mul(x, x)
        return ev.matmul_plain(x, np.ones((2, 1)))


@cache
def models() -> dict[str, Any]:
    logistic = from_sklearn(LogisticRegression(C=0.1).fit(X, Y > 0), SCHEMA)
    network = MLPRegressor(hidden_layer_sizes=(4,), activation="tanh", max_iter=50, random_state=0).fit(X, Y)
    linear = from_sklearn(LinearRegression().fit(X, Y), SCHEMA)
    by_name = linear, with_sigmoid(logistic, X, 3), with_sigmoid(logistic, X, 7)
    by_name += from_sklearn(network, SCHEMA, X_train=X, degree=3), Powers(1, 3.0), Powers(3, 1.5)
    return dict(zip(NAMES, by_name, strict=True))


def dry_run(model: Any, log_scale: int, log_plain_scale: int) -> tuple[float, float]:
    """(error, peak) without a limit of room."""
    ev = DryEvaluator(ClearParameters(64, log_scale, log_plain_scale, exact=True))
    x = ev.fresh((1, len(model.profile.input_bound)), model.profile.input_bound)
    return ev.error_bound(ev.rerandomize(model.forward(ev, x))), ev.peak_bits


@pytest.mark.parametrize("bits", [4, 11, 20, 33])
@pytest.mark.parametrize("name", NAMES)
def test_neither_scale_can_be_a_bit_less_and_no_other_pair_takes_less_room(name: str, bits: int) -> None:
    model = models()[name]
    made = plan(model, "paillier", 1, precision_bits=bits, security_bits=256).parameters
    scale, plain = int(made.log_scale), int(made.log_plain_scale)
    error, peak = dry_run(model, scale, plain)
    assert error <= 2.0**-bits
    for less in ((scale - 1, plain), (scale, plain - 1)):
        assert min(less) == 0 or dry_run(model, *less)[0] > 2.0**-bits
    near = itertools.product(range(max(scale - 4, 1), scale + 4), range(max(plain - 12, 1), plain + 4))
    for other in near:
        found, room = dry_run(model, *other)
        assert found > 2.0**-bits or room >= peak


@cache
def keys() -> KeySet:
    return PaillierScheme(TEST_INSECURE_PAILLIER).keygen()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(-2, 60), st.integers(4, 140))
def test_a_plan_that_is_made_runs_and_one_that_is_not_says_what_is_short(steps: int, size: int, bits: int) -> None:
    model = Powers(steps, 2.0**size)
    try:
        made = plan(model, "paillier", 1, precision_bits=bits, security_bits=0)
    except Unsupported:
        with pytest.raises(Unsupported, match=r"the (plain|cipher)text holds|no fixed-point scale below 150 bits"):
            plan(model, "paillier", 1, precision_bits=bits, security_bits=0)
        return
    client = Client(made, keys())
    server = Server(model, client.public(), allow_insecure=True)
    y = server.evaluate(client.encrypt([[model.bound, -model.bound]]), client.link())
    expected = 2 * model.bound**2**steps
    assert client.decrypt(y)[0, 0] == pytest.approx(expected, abs=2.0**-bits, rel=2.0**-50)


@pytest.mark.parametrize("steps", [2, 3])
def test_the_most_precise_plan_is_limited_by_room_and_runs(steps: int) -> None:
    """The last number of bits that plans, and the first that does not: by the masks' room, not at the client."""
    model = Powers(steps, 1.0)

    def made(bits: int) -> Any:
        try:
            return plan(model, "paillier", 1, precision_bits=bits, security_bits=0)
        except Unsupported:
            return None

    most = max(bits for bits in range(20, 150) if made(bits))
    with pytest.raises(Unsupported, match=r"a masked product: .* the plaintext holds 1019"):
        plan(model, "paillier", 1, precision_bits=most + 1, security_bits=0)
    client = Client(made(most), keys())
    server = Server(model, client.public(), allow_insecure=True)
    y = server.evaluate(client.encrypt([[1.0, -0.5]]), client.link())
    assert abs(client.decrypt(y)[0, 0] - 1 - 0.5**2**steps) <= 2.0**-51


def test_a_longer_modulus_changes_no_scale() -> None:
    made = [plan(models()["square"], "paillier", 1, security_bits=bits).parameters for bits in (0, 128)]
    assert replace(made[0], modulus_bits=3072, lane_bits=3070, insecure=False) == made[1]
