"""TenSEAL multiplies by a plaintext of zeros in a branch of its own, which forgets to rescale."""

from __future__ import annotations

import numpy as np
import pytest
import tenseal as ts
from client_view import answered, parties, profile

from hepipe.models.linear import LinearModel


def test_a_product_with_zeros_is_larger_and_at_another_level() -> None:
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1
    )
    context.global_scale = 2**40
    x = ts.ckks_vector(context, [1.0] * 15)
    zeros, others = x * ([0.0] * 15), x * ([0.5] * 15)
    assert (zeros.ciphertext()[0].coeff_modulus_size(), others.ciphertext()[0].coeff_modulus_size()) == (3, 2)
    assert len(zeros.serialize()) > 1.3 * len(others.serialize())


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_results_of_ours_are_of_one_level_scale_and_size_with_and_without_zeros(scheme: str) -> None:
    kinds = set()
    client, server, _ = parties(LinearModel(profile(3), np.full((3, 2), 0.5), np.zeros(2)), scheme, samples=2)
    for weights in (np.full((3, 2), 0.5), np.zeros((3, 2)), np.array([[0.0, 0.5], [0.0, 0.5], [0.0, 0.5]])):
        server.model = LinearModel(profile(3), weights, np.zeros(2))
        y = answered(client, server, client.encrypt(np.ones((2, 3))))
        assert np.abs(client.decrypt(y) - weights.sum(axis=0)).max() < 1e-5
        kinds.add((y.level, y.log_scale, len(server.pack(y))))
    assert len(kinds) == 1
