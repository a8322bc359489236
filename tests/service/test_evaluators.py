"""What a worker keeps ready: evaluators within bounds, and pools that are filled while nobody waits."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hepipe
from hepipe.models.logistic import clear_scores
from hepipe.protocol.parties import Client, Server
from hepipe.protocol.pipe import Channel
from hepipe.service.client import RemoteServer
from hepipe.service.evaluators import LEAST_BYTES, Evaluators
from hepipe.service.tenants import add_tenant
from hepipe.service.worker import _next_job
from served_models import FRAME, made
from service.conftest import SAMPLES, SMALL, Running, export, wait_for

X = FRAME.iloc[:SAMPLES]


@cache
def client(scheme: str, number: int = 0) -> Client:
    return Client(hepipe.plan(made("linear"), scheme, **SMALL))


def server(scheme: str = "paillier", number: int = 0) -> Server:
    return Server(made("linear"), client(scheme, number).public(), allow_insecure=True)


def sizes(*servers: Server) -> list[int]:
    return [len(each.pool or ()) for each in servers]


def names(kept: Evaluators, *asked: str) -> list[str]:
    """Which of these are kept; looking marks none as used."""
    return [each for each in asked if (each, "") in kept._kept]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_least_recently_used_go_once_their_keys_are_more_than_the_bound() -> None:
    kept, one = Evaluators(kept_bytes=10 * LEAST_BYTES), server()
    for name, keys in (("a", 4), ("b", 4), ("c", 2)):
        kept.add((name, ""), one, keys * LEAST_BYTES)
    assert names(kept, "a", "b", "c") == ["a", "b", "c"]
    assert kept.get(("a", "")) is one  # used again: now b is the oldest
    assert kept.get(("d", "")) is None
    kept.add(("d", ""), one, LEAST_BYTES)
    assert names(kept, "a", "b", "c", "d") == ["a", "c", "d"]
    kept.add(("e", ""), one, 9 * LEAST_BYTES)
    assert names(kept, "a", "c", "d", "e") == ["d", "e"]


def test_a_key_over_the_bound_is_kept_alone_and_small_keys_count_for_more_than_they_are() -> None:
    kept, one = Evaluators(kept_bytes=4 * LEAST_BYTES), server()
    kept.add(("large", ""), one, 1 << 30)
    assert kept.get(("large", "")) is one
    for number in range(20):
        kept.add((str(number), ""), one, 600)
    assert len(kept) == 4


def test_keys_of_a_hundred_tenants_stay_within_the_bound_and_sixteen_of_the_largest() -> None:
    kept, one = Evaluators(), server()
    largest = hepipe.scheme("ckks", depth=7).parameters
    size = hepipe.schemes.wire.key_frame_bytes(largest)
    assert largest.poly_modulus_degree == 16384
    for number in range(100):
        kept.add((str(number), ""), one, size)
    assert 8 <= len(kept) <= 16


# --- pools ------------------------------------------------------------------------------------------------------------


def test_pools_are_filled_evenly_up_to_their_shares() -> None:
    kept, first, second = Evaluators(pool=5, pools=8), server(), server(number=1)
    assert kept.fill_one() is False  # nobody to fill for
    kept.add(("ckks", ""), server("ckks"), 1)
    assert kept.fill_one() is False  # nothing to fill
    kept.add(("a", ""), first, 1)
    assert [kept.fill_one() for _ in range(6)] == [True] * 5 + [False]
    kept.add(("b", ""), second, 1)
    assert [kept.fill_one() for _ in range(5)] == [True] * 4 + [False]
    assert sizes(first, second) == [5, 4]  # four each: a share of eight
    assert first.pool is not None
    first.pool.take_many(3)
    assert [kept.fill_one() for _ in range(3)] == [True, True, False]
    assert sizes(first, second) == [4, 4]


def test_no_job_waits_for_more_than_one_power() -> None:
    ours, theirs = multiprocessing.Pipe()

    class Interrupted(Evaluators):
        """A job comes in the middle of the third power."""

        filled = 0

        def fill_one(self) -> bool:
            self.filled += 1
            if self.filled == 3:
                channel.send(b"job")
            return super().fill_one()

    kept, one = Interrupted(), server()
    kept.add(("a", ""), one, 1)
    with Channel(ours) as channel, Channel(theirs) as end:
        assert _next_job(end, kept) == b"job"
        assert (kept.filled, sizes(one)) == (3, [3])
        channel.send(b"the next")  # is there already: nothing is filled before it
        assert _next_job(end, kept) == b"the next"
        assert kept.filled == 3


def test_a_worker_with_full_pools_waits_without_working() -> None:
    ours, theirs = multiprocessing.Pipe()
    kept = Evaluators(pool=2)
    kept.add(("a", ""), server(), 1)
    with Channel(ours) as channel, Channel(theirs) as end:
        jobs: list[bytes] = []
        waiting = threading.Thread(target=lambda: jobs.append(_next_job(end, kept)))
        waiting.start()
        wait_for(lambda: sizes(*kept._kept.values()) == [2])
        channel.send(b"job")
        waiting.join(30)
    assert jobs == [b"job"]
    assert sizes(*kept._kept.values()) == [2]


# --- the whole server -------------------------------------------------------------------------------------------------


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Running]:
    """A server of its own, with an operator."""
    server = Running(tmp_path, ("workers=2",))
    export(tmp_path / "models", "linear")
    server.tokens = {name: add_tenant(tmp_path / "tokens", name, name == "root") for name in ("alice", "root")}
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop(signal.SIGKILL)


def blindings(server: Running) -> dict[str, int]:
    with server.http("root") as http:
        lines = http.get("/metrics").text.splitlines()
    found = {"ahead": 0, "late": 0}
    for line in lines:
        if line.startswith("hepipe_blindings_total{"):
            found[line.split('"')[1]] = int(float(line.split()[-1]))
    return found


def results(remote: RemoteServer, x: Any, count: int) -> list[int]:
    """The ciphertexts of ``count`` evaluations of one and the same tensor: equal only if their blinding is."""
    return [int(c) for _ in range(count) for row in remote.evaluate(x).data for c in row]


def test_an_idle_worker_fills_the_pool_that_the_next_request_uses(serving: Running) -> None:
    remote = serving.remote("linear")
    party = remote.client("paillier")
    x = party.encrypt(X)
    (size,) = {len(results(remote, x, 1))}
    assert blindings(serving) == {"ahead": 0, "late": size}

    def served_from_the_pool() -> bool:
        before = blindings(serving)["ahead"]
        results(remote, x, 1)
        return blindings(serving)["ahead"] == before + size

    wait_for(served_from_the_pool, pause_s=0.5)  # a worker fills its pools once it is idle
    scores = party.decrypt(remote.evaluate(x))
    assert np.abs(scores - clear_scores(made("linear"), X)).max() < 2.0**-7


def test_no_blinding_is_used_twice_by_two_workers_from_their_pools_or_after_a_restart(serving: Running) -> None:
    remote = serving.remote("linear")
    x = remote.client("paillier").encrypt(X)
    found: list[int] = []

    def ask() -> None:
        own = serving.remote("linear")  # a session of its own
        own._clients = remote._clients
        found.extend(results(own, x, 30))
        own.close()

    def burst() -> None:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    burst()
    wait_for(lambda: results(remote, x, 1) and blindings(serving)["ahead"] > 0, pause_s=0.5)
    burst()
    assert len(serving.workers()) == 2
    serving.stop()
    serving.start()
    burst()
    assert len(found) == len(set(found)) == 180 * len(x.data)
    assert remote.evaluate(x).shape == (SAMPLES, 1)
