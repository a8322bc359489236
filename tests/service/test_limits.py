"""What one request, key and tenant may take, and requests that come twice; with clocks of the tests' own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hepipe.errors import MalformedBundle, MalformedFrame
from hepipe.service.inference import Binding
from hepipe.service.limits import Budget, Rates, is_loopback, read_body
from hepipe.service.models import Repository
from hepipe.service.problems import Refused
from hepipe.service.sessions import Place, Sessions


def refusal(call: Callable[[], Any]) -> Refused | None:
    """The refusal of a call, None if it was not refused."""
    try:
        call()
    except Refused as refused:
        return refused
    return None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- bodies -----------------------------------------------------------------------------------------------------------


def body(*chunks: bytes, headers: Any = (), limit: int = 10, seconds: float = 5, pause: float = 0.0) -> bytes:
    taken: list[bytes] = []

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            await asyncio.sleep(pause)
            taken.append(chunk)
            yield chunk

    result = asyncio.run(read_body(list(headers), stream(), limit, seconds))
    assert taken == list(chunks)
    return result


def test_a_body_of_just_the_limit_passes() -> None:
    assert body(b"12345", b"67890") == b"1234567890"
    assert body(b"1234567890", headers=[("content-length", "10")]) == b"1234567890"


@pytest.mark.parametrize(
    ("chunks", "headers", "kind"),
    [
        ([b"12345", b"678901"], [], "too-large"),
        ([b"1"], [("Content-Length", "11")], "too-large"),
        ([b"1"], [("content-length", "9" * 15)], "too-large"),
        ([b"1"], [("content-length", "-1")], "malformed"),
        ([b"1"], [("content-length", "9" * 16)], "malformed"),
        ([b"1"], [("content-length", "\u0661")], "malformed"),
        ([b"1"], [("content-encoding", "gzip")], "unsupported-encoding"),
    ],
)
def test_a_body_beyond_the_limit_is_refused_by_what_it_announces_or_sends(chunks: Any, headers: Any, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        body(*chunks, headers=headers)
    assert caught.value.kind == kind


def test_a_body_that_trickles_is_given_up() -> None:
    with pytest.raises(Refused, match=r"within 0\.1 s") as caught:
        body(*[b"1"] * 8, seconds=0.1, pause=0.05)
    assert caught.value.kind == "deadline"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_hosts_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "example.org", "", "127.0.0.1.nip.io"]
)
def test_hosts_beyond_this_machine(host: str) -> None:
    assert not is_loopback(host)


# --- rates and budgets ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 20), st.integers(1, 10))
def test_never_more_than_burst_and_rate_times_time(pauses: list[float], rate: float, burst: int) -> None:
    clock = Clock()
    rates, start, passed = Rates(rate, burst, clock), clock.now, 0
    for pause in pauses:
        clock.now += pause
        refused = refusal(lambda: rates.spend("key"))
        passed += refused is None
        assert refused is None or (refused.status, refused.headers()["Retry-After"] > "0") == (429, True)
        assert passed <= burst + (clock.now - start) * rate + 1e-6
    clock.now += 1 / rate + 1e-6
    rates.spend("key")  # after a pause there is always one
    rates.spend("other key")


def test_rows_are_counted_for_each_key_and_model_and_over_restarts(tmp_path: Path) -> None:
    budget = Budget(tmp_path, 10)
    budget.spend("alice", "k1", "m", 6)
    with pytest.raises(Refused, match="5 rows, but only 4 of 10 are left") as caught:
        budget.spend("alice", "k1", "m", 5)
    assert caught.value.status == 429
    for other in (("alice", "k1", "m2"), ("alice", "k2", "m"), ("bob", "k1", "m")):
        budget.spend(*other, 10)
    again = Budget(tmp_path, 10)
    again.spend("alice", "k1", "m", 4)
    with pytest.raises(Refused):
        again.spend("alice", "k1", "m", 1)
    Budget(tmp_path, None).spend("alice", "k1", "m", 10**9)


# --- sessions ---------------------------------------------------------------------------------------------------------


def place(
    seq: int = 0, session: str = "s", digest: str = "d", tenant: str = "alice", key: str = "k", model: str = "m"
) -> Place:
    return Place(tenant, key, Binding("", session, seq), model, digest)


def answered(sessions: Sessions, at: Place, reply: bytes = b"reply") -> bytes:
    stored = sessions.stored(at)
    if stored is not None:
        return stored
    with sessions.answering(at) as keep:
        keep(reply)
    return reply


def test_a_repeat_gets_the_stored_bytes_and_another_request_none() -> None:
    sessions = Sessions(600, 1000, Clock())
    assert answered(sessions, place(1), b"first") == b"first"
    assert answered(sessions, place(1), b"second") == b"first"
    for other in (place(1, digest="e"), place(1, model="n")):
        with pytest.raises(Refused, match="was another request") as caught:
            sessions.stored(other)
        assert caught.value.status == 409
    for elsewhere in (place(1, tenant="bob"), place(1, key="l"), place(1, session="t"), place(2)):
        assert sessions.stored(elsewhere) is None


def test_without_a_session_the_digest_is_the_place() -> None:
    sessions = Sessions(600, 1000, Clock())
    assert answered(sessions, place(session="", digest="a"), b"1") == b"1"
    assert answered(sessions, place(session="", digest="b"), b"2") == b"2"
    assert answered(sessions, place(session="", digest="a"), b"3") == b"1"
    assert answered(sessions, place(session="", digest="a", model="n"), b"4") == b"4"


def test_what_is_being_answered_is_not_answered_twice_and_is_free_after_a_failure() -> None:
    sessions = Sessions(600, 1000, Clock())
    with suppress(ZeroDivisionError), sessions.answering(place(1)):
        with pytest.raises(Refused, match="being answered") as caught:
            sessions.stored(place(1))
        assert caught.value.retry_after_s is not None
        raise ZeroDivisionError
    assert sessions.stored(place(1)) is None


def test_a_session_goes_forward_only() -> None:
    clock = Clock()
    sessions = Sessions(600, 1000, clock)
    answered(sessions, place(5))
    with pytest.raises(Refused, match="lies behind"):
        sessions.stored(place(4))
    clock.now += 601
    with pytest.raises(Refused, match="its reply is gone"):
        sessions.stored(place(5))
    assert sessions.stored(place(6)) is None


def test_a_session_stays_where_it_was_furthest_whoever_ends_last() -> None:
    clock = Clock()
    sessions = Sessions(600, 1000, clock)
    with sessions.answering(place(5)) as late, sessions.answering(place(6)) as early:
        early(b"six")
        late(b"five")
    clock.now += 601
    with pytest.raises(Refused, match="its reply is gone"):
        sessions.stored(place(6))


def test_replies_take_limited_memory_and_go_with_their_key() -> None:
    sessions = Sessions(600, 1000, Clock())
    for seq in range(20):
        answered(sessions, place(seq), bytes(100))
        assert sum(len(kept.reply) for kept in sessions._kept.values()) <= 1000
    assert sessions.stored(place(19)) == bytes(100)
    answered(sessions, place(1, key="other"))
    sessions.forget("alice", "k")
    with pytest.raises(Refused, match="its reply is gone"):
        sessions.stored(place(19))
    assert sessions.stored(place(1, key="other")) == b"reply"


class SessionMachine(RuleBasedStateMachine):
    """Whatever comes in which order: one place has one reply, and a repeat gets the very bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.sessions = Sessions(100, 10_000, self.clock)
        self.replies: dict[tuple[str, str, int], tuple[str, bytes]] = {}
        self.evaluations = 0

    @rule(
        tenant=st.sampled_from("ab"), session=st.sampled_from("st"), seq=st.integers(0, 6), digest=st.sampled_from("xy")
    )
    def ask(self, tenant: str, session: str, seq: int, digest: str) -> None:
        at, name = place(seq, session, digest, tenant), (tenant, session, seq)
        refused = refusal(lambda: self.sessions.stored(at))
        if refused is not None:
            assert refused.status == 409
            return
        stored = self.sessions.stored(at)
        if stored is None:
            self.evaluations += 1
            assert all(seq > other[2] for other in self.replies if other[:2] == name[:2])
            stored = hashlib.sha256(f"{self.evaluations}".encode()).digest()
            with self.sessions.answering(at) as keep:
                keep(stored)
            self.replies[name] = digest, stored
        assert self.replies[name] == (digest, stored)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def nothing_runs(self) -> None:
        assert not self.sessions._running


def test_sessions_under_any_sequence_of_requests() -> None:
    run_state_machine_as_test(
        SessionMachine, settings=settings(max_examples=200, stateful_step_count=20, deadline=None)
    )


# --- bindings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [{"session": "a b"}, {"session": "a" * 65}, {"session": 1}, {"seq": -1}, {"seq": 2**53}, {"seq": 1.0},
     {"seq": True}, {"seq": "1"}, {"request_id": 1}, {"request_id": "x" * 129}, {"session": "a\n"}],
)  # fmt: skip
def test_a_binding_is_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        Binding(**fields)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedBundle, match="absent: no folder of bundles"):
        Repository(tmp_path / "absent").reload()
