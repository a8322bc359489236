"""The generators: the law without noise, and a look-alike that resembles without copying."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hepipe.errors import DataError
from hepipe.study import datasets, synthetic
from hepipe.study.datasets import Dataset, SyntheticDataWarning, load, manifest, read_csv_strict

CHD_NULLS = {
    **{"education": 105, "cigsPerDay": 29, "BPMeds": 53, "totChol": 50, "BMI": 19, "heartRate": 1, "glucose": 388},
}


def test_the_law_folds_at_zero_and_rounds() -> None:
    assert synthetic.salary_law([0, 10, 0, 5], [0, 0, 10, 5]).tolist() == [550, 6363, 2869, 2297]


def test_generated_salaries_follow_the_law_exactly() -> None:
    rows = synthetic.salary(1000, 0)
    assert (synthetic.salary_law(rows["healthy_eating"], rows["active_lifestyle"]) == rows["salary"]).all()
    assert rows["salary"].mean() == pytest.approx(2227, rel=0.05)
    assert rows["salary"].std() == pytest.approx(1080, rel=0.05)
    assert (rows["age"].min(), rows["age"].max()) == (18, 64)
    assert rows["Gender"].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["salary", "chd"])
def test_the_seed_decides(name: str) -> None:
    generate = synthetic.GENERATORS[name]
    assert generate(100, 3).equals(generate(100, 3))
    assert not generate(100, 3).equals(generate(100, 4))


@pytest.fixture(scope="module")
def look_alike() -> Dataset:
    with pytest.warns(SyntheticDataWarning, match=r"framingham\.csv is not at hand"):
        return datasets._generated(manifest()["chd"])


def test_the_look_alike_says_so(look_alike: Dataset) -> None:
    assert look_alike.synthetic
    assert "LOOK-ALIKE" in look_alike.source
    assert look_alike.X.shape == (4238, 15)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_look_alike_is_as_hard_as_the_real_file(seed: int) -> None:
    people = synthetic.chd(4238, seed)
    assert people["TenYearCHD"].mean() == pytest.approx(0.152, abs=0.02)
    nulls = people.isna().sum()
    assert set(nulls[nulls > 0].index) <= set(CHD_NULLS)
    assert all(nulls[name] == pytest.approx(count, abs=4 * np.sqrt(count) + 2) for name, count in CHD_NULLS.items())
    X, y = people.drop(columns="TenYearCHD"), people["TenYearCHD"]
    model = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression())
    assert 0.65 < cross_val_score(model, X, y, scoring="roc_auc", cv=5).mean() < 0.80


def test_the_look_alike_resembles_the_real_columns(look_alike: Dataset) -> None:
    try:
        chd = load("chd", offline=False)
    except DataError as error:
        if "could not" not in str(error):  # only a failed fetch is an excuse
            raise
        pytest.skip(f"framingham.csv is not at hand: {error}")
    assert (look_alike.X.dtypes == chd.X.dtypes).all()
    assert look_alike.schema == chd.schema
    spread = chd.X.std()
    assert ((look_alike.X.mean() - chd.X.mean()).abs() < 0.2 * spread).all()
    assert (look_alike.X.std() / spread).between(0.8, 1.25).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", ["salary", "chd"])
def test_every_generated_row_keeps_to_the_schema(name: str, seed: int) -> None:
    spec = replace(manifest()[name], rows=50)
    data = synthetic.GENERATORS[name](50, seed).to_csv(index=False, na_rep="NA").encode()
    read_csv_strict(data, spec, "generated")
