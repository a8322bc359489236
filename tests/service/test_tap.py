"""The relay hands on every byte, cuts what passes into messages, and says who can read them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from hepipe.errors import MalformedFrame, Unsupported
from hepipe.models.logistic import clear_scores
from hepipe.schemes.frames import HEADER_BYTES, LAYOUT, Kind, kind_of, parse
from hepipe.service.client import RemoteServer
from hepipe.service.tap import Passed, Tap, _Stream, frame_table, wire_table
from served_models import FRAME, made
from service.conftest import SAMPLES, Running

X = FRAME.iloc[:SAMPLES]


@pytest.fixture
def tap(running: Running) -> Iterator[Tap]:
    with Tap(running.url) as relay:
        yield relay


def asked(running: Running, tap: Tap, name: str, scheme: str) -> tuple[Any, Any, Any]:
    """One prediction through the relay: plan, transcript and client."""
    remote = RemoteServer(tap.url, name, token=running.tokens["alice"], allow_insecure=True)
    client = remote.client(scheme)
    tap.passed.clear()
    link = client.link()
    scores = client.decrypt(remote.evaluate(client.encrypt(X), link))
    expected = clear_scores(made(name), X, selects=scheme == "paillier")
    assert np.abs(scores - expected).max() <= remote.plan(scheme).error_bound
    remote.close()
    return remote.plan(scheme), link.transcript, client


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_a_request_and_its_answer_are_recorded_whole(running: Running, tap: Tap, scheme: str) -> None:
    plan, _, client = asked(running, tap, "linear", scheme)
    up, down = tap.passed
    assert (up.sender, up.what) == ("client", "POST /v2/models/linear/infer")
    assert (down.sender, down.what) == ("server", "200 OK")
    assert [len(frame) for each in (up, down) for frame in each.frames] == [plan.bytes_up, plan.bytes_down]
    assert parse(up.frames[0], Kind.TENSOR).key_id == client.public().key_id
    table = wire_table(tap.passed, plan.reveals)
    assert list(table["frame bytes"] + table["envelope bytes"]) == list(table["bytes"]) == [up.size, down.size]
    assert (table["envelope bytes"] > 100).all()
    assert list(table["who can read what"]) == ["client: its inputs", "client: scores"]


def test_rounds_are_read_through_the_websocket(running: Running, tap: Tap) -> None:
    plan, transcript, _ = asked(running, tap, "bits", "paillier")
    table = wire_table(tap.passed, plan.reveals)
    held = table.dropna(subset="frames")
    assert list(held["frames"]) == ["TENSOR", "ZERO_TESTS", "ZEROS_FOUND", "TENSOR"]
    assert list(held["from"]) == ["client", "server", "client", "server"]
    assert list(held["frame bytes"])[1:3] == [message.size for message in transcript.messages]
    sums = held.groupby("from")["frame bytes"].sum()
    assert (sums["client"], sums["server"]) == (plan.bytes_up, plan.bytes_down)
    assert list(table["message"])[:3] == [
        "GET /v2/models/bits/rounds", "101 Switching Protocols", "WebSocket text",
    ]  # fmt: skip
    assert table.loc[table["frames"].isna(), "who can read what"].str.startswith("anyone").all()


def test_an_uploaded_key_is_named_without_its_id(running: Running, tap: Tap) -> None:
    remote = RemoteServer(tap.url, "linear", token=running.tokens["alice"], allow_insecure=True)
    client = remote.client("paillier")
    table = wire_table(tap.passed, "scores").set_index("message")
    assert table.loc["PUT /v2/hepipe/keys/{key_id}", "frames"] == "PUBLIC_KEYS and KEY_PROOF"
    assert client.public().key_id not in table.to_string()
    remote.close()


sizes = st.sampled_from([0, 1, 125, 126, 65535, 65536, 70_000])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(sizes, st.booleans()), max_size=3), st.sampled_from([1, 7, 1000, 65_536]))
def test_websocket_messages_are_cut_wherever_the_bytes_are(sent: list[tuple[int, bool]], chunk: int) -> None:
    bodies = [bytes(range(256)) * (size // 256) + bytes(size % 256) for size, _ in sent]
    wire = [Frame(Opcode.BINARY, body).serialize(mask=masked) for body, (_, masked) in zip(bodies, sent, strict=True)]
    stream = _Stream("client", upgraded())
    joined = b"".join(wire)
    found = [each for start in range(0, len(joined), chunk) for each in stream.feed(joined[start : start + chunk])]
    assert [(each.body, each.size) for each in found] == [(b, len(w)) for b, w in zip(bodies, wire, strict=True)]


def upgraded() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_the_header_of_a_frame_is_shown_field_by_field(running: Running, tap: Tap) -> None:
    asked(running, tap, "linear", "paillier")
    frame = tap.passed[0].frames[0]
    table = frame_table(frame).set_index("field")
    assert sum(size for _, size in LAYOUT) == HEADER_BYTES
    assert table["bytes"].sum() == len(frame)
    head = parse(frame, Kind.TENSOR)
    assert bytes.fromhex(table.loc["key_id", "hex"]).hex() == head.key_id
    assert int.from_bytes(bytes.fromhex(table.loc["kind", "hex"])) == kind_of(frame) == Kind.TENSOR
    assert int.from_bytes(bytes.fromhex(table.loc["samples", "hex"])) == SAMPLES
    assert int.from_bytes(bytes.fromhex(table.loc["body_len", "hex"])) == len(head.body)
    start = table.loc["bounds", "bytes"]
    assert table.loc["bounds", "hex"] == head.body[:start].hex(" ")
    assert table.loc["ciphertexts", "hex"] == head.body[start : start + 32].hex(" ") + " …"
    with pytest.raises(MalformedFrame):
        frame_table(tap.passed[0].body)


def test_what_is_encrypted_or_passes_without_a_frame_is_said() -> None:
    with pytest.raises(Unsupported, match="under TLS"):
        Tap("https://127.0.0.1:1")
    (row,) = wire_table([Passed("server", "404 Not Found", 80, b"{}")], "scores").to_dict(orient="records")
    assert pd.isna(row["frames"])
    assert (row["bytes"], row["envelope bytes"]) == (80, 80)
