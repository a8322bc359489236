"""One layer of a network: the polynomial it is, the price it has, and what each policy makes of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepipe.circuits.activation import (
    IDENTITY,
    SQUARE,
    Activated,
    Activation,
    layer,
    on_request,
    power_series,
    settled,
)
from hepipe.circuits.functions import ON_OFFER, RELU, SIGMOID, TANH
from hepipe.errors import UnsupportedModel
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.rounds import answer_masked_factors
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, CkksParameters, ClearParameters
from hepipe.schemes.registry import scheme_of

CKKS = CkksParameters(1024, (60, *(40,) * 4, 60), 40.0, insecure=True)
LANE = replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=4)
EXACT = ClearParameters(depth=4, log_scale=LANE.log_scale, log_plain_scale=LANE.log_plain_scale, exact=True)
RNG = np.random.default_rng(5)
X = RNG.uniform(-1, 1, (3, 4))
W, B = RNG.uniform(-1, 1, (4, 3)), RNG.uniform(-1, 1, 3)
OUT, LAST = RNG.uniform(-1, 1, (3, 2)), RNG.uniform(-1, 1, 2)
Z = X @ W + B

COEFFICIENTS = st.lists(st.floats(-4, 4).map(lambda c: round(c, 3)), min_size=1, max_size=6)


@cache
def keys_of(parameters: Any) -> KeySet:
    return scheme_of(parameters).keygen()


def run(parameters: Any, activation: Activation) -> Any:
    """The encrypted activation of X @ W + B, followed by another affine map."""
    scheme: Any = scheme_of(parameters)
    keys = keys_of(parameters)
    ev: Any = scheme.evaluator(keys)
    if parameters.name == "paillier":
        bundle = PublicBundle(parameters, keys.public, keys.evaluation)
        holder = scheme.encryptor(keys.secret), scheme.decryptor(keys.secret)
        ev = Interactive(ev, LocalLink(lambda frame: answer_masked_factors(frame, bundle, *holder)), bundle)
    return two_layers(ev, scheme.encryptor(keys.secret).encrypt(X, 1.0), activation)


def two_layers(ev: Any, x: Any, activation: Activation) -> Any:
    return settled(ev, layer(ev, layer(ev, Activated(x), W, B, activation), OUT, LAST, IDENTITY))


def values_of(parameters: Any, tensor: Any) -> np.ndarray:
    return np.asarray(scheme_of(parameters).decryptor(keys_of(parameters).secret).decrypt(tensor))


ACTIVATIONS = {
    "identity": IDENTITY,
    "square": SQUARE,
    "parabola": power_series("parabola", (0.3, -1.0, 0.5)),
    "nearly a line": power_series("nearly a line", (0.3, 1.0, 1e-3)),
    "cubic": power_series("cubic", (0.1, 0.5, 0.25, -0.1)),
    "cubic in z / 3": power_series("cubic", (0.1, 0.5, 0.25, -0.1)).on(3.0),
}
PRICES = {"identity": 0, "square": 1, "parabola": 1, "nearly a line": 2, "cubic": 2, "cubic in z / 3": 2}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("parameters", [ClearParameters(), CKKS, LANE], ids=["clear", "ckks", "paillier"])
def test_a_layer_is_what_it_was_trained_as(parameters: Any, name: str) -> None:
    expected = ACTIVATIONS[name].exact(Z) @ OUT + LAST
    assert np.abs(values_of(parameters, run(parameters, ACTIVATIONS[name])) - expected).max() < 1e-6


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_masked_rounds_give_the_very_integers_of_the_reference(name: str) -> None:
    result, reference = run(LANE, ACTIVATIONS[name]), run(EXACT, ACTIVATIONS[name])
    decryptor: Any = scheme_of(LANE).decryptor(keys_of(LANE).secret)
    assert decryptor.decrypt_integers(result).tolist() == reference.data.tolist()
    assert result.log_scale == reference.log_scale


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("parameters", [CKKS, LANE], ids=["ckks", "paillier"])
def test_the_price_is_a_level_or_a_round_for_each_depth(parameters: Any, name: str) -> None:
    ev = DryEvaluator(parameters)
    result = two_layers(ev, ev.fresh(X.shape, 1.0), ACTIVATIONS[name])
    assert parameters.depth - result.level == 2 + PRICES[name]
    assert ev.rounds == (PRICES[name] if parameters is LANE else 0)
    assert ev.revealed == []


@pytest.mark.parametrize("name", ["square", "parabola"])
def test_the_product_of_a_parabola_is_a_square_of_all_outputs_at_once(name: str) -> None:
    ev = DryEvaluator(LANE)
    two_layers(ev, ev.fresh(X.shape, 1.0), ACTIVATIONS[name])
    assert ev.operations["mul"] == ev.operations["mask"] == Z.size


def test_a_last_activation_is_settled_at_the_price_of_a_factor() -> None:
    for name, level in (("square", 2), ("parabola", 1)):
        ev = DryEvaluator(CKKS)
        result = settled(ev, layer(ev, Activated(ev.fresh(X.shape, 1.0)), W, B, ACTIVATIONS[name]))
        assert result.level == level
    keys, scheme = keys_of(CKKS), scheme_of(CKKS)
    x = Activated(scheme.encryptor(keys.secret).encrypt(X, 1.0))
    real = scheme.evaluator(keys)
    found = values_of(CKKS, settled(real, layer(real, x, W, B, ACTIVATIONS["parabola"])))
    assert np.abs(found - ACTIVATIONS["parabola"].exact(Z)).max() < 1e-6


@given(COEFFICIENTS, st.floats(0.1, 20), st.floats(-20, 20))
def test_moving_a_polynomial_to_another_domain_does_not_change_it(
    coefficients: list[float], domain: float, z: float
) -> None:
    activation = power_series("any", coefficients)
    moved = activation.on(domain)
    point = np.array([z])
    assert moved.polynomial is not None
    assert np.allclose(moved.polynomial(point), activation.exact(point), rtol=1e-9, atol=1e-9)
    assert moved.exact is activation.exact


@given(COEFFICIENTS, st.floats(-10, 10), st.floats(0, 5))
def test_a_bound_of_the_argument_gives_one_of_the_value(coefficients: list[float], z: float, more: float) -> None:
    for activation in (power_series("any", coefficients), on_request(RELU), on_request(SIGMOID), on_request(TANH)):
        value = activation.exact(np.array([z]))
        assert np.abs(value) <= activation.bound(np.array([abs(z) + more])) * (1 + 1e-12) + 1e-12


def test_zeros_at_the_top_cost_no_depth() -> None:
    assert power_series("any", (0.0, 0.0, 1.0, 0.0)).polynomial == SQUARE.polynomial
    constant = power_series("any", (2.0,))
    assert constant.polynomial is not None
    assert constant.polynomial.degree == 1
    assert np.abs(values_of(CKKS, run(CKKS, constant)) - (2 * OUT.sum(axis=0) + LAST)).max() < 1e-6


@pytest.mark.parametrize("fn", [RELU, SIGMOID, TANH], ids=lambda fn: fn.name)
def test_what_is_no_polynomial_takes_a_degree_or_the_key_holder(fn: Any) -> None:
    ev = DryEvaluator(ClearParameters())
    x = Activated(ev.fresh(X.shape, 1.0))
    with pytest.raises(UnsupportedModel, match=f"{fn.name} is no polynomial: give .* degree=3 .*policy='client'"):
        layer(ev, x, W, B, on_request(fn))
    fitted = on_request(fn).on(4.0, degree=3)
    assert fitted.polynomial == fn.polynomial(3, 4.0)
    assert fitted.on(9.0) is fitted
    expected = fn.polynomial(3, 4.0)(Z) @ OUT + LAST
    assert np.abs(values_of(CKKS, run(CKKS, fitted)) - expected).max() < 1e-6


def test_policy_client_asks_only_for_what_is_no_polynomial() -> None:
    ev = DryEvaluator(CKKS, policy="client")
    x = Activated(ev.fresh(X.shape, 1.0))
    asked = layer(ev, x, W, B, on_request(RELU).on(4.0, degree=2))
    assert (ev.rounds, ev.revealed, asked.values.level) == (1, ["the argument of every relu"], CKKS.depth)
    for activation in (SQUARE, IDENTITY, ACTIVATIONS["cubic"]):
        layer(ev, x, W, B, activation)
    assert ev.rounds == 1


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_no_function_on_offer_makes_an_error_larger(a: float, b: float) -> None:
    for fn in ON_OFFER.values():
        values = fn.exact(np.array([a, b]))
        assert abs(values[0] - values[1]) <= abs(a - b) * (1 + 1e-12)
