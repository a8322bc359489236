"""A result without fresh randomness is a function of the client's own ciphertexts and the weights: try weights."""

from __future__ import annotations

from itertools import product
from typing import Any

import gmpy2
import numpy as np
import pytest
from client_view import answered, parties, phe_keys, profile

from hepipe.models.linear import LinearModel
from hepipe.schemes.fixedpoint import to_fixed

SPAN = 1 << 7
"""Weights from 0 to SPAN - 1 in the searches."""


def one_weight(base: Any, result: Any, modulus: Any, span: int = 1 << 14) -> int | None:
    """The w < span with base**w = result, one multiplication a guess."""
    power = gmpy2.mpz(1)
    for weight in range(span):
        if power == result:
            return weight
        power = power * base % modulus
    return None


def two_weights(bases: list[Any], result: Any, modulus: Any) -> tuple[int, int] | None:
    """The u, v < SPAN with a**u * b**v = result."""
    a, b = ([gmpy2.powmod(base, w, modulus) for w in range(SPAN)] for base in bases)
    found = [(u, v) for u, v in product(range(SPAN), repeat=2) if a[u] * b[v] % modulus == result]
    return found[0] if found else None


def test_phe_sends_what_the_client_can_compute_for_every_weight() -> None:
    public, _ = phe_keys()
    x = public.encrypt(5)
    sent = {w: gmpy2.mpz((x * w).ciphertext(be_secure=False)) for w in (0, 1, 11_213)}
    base, modulus = gmpy2.mpz(x.ciphertext(be_secure=False)), gmpy2.mpz(public.nsquare)
    assert sent[0] == 1
    assert sent[1] == base
    assert one_weight(base, sent[11_213], modulus) == 11_213


def test_a_product_of_powers_gives_both_its_weights() -> None:
    public, _ = phe_keys()
    modulus = gmpy2.mpz(public.nsquare)
    a, b = (gmpy2.mpz(public.raw_encrypt(m)) for m in (3, 4))
    result = gmpy2.powmod(a, 97, modulus) * gmpy2.powmod(b, 31, modulus) % modulus
    assert two_weights([a, b], result, modulus) == (97, 31)


@pytest.fixture
def linear() -> tuple[Any, Any, Any, Any]:
    """A model with two small weights in the units of its fixed point, and one query."""
    model = LinearModel(profile(2), np.array([[97.0], [31.0]]), np.zeros(1))
    client, server, made = parties(model, "paillier", precision_bits=4)
    unit = 2.0 ** -int(made.parameters.log_plain_scale)
    model = LinearModel(profile(2), np.array([[97.0], [31.0]]) * unit, np.zeros(1))
    assert to_fixed(model.weights, made.parameters.log_plain_scale).tolist() == [[97], [31]]
    server.model = model
    return client, server, client.encrypt([[1.0, 1.0]]), gmpy2.mpz(client.public().public.n_squared)


def test_a_result_of_ours_is_none_of_them(linear: tuple[Any, Any, Any, Any]) -> None:
    client, server, x, modulus = linear
    bases = list(x.data[0])
    result = answered(client, server, x).data[0][0]
    assert two_weights(bases, result, modulus) is None
    # It is the blinding alone that keeps it from being found: the circuit's own result is.
    assert two_weights(bases, server.forward(x).data[0][0], modulus) == (97, 31)


def test_a_weight_of_zero_or_one_does_not_show_in_ours() -> None:
    for weight in (0.0, 1.0):
        client, server, _ = parties(LinearModel(profile(1), np.array([[weight]]), np.zeros(1)), "paillier")
        x = client.encrypt([[1.0]])
        result, modulus = answered(client, server, x).data[0][0], client.public().public.n_squared
        power = gmpy2.powmod(x.data[0][0], int(weight) << int(client.public().parameters.log_plain_scale), modulus)
        assert result not in (1, x.data[0][0], power)
        assert abs(client.decrypt(answered(client, server, x))[0, 0] - weight) < 1e-5
