"""InfoCrypt has the client decrypt z = x W + b of a hidden layer, apply the activation, and encrypt again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from client_view import Listening, parties, phe_keys, profile, solved

from hepipe.circuits.functions import RELU
from hepipe.circuits.linear import affine
from hepipe.errors import Unsupported
from hepipe.schemes.frames import Kind, parse
from hepipe.schemes.wire import unpack_tensor

RNG = np.random.default_rng(3)
W, B = RNG.uniform(-1, 1, (3, 4)), RNG.uniform(-1, 1, 4)
OUT = np.full((4, 1), 0.25)
QUERIES = np.vstack([np.zeros(3), np.eye(3)])
"""d + 1 inputs."""


class Network:
    """3-4-1 with a square, or with an activation that the key holder is asked for."""

    profile = profile(3)
    prepare, head = profile.prepare, profile.head
    reveals = "scores"

    def __init__(self, asked: bool = False) -> None:
        self.asked = asked

    def forward(self, ev: Any, x: Any) -> Any:
        z = affine(ev, x, W, B)
        return affine(ev, ev.ask(RELU, z) if self.asked else ev.mul(z, z), OUT, 0.0)


def scale_of_masked(made: Any) -> float:
    """log2 of the scale of the pre-activations that are masked."""
    return float(made.parameters.log_scale + made.parameters.log_plain_scale)


def test_d_plus_1_queries_give_the_layer_of_the_old_system() -> None:
    public, private = phe_keys()
    seen = np.empty((4, 4))
    for row, query in enumerate(QUERIES):
        x = [public.encrypt(float(value)) for value in query]
        for unit in range(4):
            z = sum((c * float(w) for c, w in zip(x, W[:, unit], strict=True)), start=public.encrypt(float(B[unit])))
            seen[row, unit] = private.decrypt(z)
    assert np.abs(solved(QUERIES, seen) - np.vstack([W, B])).max() < 1e-9


def test_policy_client_gives_it_away_too_and_its_plan_says_so() -> None:
    client, server, made = parties(Network(asked=True), "paillier", 4, policy="client")
    link = Listening(client)
    server.evaluate(client.encrypt(QUERIES), link)
    asked = [unpack_tensor(parse(frame, Kind.QUESTION).body[1:], client.public()) for frame in link.requests]
    seen = np.concatenate([client.decrypt(z) for z in asked])
    assert np.abs(solved(QUERIES, seen) - np.vstack([W, B])).max() < 1e-4
    assert made.reveals == "scores; the argument of every relu"


def test_nobody_gets_there_by_default() -> None:
    with pytest.raises(Unsupported, match="policy='client'"):
        parties(Network(asked=True), "paillier", 4)
    client, _, made = parties(Network(), "paillier", 4)
    assert made.reveals == "scores"
    agreed, asking, _ = parties(Network(asked=True), "paillier", 4, policy="client")
    link = Listening(agreed)
    asking.evaluate(agreed.encrypt(QUERIES), link)
    with pytest.raises(Unsupported, match="the plan's policy is not 'client'"):
        client.answer(link.requests[0])


def test_masked_squares_give_nothing_to_solve() -> None:
    client, server, made = parties(Network(), "paillier", 4)
    link = Listening(client)
    scores = client.decrypt(server.evaluate(client.encrypt(QUERIES), link))
    assert np.abs(scores - ((QUERIES @ W + B) ** 2) @ OUT).max() < 2 * made.error_bound
    seen = link.seen() / 2 ** int(scale_of_masked(made))
    assert seen.shape == (4, 4)
    # Each unknown is off by about the mask, 2**80; by less than 2**40 with probability 2**-40.
    assert np.abs(solved(QUERIES, seen) - np.vstack([W, B])).min() > 2.0**40


def test_nor_does_the_mean_of_many_answers() -> None:
    client, server, made = parties(Network(), "paillier", 4)
    link, x = Listening(client), client.encrypt(QUERIES)
    for _ in range(50):
        server.evaluate(x, link)
    seen = link.seen().reshape(50, 4, 4)
    bits = max(int(v).bit_length() for v in seen.flat)
    means = np.array([sum(column) // 50 - (1 << (bits - 1)) for column in seen.reshape(50, 16).T], dtype=object)
    found = solved(QUERIES, means.reshape(4, 4) / 2 ** int(scale_of_masked(made)))
    assert np.abs(found - np.vstack([W, B])).min() > 2.0**40
