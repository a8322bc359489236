"""Workers that die, run twice or get what is not theirs: the right scores or a typed error, never a wrong number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from mailbox.conftest import Box
from mailbox.test_predict import ROWS, clear, until

import numpy as np
import pytest

from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame
from hepipe.protocol.parties import Client
from hepipe.service import mailbox_worker
from hepipe.service.mailbox import MAX_ATTEMPTS, MailboxServer, Ticket
from hepipe.service.mailbox_letters import JOBS, KEYS, MODELS, Letter, Part, Place
from hepipe.service.mailbox_worker import clean
from hepipe.service.problems import Refused
from served_models import FRAME

WORKER = """
import sys
from pathlib import Path
from hepipe.service.mailbox_rounds import Waiting
from hepipe.service.mailbox_worker import MailboxWorker
url, models = sys.argv[1:]
MailboxWorker(url, Path(models), Waiting(lease_s=0.4, poll_s=0.05), allow_insecure=True).run()
"""


@pytest.fixture
def published(box_on: Callable[[str], Box], request: pytest.FixtureRequest) -> Box:
    """A mailbox with the models' profiles in it, on a folder unless the test says otherwise."""
    box = box_on(getattr(request, "param", "file"))
    worker = box.worker()
    worker.stop()
    worker.run()
    return box


def left(box: Box, model: str = "linear", scheme: str = "paillier") -> tuple[MailboxServer, Client, Ticket]:
    """A client that left a request."""
    server = box.server(model)
    client = server.client(scheme)
    return server, client, server.post(client.encrypt(ROWS))


def right(server: MailboxServer, client: Client, ticket: Ticket, name: str) -> bool:
    found = client.decrypt(server.collect(ticket, client.link()))
    return bool(np.abs(found - clear(name)).max() <= server.plan(client.public().parameters.name).error_bound)


def names(box: Box, end: str) -> set[str]:
    return {name for name in box.left() if name.partition(".")[2].startswith(end)}


def folder(ticket: Ticket) -> str:
    return f"{JOBS}/{ticket.place.model}"


def test_a_worker_killed_between_claim_and_reply_is_replaced(published):
    """It waits for the answer to its round when it is killed; the next one begins again, with masks of its own."""
    server, client, ticket = left(published, "square")
    words = [sys.executable, "-c", WORKER, published.url, str(published.models)]
    process = subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})
    until(lambda: names(published, "ask-1-1"), 60)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    store = published.store()
    first = store.read(ticket.place.name("ask", 1, 1), 1 << 20)
    with published.working():
        until(lambda: names(published, "ask-2-1"))
        second = store.read(ticket.place.name("ask", 2, 1), 1 << 20)
        assert right(server, client, ticket, "square")
    assert first is not None
    assert second is not None
    assert Letter.parse(first).body != Letter.parse(second).body
    assert published.left() == set()


@pytest.mark.parametrize("published", ["memory", "s3"], indirect=True)
@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_of_two_workers_one_takes_a_request(published, scheme):
    with published.working(2):
        for _ in range(3):
            server, client, ticket = left(published, "square", scheme)
            assert right(server, client, ticket, "square")
    assert published.left() == set()


def test_predictions_that_wait_for_their_rounds_do_not_mix(published):
    """Three at once in one worker, two under one key, answered in another order than they were asked in."""
    server, client, one = left(published, "square")
    two = server.post(client.encrypt(FRAME.tail(2)))
    other = left(published, "square")
    with published.working():
        until(lambda: len(names(published, "ask-1-1")) == 3)
        assert right(*other, "square")
        found = client.decrypt(server.collect(two, client.link()))
        assert np.abs(found - clear("square", FRAME.tail(2))).max() <= server.plan("paillier").error_bound
        assert right(server, client, one, "square")
    assert published.left() == set()


def test_both_of_two_workers_that_hold_one_request_are_right(published):
    """One has lost its lease and does not know: of two replies the first stays, and the late one changes nothing."""
    server, client, ticket = left(published)
    slow, fast = published.worker(), published.worker()
    data = published.store().read(ticket.place.name("request"), 1 << 20)
    letter, served = Letter.parse(data or b""), slow._models[ticket.place.model]
    for worker, attempt in ((fast, 2), (slow, 1)):
        assert worker._leases.claim(ticket.place, attempt)
        worker._process(served, letter, attempt)
    reply = published.store().read(ticket.place.name("reply"), 1 << 20)
    assert Letter.parse(reply or b"").attempt == 2
    assert right(server, client, ticket, "linear")
    slow._process(served, letter, 1)  # wakes once more, after the client has left
    assert published.left() == set()
    for worker in (slow, fast):
        worker.stop()
        worker.run()


def test_a_worker_is_left_alone_while_it_lives_however_long_it_takes(published):
    server, client, ticket = left(published, "square")
    with published.working(2):
        until(lambda: names(published, "ask-1-1"))
        time.sleep(1.2)  # three leases
        assert names(published, "claim") == {f"{ticket.place.job}.claim-1"}
        assert right(server, client, ticket, "square")


def test_a_request_that_kills_its_workers_is_refused_in_the_end(published):
    server, _, ticket = left(published)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert published.store().create(ticket.place.name("claim", attempt), b"gone")
    with published.working(), pytest.raises(Refused, match="8 workers ended"):
        server.collect(ticket)
    assert published.left() == set()


def test_a_defect_costs_one_attempt(published, monkeypatch):
    real, calls = mailbox_worker.evaluated, []

    def broken(*given):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a defect")
        return real(*given)

    monkeypatch.setattr(mailbox_worker, "evaluated", broken)
    server, client, ticket = left(published)
    with published.working():
        assert right(server, client, ticket, "linear")
    assert len(calls) == 2


@pytest.mark.parametrize("size", [0, 1, 100, 170, -1])
def test_truncated_requests_are_left_to_expire(published, size):
    _, _, ticket = left(published)
    store, name = published.store(), ticket.place.name("request")
    data = store.read(name, 1 << 20) or b""
    store.put(name, data[:size])
    worker = published.worker()
    assert worker.step() == worker.step() == 0
    assert published.left() == {f"{ticket.place.job}.request"}
    other = left(published)
    assert worker.step() == 1  # others are served
    worker.stop()
    worker.run()
    assert right(*other, "linear")


def foreign(ticket: Ticket, part: Part, frame: bytes, **wrong: str) -> bytes:
    """A letter to this ticket but for the fields of ``wrong``."""
    fields = {**vars(ticket.place), **wrong}
    return Letter(part, Place(**fields), 1, 0, frame).to_bytes()


@pytest.mark.parametrize(
    "wrong", [{"model": "ab" * 32}, {"job": "ab" * 16}, {"key_id": "ab" * 16}, {"request": "ab" * 32}], ids=str
)
def test_a_reply_bound_to_anything_else_is_refused(published, wrong):
    server, client, ticket = left(published)
    frame = client.pack(client.encrypt(ROWS))
    published.store().create(ticket.place.name("reply"), foreign(ticket, Part.RESULT, frame, **wrong))
    with pytest.raises(MalformedFrame, match="belongs to another"):
        server.collect(ticket)
    assert published.left() == set()


def test_the_reply_of_another_request_is_refused(published):
    """Two requests of one client, the replies swapped in the store."""
    server, client, one = left(published)
    two = server.post(client.encrypt(ROWS))
    worker = published.worker()
    assert worker.step() == 2
    worker.stop()
    worker.run()
    store = published.store()
    names = [ticket.place.name("reply") for ticket in (one, two)]
    replies = [store.read(name, 1 << 20) or b"" for name in names]
    for name, data in zip(names, reversed(replies), strict=True):
        store.put(name, data)
    for ticket in (one, two):
        with pytest.raises(MalformedFrame, match="belongs to another"):
            server.collect(ticket)


@pytest.mark.parametrize("place", [10, 120, 300, -1])
def test_an_altered_reply_is_never_a_number(published, place):
    server, _, ticket = left(published)
    worker = published.worker()
    assert worker.step() == 1
    worker.stop()
    worker.run()
    store, name = published.store(), ticket.place.name("reply")
    data = bytearray(store.read(name, 1 << 20) or b"")
    data[place] ^= 1
    store.put(name, bytes(data))
    with pytest.raises(MalformedFrame):
        server.collect(ticket)


def test_objects_over_their_limit_are_not_read(published):
    server, _, ticket = left(published)
    store = published.store()
    store.put(ticket.place.name("reply"), b"\0" * (server.plan("paillier").bytes_down + (1 << 16) + 1))
    with pytest.raises(MalformedFrame, match="are read"):
        server.collect(ticket)
    _, _, ticket = left(published)
    store.put(ticket.place.name("request"), b"\0" * (1 << 20))
    worker = published.worker()
    assert worker.step() == 0
    worker.stop()
    worker.run()


def test_a_client_answers_no_round_that_was_not_planned(published):
    server, client, ticket = left(published, "square")
    store, link = published.store(), client.link()
    for attempt, round_ in ((1, 2), (MAX_ATTEMPTS + 1, 1)):
        store.create(ticket.place.name("claim", attempt), b"x")
        store.create(ticket.place.name("ask", attempt, round_), b"x")
        with pytest.raises(MalformedFrame, match=f"asks for round {round_} of 1, attempt {attempt}"):
            server.collect(ticket, link)
        ticket = server.post(client.encrypt(ROWS))
    assert link.transcript.messages == []


def test_an_ask_of_an_earlier_attempt_is_not_answered(published):
    server, client, ticket = left(published, "square")
    store, link = published.store(), client.link()
    for attempt in (1, 2):
        store.create(ticket.place.name("claim", attempt), b"x")
    store.create(ticket.place.name("ask", 1, 1), b"x")
    with pytest.raises(HepipeError, match="no reply"):
        server.collect(ticket, link, deadline_s=0)
    assert link.transcript.messages == []


def test_an_answer_that_is_none_refuses_the_request(published):
    server, client, ticket = left(published, "square")
    with published.working():
        until(lambda: names(published, "ask-1-1"))
        published.store().create(ticket.place.name("answer", 1, 1), b"no letter")
        with pytest.raises(Refused, match="no letter") as caught:
            server.collect(ticket, client.link())
    assert caught.value.kind == "malformed"


def test_a_request_that_cannot_be_evaluated_is_refused_with_the_reason(published):
    server = published.server("linear")
    client = server.client("paillier")
    with published.working():
        with pytest.raises(Refused, match="4 rows, at most 3"):
            client.predict(server, [[20, 1, 1]] * 4)
        published.store().put(f"{KEYS}/{client.public().key_id}", b'{"p": 3, "q": 5, "n": 15}')
        with pytest.raises(Refused, match="burnt") as caught:
            client.predict(server, ROWS)
    assert caught.value.kind == "secret-key"
    assert published.left() == set()


@pytest.mark.parametrize("sign", [b"", b"x" * 100], ids=["half written", "too large"])
def test_a_sign_of_life_that_cannot_be_read_stops_nobody(published, sign):
    server, client, ticket = left(published)
    published.store().create(ticket.place.name("claim", 1), b"gone")
    published.store().put(ticket.place.name("alive", 1), sign)
    with published.working():
        assert right(server, client, ticket, "linear")


def test_foreign_objects_do_not_disturb(published):
    store = published.store()
    digest = next(iter(store.list(MODELS)))
    for name in ("jobs/stray", f"{JOBS}/{digest}/stray", f"{JOBS}/{digest}/{'0' * 32}.ask-1-1", "keys/z", "models/z"):
        store.put(name, b"what is this")
    with published.working():
        assert right(*left(published), "linear")


def test_keys_and_profiles_of_others_under_our_names_are_refused(published):
    server = published.server("linear")
    client = Client(server.plan("paillier"))
    store = published.store()
    store.put(f"{KEYS}/{client.public().key_id}", Client(server.plan("paillier")).registration_bytes())
    with pytest.raises(KeyMismatch, match="other keys"):
        server.register(client)
    one, two = sorted(store.list(MODELS))[:2]
    store.put(f"{MODELS}/{one}", store.read(f"{MODELS}/{two}", 1 << 22) or b"")
    with pytest.raises(MalformedFrame, match="another model"):
        published.server("linear")


def test_what_nobody_touched_expires_and_what_lives_stays(box):
    worker = box.worker()
    worker.stop()
    worker.run()
    store = box.store()
    gone, _, old = left(box)
    store.create(old.place.name("claim", 1), b"gone")
    store.put(f"{folder(old)}/.partial-1", b"half")
    store.put(f"{folder(old)}/{'0' * 32}.reply", b"nobody collected this")
    _, client, live = left(box)
    time.sleep(3.1)  # S3 keeps whole seconds
    store.put(live.place.name("alive", 1), b"still here")
    assert clean(store, 2.5) == 4
    assert {name.partition(".")[0] for name in box.left()} == {live.place.job}
    with pytest.raises(HepipeError, match="withdrawn or has expired"):
        gone.collect(old)
    assert clean(store, 3600) == 0
    assert client.public().key_id in store.list(KEYS)
