"""k-means from scikit-learn: folded scalers, agreement on every scheme, ties, prices, and what is published."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import AgglomerativeClustering, KMeans, MiniBatchKMeans
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

import hepipe
from hepipe.circuits import sign
from hepipe.errors import OutOfRange, UnsupportedModel
from hepipe.models.importers import from_sklearn, kmeans_from_sklearn
from hepipe.models.kmeans import KMeansModel
from hepipe.models.logistic import clear_scores
from hepipe.models.schema import Column, Schema
from hepipe.protocol.parties import Client, Server
from hepipe.study.compare import compare
from hepipe.study.plan import plan

RNG = np.random.default_rng(8)
SCHEMA = Schema((Column("age", 20, 80), Column("pulse", 40, 140), Column("dose", -1, 1)))
CENTRES = np.array([[30, 60, -0.5], [50, 90, 0.2], [70, 70, 0.8], [40, 120, 0.0]])


def rows(count: int) -> np.ndarray:
    spread = RNG.normal(0, [6, 10, 0.2], (count, 3))
    return (CENTRES[RNG.integers(0, 4, count)] + spread).clip(SCHEMA.low, SCHEMA.high)


TRAIN, FRESH = rows(400), rows(200)


@cache
def fitted(count: int = 3) -> Any:
    return make_pipeline(StandardScaler(), KMeans(count, n_init=2, random_state=0)).fit(TRAIN)


def model_of(pipeline: Any, **more: Any) -> KMeansModel:
    model = from_sklearn(pipeline, SCHEMA, **more)
    assert isinstance(model, KMeansModel)
    return model


def predicted(model: KMeansModel, X: Any, scheme: str) -> np.ndarray:
    """The labels under a scheme with insecure test parameters, through frames; costs are compared with the plan's."""
    made = plan(model, scheme, len(X), security_bits=0)
    client = Client(made)
    server = Server(model, client.public_bytes(), allow_insecure=True)
    x, link = client.pack(client.encrypt(X)), client.link()
    y = server.pack(server.evaluate(server.unpack(x), link))
    assert link.transcript.rounds == made.rounds
    assert len(x) + link.transcript.bytes_up == made.bytes_up
    assert len(y) + link.transcript.bytes_down == made.bytes_down
    return np.asarray(client.head(client.decrypt(client.unpack(y))))


# --- agreement --------------------------------------------------------------------------------------------------------

PIPELINES = [
    lambda: KMeans(3, n_init=2, random_state=0),
    lambda: MiniBatchKMeans(4, random_state=0),
    lambda: make_pipeline(StandardScaler(), KMeans(2, n_init=2, random_state=0)),
    lambda: make_pipeline(MinMaxScaler((-2, 3)), KMeans(4, n_init=2, random_state=0)),
    lambda: make_pipeline(MaxAbsScaler(), RobustScaler(), KMeans(3, n_init=2, random_state=0)),
]


@pytest.mark.parametrize("make", PIPELINES)
@pytest.mark.parametrize("selects", [False, True], ids=["levelled", "selecting"])
def test_labels_agree_away_from_ties(make: Any, selects: bool) -> None:
    pipeline = make().fit(TRAIN)
    model, both = model_of(pipeline), np.concatenate([TRAIN, FRESH])
    agree = model.head(clear_scores(model, both, selects=selects)) == pipeline.predict(both)
    assert agree[~model.near_a_tie(both)].all()
    assert model.near_a_tie(both).mean() < 0.02
    if selects:  # without polynomials, ties are right too
        assert agree.all()
    assert (model.exact(both)[:, 0] == pipeline.predict(both)).all()


@pytest.mark.parametrize("count", [2, 3])
def test_labels_agree_on_paillier(count: int) -> None:
    assert (predicted(model_of(fitted(count)), FRESH[:3], "paillier") == fitted(count).predict(FRESH[:3])).all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_labels_agree_on_ckks_away_from_ties(count: int) -> None:
    model = model_of(fitted(count))
    found, clear = predicted(model, FRESH, "ckks"), ~model.near_a_tie(FRESH)
    assert (found == fitted(count).predict(FRESH))[clear].all()
    assert clear.mean() > 0.97


@pytest.mark.parametrize("scheme", ["clear", "paillier", "ckks"])
def test_distances_give_the_labels_too(scheme: str) -> None:
    model = model_of(fitted(), reveal="distances")
    made = plan(model, scheme, 5, security_bits=0)
    assert (made.levels, made.rounds) == (1, 0)
    assert (predicted(model, FRESH[:5], scheme) == fitted().predict(FRESH[:5])).all()


def test_distances_are_squared_distances_less_what_all_share() -> None:
    model, pipeline = model_of(fitted(), reveal="distances"), fitted()
    scores, scaled = clear_scores(model, FRESH), pipeline[:-1].transform(FRESH)
    assert np.abs(scores + (scaled**2).sum(axis=1)[:, None] - pipeline.transform(FRESH) ** 2).max() < 1e-9
    assert np.abs(model.exact(FRESH) - scores).max() < 1e-12


def test_missing_values_and_names_come_from_the_pipeline() -> None:
    frame = pd.DataFrame(TRAIN, columns=list(SCHEMA.names)).mask(RNG.uniform(size=TRAIN.shape) < 0.1)
    kmeans = KMeans(3, n_init=2, random_state=0)
    pipeline = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), kmeans).fit(frame)
    model = model_of(pipeline, X_train=frame)
    shuffled = frame[["dose", "age", "pulse"]]
    assert (model.head(clear_scores(model, shuffled, selects=True)) == pipeline.predict(frame)).all()
    with pytest.raises(OutOfRange, match=r"row 0, column 'age': 81"):
        model.prepare(frame.assign(age=81.0))


def test_an_exact_tie_goes_to_the_lower_cluster_on_paillier() -> None:
    line = np.array([[-0.5], [0.5]])
    kmeans = KMeans(2, init=line, n_init=1).fit(line)
    model = kmeans_from_sklearn(kmeans, Schema((Column("x", -1, 1),)))
    assert kmeans.labels_.tolist() == [0, 1]
    assert predicted(model, [[0.0], [0.01], [-0.01]], "paillier").tolist() == [0, 1, 0]


# --- the gap ----------------------------------------------------------------------------------------------------------


def test_a_model_says_how_many_training_rows_lie_within_the_gap() -> None:
    shares = [model_of(fitted(), X_train=TRAIN, gap_bits=bits).ties_within for bits in (2, 5, 10)]
    assert shares[0] > shares[1] > shares[2]
    assert shares[1] == np.mean(model_of(fitted(), gap_bits=5).near_a_tie(TRAIN))
    assert model_of(fitted()).ties_within is None


def test_the_gap_s_unit_is_the_largest_difference_that_the_schema_allows() -> None:
    model, corners = model_of(fitted()), np.array(np.meshgrid(*zip(SCHEMA.low, SCHEMA.high, strict=True)))
    scores = model.prepare(corners.reshape(3, -1).T) @ model.weights + model.intercept
    largest = max(np.ptp(row) for row in scores)
    assert 0.5 < largest + model.gap < 1  # the largest slope and the intercept of a pair may not share a corner
    narrow = kmeans_from_sklearn(fitted()[-1], Schema.unknown(3, 4.0))
    wide = kmeans_from_sklearn(fitted()[-1], Schema.unknown(3, 400.0))
    scaled = fitted()[:-1].transform(TRAIN)
    assert narrow.near_a_tie(scaled).mean() < 0.02 < wide.near_a_tie(scaled).mean()


def test_a_finer_gap_costs_bits_of_each_comparison_or_levels() -> None:
    coarse, fine = (model_of(fitted(), gap_bits=bits) for bits in (6, 12))
    tests = [plan(model, "paillier", 1, security_bits=0).operations["blind"] for model in (coarse, fine)]
    assert 30 <= tests[1] - tests[0] <= 42  # three pairs, about two bits a bit of gap: one of inputs, one of weights
    levels = [plan(model, "ckks", 1, security_bits=0).levels for model in (coarse, fine)]
    assert levels[1] - levels[0] == sign.price(12, 5) - sign.price(6, 5) > 0


# --- what a plan says, and the measurements ---------------------------------------------------------------------------


def test_a_plan_knows_rounds_levels_and_what_is_revealed() -> None:
    model = model_of(fitted())
    planned = plan(model, "paillier", 2, security_bits=0)
    assert (planned.rounds, planned.levels, planned.parameters.lanes) == (2, 1, 1)
    assert planned.error_bound <= 2.0**-3
    assert planned.reveals == "cluster index"
    levelled = plan(model, "ckks", 2, security_bits=0)
    assert (levelled.rounds, levelled.levels) == (0, 1 + sign.price(10, 5) + 1)
    assert levelled.reveals == "cluster index; how near a tie a row is"
    assert "the centroids after d + 1 queries" in plan(model_of(fitted(), reveal="distances"), security_bits=0).reveals


def test_a_plan_foretells_the_randomness_of_both_parties_to_the_ciphertext() -> None:
    model = model_of(fitted(), gap_bits=4)
    made = plan(model, "paillier", 1, security_bits=0)
    client = Client(made)
    server = Server(model, client.public_bytes(), allow_insecure=True)
    client.fill(made.operations["encrypt"] + 1)
    server.fill(made.operations["rerandomize"] + made.operations["mask"] + 1)
    client.predict(server, FRESH[:1])
    assert len(client._encryptor.pool) == len(server._evaluator.pool) == 1


def test_a_comparison_of_schemes_finds_paillier_equal_to_its_integers() -> None:
    model = model_of(fitted())
    result = compare(model, FRESH[:2], fitted().predict(FRESH[:2]), repeats=1, security_bits=0, progress="off")
    by_scheme = {m.scheme: m for m in result.measurements}
    assert by_scheme["paillier"].errors.exact_integers
    assert (by_scheme["paillier"].errors.scheme_error, by_scheme["paillier"].errors.approximation_error) == (0, 0)
    assert [m.metric_encrypted for m in result.measurements] == [1.0] * 3
    assert 0 < by_scheme["ckks"].errors.approximation_error < 0.27


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_no_clustering_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="one cluster"):
        model_of(KMeans(1, n_init=1).fit(TRAIN))
    twice = KMeans(2, n_init=1).fit(TRAIN)
    twice.cluster_centers_ = np.repeat(twice.cluster_centers_[:1], 2, axis=0)
    with pytest.raises(UnsupportedModel, match="two centroids coincide"):
        model_of(twice)
    with pytest.raises(UnsupportedModel, match="use one of"):
        model_of(fitted(), reveal="all")
    with pytest.raises(UnsupportedModel, match="gap_bits=0"):
        model_of(fitted(), gap_bits=0)
    with pytest.raises(UnsupportedModel, match="AgglomerativeClustering cannot be evaluated"):
        from_sklearn(AgglomerativeClustering(2).fit(TRAIN))
    with pytest.raises(NotFittedError):
        kmeans_from_sklearn(KMeans(2), SCHEMA)


def test_a_single_cluster_still_has_a_distance() -> None:
    model = model_of(KMeans(1, n_init=1).fit(TRAIN), reveal="distances")
    assert model.head(clear_scores(model, FRESH[:3])).tolist() == [0, 0, 0]


# --- real data --------------------------------------------------------------------------------------------------------


@cache
def real(name: str, count: int) -> tuple[Any, KMeansModel, pd.DataFrame]:
    data = hepipe.load(name)
    steps = make_pipeline(SimpleImputer(), StandardScaler(), KMeans(count, n_init=3, random_state=0))
    X = data.X.select_dtypes("number")
    schema = Schema(tuple(c for c in data.schema.columns if c.name in X.columns))
    pipeline = steps.fit(X)
    return pipeline, model_of_schema(pipeline, schema, X), X


def model_of_schema(pipeline: Any, schema: Schema, X: pd.DataFrame) -> KMeansModel:
    model = from_sklearn(pipeline, schema, X_train=X)
    assert isinstance(model, KMeansModel)
    return model


@pytest.mark.parametrize("name", ["chd", "salary"])
def test_real_rows_get_scikit_learn_s_cluster_on_paillier(name: str) -> None:
    pipeline, model, X = real(name, 3)
    few = X.iloc[:2]
    assert (predicted(model, few, "paillier") == pipeline.predict(few)).all()
    assert (model.head(clear_scores(model, X, selects=True)) == pipeline.predict(X)).all()


@pytest.mark.parametrize("name", ["chd", "salary"])
def test_real_rows_get_scikit_learn_s_cluster_on_ckks_away_from_ties(name: str) -> None:
    pipeline, model, X = real(name, 3)
    many = X.iloc[:500]
    clear = ~model.near_a_tie(many)
    assert (predicted(model, many, "ckks") == pipeline.predict(many))[clear].all()
    assert clear.mean() > 0.97
    assert model.ties_within is not None
    assert model.ties_within < 0.03


@pytest.mark.secure
@pytest.mark.slow
def test_a_secure_query_on_chd() -> None:
    pipeline, model, X = real("chd", 2)
    made = plan(model, "paillier", 1)
    client = Client(made)
    server = Server(model, client.public_bytes())
    assert (client.predict(server, X.iloc[:1]) == pipeline.predict(X.iloc[:1])).all()
    assert made.security_bits == 128
