"""Trainings side by side: what the tables and sentences say is what was measured."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

from hepipe.study import learning
from hepipe.study.learning import Learnt, Quality, Rows
from hepipe.study.splits import Split

WAYS = {"plain": {"steps": 3}, "refreshed": {"steps": 4, "refresh": True, "momentum": True}}


@cache
def rows() -> Rows:
    X, y = make_classification(420, 6, class_sep=0.7, random_state=5)
    X[::9, 3] = np.nan
    parts = train_test_split(pd.DataFrame(X), pd.Series(y), test_size=100, random_state=0)
    return Rows.of(Split(*parts), SimpleImputer(strategy="median")).first(300)


@cache
def learnt() -> tuple[Learnt, ...]:
    return tuple(learning.learn(WAYS, rows(), security_bits=0))


def reference() -> Quality:
    converged = LogisticRegression(max_iter=5000).fit(rows().X, rows().y)
    return Quality.of(rows().y_test, converged.decision_function(rows().X_test))


def test_quality_is_that_of_scikit_learn() -> None:
    scores = np.linspace(-3, 2, len(rows().y_test))
    found = Quality.of(rows().y_test, scores)
    assert found.auc == roc_auc_score(rows().y_test, scores)
    assert found.log_loss == pytest.approx(log_loss(rows().y_test, 1 / (1 + np.exp(-scores))), abs=1e-12)


def test_every_way_ends_where_its_curve_does() -> None:
    for item in learnt():
        assert len(item.curve) == item.plan.descent.steps == len(item.watch.times["step"])
        assert 0 < item.error <= item.plan.error_estimate
        assert item.quality.log_loss == pytest.approx(item.curve[-1].log_loss, abs=50 * item.error)
        assert item.rounds == item.plan.rounds
        assert set(item.watch.times) == {"keys", "encrypt", "step", "decrypt"}


def test_the_tables_say_it() -> None:
    table = learning.training_table(learnt(), reference(), learning.Tutorial(2, 10.0, 1e5))
    assert list(table["way"]) == list(WAYS)
    assert set(table["security bits"]) == {"insecure"}
    assert list(table["rounds"]) == [0, 3]
    np.testing.assert_allclose(table["AUC"] - table["AUC - converged"], reference().auc)
    np.testing.assert_allclose(table["times faster a pass"] * table["pass s"], 100 * 300)
    plans = learning.training_plans(learnt())
    assert list(plans["rounds"]) == [0, 3]
    assert plans["the owner learns"][0] == "weights"
    assert "mask" in plans["the owner learns"][1]


def test_the_sentences_are_at_most_four_and_hold_the_table_s_numbers() -> None:
    sentences = learning.training_findings(learnt(), reference(), learning.Tutorial(2, 10.0, 1e5))
    assert len(sentences) == 4
    assert f"{reference().auc:.4f}" in sentences[0]
    assert "after 3 steps" in sentences[3]
    assert len(learning.training_findings(learnt()[1:], reference(), learning.Tutorial(2, 10.0, 1e5))) == 3


def test_rates_in_the_table_are_safe() -> None:
    table = learning.safe_rates(rows(), WAYS)
    assert (table["largest safe step size"] > 0).all()
    assert list(table["way"]) == list(WAYS)


def test_the_figure_names_what_forbids_to_quote_it() -> None:
    picture = learning.figure_learning(learnt(), reference(), None)
    assert picture.png()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "INSECURE TEST KEYS" in picture.get_suptitle()
    assert len(picture.axes) == 2


def test_the_tutorial_s_way_is_timed_a_row() -> None:
    found = learning.tutorial(rows(), 2)
    assert found.rows == 2
    assert found.step_ms > found.encrypt_ms > 0
