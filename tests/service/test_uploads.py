"""Uploads of keys: public ones are kept, secret ones are refused and called burnt, in every format they may come in."""

from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import phe
import pytest
import tenseal
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hepipe.errors import KeyMismatch, MalformedFrame
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.keystore import load_public, save_keys
from hepipe.service.keys import KeyLost, KeyStore, read_key
from hepipe.service.limits import Budget
from hepipe.service.problems import Refused
from hepipe.service.uploads import SecretKeyUploaded, check_upload
from hepipe.study.plan import plan
from served_models import made


@cache
def client(scheme: str = "paillier") -> Client:
    return Client(plan(made("linear"), scheme, samples=2, precision_bits=8, security_bits=0))


@cache
def key_file(scheme: str, folder: Path) -> bytes:
    path = folder / scheme
    save_keys(path, client(scheme)._keys, client(scheme).public().parameters, "a long passphrase")
    return path.read_bytes()


def with_factors_behind(offset: int) -> bytes:
    """A key frame with p and q behind the modulus, as a careless sender might write it."""
    frame = parse(client().public_bytes(), Kind.PUBLIC_KEYS)
    secret = client()._keys.secret
    size = 64
    factors = [int(secret.p).to_bytes(size, "big"), int(secret.q).to_bytes(size, "big")]
    body = frame.body + bytes(size) * offset + b"".join(factors)
    return Frame(**{**frame.__dict__, "body": body}).to_bytes()


def secret_uploads(folder: Path) -> dict[str, bytes]:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 20, 40])
    _, private = phe.generate_paillier_keypair(n_length=512)
    pem = rsa.generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "key file, Paillier": key_file("paillier", folder),
        "key file, CKKS": key_file("ckks", folder),
        "TenSEAL context": context.serialize(save_secret_key=True),
        "pickle of phe": pickle.dumps(private),
        "json of p and q": json.dumps({"p": private.p, "q": private.q}).encode(),
        "json of lambda": json.dumps({"lambda": 1, "mu": 2}).encode(),
        "json of hepipe's factors": json.dumps(client()._keys.secret.expose_factors()).encode(),
        "pem": pem,
        "frame and factors": with_factors_behind(0),
        "frame, a gap and factors": with_factors_behind(3),
    }


NAMES = ["key file, Paillier", "key file, CKKS", "TenSEAL context", "pickle of phe", "json of p and q",
         "json of lambda", "json of hepipe's factors", "pem", "frame and factors",
         "frame, a gap and factors"]  # fmt: skip


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return secret_uploads(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_key_is_recognised(uploads: dict[str, bytes], name: str) -> None:
    assert set(uploads) == set(NAMES)
    with pytest.raises(SecretKeyUploaded, match="burnt"):
        check_upload(uploads[name])


@pytest.mark.parametrize("scheme", ["clear", "paillier", "ckks"])
def test_public_keys_pass(scheme: str) -> None:
    check_upload(client(scheme).registration_bytes())
    check_upload(client(scheme).public_bytes())


def test_a_public_tenseal_context_and_noise_are_not_called_secret() -> None:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 20, 40])
    for data in (context.serialize(save_secret_key=False), b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff", bytes(500)):
        check_upload(data)


@pytest.mark.parametrize("name", NAMES)
def test_the_server_says_that_the_key_is_burnt_and_keeps_nothing(
    running: Any, uploads: dict[str, bytes], name: str
) -> None:
    key_id = client().public().key_id
    with running.http() as http:
        answer = http.put(f"/v2/hepipe/keys/{key_id}", content=uploads[name])
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:hepipe:problem:secret-key"), answer.text
        assert "burnt" in answer.json()["detail"]
        assert http.get(f"/v2/hepipe/keys/{key_id}").status_code == 404
    stored = [path for path in (running.folder / "state").rglob("*") if path.is_file()]
    assert not any(uploads[name][-64:] in path.read_bytes() for path in stored)


# --- the store --------------------------------------------------------------------------------------------------------

A, B = "a" * 32, "b" * 32


def test_keys_are_kept_for_each_tenant_and_named_by_their_content(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, 2, 1000)
    stored, new = store.put("alice", A, b"public")
    assert (new, stored.size) == (True, 6)
    assert store.put("alice", A, b"public") == (stored, False)
    assert KeyStore(tmp_path, 2, 1000).get("alice", A) == stored  # a restart
    assert read_key(stored.path) == b"public"
    assert stored.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="other evaluation keys") as caught:
        store.put("alice", A, b"other")
    assert caught.value.status == 409


def test_another_tenants_key_is_no_key_in_the_same_words(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, 2, 1000)
    store.put("alice", A, b"public")
    words = []
    for tenant, key_id in (("bob", A), ("bob", B)):
        for call in (store.get, store.delete):
            with pytest.raises(Refused) as caught:
                call(tenant, key_id)
            words.append((caught.value.status, str(caught.value).replace(key_id, "")))
    assert len(set(words)) == 1
    assert store.put("bob", A, b"other")[1]  # neither does the other's content show
    store.delete("alice", A)
    assert store.list("alice") == []
    assert len(store.list("bob")) == 1


def test_the_quota_counts_keys_and_bytes(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, 2, 10)
    store.put("alice", A, bytes(6))
    for key_id, size in ((B, 5), (A[:31] + "0", 11)):
        with pytest.raises(Refused, match="delete one") as caught:
            store.put("alice", key_id, bytes(size))
        assert caught.value.status == 403
    store.put("alice", B, bytes(4))
    with pytest.raises(Refused):
        store.put("alice", "c" * 32, b"")
    store.put("bob", A, bytes(10))


def test_a_damaged_file_is_found_and_mended_by_the_same_upload(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, 2, 1000)
    stored, _ = store.put("alice", A, b"public")
    stored.path.write_bytes(b"publik")
    with pytest.raises(KeyLost, match="damaged"):
        read_key(stored.path)
    store.put("alice", A, b"public")
    assert read_key(stored.path) == b"public"
    stored.path.unlink()
    with pytest.raises(KeyLost, match="no longer here"):
        read_key(stored.path)


def test_a_disk_that_cannot_be_written_is_said_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("a file where the tenant's folder belongs")
    with pytest.raises(Refused) as caught:
        KeyStore(tmp_path, 2, 1000).put("alice", A, b"public")
    assert (caught.value.kind, caught.value.status) == ("storage", 503)
    with pytest.raises(Refused) as caught:
        Budget(tmp_path, 10).spend("alice", A, "m", 1)
    assert caught.value.kind == "storage"
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / f"{A}.rows").write_text("{")
    with pytest.raises(Refused) as caught:  # a count that cannot be read is not taken for none
        Budget(tmp_path, 10).spend("bob", A, "m", 1)
    assert caught.value.kind == "storage"


def test_the_public_half_of_a_key_file_needs_no_passphrase(tmp_path: Path) -> None:
    for scheme in ("paillier", "ckks"):
        data = key_file(scheme, tmp_path)
        public = load_public(tmp_path / scheme)
        assert (public.key_id, public.parameters) == (
            client(scheme).public().key_id,
            client(scheme).public().parameters,
        )
        (tmp_path / "cut").write_bytes(data[:100])
        with pytest.raises((MalformedFrame, KeyMismatch)):
            load_public(tmp_path / "cut")
