"""phe keeps floats with an exponent in the clear beside each ciphertext, and adds the weight's to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from client_view import answered, parties, phe_keys, profile

from hepipe.models.linear import LinearModel
from hepipe.schemes.frames import Kind, parse

WEIGHTS = [3.1e-6, 0.041, 0.5, 7.25, 912.7]


def bounds_from_exponent(exponent: int) -> tuple[float, float]:
    """phe writes a double as an integer below 2**53 times 16**exponent, with the largest exponent that is exact."""
    return 2.0 ** (52 + 4 * exponent), 2.0 ** (56 + 4 * exponent)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_an_exponent_tells_a_weight_to_a_factor_of_16(weight: float) -> None:
    public, _ = phe_keys()
    answer = public.encrypt(3) * weight  # an integer input has exponent 0
    low, high = bounds_from_exponent(answer.exponent)
    assert low <= weight < high
    assert high == 16 * low


def test_an_exponent_tells_a_whole_number_from_a_fraction() -> None:
    public, _ = phe_keys()
    assert (public.encrypt(3) * 7).exponent == 0
    assert (public.encrypt(3) * 7.25).exponent < 0


def test_frames_of_ours_are_alike_for_weights_of_any_size() -> None:
    """The same columns of weights in another order, so that the one published bound, of the largest score, is kept."""
    heads, sizes = [], []
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 1, 2], [2, 4, 1, 0, 3]):
        weights = np.diag(np.array(WEIGHTS)[order])
        model = LinearModel(profile(5), weights, np.zeros(5))
        client, server, _ = parties(model, "paillier")
        frame = server.pack(answered(client, server, client.encrypt(np.ones((1, 5)))))
        parsed = parse(frame, Kind.TENSOR)
        heads.append((replace(parsed, key_id="", body=b""), parsed.body[:10]))
        sizes.append(len(frame))
        assert len({parsed.body[i : i + 2] for i in range(0, 10, 2)}) == 1  # one bound for all outputs
    assert heads[0] == heads[1] == heads[2]
    assert sizes[0] == sizes[1] == sizes[2]
