"""Secret keys at rest and in memory: sealed, private, never copied."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepipe.errors import KeyMismatch, MalformedFrame
from hepipe.schemes import keystore
from hepipe.schemes.base import KeySet
from hepipe.schemes.keystore import load_keys, save_keys
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, TEST_INSECURE_PAILLIER
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.secret import SecretKey

PASSPHRASE = "correct horse battery"
PARAMETERS = (TEST_INSECURE_PAILLIER, TEST_INSECURE_CKKS)


@pytest.fixture(scope="module", params=PARAMETERS, ids=lambda parameters: parameters.name)
def owned(request: pytest.FixtureRequest) -> tuple[Any, KeySet]:
    return request.param, scheme_of(request.param).keygen()


@pytest.fixture
def stored(owned: tuple[Any, KeySet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(keystore, "_COST", {"n": 2**10, "r": 8, "p": 1})  # the real cost has a test of its own
    save_keys(tmp_path / "key", owned[1], owned[0], PASSPHRASE)
    return tmp_path / "key"


def test_a_stored_key_decrypts_what_the_original_encrypted(owned: tuple[Any, KeySet], stored: Path) -> None:
    parameters, keys = owned
    scheme = scheme_of(parameters)
    x = scheme.encryptor(keys.public).encrypt(np.array([[1.25, -3.5]]), 4.0)
    loaded, found = load_keys(stored, PASSPHRASE)
    assert found == parameters
    assert np.abs(scheme.decryptor(loaded.secret).decrypt(x) - [[1.25, -3.5]]).max() < 1e-4
    again = scheme.encryptor(loaded.secret).encrypt(np.array([[2.0]]), 4.0)
    assert np.abs(scheme.decryptor(keys.secret).decrypt(again) - 2.0).max() < 1e-4


def test_only_the_owner_may_read_the_file_and_it_is_never_overwritten(owned: tuple[Any, KeySet], stored: Path) -> None:
    assert stat.S_IMODE(os.stat(stored).st_mode) == 0o600
    with pytest.raises(FileExistsError, match="never overwritten"):
        save_keys(stored, owned[1], owned[0], PASSPHRASE)
    assert [path.name for path in stored.parent.iterdir()] == ["key"] or len(list(stored.parent.iterdir())) == 1


def test_the_file_does_not_hold_the_secret_in_the_clear(owned: tuple[Any, KeySet], stored: Path) -> None:
    material, data = keystore._material(owned[1].secret), stored.read_bytes()
    pieces = [material[start : start + 24] for start in range(0, len(material) - 24, 97)]
    assert not any(piece in data for piece in pieces if len(set(piece)) > 8)


def test_a_wrong_passphrase_and_every_altered_byte_are_refused(stored: Path) -> None:
    with pytest.raises(KeyMismatch, match="passphrase"):
        load_keys(stored, PASSPHRASE + "!")
    data = stored.read_bytes()
    for place in (0, 4, 6, 12, 40, len(data) // 2, len(data) - 1):
        stored.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((KeyMismatch, MalformedFrame)):
            load_keys(stored, PASSPHRASE)
    for size in (0, 3, 20, len(data) - 40):
        stored.write_bytes(data[:size])
        with pytest.raises((KeyMismatch, MalformedFrame)):
            load_keys(stored, PASSPHRASE)


def test_a_short_passphrase_is_refused(owned: tuple[Any, KeySet], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 12"):
        save_keys(tmp_path / "key", owned[1], owned[0], "short")
    assert not list(tmp_path.iterdir())


def test_a_guess_costs_128_mebibytes() -> None:
    assert keystore._COST["n"] * keystore._COST["r"] * 128 == 128 * 2**20


def test_a_secret_key_refuses_to_leave(owned: tuple[Any, KeySet]) -> None:
    secret = owned[1].secret
    assert isinstance(secret, SecretKey)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, bytes):
        with pytest.raises(TypeError, match="SecretKey"):
            attempt(secret)
    assert repr(secret) == f"<SecretKey {secret.key_id[:4]}…>"
    assert secret.key_id[8:] not in repr(secret)
