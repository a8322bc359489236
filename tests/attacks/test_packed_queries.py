"""One query whose inputs are powers of a large number: the answer has every weight in a digit of its own.

Inherent to an additive scheme that returns exact sums: it succeeds on ours as on the old systems. SECURITY.md says so.
"""

from __future__ import annotations

from dataclasses import replace

import gmpy2
import numpy as np
import pytest
from client_view import answered, parties, phe_keys, plaintexts, profile

from hepipe.errors import OutOfRange
from hepipe.models.linear import LinearModel
from hepipe.schemes.fixedpoint import to_fixed

DIGIT = 128
WEIGHTS = np.array([0.75, -1.5, 0.001, 1.999, -0.33, 1e-6])
INTERCEPT = -0.625


def digits(value: int, count: int) -> list[int]:
    """Signed digits to the base 2**DIGIT, the lowest first."""
    found = []
    for _ in range(count):
        digit = (value + (1 << (DIGIT - 1))) % (1 << DIGIT) - (1 << (DIGIT - 1))
        found.append(digit)
        value = (value - digit) >> DIGIT
    assert value == 0
    return found


def packed(features: int) -> list[int]:
    return [1 << (DIGIT * place) for place in range(1, features + 1)]


def test_one_packed_query_gives_the_model_of_the_old_system() -> None:
    public, private = phe_keys()
    weights = [round(w * 2**32) for w in WEIGHTS]
    answer = public.encrypt(round(INTERCEPT * 2**32))
    for x, weight in zip(packed(6), weights, strict=True):
        answer = answer + public.encrypt(x) * weight
    assert digits(private.decrypt(answer), 7) == [round(INTERCEPT * 2**32), *weights]


def test_one_packed_query_gives_ours_too() -> None:
    client, server, made = parties(LinearModel(profile(6), WEIGHTS[:, None], np.array([INTERCEPT])), "paillier")
    honest, key = client.encrypt(np.zeros((1, 6))), client.public().public.to_phe()
    forged = replace(honest, data=[[gmpy2.mpz(key.raw_encrypt(x)) for x in packed(6)]])
    answer = answered(client, server, forged)
    (plaintext,) = plaintexts(client, answer.data[0])
    scale = made.parameters.log_plain_scale
    weights = to_fixed(WEIGHTS, scale).tolist()
    assert digits(plaintext, 7) == [*to_fixed(np.array([INTERCEPT]), answer.log_scale).tolist(), *weights]


def test_a_client_of_ours_does_not_send_such_a_query_by_mistake() -> None:
    """The range is checked where it can be, at the client: it binds an honest one only."""
    client, _, _ = parties(LinearModel(profile(6), WEIGHTS[:, None], np.array([INTERCEPT])), "paillier")
    with pytest.raises(OutOfRange, match="row 0, column 'x0'"):
        client.encrypt([[float(x) for x in packed(6)]])
