"""Every kind of model can be exported by name, and what is served is predicted from another process, at 128 bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hepipe.models.bundle import load
from hepipe.models.codec import MODELS
from hepipe.study.fitted_models import FITTED_MODELS
from hepipe.study.plan import plan
from service.two_shells import BITS, POLICIES, expected, export, predicted, schemes_of, serving

NAMES = ("chd-logistic-sigmoid3", "heart-tree-bits")
"""By levels, by products in rounds, by comparisons in a round; two_shells.py does the same for every model."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shells") / "models"
    for name in NAMES:
        export(folder, name)
    return folder


@pytest.fixture(scope="module")
def url(models: Path) -> Iterator[str]:
    with serving(models) as address:
        yield address


@pytest.mark.slow
@pytest.mark.secure
@pytest.mark.parametrize(("name", "scheme"), [(name, scheme) for name in NAMES for scheme in schemes_of(name)])
def test_two_processes_predict_real_rows(models: Path, url: str, tmp_path: Path, name: str, scheme: str) -> None:
    settings = load(models / f"{name}.zip").settings
    assert (settings.security_bits, scheme in settings.schemes) == (128, True)
    found = predicted(url, tmp_path, name, scheme)
    assert np.abs(found - expected(models, name, scheme)).max() <= 2.0**-20


@pytest.mark.slow
def test_every_kind_of_model_has_a_name_and_a_plan() -> None:
    made = {name: fit() for name, fit in FITTED_MODELS.items()}
    assert {type(model) for model in made.values()} == set(MODELS)
    for name, model in made.items():
        for scheme in schemes_of(name):
            bits = float(BITS[name]) if name in BITS else None
            planned = plan(model, scheme, 2, POLICIES.get(name, "polynomial"), precision_bits=bits)
            assert planned.security_bits >= 128
