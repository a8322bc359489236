"""What the notebook of several owners shows: numbers from real runs, every refusal tried."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import hepipe
from hepipe.study import owners
from hepipe.study.splits import Split, split
from hepipe.training.federated import FederatedRidge

NAMES = ("acorn", "birch", "cedar")


@cache
def made() -> tuple[Split, np.ndarray, dict[str, FederatedRidge]]:
    data = hepipe.load("salary", offline=True)
    parts = split(data)
    groups = owners.assign_owners(len(parts.X_train), NAMES)
    settings = {"schema": data.schema, "target": data.target, "security_bits": 0}
    fits = {
        name: FederatedRidge(masked=name == "masked", **settings).fit(parts.X_train, parts.y_train, groups)
        for name in ("sums", "masked")
    }
    return parts, groups, fits


def test_rows_are_shared_out_evenly_and_again_the_same() -> None:
    groups = owners.assign_owners(100, NAMES, 3)
    assert sorted(np.unique(groups, return_counts=True)[1]) == [33, 33, 34]
    assert (groups == owners.assign_owners(100, NAMES, 3)).all()
    assert (groups != owners.assign_owners(100, NAMES, 4)).any()


def test_weights_stand_beside_those_of_the_pooled_rows_and_of_each_owner() -> None:
    parts, groups, fits = made()
    table = owners.weights_table(fits, LinearRegression(), parts, groups).set_index("fit")
    assert list(table.index) == ["pooled, scikit-learn", "sums", "masked", *(f"{name} alone" for name in NAMES)]
    assert table.loc[["sums", "masked"], "difference"].max() < 1e-9
    assert table.loc[["sums", "masked"], "metric R2"].nunique() == 1
    assert table.loc["acorn alone", "difference"] > 1
    assert table.loc["sums"].drop("difference").equals(table.loc["masked"].drop("difference"))
    said = owners.findings(table.reset_index(), fits)
    assert f"{table.loc['sums', 'metric R2']:.4f}" in said[0]
    assert all(name in said[1] for name in fits)


def test_the_agreement_says_how_many_sums_travel_and_how_wide() -> None:
    table = owners.agreement_table(made()[2]).set_index("fit")
    # Six columns with the ones and the target: 21 products; the last, of the target with itself, is not masked.
    assert table["sums an owner sends"].tolist() == [21, 20]
    assert table["sums a ciphertext"].tolist() == [10, 1]
    assert table["ciphertexts"].tolist() == [3, 20]
    assert set(table["security bits"]) == {"insecure"}


def test_bytes_by_party_are_those_of_the_messages() -> None:
    fits = made()[2]
    table = owners.party_table(fits).set_index(["fit", "party"])
    for name, fitted in fits.items():
        sent = sum(step.size for step in fitted.steps_)
        assert table.loc[name, "KiB sent"].sum() == pytest.approx(sent / 1024)
        assert table.loc[name, "messages"].to_dict() == {**dict.fromkeys(NAMES, 1), "aggregator": 1, "key holder": 1 + (
            name == "masked")}  # fmt: skip
    assert owners.figure_parties(fits, None).png().startswith(b"\x89PNG")


def test_what_was_learned_is_what_the_parties_state() -> None:
    table = owners.learned_table(made()[2]).set_index(["fit", "party"])
    assert table.loc[("masked", "key holder"), "learns"] == "how many rows there are in all"
    assert table.loc[("masked", "key holder"), "decrypts"] == "30 uniform residues"
    assert table.loc[("sums", "key holder"), "decrypts"] == "21 sums over all rows"
    assert (table.xs("each owner", level="party")["learns"] == "nothing").all()


def test_every_case_that_must_be_refused_is() -> None:
    table = owners.refusals(hepipe.load("salary", offline=True), security_bits=0).set_index("case")
    assert len(table) == 7
    assert set(table["error"]) == {"AgreementBroken", "OutOfRange"}
    assert table["message"].nunique() == 7


def test_the_closed_form_on_encrypted_labels_keeps_its_promise_on_every_scheme() -> None:
    data = hepipe.load("salary", offline=True)
    table = owners.labels_table(data.X[:100], data.y[:100], data.target, "clear,paillier,ckks", security_bits=0)
    assert table["scheme"].tolist() == ["clear", "paillier", "ckks"]
    assert (table["difference"] <= table["promised"]).all()
    assert (table["rounds"] == 0).all()
