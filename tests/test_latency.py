"""Where the time goes: the parts add up to what was measured, and the networks add what they are said to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hepipe.study.compare import Comparison
from hepipe.study.latency import HERE, PARTS, THERE, figure_latency, latency_findings, latency_table
from hepipe.study.measure import NETWORKS, REQUEST, ErrorBudget, Measurement, Timing

LOCAL = {
    "encrypt": [8.0, 8.0], "upload": [1.0, 1.0], "evaluate": [30.0, 30.0], "rerandomize": [4.0, 4.0],
    "download": [2.0, 2.0], "decrypt": [5.0, 5.0],
}  # fmt: skip
CLIENT, ROUNDS, SERVER, BETWEEN, TRIPS, BYTES = (f"{name} ms" for name in PARTS)


def pair(request: float = 50.0, model: str = "m", **fields: Any) -> tuple[Comparison, Comparison]:
    local = Measurement(
        scheme="paillier", policy="polynomial", security_bits=128, insecure=False, reveals="scores", levels=1, rounds=1,
        parameters={}, metric_clear=1.0, metric_encrypted=1.0, agreement=1.0, disagreements=(0, 0), p_value=1.0,
        errors=ErrorBudget(0.0, 0.0, 0.0), keygen_ms=1.0, offline_ms=0.0, one=Timing(1, LOCAL, [10.0, 10.0]),
        batch=Timing(1, LOCAL, [10.0, 10.0]), bytes_up=9000, bytes_down=8000, one_bytes=(40_000, 10_000), key_bytes=1,
        slots=1,
    )  # fmt: skip
    phases = {"encrypt": [8.0, 8.0], REQUEST: [request, request], "decrypt": [5.0, 5.0]}
    remote = replace(local, one=Timing(1, phases, [12.0, 12.0]), **fields)
    return tuple(Comparison(name, "R2", 1, [item]) for name, item in ((model, local), (model, remote)))  # type: ignore[return-value]


def test_the_parts_add_up_to_what_was_measured() -> None:
    table = latency_table(pair()).set_index("server")
    assert list(table.index) == [HERE, THERE, *(network.name for network in NETWORKS)]
    assert table.loc[HERE, [CLIENT, ROUNDS, SERVER, BETWEEN, TRIPS, BYTES]].tolist() == [13, 10, 24, 3, 0, 0]
    assert table.loc[THERE, [CLIENT, ROUNDS, SERVER, BETWEEN, TRIPS, BYTES]].tolist() == [13, 12, 24, 14, 0, 0]
    assert table["total ms"].iloc[:2].tolist() == [50, 63]


def test_a_request_that_is_faster_than_one_here_has_nothing_between() -> None:
    row = latency_table(pair(request=30.0)).set_index("server").loc[THERE]
    assert (row[SERVER], row[BETWEEN], row["total ms"]) == (18, 0, 43)


def test_a_network_adds_its_round_trips_and_the_bytes_of_one_row() -> None:
    table = latency_table(pair()).set_index("server")
    for network in NETWORKS:
        row = table.loc[network.name]
        assert row[TRIPS] == 2 * network.rtt_ms
        assert row[BYTES] == pytest.approx(8e-3 * (40_000 / network.up_mbit + 10_000 / network.down_mbit))
        assert row["total ms"] == pytest.approx(63 + network.transfer_ms(1, 40_000, 10_000))


def test_the_figure_has_a_bar_for_each_part_and_says_what_is_insecure() -> None:
    pairs = pair(insecure=True), pair(model="n", request=90.0)
    picture, table = figure_latency(None, *pairs), latency_table(*pairs)
    shown = [axes for axes in picture.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["m, paillier", "n, paillier"]
    for axes, model in zip(shown, "mn", strict=True):
        total = table.loc[table["model"] == model, "total ms"].sum()
        assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)
    assert "INSECURE TEST KEYS" in picture.get_suptitle()
    assert picture.png().startswith(b"\x89PNG")


def test_the_sentences_say_what_is_measured() -> None:
    near, far = latency_findings(pair(), pair(model="n", request=900.0))
    start = "With the server in a process of its own one row takes 63 ms (m on paillier), 913 ms (n on paillier); "
    assert near == f"{start}frames, HTTP and processes are 14 to 864 ms of it."
    assert far.startswith(f"Over {NETWORKS[-1].name} (modelled) it takes ")
    assert far.endswith("the network is most of it for m on paillier.")
    assert latency_findings(pair(request=900.0))[1].endswith("the network is nowhere most of it.")
