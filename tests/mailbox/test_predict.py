"""Predictions through a mailbox are those of the same model in this process, and leave nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from mailbox.conftest import Box

import numpy as np
import pandas as pd
import pytest

import hepipe
from hepipe.errors import KeyMismatch, MalformedFrame, PeerLost, Unsupported
from hepipe.protocol.parties import Client
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters
from hepipe.service.mailbox import Ticket
from hepipe.service.mailbox_letters import KEYS
from served_models import FRAME, made

ROWS = FRAME.head(3)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return once ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def clear(name: str, rows: pd.DataFrame = ROWS) -> np.ndarray:
    """The scores in clear."""
    model = made(name)
    scheme = ClearScheme(ClearParameters(depth=12))
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(model.profile.prepare(rows), model.profile.input_bound)
    return scheme.decryptor(keys.secret).decrypt(model.forward(scheme.evaluator(keys), x))


def scores(box: Box, name: str, scheme: str) -> tuple[np.ndarray, Client, int]:
    server = box.server(name)
    client = server.client(scheme)
    link = client.link()
    found = client.decrypt(server.evaluate(client.encrypt(ROWS), link))
    assert link.transcript.rounds == server.plan(scheme).rounds
    return found, client, link.transcript.rounds


@pytest.mark.parametrize(("scheme", "rounds"), [("paillier", 1), ("ckks", 0)])
def test_the_scores_are_those_in_clear_and_nothing_is_left(box, scheme, rounds):
    with box.working():
        found, client, seen = scores(box, "square", scheme)
        bound = box.server("square").plan(scheme).error_bound
    assert seen == rounds
    assert np.abs(found - clear("square")).max() <= bound
    assert box.left() == set()
    assert box.store().list(KEYS) == {client.public().key_id}


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_a_client_predicts_more_rows_than_a_request_takes(box_on, scheme):
    box = box_on("memory")
    with box.working():
        server = box.server("linear")
        client = server.client(scheme)
        found = server.predict(client, FRAME.head(7))
    rows = FRAME.head(7)
    expected = client.head(clear("linear", rows))
    beyond = client.head(clear("linear", rows) + server.plan(scheme).error_bound) - expected
    assert np.all(np.abs(found - expected) <= np.abs(beyond))


def test_a_request_waits_for_a_worker_and_its_reply_for_the_client(box_on):
    """The two are never online together; the client's second process has the key ring's key and a line of text."""
    box = box_on("file")
    with box.working():  # publishes the models, and goes away
        pass
    server = box.server("linear")
    client = server.client("paillier")
    line = str(server.post(client.encrypt(ROWS)))
    with pytest.raises(PeerLost, match="no reply within 0 s"):
        server.collect(Ticket.parse(line), deadline_s=0)
    worker = box.worker()
    assert worker.step() == 1
    worker.stop()
    worker.run()
    again = box.server("linear")
    again.register(client)
    found = client.decrypt(again.collect(Ticket.parse(line), deadline_s=0))
    assert np.abs(found - clear("linear")).max() <= server.plan("paillier").error_bound
    assert box.left() == set()


def test_the_client_may_leave_between_post_and_rounds(box_on):
    box = box_on("file")
    with box.working() as (worker,):
        server = box.server("square")
        client = server.client("paillier")
        ticket = server.post(client.encrypt(ROWS))
        until(lambda: ticket.place.name("ask", 1, 1).rpartition("/")[2] in box.left())
        with pytest.raises(Unsupported, match="pass link"):
            server.collect(ticket)
        later = box.server("square")
        later.register(client)
        found = client.decrypt(later.collect(ticket, client.link()))
        assert worker.step() == 0
    assert np.abs(found - clear("square")).max() <= server.plan("paillier").error_bound
    assert box.left() == set()


@pytest.mark.parametrize("text", ["", "a:b", "0" * 64, f"{'0' * 64}:{'0' * 32}:{'0' * 32}:{'0' * 64}:0"])
def test_a_ticket_is_read_strictly(text):
    with pytest.raises(MalformedFrame):
        Ticket.parse(text)


def test_a_deadline_withdraws_the_request(box_on):
    box = box_on("memory")
    with box.working():
        pass
    server = box.server("linear", deadline_s=0.2)
    client = server.client("ckks")
    with pytest.raises(PeerLost, match=r"no reply within 0\.2 s"):
        client.predict(server, ROWS)
    assert box.left() == set()


def test_models_are_chosen_by_name(box_on):
    box = box_on("memory")
    with pytest.raises(Unsupported, match="has the models \\[\\]"):
        box.server("linear")
    with box.working():
        pass
    with pytest.raises(Unsupported, match="name one"):
        box.server(None)
    with pytest.raises(Unsupported, match="name one"):
        box.server("linear", version="2")
    assert box.server("linear", version="1").plan("ckks").version == "1"


def test_a_tensor_of_an_unregistered_key_is_not_left(box_on):
    box = box_on("memory")
    with box.working():
        pass
    server = box.server("linear")
    stranger = Client(server.plan("paillier"))
    with pytest.raises(KeyMismatch, match="not registered"):
        server.evaluate(stranger.encrypt(ROWS))


def test_a_key_that_the_mailbox_lost_is_left_again(box_on: Callable[[str], Box]):
    box = box_on("memory")
    with box.working():
        server = box.server("linear")
        client = server.client("paillier")
        box.store().delete([f"{KEYS}/{client.public().key_id}"])
        found = client.decrypt(server.evaluate(client.encrypt(ROWS)))
    assert np.abs(found - clear("linear")).max() <= server.plan("paillier").error_bound


def test_compare_measures_a_mailbox_like_any_server(box: Box) -> None:
    with box.working():
        remote = box.server("square")
        compared = hepipe.compare(
            made("square"), ROWS, schemes="paillier,ckks", repeats=1, progress="off", security_bits=0, server=remote
        )
    assert [item.agreement for item in compared.measurements] == [1.0, 1.0]
    assert [item.rounds for item in compared.measurements] == [1, 0]
    assert (box.left(), box.store().list(KEYS)) == (set(), set())
