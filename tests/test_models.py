"""Models from scikit-learn: their predictions in the clear, their schemas, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge, RidgeCV, SGDClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from hepipe.errors import HepipeError, OutOfRange, ShapeMismatch, UnsupportedModel
from hepipe.models.importers import from_sklearn
from hepipe.models.linear import LinearModel, linear_regression, logit_model
from hepipe.models.logistic import clear_scores, with_sigmoid
from hepipe.models.profile import ClassificationProfile, Profile
from hepipe.models.schema import Column, Schema

RNG = np.random.default_rng(11)
NAMES = ["age", "income", "pulse"]
FRAME = pd.DataFrame(
    {"age": RNG.uniform(20, 80, 200), "income": RNG.uniform(0, 5e4, 200), "pulse": RNG.uniform(40, 120, 200)}
)
TARGET = 0.5 * FRAME["age"] - 1e-3 * FRAME["income"] + 0.1 * FRAME["pulse"] + RNG.normal(0, 1, 200)
BINARY = np.where(TARGET.median() < TARGET, "yes", "no")
THREE = pd.qcut(TARGET, 3, labels=[10, 20, 30]).astype(int)
SCHEMA = Schema((Column("pulse", 30, 130), Column("age", 0, 120), Column("income", 0, 1e5), Column("unused", 0, 1)))


def predicted(model: Any, X: Any) -> np.ndarray:
    """The model's prediction: prepare, forward in the clear, head."""
    return np.asarray(model.head(clear_scores(model, X)))


SCALERS = [StandardScaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler()]


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), Ridge(), RidgeCV(), Lasso(), ElasticNet(), LinearRegression(fit_intercept=False)],
    ids=repr,
)
@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["without a schema", "with one"])
def test_every_regressor_predicts_as_sklearn_does(estimator: BaseEstimator, schema: Schema | None) -> None:
    fitted: Any = estimator.fit(FRAME, TARGET)
    model = from_sklearn(fitted, schema)
    assert np.allclose(predicted(model, FRAME), fitted.predict(FRAME), rtol=1e-9, atol=1e-7)
    assert model.profile.kind == "regression"


def test_several_outputs_predict_as_sklearn_does() -> None:
    both = np.column_stack([TARGET, -2 * TARGET])
    fitted = LinearRegression().fit(FRAME, both)
    assert np.allclose(predicted(from_sklearn(fitted), FRAME), fitted.predict(FRAME), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("scaler", SCALERS, ids=repr)
@pytest.mark.parametrize("target", [BINARY, THREE], ids=["binary", "three classes"])
def test_every_classifier_predicts_as_sklearn_does(scaler: BaseEstimator, target: Any) -> None:
    fitted = make_pipeline(scaler, LogisticRegression(max_iter=1000)).fit(FRAME, target)
    for schema in (None, SCHEMA):
        assert (predicted(from_sklearn(fitted, schema), FRAME) == fitted.predict(FRAME)).all()


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_a_pipeline_of_an_imputer_and_all_scalers_predicts_as_sklearn_does(strategy: str) -> None:
    holes = FRAME.mask(RNG.uniform(size=FRAME.shape) < 0.2)
    pipeline = make_pipeline(SimpleImputer(strategy=strategy), *SCALERS, "passthrough", Ridge()).fit(holes, TARGET)
    model = from_sklearn(pipeline, SCHEMA)
    assert np.allclose(predicted(model, holes), pipeline.predict(holes), rtol=1e-7, atol=1e-6)
    assert model.profile.fill is not None


def test_scores_of_a_binary_model_are_sklearn_s_decision_function() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, BINARY)
    assert np.allclose(clear_scores(from_sklearn(fitted), FRAME)[:, 0], fitted.decision_function(FRAME), atol=1e-8)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (AgglomerativeClustering(), "AgglomerativeClustering cannot be evaluated on encrypted data here"),
        (DecisionTreeClassifier(), "put hepipe's Binner right before it"),
        (SVC(), "use a linear or logistic regression"),
        (SGDClassifier(), "SGDClassifier"),
        (
            make_pipeline(StandardScaler(), PolynomialFeatures(), LogisticRegression()),
            "use them before a linear regression",
        ),
        (make_pipeline(PCA(2), LogisticRegression()), "PCA cannot be folded"),
        (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), "MinMaxScaler"),
        (make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression()), "SimpleImputer cannot be folded"),
        (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()), "SimpleImputer cannot be folded"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_encrypted_is_refused_by_name(estimator: Any, message: str) -> None:
    fitted = estimator.fit(FRAME, BINARY)
    with pytest.raises(UnsupportedModel, match=message):
        from_sklearn(fitted)


def test_an_estimator_must_be_fitted() -> None:
    for estimator in (LinearRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(NotFittedError):
            from_sklearn(estimator)


# --- schemas ---------------------------------------------------------------------------------------------------------


def test_columns_are_matched_by_name_whatever_their_order() -> None:
    fitted = LinearRegression().fit(FRAME, TARGET)
    model = from_sklearn(fitted, SCHEMA)
    assert model.profile.schema.names == tuple(NAMES)
    shuffled = FRAME[["pulse", "income", "age"]].assign(extra=1.0)
    assert (predicted(model, shuffled) == predicted(model, FRAME)).all()


def test_without_names_columns_are_matched_by_position() -> None:
    fitted = LinearRegression().fit(FRAME.to_numpy(), TARGET)
    schema = Schema(tuple(Column(name, 0, 1e5) for name in NAMES))
    assert from_sklearn(fitted, schema).profile.schema is not schema
    assert from_sklearn(fitted, schema).profile.schema.names == tuple(NAMES)
    assert from_sklearn(fitted).profile.schema.names == ("x0", "x1", "x2")
    with pytest.raises(UnsupportedModel, match="takes 3 columns, the schema has 4"):
        from_sklearn(fitted, SCHEMA)


def test_a_schema_without_a_column_of_the_estimator_is_refused() -> None:
    fitted = LinearRegression().fit(FRAME.rename(columns={"age": "years"}), TARGET)
    with pytest.raises(UnsupportedModel, match=r"the schema has no column \['years'\]"):
        from_sklearn(fitted, SCHEMA)


def test_a_missing_column_is_named() -> None:
    model = from_sklearn(LinearRegression().fit(FRAME, TARGET), SCHEMA)
    with pytest.raises(ShapeMismatch, match=r"missing column\(s\) \['income'\]: the model takes"):
        model.prepare(FRAME.drop(columns="income"))


@pytest.mark.parametrize("value", [1e5 + 1, -0.5, np.inf, np.nan])
def test_a_value_outside_its_range_is_named_by_row_and_column(value: float) -> None:
    model = from_sklearn(LinearRegression().fit(FRAME, TARGET), SCHEMA)
    bad = FRAME.copy()
    bad.loc[7, "income"] = value
    with pytest.raises(OutOfRange, match=r"row 7, column 'income': .* is not in \[0, 100000.0\]; 1 such value"):
        model.prepare(bad)


def test_without_an_imputer_a_missing_value_is_refused_and_with_one_it_is_filled() -> None:
    bad = FRAME.copy()
    bad.loc[3, "age"] = np.nan
    with pytest.raises(OutOfRange, match="row 3, column 'age': nan"):
        from_sklearn(LinearRegression().fit(FRAME, TARGET), SCHEMA).prepare(bad)
    fitted = make_pipeline(SimpleImputer(), LinearRegression()).fit(FRAME, TARGET)
    filled = from_sklearn(fitted, SCHEMA).prepare(bad)
    assert filled[3, 0] == pytest.approx((FRAME["age"].mean() - 60) / 60)


def test_nullable_integers_and_booleans_are_read_and_missing_ones_found() -> None:
    schema = Schema((Column("n", 0, 9), Column("b", -1, 2)))
    frame = pd.DataFrame({"n": pd.array([1, None], "Int64"), "b": pd.array([True, False], "boolean")})
    found = schema.to_array(frame)
    assert found[0].tolist() == [1.0, 1.0]
    assert np.isnan(found[1, 0])


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"age": ["old", "young"], "income": [1.0, 2.0], "pulse": [60, 61]}),
        pd.DataFrame({"age": [1j, 2j], "income": [1.0, 2.0], "pulse": [60, 61]}),
        pd.DataFrame({"age": pd.to_datetime(["2024-01-01", "2024-01-02"]), "income": [1.0, 2.0], "pulse": [60, 61]}),
    ],
    ids=["text", "complex", "dates"],
)
def test_a_column_that_is_not_numeric_is_named(data: pd.DataFrame) -> None:
    model = from_sklearn(LinearRegression().fit(FRAME, TARGET), SCHEMA)
    with pytest.raises(ShapeMismatch, match=r"column\(s\) \['age'\] are not numeric"):
        model.prepare(data)


@pytest.mark.parametrize(
    "data", [np.array([["1", "2", "3"]]), np.ones((2, 4)), np.ones((2, 2, 3)), np.ones((1, 3), complex)]
)
def test_arrays_of_another_kind_or_shape_are_refused(data: np.ndarray) -> None:
    model = from_sklearn(LinearRegression().fit(FRAME, TARGET), SCHEMA)
    with pytest.raises(ShapeMismatch, match=r"not numeric|the model takes"):
        model.prepare(data)


def test_one_row_may_be_flat() -> None:
    model = from_sklearn(LinearRegression().fit(FRAME, TARGET), SCHEMA)
    assert (model.prepare([50.0, 100.0, 60.0]) == model.prepare([[50.0, 100.0, 60.0]])).all()


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (np.nan, 1), (0, np.inf)])
def test_a_range_that_is_no_interval_is_refused(low: float, high: float) -> None:
    with pytest.raises(OutOfRange, match="column 'a': the range"):
        Column("a", low, high)


def test_prepared_inputs_fill_exactly_the_unit_interval() -> None:
    profile = Profile.of("regression", SCHEMA, 1)
    ends = profile.prepare(np.stack([SCHEMA.low, SCHEMA.high]))
    assert ends.tolist() == [[-1.0] * 4, [1.0] * 4]
    assert (profile.input_bound == 1).all()
    narrow = profile.narrowed(1.0)
    assert (narrow.schema.high == 1).all()
    assert (np.abs(narrow.prepare([[1.0, -1.0, 0.5, 1.0]])) <= narrow.input_bound).all()


def test_a_profile_tells_nothing_of_the_training_data() -> None:
    profiles = [
        from_sklearn(make_pipeline(StandardScaler(), LinearRegression()).fit(FRAME[rows], TARGET[rows]), SCHEMA).profile
        for rows in (slice(0, 100), slice(100, 200))
    ]
    assert profiles[0].schema == profiles[1].schema
    assert (profiles[0].centre == profiles[1].centre).all()
    assert (profiles[0].half == profiles[1].half).all()


# --- the sigmoid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_the_polynomial_probability_is_near_sklearn_s(degree: int) -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(FRAME, BINARY)
    model = with_sigmoid(from_sklearn(fitted, SCHEMA), FRAME, degree)
    exact = fitted.predict_proba(FRAME)[:, 1:]
    assert np.allclose(model.exact(FRAME), exact, atol=1e-9)
    assert np.abs(clear_scores(model, FRAME) - exact).max() <= model.sigmoid.max_error + 1e-9
    assert model.name == f"logistic regression, sigmoid of degree {degree}"
    sure = np.abs(exact[:, 0] - 0.5) > model.sigmoid.max_error
    assert (predicted(model, FRAME)[sure] == fitted.predict(FRAME)[sure]).all()


def test_a_sigmoid_is_for_binary_classifiers() -> None:
    three = from_sklearn(make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, THREE))
    for model in (three, from_sklearn(LinearRegression().fit(FRAME, TARGET))):
        with pytest.raises(UnsupportedModel, match="binary logistic regression"):
            with_sigmoid(model, FRAME)


def test_a_probability_beyond_the_domain_is_refused_by_the_client() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, BINARY)
    model = with_sigmoid(from_sklearn(fitted, SCHEMA), FRAME, 3)
    far = pd.DataFrame({"age": [120.0], "income": [0.0], "pulse": [130.0]})
    with pytest.raises(OutOfRange, match=r"row 0: a probability of .* beyond the polynomial's domain"):
        predicted(model, far)


def test_labels_keep_their_type_and_ties_go_to_the_first_class() -> None:
    profile = ClassificationProfile.of("classification", SCHEMA, 1, classes=("no", "yes"))
    assert profile.head(np.array([[0.0], [1e-9], [-1.0]])).tolist() == ["no", "yes", "no"]
    with pytest.raises(OutOfRange):
        profile.head(np.array([[np.nan]]))


def test_models_are_made_from_coefficients_too() -> None:
    regression = linear_regression([0.5, -1e-3, 0.1], 2.0, Schema(tuple(SCHEMA.columns[i] for i in (1, 2, 0))))
    assert np.allclose(predicted(regression, FRAME), FRAME.to_numpy() @ [0.5, -1e-3, 0.1] + 2.0)
    logits = logit_model([[1.0, 0, 0]], -50.0, ("young", "old"), Schema(tuple(SCHEMA.columns[i] for i in (1, 2, 0))))
    assert (predicted(logits, FRAME) == np.where(FRAME["age"] > 50, "old", "young")).all()
    assert isinstance(logits, LinearModel)
    assert issubclass(UnsupportedModel, HepipeError)


def test_networks_and_polynomials_come_from_pipelines_too() -> None:
    X = np.random.default_rng(0).uniform(-1, 1, (80, 2))
    y = X[:, 0] ** 2 - X[:, 1]
    schema = Schema.unknown(2, 1.0)
    cubic = make_pipeline(StandardScaler(), PolynomialFeatures(3), Ridge(1e-3)).fit(X, y)
    for powers in ("client", "server"):
        model = from_sklearn(cubic, schema, powers=powers)
        assert np.abs(clear_scores(model, X)[:, 0] - cubic.predict(X)).max() < 1e-9
    network = make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), activation="tanh", max_iter=20, random_state=0)
    ).fit(X, y)
    model = from_sklearn(network, schema, X_train=X, degree=7)
    assert np.abs(clear_scores(model, X, "client")[:, 0] - network.predict(X)).max() < 1e-9
    with pytest.raises(UnsupportedModel, match="before a linear regression"):
        from_sklearn(make_pipeline(PolynomialFeatures(2), LogisticRegression()).fit(X, y > 0), schema)
