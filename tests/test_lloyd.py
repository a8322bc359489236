"""k-means on encrypted points: scikit-learn's clustering, every round counted, nothing of the points at the trainer."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

import hepipe
from hepipe.errors import (
    HepipeError,
    IllPosed,
    InsecureParameters,
    KeyMismatch,
    MalformedFrame,
    OutOfRange,
    Unsupported,
)
from hepipe.models.schema import Column, Schema
from hepipe.protocol.link import LocalLink
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.secret import SecretKey
from hepipe.training.lloyd import Clustering, LloydPlan, LloydTrainer, PointsOwner, lloyd_plan
from object_graph import floats, reachable

SCHEMA = Schema((Column("a", -10.0, 10.0), Column("b", 0.0, 30.0)))
SIZES = {"ckks": (600, 3, 4), "paillier": (8, 2, 2)}


def points(samples: int, clusters: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middles = rng.uniform([-8, 3], [8, 27], (clusters, 2))
    return np.clip(middles[np.arange(samples) % clusters] + rng.normal(0, 2, (samples, 2)), [-10, 0], [10, 30])


@cache
def parties(scheme: str) -> tuple[LloydPlan, PointsOwner]:
    planned = lloyd_plan(SCHEMA, *SIZES[scheme], scheme, security_bits=0)
    return planned, PointsOwner(planned)


def clustered(scheme: str, X: np.ndarray) -> tuple[Clustering, LocalLink, LloydTrainer, list[bytes]]:
    """All messages as bytes, as between two machines."""
    planned, owner = parties(scheme)
    trainer, link = LloydTrainer(owner.public_bytes(), allow_insecure=True), owner.link()
    up = [owner.pack(owner.encrypt(X)), owner.pack(owner.start(X[: planned.clusters]))]
    found = trainer.fit(*map(owner.unpack, up), link, planned.iterations)
    down = [owner.pack(each) for each in found]
    return owner.read(*map(owner.unpack, down)), link, trainer, [*up, *down]


def reference(X: np.ndarray, clusters: int, iterations: int) -> KMeans:
    made = KMeans(clusters, init=X[:clusters], n_init=1, algorithm="lloyd", max_iter=iterations, tol=0)
    return made.fit(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("scheme", ["ckks", "paillier"])
def test_the_clustering_is_scikit_learn_s(scheme: str, seed: int) -> None:
    samples, clusters, iterations = SIZES[scheme]
    X = points(samples, clusters, seed)
    try:
        found, _, _, _ = clustered(scheme, X)
    except IllPosed:
        return  # a centre lost its points, which scikit-learn would move elsewhere
    expected = reference(X, clusters, iterations)
    error = parties(scheme)[0].error_bound * 15**2
    assert np.abs(found.centres - expected.cluster_centers_).max() < 2.0**-20
    assert abs(found.inertia - expected.inertia_) < samples * (error + 2.0**-18)
    distances = ((X[:, None] - expected.cluster_centers_) ** 2).sum(axis=2)
    two = np.sort(distances, axis=1)
    clear_cut = two[:, 1] - two[:, 0] > 2.0**-12
    assert clear_cut.sum() >= samples - 1
    assert (found.labels == expected.labels_)[clear_cut].all()
    assert (found.estimator().predict(X) == expected.predict(X))[clear_cut].all()
    assert found.estimator().inertia_ == found.inertia


def test_the_centres_can_be_served() -> None:
    X = points(600, 3)
    found, _, _, _ = clustered("ckks", X)
    model = hepipe.from_sklearn(found.estimator(), SCHEMA)
    client = hepipe.Client(hepipe.plan(model, "clear", samples=8))
    assert client.predict(hepipe.Server(model, client.public()), X[:8]).tolist() == found.labels[:8].tolist()


@pytest.mark.parametrize("scheme", ["ckks", "paillier"])
def test_rounds_and_bytes_are_those_of_the_plan(scheme: str) -> None:
    samples, clusters, iterations = SIZES[scheme]
    planned, _ = parties(scheme)
    _, link, _, (first, second, third, fourth) = clustered(scheme, points(samples, clusters))
    found = link.transcript
    expected = 2 * iterations if scheme == "ckks" else 4 * iterations + 1
    assert found.rounds == planned.rounds == expected
    assert found.bytes_up + len(first) + len(second) == planned.bytes_up
    assert found.bytes_down + len(third) + len(fourth) == planned.bytes_down
    kinds = [message.kind for message in found.messages if message.sender == "server"]
    assert kinds.count("assignment") == kinds.count("centres") == iterations


@pytest.mark.parametrize("scheme", ["ckks", "paillier"])
def test_the_trainer_holds_no_point_no_centre_and_no_key(scheme: str) -> None:
    samples, clusters, _ = SIZES[scheme]
    X = points(samples, clusters)
    found, link, trainer, frames = clustered(scheme, X)
    planned, owner = parties(scheme)
    hidden = {
        *map(float, X.ravel()),
        *map(float, planned.profile.prepare(X).ravel()),
        *map(float, found.centres.ravel()),
    } - {0.0}
    seen = reachable([trainer, link.transcript, frames])
    assert not any(isinstance(item, SecretKey) for item in seen)
    assert floats(seen).isdisjoint(hidden)
    assert floats(reachable([X, found])) & hidden
    assert any(isinstance(item, SecretKey) for item in reachable(owner)) or scheme == "ckks"


def test_an_owner_keeps_no_point() -> None:
    _, owner = parties("ckks")
    X = points(600, 3, 7)
    owner.encrypt(X)
    assert floats(reachable(owner)).isdisjoint(map(float, X.ravel()))


def test_a_centre_without_points_is_refused() -> None:
    planned, owner = parties("paillier")
    X = points(planned.samples, 2)
    trainer = LloydTrainer(owner.public(), allow_insecure=True)
    with pytest.raises(IllPosed, match="centre 1 has no point left"):
        trainer.fit(owner.encrypt(X), owner.start([X[0], X[0]]), owner.link(), 1)


def test_plans_that_cannot_be_are_refused() -> None:
    for counts in ((10, 1, 1), (10, 2, 0), (2, 3, 1)):
        with pytest.raises(OutOfRange, match="1 and 2 at least"):
            lloyd_plan(SCHEMA, *counts, security_bits=0)
    with pytest.raises(Unsupported, match="use 'ckks'"):
        lloyd_plan(SCHEMA, 10, 2, 1, "clear")
    for scheme in ("ckks", "paillier"):
        with pytest.raises(InsecureParameters):
            lloyd_plan(SCHEMA, 10, 2, 1, scheme, security_bits=100)
    with pytest.raises(InsecureParameters, match="over the standard's bound"):
        lloyd_plan(SCHEMA, 10, 2, 1, security_bits=192)
    assert lloyd_plan(SCHEMA, 10, 2, 1).parameters.security_bits == 128
    assert lloyd_plan(SCHEMA, 10, 2, 1, "paillier").parameters.security_bits == 128
    _, owner = parties("paillier")
    for public in (owner.public_bytes(), owner.public()):
        with pytest.raises(InsecureParameters):
            LloydTrainer(public)


def test_points_and_centres_stay_within_the_schema() -> None:
    _, owner = parties("paillier")
    with pytest.raises(OutOfRange, match="column 'b'"):
        owner.encrypt([[0.0, 31.0]])
    with pytest.raises(OutOfRange, match="column 'a'"):
        owner.start([[0.0, 1.0], [11.0, 1.0]])


@cache
def questions(scheme: str) -> dict[Kind, bytes]:
    """One question of each kind, as the trainer asks it."""
    planned, owner = parties(scheme)
    asked: dict[Kind, bytes] = {}

    def answer(frame: bytes) -> bytes:
        asked.setdefault(Kind(frame[5]), frame)
        return owner.answer(frame)

    X = points(planned.samples, planned.clusters)
    trainer = LloydTrainer(owner.public(), allow_insecure=True)
    trainer.fit(owner.encrypt(X), owner.start(X[: planned.clusters]), LocalLink(answer), 1)
    return asked


@pytest.mark.parametrize("kind", [Kind.ASSIGNMENT, Kind.CENTRES])
@pytest.mark.parametrize("scheme", ["ckks", "paillier"])
@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 2},
        {"features": 11},
        {"level": 1},
        {"log_scale": 1.0},
        {"body": b""},
        {"body": b"\0" * 200},
        {"other": 1},
    ],
)
def test_an_owner_answers_no_question_that_is_none(scheme: str, kind: Kind, changes: dict[str, Any]) -> None:
    frame = parse(questions(scheme)[kind], kind)
    if "other" in changes:
        kinds = {Kind.ASSIGNMENT: Kind.CENTRES, Kind.CENTRES: Kind.ASSIGNMENT}
        changes = {"kind": kinds[kind]}
    with pytest.raises(HepipeError):
        parties(scheme)[1].answer(dataclasses.replace(frame, **changes).to_bytes())


def test_an_owner_of_another_key_answers_nothing() -> None:
    other = PointsOwner(parties("paillier")[0])
    for frame in questions("paillier").values():
        with pytest.raises(KeyMismatch):
            other.answer(frame)


@pytest.mark.parametrize("change", ["shape", "kind"])
def test_a_trainer_takes_no_answer_that_is_none(change: str) -> None:
    planned, owner = parties("ckks")
    X = points(planned.samples, planned.clusters)

    def answer(frame: bytes) -> bytes:
        reply = parse(owner.answer(frame), Kind.TENSOR)
        changed: Frame = dataclasses.replace(reply, **({"kind": Kind.QUESTION} if change == "kind" else {}))
        return owner.pack(owner.encrypt(X)) if change == "shape" else changed.to_bytes()

    trainer = LloydTrainer(owner.public(), allow_insecure=True)
    with pytest.raises(MalformedFrame):
        trainer.fit(owner.encrypt(X), owner.start(X[:3]), LocalLink(answer), 1)
