"""A pickle of a session, of a key ring, of anything that refers to a private key, is the private key."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import phe
import pytest
from client_view import parties, profile

from hepipe.errors import MalformedFrame
from hepipe.models.linear import LinearModel
from hepipe.protocol.parties import Client, Server


class OldSession:
    """What a request of the old systems was made from."""

    def __init__(self) -> None:
        self.public, self.private = phe.generate_paillier_keypair(n_length=1024)
        self.request = [self.public.encrypt(24)]


@pytest.fixture(scope="module")
def session() -> tuple[Client, Server]:
    return parties(LinearModel(profile(1), np.array([[0.5]]), np.zeros(1)), "paillier")[:2]


def test_whoever_gets_a_pickled_session_decrypts_it(tmp_path: Path) -> None:
    session = OldSession()
    (tmp_path / "session").write_bytes(pickle.dumps(session))
    stolen = pickle.loads((tmp_path / "session").read_bytes())  # noqa: S301
    assert stolen.private.decrypt(session.request[0]) == 24
    assert stolen.private.p * stolen.private.q == session.public.n


PARTS = {
    "client": lambda client: client,
    "keys": lambda client: client._keys,
    "secret": lambda client: client._keys.secret,
    "decryptor": lambda client: client._decryptor,
    "encryptor": lambda client: client._encryptor,
    "pool": lambda client: client._encryptor.pool,
}


@pytest.mark.parametrize("take", [pickle.dumps, copy.deepcopy], ids=lambda take: take.__name__)
@pytest.mark.parametrize("part", PARTS)
def test_nothing_of_ours_that_refers_to_a_secret_key_can_be_pickled(
    session: tuple[Client, Server], part: str, take: Any
) -> None:
    with pytest.raises(TypeError, match="a SecretKey does not leave its holder"):
        take(PARTS[part](session[0]))


def test_what_a_server_gets_of_ours_holds_no_factor(session: tuple[Client, Server]) -> None:
    client, _ = session
    sent = client.public_bytes() + client.pack(client.encrypt([[0.5]]))
    secret = client._keys.secret
    for number in (secret.p, secret.q, secret.b[0], secret.b[1]):
        size = (number.bit_length() + 7) // 8
        assert int(number).to_bytes(size, "big") not in sent
        assert int(number).to_bytes(size, "little") not in sent
    n = secret.p * secret.q
    assert int(n).to_bytes(128, "big") in sent


class Payload:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("pickle-was-loaded",)


def test_a_pickle_sent_to_either_party_is_refused_unread(
    session: tuple[Client, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = session
    monkeypatch.chdir(tmp_path)
    for payload in (pickle.dumps(Payload()), pickle.dumps(Payload(), protocol=0)):
        for receive in (client.unpack, client.answer, server.unpack, lambda data: Server(server.model, data)):
            with pytest.raises(MalformedFrame):
                receive(payload)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(pickle.dumps(Payload()))  # noqa: S301
    assert [path.name for path in tmp_path.iterdir()] == ["pickle-was-loaded"]
