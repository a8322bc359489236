"""Predictions over the network are those of one process: every model, both schemes, rounds included."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from hepipe.models.logistic import clear_scores
from served_models import FRAME, MAKERS, made, policy_of, schemes_of
from service.conftest import SAMPLES, Running

X = FRAME.iloc[:SAMPLES]


@cache
def expected(name: str, scheme: str) -> Any:
    return clear_scores(made(name), X, policy_of(name), selects=scheme == "paillier")


@pytest.mark.parametrize(("name", "scheme"), [(name, scheme) for name in MAKERS for scheme in schemes_of(name)])
def test_every_model_predicts_over_the_network(running: Running, name: str, scheme: str) -> None:
    remote = running.remote(name)
    client = remote.client(scheme)
    link = client.link()
    scores = client.decrypt(remote.evaluate(client.encrypt(X), link))
    assert np.abs(scores - expected(name, scheme)).max() <= remote.plan(scheme).error_bound + 1e-12
    assert link.transcript.rounds == remote.plan(scheme).rounds
    remote.close()
