"""Estimators: scikit-learn's own checks on every scheme, predictions as in the clear, keys that stay behind."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering, KMeans, MiniBatchKMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_clusterer_compute_labels_predict,
    check_dataframe_column_names_consistency,
    check_regressor_multioutput,
    estimator_checks_generator,
    parametrize_with_checks,
)

import hepipe
from hepipe.errors import OutOfRange, Unsupported, UnsupportedModel
from hepipe.models.binner import Binner
from hepipe.models.schema import Column, Schema
from hepipe.protocol.parties import Client
from hepipe.study import estimators
from hepipe.study.estimators import BATCH, EncryptedClassifier, EncryptedClusterer, EncryptedRegressor, Parties
from hepipe.study.plan import plan

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IRIS, SPECIES = load_iris(return_X_y=True, as_frame=True)
X, THREE = IRIS.to_numpy(), SPECIES.to_numpy()
TWO = np.where(THREE == 2, "virginica", "other")
DIABETES, PROGRESS = load_diabetes(return_X_y=True)
SCHEMES = ["clear", "paillier", "ckks"]


def fast(kind: Any, estimator: Any = None, **settings: Any) -> Any:
    """An estimator with the parameters of tests."""
    return kind(estimator, **{"scheme": "clear", "security_bits": 0, **settings})


def scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


@cache
def fitted(scheme: str, several: bool = False) -> Any:
    """A classifier after fit; nothing in the tests changes it but for its keys."""
    return fast(EncryptedClassifier, scheme=scheme, input_bound="training").fit(X, THREE if several else TWO)


def pickled(estimator: Any) -> Any:
    return pickle.loads(pickle.dumps(estimator))  # noqa: S301  our own bytes


# --- scikit-learn's checks --------------------------------------------------------------------------------------------


@parametrize_with_checks(
    [
        fast(EncryptedClassifier),
        fast(EncryptedClassifier, scaled(LogisticRegression())),
        fast(EncryptedClassifier, make_pipeline(SimpleImputer(), LogisticRegression())),
        fast(EncryptedClassifier, make_pipeline(Binner(7), DecisionTreeClassifier(max_depth=3, random_state=0))),
        fast(EncryptedRegressor),
        fast(EncryptedRegressor, Lasso(0.1)),
        fast(EncryptedRegressor, make_pipeline(Binner(7), DecisionTreeRegressor(max_depth=3, random_state=0))),
        fast(EncryptedClusterer, KMeans(3, random_state=0)),
        fast(EncryptedClusterer, make_pipeline(SimpleImputer(), StandardScaler(), KMeans(2, random_state=0))),
        fast(EncryptedClusterer, MiniBatchKMeans(3, random_state=0)),
    ]
)
def test_scikit_learn_s_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def encrypted_checks() -> list[Any]:
    """Every check, on ciphertexts. They compare to 1e-9, hence 30 bits, for which bounds of 2**16 leave no room."""
    cases = []
    for kind, scheme in [(EncryptedClassifier, "ckks"), (EncryptedRegressor, "ckks"), (EncryptedRegressor, "paillier")]:
        estimator = fast(kind, scheme=scheme, input_bound="training", precision_bits=30)
        for _, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            # Five outputs of some hundreds each have no room for 30 bits: below, with 20.
            if name != "check_regressor_multioutput":
                cases.append(pytest.param(estimator, check, id=f"{kind.__name__}, {scheme}, {name}"))
    return cases


@pytest.mark.parametrize(("estimator", "check"), encrypted_checks())
def test_scikit_learn_s_checks_pass_on_ciphertexts(estimator: Any, check: Any) -> None:
    check(clone(estimator))


def test_several_outputs_pass_on_ciphertexts() -> None:
    check_regressor_multioutput("EncryptedRegressor", fast(EncryptedRegressor, scheme="ckks", input_bound="training"))


def test_a_clusterer_passes_on_ciphertexts_where_names_matter() -> None:
    clusterer = fast(EncryptedClusterer, KMeans(2, random_state=0), scheme="ckks")
    check_clusterer_compute_labels_predict("EncryptedClusterer", clusterer)
    check_dataframe_column_names_consistency("EncryptedClusterer", clusterer)


def test_a_classifier_passes_on_paillier_where_names_matter() -> None:
    check_dataframe_column_names_consistency("EncryptedClassifier", fast(EncryptedClassifier, scheme="paillier"))


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True], ids=["two classes", "three"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_classifier_predicts_as_in_the_clear(scheme: str, several: bool) -> None:
    clf = fitted(scheme, several)
    inner, bound = clf.estimator_, clf.plan_.error_bound
    assert (clf.predict(X) == inner.predict(X)).all()
    assert clf.predict(X).dtype == inner.predict(X).dtype
    assert np.abs(clf.decision_function(X) - inner.decision_function(X)).max() <= bound + 1e-9
    probabilities = clf.predict_proba(X)
    assert np.abs(probabilities - inner.predict_proba(X)).max() <= bound + 1e-9
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert 0 < bound <= 2.0**-20 or scheme == "clear"


@pytest.mark.skipif(not hasattr(LogisticRegression(), "multi_class"), reason="scikit-learn 1.8 and later")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("settings", [{"multi_class": "ovr"}, {"solver": "liblinear"}], ids=str)
def test_probabilities_of_one_vs_rest_are_shares(settings: dict[str, str]) -> None:
    clf = fast(EncryptedClassifier, LogisticRegression(**settings)).fit(X, THREE)
    assert np.allclose(clf.predict_proba(X), clf.estimator_.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regressor_predicts_as_in_the_clear(scheme: str, outputs: int) -> None:
    target = np.column_stack([PROGRESS * (k + 1) for k in range(outputs)]) if outputs > 1 else PROGRESS
    reg = fast(EncryptedRegressor, Ridge(), scheme=scheme, input_bound="training").fit(DIABETES, target)
    expected = reg.estimator_.predict(DIABETES)
    assert reg.predict(DIABETES).shape == expected.shape
    assert np.abs(reg.predict(DIABETES) - expected).max() <= reg.plan_.error_bound + 1e-9


@pytest.mark.parametrize("scheme", ["clear", "ckks"])
def test_a_tree_predicts_as_in_the_clear_and_tells_no_scores(scheme: str) -> None:
    tree = make_pipeline(Binner(7), DecisionTreeClassifier(max_depth=3, random_state=0))
    clf = fast(EncryptedClassifier, tree, scheme=scheme).fit(IRIS, TWO)
    assert (clf.predict(IRIS) == clf.estimator_.predict(IRIS)).all()
    assert not hasattr(clf, "predict_proba")
    assert not hasattr(clf, "decision_function")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_clusterer_assigns_as_in_the_clear(scheme: str) -> None:
    km = fast(EncryptedClusterer, scaled(KMeans(3, n_init=2, random_state=0)), scheme=scheme)
    labels = km.fit_predict(IRIS)
    assert (labels == km.labels_).all()
    assert (km.labels_ == km.estimator_.predict(IRIS)).all()
    some = slice(0, 150, 50 if scheme == "paillier" else 1)
    clear = ~km.model_.near_a_tie(IRIS)[some]
    assert (km.predict(IRIS[some]) == labels[some])[clear].all()
    assert clear.mean() > 0.97
    assert km.model_.ties_within < 0.03
    assert not hasattr(km, "transform")
    assert get_tags(km).non_deterministic == (scheme == "ckks")


def test_a_clusterer_takes_the_range_of_its_training_rows_and_a_gap() -> None:
    km = fast(EncryptedClusterer, KMeans(2, random_state=0), gap_bits=4).fit(IRIS)
    assert np.array_equal(km.model_.profile.schema.high, fitted("clear").model_.profile.schema.high)
    assert km.model_.gap == 2.0**-4
    wide = fast(EncryptedClusterer, KMeans(2, random_state=0), input_bound=None).fit(IRIS)
    assert wide.model_.ties_within > 0.9
    with pytest.raises(UnsupportedModel, match="EncryptedClusterer takes a clusterer, not Ridge"):
        fast(EncryptedClusterer, Ridge()).fit(IRIS)
    with pytest.raises(UnsupportedModel, match="AgglomerativeClustering cannot be evaluated"):
        fast(EncryptedClusterer, AgglomerativeClustering(2)).fit(IRIS)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tree_on_constant_columns_predicts_the_commonest_label(scheme: str) -> None:
    tree = make_pipeline(Binner(7), DecisionTreeClassifier(max_depth=3))
    clf = fast(EncryptedClassifier, tree, scheme=scheme).fit(np.ones((5, 2)), ["a", "b", "b", "a", "b"])
    assert clf.predict(np.ones((3, 2))).tolist() == ["b", "b", "b"]


def test_what_the_inner_estimator_lacks_is_not_offered() -> None:
    assert hasattr(fast(EncryptedClassifier), "predict_proba")
    assert not hasattr(fast(EncryptedClassifier, SVC()), "predict_proba")
    assert not hasattr(fast(EncryptedRegressor), "decision_function")


def test_tags_say_what_differs_from_the_inner_estimator() -> None:
    tree = make_pipeline(Binner(7), DecisionTreeRegressor())
    assert get_tags(fast(EncryptedRegressor)).target_tags.multi_output
    assert not get_tags(fast(EncryptedRegressor, tree)).target_tags.multi_output
    assert not get_tags(fast(EncryptedClassifier, scheme="paillier")).non_deterministic
    assert get_tags(fast(EncryptedClassifier, scheme="ckks")).non_deterministic
    assert not get_tags(fast(EncryptedClassifier, scaled(LogisticRegression()))).input_tags.allow_nan


def test_missing_values_are_filled_by_the_client_where_an_imputer_comes_first() -> None:
    holes = IRIS.mask(np.random.default_rng(5).uniform(size=IRIS.shape) < 0.2)
    clf = fast(EncryptedClassifier, make_pipeline(SimpleImputer(), LogisticRegression()), input_bound="training")
    assert (clf.fit(holes, TWO).predict(holes) == clf.estimator_.predict(holes)).all()
    with pytest.raises(ValueError, match="contains NaN"):
        fast(EncryptedClassifier).fit(holes, TWO)


def test_fit_parameters_reach_the_inner_estimator() -> None:
    weights = np.random.default_rng(6).integers(0, 3, len(X))
    clf = fast(EncryptedClassifier).fit(X, TWO, sample_weight=weights)
    expected = LogisticRegression().fit(X, TWO, sample_weight=weights)
    assert np.array_equal(clf.estimator_.coef_, expected.coef_)
    assert not np.array_equal(clf.estimator_.coef_, LogisticRegression().fit(X, TWO).coef_)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_is_whole_ciphertexts_and_costs_what_was_planned(scheme: str) -> None:
    clf = fitted(scheme)
    slots = clf.plan_.parameters.slots
    batch = max(part.shape[0] for part in clf._parts(np.zeros((2_200_000, 1))))
    assert batch % slots == 0
    assert BATCH <= batch < BATCH + slots
    if scheme == "ckks":  # BATCH rows and a full ciphertext of them are as many bytes
        full = plan(clf.model_, scheme, batch, security_bits=0)
        assert (full.bytes_up, full.bytes_down) == (clf.plan_.bytes_up, clf.plan_.bytes_down)


def test_rows_of_all_batches_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    scores = Parties.scores
    monkeypatch.setattr(Parties, "scores", lambda self, rows: (sizes.append(len(rows)), scores(self, rows))[1])
    clf = fitted("paillier")
    assert (clf.predict(X) == clf.estimator_.predict(X)).all()
    assert len(sizes) > 1
    assert sum(sizes) == len(X)


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_training_bounds_are_powers_of_two_from_twice_to_four_times_the_largest_value() -> None:
    clf = fitted("clear")
    high, largest = clf.model_.profile.schema.high, np.abs(X).max(axis=0)
    assert np.array_equal(np.log2(high), np.round(np.log2(high)))
    assert (2 * largest <= high).all()
    assert (high < 4 * largest).all()
    assert np.array_equal(clf.model_.profile.schema.low, -high)


@pytest.mark.secure
@pytest.mark.parametrize("name", ["chd", "salary"])
@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_the_front_door_opens_without_any_setting(name: str, scheme: str) -> None:
    data = hepipe.load(name)
    holes = data.X.isna().to_numpy().any()
    known, target = data.X.fillna(data.X.median()) if holes else data.X, data.y
    if name == "chd":
        clf = hepipe.EncryptedClassifier(LogisticRegression(), scheme=scheme).fit(known, target)
    else:
        clf = hepipe.EncryptedRegressor(LinearRegression(), scheme=scheme).fit(known, target)
    rows = known[:8]
    assert clf.plan_.security_bits == 128
    assert clf.plan_.error_bound <= 2.0**-20 * (1 if name == "chd" else 2.0 ** np.ceil(np.log2(target.max())))
    assert np.abs(clf.predict(rows) - clf.estimator_.predict(rows)).max() <= clf.plan_.error_bound


@pytest.mark.parametrize("unit", [2.0**-12, 1.0, 2.0**12])
def test_a_regressor_is_as_precise_as_its_targets_are_large(unit: float) -> None:
    clear, encrypted = (fast(EncryptedRegressor, scheme=scheme).fit(X, X[:, 0] * unit) for scheme in ("clear", "ckks"))
    largest = 2.0 ** np.ceil(np.log2(max(X[:, 0].max() * unit, 1.0)))
    assert 2.0**-22 < encrypted.plan_.error_bound / largest <= 2.0**-20
    assert np.abs(encrypted.predict(X) - clear.predict(X)).max() <= encrypted.plan_.error_bound
    exact = fast(EncryptedRegressor, scheme="ckks", precision_bits=10).fit(X, X[:, 0] * unit)
    assert exact.plan_.error_bound <= 2.0**-10


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("row", [0, BATCH, 2 * BATCH + 3])
def test_a_row_beyond_the_training_range_is_named_in_whatever_batch_it_is(scheme: str, row: int) -> None:
    clf = fast(EncryptedClassifier, scheme=scheme).fit(IRIS, TWO)
    high = clf.model_.profile.schema.high
    rows = pd.DataFrame(X[np.arange(3 * BATCH) % len(X)], columns=IRIS.columns)
    rows.iloc[row, 2] = high[2]  # the end of the range belongs to it
    clf.predict(rows[row : row + 1])
    rows.iloc[row, 2] = high[2] + 1
    with pytest.raises(OutOfRange, match=rf"row {row}, column 'petal length \(cm\)': 17.* wider .* larger input_bound"):
        clf.predict(rows)
    wider = fast(EncryptedClassifier, scheme=scheme, input_bound=32).fit(IRIS, TWO)
    assert (wider.predict(rows[row : row + 1]) == wider.estimator_.predict(rows[row : row + 1])).all()


def test_a_row_beyond_the_bound_is_refused_by_name() -> None:
    clf = fast(EncryptedClassifier, input_bound=10).fit(IRIS, TWO)
    outlier = IRIS[:2].assign(**{"petal width (cm)": [1.0, 11.0]})
    with pytest.raises(OutOfRange, match=r"row 1, column 'petal width \(cm\)': 11\.0"):
        clf.predict(outlier)


def test_a_bound_of_none_is_two_to_the_sixteen_and_costs_ckks_its_precision() -> None:
    clf = fast(EncryptedClassifier, input_bound=None).fit(X, TWO)
    assert (clf.model_.profile.schema.high == 2.0**16).all()
    assert clf.predict(np.full((1, 4), 2.0**16)).shape == (1,)
    with pytest.raises(Unsupported, match="ask for fewer precision_bits, a narrower input_bound"):
        fast(EncryptedClassifier, scheme="ckks", input_bound=None).fit(X, TWO)


def test_a_schema_is_matched_by_name_and_narrowed_by_a_bound() -> None:
    schema = Schema(tuple(Column(name, 0, 10 + place) for place, name in enumerate(reversed(IRIS.columns))))
    clf = fast(EncryptedClassifier, schema=schema).fit(IRIS, TWO)
    assert clf.model_.profile.schema.high.tolist() == [13, 12, 11, 10]
    assert clf.plan_.profile is clf.model_.profile
    narrowed = fast(EncryptedClassifier, schema=schema, input_bound=9).fit(IRIS, TWO)
    assert narrowed.plan_.profile.schema.high.tolist() == [9, 9, 9, 9]
    assert (narrowed.predict(IRIS) == narrowed.estimator_.predict(IRIS)).all()


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (fast(EncryptedClassifier, Ridge()), "EncryptedClassifier takes a classifier, not Ridge"),
        (
            fast(EncryptedRegressor, LogisticRegression()),
            "EncryptedRegressor takes a regressor, not LogisticRegression",
        ),
        (fast(EncryptedClassifier, SVC()), "SVC cannot be evaluated on encrypted data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_evaluated_is_refused_at_fit(estimator: Any, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        estimator.fit(X, THREE)


@pytest.mark.parametrize("kind", [EncryptedClassifier, EncryptedRegressor])
def test_an_estimator_must_be_fitted(kind: Any) -> None:
    with pytest.raises(NotFittedError):
        fast(kind).predict(X)


def test_the_policy_is_planned_and_reaches_the_server() -> None:
    clf = fast(EncryptedClassifier, policy="client").fit(X, TWO)
    assert clf.plan_.policy == "client"
    assert clf.parties_.server._policy == "client"
    with pytest.raises(Unsupported, match="no policy named 'trust'"):
        fast(EncryptedClassifier, policy="trust").fit(X, TWO)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_made_at_the_first_prediction_and_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(estimators, "Client", lambda planned: made.append(planned) or Client(planned))
    clf = fast(EncryptedClassifier, scheme="paillier", input_bound=8).fit(X, TWO)
    assert made == []
    clf.predict(X[:3])
    clf.decision_function(X[:3])
    assert made == [clf.plan_]
    assert clf.parties_.client.public().key_id == clf.parties_.server._bundle.key_id


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_a_copy_predicts_alike_under_keys_of_its_own(scheme: str, copied: Any) -> None:
    clf = fitted(scheme)
    key_id = clf.parties_.client.public().key_id
    other = copied(clf)
    assert vars(other.parties_)["_pair"] is None
    assert (other.predict(X[:5]) == clf.predict(X[:5])).all()
    assert other.parties_.client.public().key_id != key_id
    assert clf.parties_.client.public().key_id == key_id


def test_a_pickle_holds_no_factor_of_the_modulus() -> None:
    clf = fitted("paillier")
    frozen = pickle.dumps(clf)
    modulus = int(clf.parties_.client.public().public.n)
    prime = int(clf.parties_.client._keys.secret.p)
    assert modulus % prime == 0
    for number in (prime, modulus // prime, modulus):
        for order in ("little", "big"):
            assert number.to_bytes((number.bit_length() + 7) // 8, order) not in frozen


def test_a_clone_is_unfitted() -> None:
    assert not hasattr(clone(fitted("clear")), "parties_")


# --- scikit-learn's tools --------------------------------------------------------------------------------------------


def test_it_is_searched_and_cross_validated_like_its_inner_estimator() -> None:
    clf = fast(EncryptedClassifier, LogisticRegression(), scheme="ckks", input_bound=8)
    search = GridSearchCV(clf, {"estimator__C": [1e-3, 1.0]}, cv=3)
    search.fit(X, THREE)
    plain = GridSearchCV(LogisticRegression(), {"C": [1e-3, 1.0]}, cv=3).fit(X, THREE)
    assert search.best_params_ == {"estimator__C": plain.best_params_["C"]}
    assert np.array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    scores = cross_val_score(fast(EncryptedClassifier, scaled(LogisticRegression())), X, TWO, scoring="roc_auc", cv=3)
    assert np.allclose(scores, cross_val_score(scaled(LogisticRegression()), X, TWO, scoring="roc_auc", cv=3))


def test_it_ends_a_pipeline_that_sets_its_output() -> None:
    inner = fast(EncryptedRegressor, LinearRegression(), input_bound="training")
    pipeline = make_pipeline(StandardScaler(), inner).set_output(transform="pandas").fit(IRIS, X[:, 0])
    assert list(pipeline[-1].feature_names_in_) == list(IRIS.columns)
    assert np.allclose(pipeline.predict(IRIS), X[:, 0], atol=1e-9)
    assert pipeline[-1].model_.profile.schema.names == tuple(IRIS.columns)


def test_columns_in_another_order_are_refused() -> None:
    clf = fast(EncryptedClassifier).fit(IRIS, TWO)
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(IRIS[IRIS.columns[::-1]])


@pytest.mark.parametrize("name", ["EncryptedClassifier", "EncryptedClusterer", "EncryptedRegressor"])
def test_the_package_offers_it(name: str) -> None:
    assert getattr(hepipe, name) is getattr(estimators, name)


# --- progress --------------------------------------------------------------------------------------------------------


class Recorder:
    """A callback of scikit-learn that writes down what it is told."""

    max_propagation_depth = None

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self.told.append(("setup", context.estimator_name, context.task_name))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.told.append(("begin", context.estimator_name, context.task_name))

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        self.told.append(("end", context.estimator_name, context.task_name))

    def teardown(self, estimator: Any, context: Any) -> None:
        self.told.append(("teardown", context.estimator_name, context.task_name))


def test_callbacks_see_the_training_inside_and_leave_predictions_alone() -> None:
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    clf = fast(EncryptedClassifier).set_callbacks(recorder).fit(X, TWO)
    outer, inner = ("EncryptedClassifier", "fit"), ("LogisticRegression", "fit")
    assert recorder.told[:3] == [("setup", *outer), ("begin", *outer), ("begin", *inner)]
    assert recorder.told[-3:] == [("end", *inner), ("end", *outer), ("teardown", *outer)]
    told = list(recorder.told)
    clf.predict(X)
    assert recorder.told == told


@pytest.mark.filterwarnings("error")
def test_an_inner_estimator_without_callbacks_is_one_step() -> None:
    pytest.importorskip("sklearn.callback")
    recorder = Recorder()
    fast(EncryptedRegressor, Ridge()).set_callbacks(recorder).fit(X, X[:, 0])
    assert ("end", "EncryptedRegressor", "train in the clear") in recorder.told


def test_a_progress_bar_follows_the_batches_of_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    callback = pytest.importorskip("sklearn.callback")
    told: list[tuple[int, int]] = []

    class Bar(callback.ProgressBar):  # type: ignore[misc,name-defined]
        def on_fit_task_end(self, estimator: Any, context: Any) -> None:
            told.append((context.task_id, context.max_subtasks))
            super().on_fit_task_end(estimator, context)

    clf = fast(EncryptedClassifier, scheme="paillier", input_bound=8).fit(X, TWO)
    parts = len(clf._parts(X))
    before = set(vars(clf))
    clf.set_callbacks(Bar()).predict(X)
    assert told == [*((place, 0) for place in range(parts)), (0, parts)]
    assert "EncryptedClassifier - predict" in capsys.readouterr().out
    assert set(vars(clf)) - before == {"_skl_callbacks"}


def test_a_progress_bar_is_taken_down_when_a_prediction_fails() -> None:
    callback = pytest.importorskip("sklearn.callback")
    bar = callback.ProgressBar()
    clf = fast(EncryptedClassifier, input_bound=8).fit(X, TWO).set_callbacks(bar)
    with pytest.raises(OutOfRange):
        clf.predict(X * 100)
    assert bar._listener_handles == {}
