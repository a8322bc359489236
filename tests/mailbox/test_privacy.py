"""What a mailbox holds of a prediction: names of ids, ciphertexts and public keys, never what either party keeps."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from mailbox.conftest import Box
from mailbox.test_predict import ROWS, clear

import numpy as np
import pytest

from hepipe.service.mailbox_letters import Letter
from hepipe.service.mailbox_store import Store
from served_models import made

ID = "[0-9a-f]"
NAMES = re.compile(
    rf"\.trial-{ID}{{16}}|models/{ID}{{64}}|keys/{ID}{{32}}"
    rf"|jobs/{ID}{{64}}/({ID}{{32}}\.(request|reply|(claim|alive)-\d+|(ask|answer)-\d+-\d+)|\.trial-{ID}{{16}})"
)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Every object that anybody writes."""
    seen: list[tuple[str, bytes]] = []
    for way in ("create", "put"):
        real = getattr(Store, way)

        def watched(self: Store, name: str, data: bytes, real: Callable[..., bool] = real) -> bool:
            seen.append((name, data))
            return real(self, name, data)

        monkeypatch.setattr(Store, way, watched)
    return seen


def traces(values: np.ndarray) -> set[bytes]:
    """A number as it might lie in an object: a double in either order, or its digits."""
    found = set()
    for value in np.ravel(values).tolist():
        if len(repr(value)) > 6:  # shorter texts are in every ciphertext
            found |= {struct.pack(">d", value), struct.pack("<d", value), repr(value).encode()}
    return found


@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_no_input_score_weight_or_secret_key_is_in_it(box_on: Callable[[str], Box], written, scheme):
    box = box_on("memory")
    with box.working():
        server = box.server("linear")
        client = server.client(scheme)
        scores = client.decrypt(server.evaluate(client.encrypt(ROWS)))
    jobs = [(name, data) for name, data in written if name.startswith("jobs/") and ".trial" not in name]
    assert {name.partition(".")[2].partition("-")[0] for name, _ in jobs} >= {"request", "claim", "reply"}
    assert all(NAMES.fullmatch(name) for name, _ in written), [name for name, _ in written]
    model = made("linear")
    secrets = [model.profile.prepare(ROWS), np.asarray(ROWS, float), scores, clear("linear"), model.weights]
    hidden = {trace for values in secrets for trace in traces(np.asarray(values))}
    if scheme == "paillier":
        for factor in client._keys.secret.expose_factors().values():
            if factor.bit_length() > 256:
                hidden.add(int(factor).to_bytes((factor.bit_length() + 7) // 8, "big"))
    else:
        hidden.add(client._keys.secret._material()[200:264])
    assert len(hidden) > 10
    for name, data in written:
        assert not [trace for trace in hidden if trace in data], name


def test_the_frames_are_those_of_an_evaluation_here(box_on: Callable[[str], Box], written):
    """So a mailbox reveals what they reveal, and ids: no field of a letter is free for anything else."""
    box = box_on("memory")
    with box.working():
        server = box.server("square")
        client = server.client("paillier")
        link = client.link()
        server.evaluate(client.encrypt(ROWS), link)
    letters = {
        name.partition(".")[2]: Letter.parse(data) for name, data in written if re.search(r"request|ask|answer", name)
    }
    asked, answered = link.transcript.messages
    assert (len(letters["ask-1-1"].body), len(letters["answer-1-1"].body)) == (asked.size, answered.size)
    plan = server.plan("paillier")
    assert len(letters["request"].body) + answered.size == plan.bytes_up
    assert {letter.place for letter in letters.values()} == {letters["request"].place}
    reply = next(Letter.parse(data) for name, data in written if name.endswith(".reply"))
    assert len(reply.body) + asked.size == plan.bytes_down
