"""Where two latencies are equal: at that place, and nowhere else, the modelled times agree and the winner changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepipe.study.compare import Comparison
from hepipe.study.crossover import (
    HOME,
    crossover_findings,
    crossover_table,
    equal_rtt,
    equal_up_mbit,
    faster,
    with_rtt,
    with_up_mbit,
)
from hepipe.study.measure import PHASES, ErrorBudget, Measurement, Timing

costs = st.tuples(st.integers(1, 5000), st.integers(0, 6), st.integers(100, 10**7), st.integers(100, 10**6))


def measured(scheme: str, ms: float, rounds: int, up: int, down: int) -> Measurement:
    timing = Timing(1, {phase: [ms / len(PHASES)] for phase in PHASES})
    return Measurement(
        scheme=scheme, policy="polynomial", security_bits=128, insecure=False, reveals="scores", levels=1,
        rounds=rounds, parameters={}, metric_clear=1.0, metric_encrypted=1.0, agreement=1.0, disagreements=(0, 0),
        p_value=1.0, errors=ErrorBudget(0.0, 0.0, 0.0), keygen_ms=1.0, offline_ms=0.0, one=timing, batch=timing,
        bytes_up=up, bytes_down=down, one_bytes=(2048, 1024), key_bytes=1, slots=1,
    )  # fmt: skip


@given(costs, costs)
def test_both_take_as_long_where_they_are_said_to_be_equal(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    items = measured("paillier", *one), measured("ckks", *other)
    for place, network in ((equal_rtt(*items), with_rtt), (equal_up_mbit(*items), with_up_mbit)):
        if not math.isnan(place):
            times = [item.network_ms(network(place)) for item in items]
            assert place > 0
            assert math.isclose(*times, rel_tol=1e-6)


@given(costs, costs, st.floats(0.01, 1e5), st.floats(0.01, 1e5))
def test_the_winner_changes_only_there(one: tuple[int, ...], other: tuple[int, ...], a: float, b: float) -> None:
    items = measured("paillier", *one), measured("ckks", *other)
    for place, network in ((equal_rtt(*items), with_rtt), (equal_up_mbit(*items), with_up_mbit)):
        gaps = [items[0].network_ms(network(x)) - items[1].network_ms(network(x)) for x in (a, b)]
        if min(abs(gap) for gap in gaps) > 1e-6:
            crossed = not math.isnan(place) and min(a, b) < place < max(a, b)
            assert (gaps[0] * gaps[1] < 0) == crossed


def test_places_worked_out_by_hand() -> None:
    rounds = measured("paillier", 40, 2, 0, 0)
    bytes_ = measured("ckks", 10, 0, 5 * 10**5, 0)
    assert equal_rtt(rounds, bytes_) == pytest.approx((110 - 40) / 2)  # 0.5 MB at 40 Mbit/s are 100 ms
    assert equal_up_mbit(rounds, bytes_) == pytest.approx(4000 / (40 + 2 * HOME.rtt_ms - 10))


def test_equal_rounds_and_equal_computing_have_no_crossing() -> None:
    one, other = measured("paillier", 40, 0, 10, 10), measured("ckks", 40, 0, 20, 10)
    assert math.isnan(equal_rtt(one, other))
    assert math.isnan(equal_up_mbit(one, other))
    assert faster((other, one), HOME) == "paillier"


def test_table_and_sentence_say_who_wins_and_where() -> None:
    clear = measured("clear", 1, 0, 1, 1)
    both = [measured("paillier", 40, 2, 0, 0), measured("ckks", 10, 0, 5 * 10**5, 0)]
    full, half = Comparison("a tree", "accuracy", 1, [clear, *both]), Comparison("b", "R2", 2, [clear, both[0]])
    (row,) = crossover_table(full, half).to_dict("records")
    assert [row[name] for name in ("model", "samples", "without a network", "data centre")] == [
        "a tree",
        1,
        *["ckks"] * 2,
    ]
    assert row["broadband"] == "paillier"
    assert row["equal at RTT ms"] == pytest.approx(35)
    (said,) = crossover_findings(full, half)
    assert said == (
        "A tree, 1 row: CKKS is 3.807 times faster in a data centre, but Paillier 2.136 times over mobile; "
        "at 40 Mbit/s up a round trip of 35 ms makes them equal, at 20 ms 57.14 Mbit/s up does."
    )
