"""EncryptedTrainer: a scikit-learn classifier that learns on ciphertexts, serves, and goes on where it was cut off."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import hepipe
from hepipe.errors import DataError, KeyMismatch, OutOfRange, Unsupported, UnsupportedModel
from hepipe.models.logistic import clear_scores
from hepipe.schemes.secret import SecretKey
from hepipe.study.progress import BATCH_VARIABLE
from hepipe.study.trainer import EncryptedTrainer
from hepipe.training.parties import Trainer
from hepipe.training.rehearsal import trajectory
from hepipe.training.whitening import Whitening

PASSPHRASE = "a passphrase for tests"


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(400, 5, n_informative=3, n_redundant=1, class_sep=0.5, random_state=3)
    return X * [1, 10, 100, 1, 1] + 7, np.where(y == 1, "ill", "well")


def quiet(**settings: Any) -> EncryptedTrainer:
    return EncryptedTrainer(**{"security_bits": 0, "progress": "off", **settings})


def expected(clf: EncryptedTrainer, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """The same descent in the clear, in raw columns."""
    whitening = Whitening.fit(X, intercept=clf.estimator is None or clf.estimator.fit_intercept)
    return whitening.unfold(trajectory(clf.plan_.descent, whitening.fold(X, y == clf.classes_[1]))[-1])


@parametrize_with_checks([EncryptedTrainer(scheme="clear", progress="off")])
def test_it_is_a_scikit_learn_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"estimator": LogisticRegression(C=0.1, fit_intercept=False)},
        {"steps": 6, "refresh": "client", "momentum": True},
        {"steps": 2, "degree": 7},
    ],
    ids=str,
)
def test_its_weights_are_those_of_the_same_descent_in_the_clear(settings: dict[str, Any]) -> None:
    X, y = data()
    clf = quiet(**settings).fit(X, y)
    coef, intercept = expected(clf, X, y)
    # A weight of a raw column is a weight of whitened ones over that column's spread.
    error = clf.plan_.error_estimate * np.abs(Whitening.fit(X).matrix).sum(axis=0)
    assert (np.abs(clf.coef_[0] - coef) <= error).all()
    assert clf.transcript_.rounds == clf.plan_.rounds == (5 if "refresh" in settings else 0)
    assert list(clf.classes_) == ["ill", "well"]
    assert clf.estimator is None or clf.estimator.fit_intercept or clf.intercept_ == intercept == 0


def test_it_ranks_as_the_converged_model_does() -> None:
    X, y = data()
    clf, exact = quiet().fit(X[:300], y[:300]), LogisticRegression(max_iter=1000).fit(X[:300], y[:300])
    auc = [roc_auc_score(y[300:], model.decision_function(X[300:])) for model in (clf, exact)]
    assert abs(auc[0] - auc[1]) < 0.01
    np.testing.assert_allclose(clf.predict_proba(X)[:, 1], 1 / (1 + np.exp(-clf.decision_function(X))))
    assert (clf.predict(X) == np.where(clf.decision_function(X) > 0, "well", "ill")).all()


def test_what_it_learnt_is_served_encrypted() -> None:
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abcde"))
    clf = quiet().fit(frame, y)
    asked = hepipe.EncryptedClassifier(clf, security_bits=0, input_bound=512).fit(frame, y)
    assert asked.estimator_ is not clf
    np.testing.assert_allclose(
        asked.decision_function(frame[:9]), asked.estimator_.decision_function(frame[:9]), atol=1e-4
    )
    planned = hepipe.plan(clf.model_, "ckks", 9, input_bound=512, security_bits=0)
    client = hepipe.Client(planned)
    server = hepipe.Server(clf.model_, client.public(), allow_insecure=True)
    near = np.abs(clf.decision_function(frame[:9])) < planned.error_bound
    assert ((client.predict(server, frame[:9]) == clf.predict(frame[:9])) | near).all()


def test_after_an_imputer_it_is_imported_as_one_model() -> None:
    X, y = data()
    holes = X.copy()
    holes[::7, 2] = np.nan
    pipe = make_pipeline(SimpleImputer(), quiet()).fit(holes, y)
    model = hepipe.from_sklearn(pipe)
    np.testing.assert_array_equal(model.head(clear_scores(model, holes)), pipe.predict(holes))


def test_nothing_of_a_fitted_one_is_a_key() -> None:
    X, y = data()
    clf = quiet().fit(X, y)
    again = pickle.loads(pickle.dumps(clf))  # noqa: S301  our own bytes; a SecretKey would refuse
    np.testing.assert_array_equal(again.predict(X), clf.predict(X))
    assert not [value for value in vars(clf).values() if isinstance(value, SecretKey)]
    assert clone(clf).get_params()["security_bits"] == 0


def test_an_unsafe_rate_is_refused_and_none_takes_the_largest_safe_one() -> None:
    X, y = make_classification(60, 20, class_sep=3, random_state=1)  # separable: weights grow without end
    with pytest.raises(OutOfRange, match="use rate <= ") as caught:
        quiet(scheme="clear", steps=20, rate=4.0).fit(X, y)
    found = quiet(scheme="clear", steps=20).fit(X, y).rate_
    assert 0 < found < 4
    assert str(caught.value).endswith(f"{found:.4g}")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"estimator": LinearRegression()}, UnsupportedModel),
        ({"estimator": LogisticRegression(class_weight="balanced")}, UnsupportedModel),
        ({"estimator": LogisticRegression(l1_ratio=1.0, solver="saga")}, UnsupportedModel),
        ({"refresh": "trainer"}, Unsupported),
        ({"degree": 2}, Unsupported),
        ({"steps": 0}, OutOfRange),
        ({"scheme": "bfv"}, Unsupported),
        ({"checkpoint": "somewhere"}, Unsupported),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        quiet(**settings).fit(*data())


def test_an_interrupted_fit_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data()
    settings: dict[str, Any] = {"steps": 4, "checkpoint": str(tmp_path / "fit"), "passphrase": lambda: PASSPHRASE}
    run, made = Trainer.run, []

    def counted(self: Trainer, *args: Any) -> Any:
        for step in run(self, *args):
            made.append(step)
            if len(made) == 2:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(Trainer, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        quiet(**settings).fit(X, y)
    clf = quiet(**settings).fit(X, y)
    assert made == [1, 2, 3, 4]
    whole = quiet(steps=4).fit(X, y)
    np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="other rows or labels"):
        quiet(**settings).fit(X, np.where(y == "ill", "well", "ill"))
    with pytest.raises(KeyMismatch, match="another plan"):
        quiet(**{**settings, "rate": 0.5}).fit(X, y)


def test_progress_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BATCH_VARIABLE, "1")
    X, y = data()
    quiet(progress="auto", scheme="clear", steps=2).fit(X, y)
    assert capsys.readouterr().out.splitlines() == [
        "training step 1/2: 400 encrypted rows",
        "training step 2/2: 400 encrypted rows",
    ]
