"""Public and evaluation keys of tenants on disk: sent once, kept over restarts, deleted on request.

One file a key, ``<tenant>/<key_id>-<sha256>``, as it was uploaded. The name holds the digest of the content, so a file
is never changed in place and a damaged one is found when it is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hepipe.errors import HepipeError
from hepipe.service.problems import Refused

KEY_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredKey:
    """A key on disk; a path is one content for ever."""

    key_id: str
    sha256: str
    path: Path
    size: int


class KeyStore:
    """The keys of all tenants below one folder, within ``keys`` and ``key_bytes`` for each of them."""

    def __init__(self, folder: Path, keys: int, key_bytes: int) -> None:
        self._folder, self._keys, self._key_bytes = folder, keys, key_bytes
        self._lock = threading.Lock()  # two uploads at once must not pass the quota together

    def get(self, tenant: str, key_id: str) -> StoredKey:
        """The key; Refused (404), in the same words, for one that another tenant has or nobody has."""
        for path in (self._folder / tenant).glob(f"{key_id}-*"):
            return _stored(path)
        raise unknown_key(key_id)

    def list(self, tenant: str) -> list[StoredKey]:
        """All keys of a tenant."""
        return [_stored(path) for path in sorted((self._folder / tenant).glob("*-*")) if not path.name.startswith(".")]

    def check_quota(self, tenant: str, key_id: str, size: int) -> None:
        """Refused (403) if a key of ``size`` more would be over the tenant's quota."""
        others = [stored for stored in self.list(tenant) if stored.key_id != key_id]
        total = sum(stored.size for stored in others) + size
        if len(others) >= self._keys or total > self._key_bytes:
            raise Refused(
                "forbidden", f"{len(others) + 1} keys of {total} bytes, at most {self._keys} of {self._key_bytes} are "
                "kept: delete one that is no longer used (hepipe keys delete ID --url)",
            )  # fmt: skip

    def put(self, tenant: str, key_id: str, data: bytes) -> tuple[StoredKey, bool]:
        """Keep a checked upload; (the key, whether it is new). Refused (409) for another content of a known key."""
        try:
            with self._lock:
                return self._put(tenant, key_id, data)
        except OSError as error:
            raise Refused("storage", "the key cannot be stored now: try again later", 60) from error

    def _put(self, tenant: str, key_id: str, data: bytes) -> tuple[StoredKey, bool]:
        sha256 = hashlib.sha256(data).hexdigest()
        for stored in self.list(tenant):
            if stored.key_id == key_id:
                if stored.sha256 != sha256:
                    raise Refused("conflict", "this key is here with other evaluation keys: delete it first")
                if stored.path.read_bytes() == data:
                    return stored, False
        self.check_quota(tenant, key_id, len(data))
        path = self._folder / tenant / f"{key_id}-{sha256}"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, data)
        return _stored(path), True

    def delete(self, tenant: str, key_id: str) -> None:
        """Forget a key; Refused (404) if there is none, (503) if the disk lets nothing go."""
        stored = self.get(tenant, key_id)
        try:
            stored.path.unlink(missing_ok=True)
        except OSError as error:
            raise Refused("storage", "the key cannot be deleted now: try again later", 60) from error


class KeyLost(HepipeError):
    """A stored key that is gone or damaged: its owner uploads it again."""


def read_key(path: Path) -> bytes:
    """The content of a key's file; KeyLost if it is not what was uploaded."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KeyLost("the key is no longer here: upload it again") from error
    if hashlib.sha256(data).hexdigest() != path.name.partition("-")[2]:
        raise KeyLost("the stored key was damaged: upload it again")
    return data


def unknown_key(key_id: str) -> Refused:
    """What is said of a key that is not there, or not for this tenant."""
    return Refused("unknown", f"no key {key_id} of yours is here: upload it with PUT /v2/hepipe/keys/{key_id}")


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing: what a full disk did not take is no burden to it."""
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _stored(path: Path) -> StoredKey:
    key_id, _, sha256 = path.name.partition("-")
    return StoredKey(key_id, sha256, path, path.stat().st_size if path.exists() else 0)
