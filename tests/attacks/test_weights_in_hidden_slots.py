"""TenSEAL's dot() sums by rotations: the slots that its decrypt() does not show hold the partial sums."""

from __future__ import annotations

import numpy as np
import pytest
import tenseal as ts
from client_view import all_slots, answered, parties, profile, slots

from hepipe.models.linear import LinearModel

RNG = np.random.default_rng(8)
WEIGHTS, INTERCEPT = RNG.uniform(-2, 2, 15), 0.75


def from_partial_sums(found: np.ndarray, features: int) -> tuple[np.ndarray, float]:
    """The model from the slots of one answer to x = (1, …, 1): slot k holds the terms from k on."""
    return -np.diff(found[: features + 1]), float(found[features])


def test_one_answer_of_dot_is_the_whole_model() -> None:
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1
    )
    context.global_scale = 2**40
    context.generate_galois_keys()
    answer = ts.ckks_vector(context, [1.0] * 15).dot(WEIGHTS.tolist()) + INTERCEPT
    assert len(answer.decrypt()) == 1
    seen = slots(answer.ciphertext()[0], context.seal_context().data, context.secret_key().data).real
    weights, intercept = from_partial_sums(seen, 15)
    assert np.abs(weights - WEIGHTS).max() < 1e-4
    assert abs(intercept - INTERCEPT) < 1e-4


@pytest.mark.parametrize("samples", [1, 3])
def test_the_slots_that_ours_does_not_show_hold_the_score_of_zero_inputs_alone(samples: int) -> None:
    """A batch may be as wide as the slots, so the score of zeros is one more query, not a leak of its own."""
    model = LinearModel(profile(15), WEIGHTS[:, None], np.array([INTERCEPT]))
    client, server, made = parties(model, "ckks", samples=samples)
    y = answered(client, server, client.encrypt(np.ones((samples, 15))))
    (found,) = all_slots(client, y)
    shown = np.concatenate([found.real, found.imag]) if made.parameters.complex_slots else found.real
    score = WEIGHTS.sum() + INTERCEPT
    assert np.abs(shown[:samples] - score).max() < 2 * made.error_bound
    assert np.abs(shown[samples:] - INTERCEPT).max() < 2 * made.error_bound
    weights, _ = from_partial_sums(shown[1 + samples :], 15)
    assert np.abs(weights).max() < 4 * made.error_bound < np.abs(WEIGHTS).min()
