"""``compare`` against a server elsewhere finds what it finds in one process, and says what only the client can know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import hepipe
from hepipe.errors import Unsupported
from hepipe.models.logistic import clear_scores
from hepipe.service.inference import json_object
from hepipe.study import report
from hepipe.study.measure import REQUEST
from served_models import FRAME, made
from service.conftest import SAMPLES, Running

X = FRAME.iloc[:SAMPLES]
SMALL = {"repeats": 2, "progress": "off", "security_bits": 0}


def compared(name: str, schemes: str, rows: int = SAMPLES, **more: Any) -> Any:
    y = made(name).head(clear_scores(made(name), X))[:rows]
    return hepipe.compare(made(name), X.iloc[:rows], y, schemes, **{**SMALL, **more})


def stored_keys(running: Running) -> int:
    with running.http() as http:
        return len(json_object(http.get("/v2/hepipe/keys").content)["keys"])


@pytest.mark.parametrize(("name", "schemes"), [("linear", "paillier,ckks"), ("bits", "paillier")])
def test_a_server_elsewhere_is_compared_as_one_here(running: Running, name: str, schemes: str) -> None:
    before = stored_keys(running)
    here, there = (
        compared(name, schemes, precision_bits=8.0, server=server) for server in (None, running.remote(name))
    )
    assert there.model == f"{here.model}, server elsewhere"
    assert stored_keys(running) == before, "the keys of a comparison stay at the server"
    for one, other in zip(here.measurements, there.measurements, strict=True):
        for field in ("scheme", "policy", "insecure", "reveals", "levels", "rounds", "parameters", "bytes_up"):
            assert getattr(one, field) == getattr(other, field), field
        assert (one.bytes_down, one.one_bytes, one.key_bytes) == (other.bytes_down, other.one_bytes, other.key_bytes)
        assert other.metric_encrypted == pytest.approx(other.metric_clear, abs=1e-2)
        assert (other.agreement, other.errors.exact_integers) == (1.0, one.errors.exact_integers)
        assert set(other.batch.phases) == {"encrypt", REQUEST, "decrypt"}
        assert len(other.one.totals) == len(other.batch.answers) == 2
        assert all((spent > 0) == (name == "bits") for spent in [*one.one.answers, *other.batch.answers])
        assert all(np.less(other.batch.answers, other.batch.phases[REQUEST]))
    check_table(here, there)


def check_table(here: Any, there: Any) -> None:
    """The same columns; what a client cannot tell apart is missing, and the rest still adds up."""
    table = there.table()
    assert list(table.columns) == list(here.table().columns)
    assert table["one: evaluate ms"].isna().all()
    parts = table[["one: encrypt ms", "one: decrypt ms", "one: wire ms"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(table["one: total ms"].to_numpy())
    assert "Server elsewhere" in report.footer(None, there)
    assert "Server elsewhere" not in report.footer(None, here)
    assert all(math.isnan(item.offline_ms) for item in there.measurements)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"policies": "client"}, "policy 'polynomial'"),
        ({"security_bits": 128}, "0 bits of security"),
        ({"precision_bits": 30.0}, "an error of"),
    ],
)
def test_a_plan_that_gives_less_than_is_wanted_is_refused(running: Running, wanted: Any, says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        compared("linear", "ckks", server=running.remote("linear"), **wanted)


def test_more_rows_than_the_server_takes_at_once_are_refused(running: Running) -> None:
    with pytest.raises(Unsupported, match=f"{SAMPLES} rows at once"):
        hepipe.compare(
            made("linear"), FRAME.iloc[: SAMPLES + 1], None, "ckks", server=running.remote("linear"), **SMALL
        )
