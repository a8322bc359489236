"""Who may use the server: bearer tokens, kept as hashes. Nothing of one tenant is reachable with another's token."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hepipe.errors import DataError
from hepipe.service.limits import is_loopback
from hepipe.service.problems import Refused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TOKEN_BYTES = 32
_UNAUTHORIZED = "send the header Authorization: Bearer TOKEN with a token of this server"


@dataclass(frozen=True)
class Tenant:
    """One user of the server; an operator may read the metrics, which count everybody's requests."""

    name: str
    operator: bool = False

    @property
    def folder(self) -> str:
        """A folder's name that is this tenant's only."""
        return hashlib.sha256(b"hepipe.tenant\0" + self.name.encode()).hexdigest()[:32]


LOCAL = Tenant("local", operator=True)
"""Whoever can reach a server without tokens, which listens on the loopback interface only."""


class Tenants:
    """The tokens of a server. A token has 256 bits of entropy, so one unsalted SHA-256 keeps it at rest."""

    def __init__(self, hashes: dict[str, Tenant]) -> None:
        self._hashes = hashes

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tenants:
        """From a file that ``add_tenant`` wrote; DataError names what is wrong with any other."""
        return cls({sha256: Tenant(name, operator) for name, sha256, operator in _entries(Path(path))})

    def authenticate(self, authorization: str | None, host: str | None = "localhost") -> Tenant:
        """The tenant of a header's token; Refused (401) without one. Takes as long for every token.

        Without tokens whoever names this machine as ``host`` is LOCAL; a page in a browser here, to which another name
        was made to lead, is not.
        """
        if not self._hashes:
            if not is_loopback(_hostname(host or "")):
                raise Refused("unauthorized", "a server without tokens is for this machine: ask for 127.0.0.1")
            return LOCAL
        scheme, _, token = (authorization or "").partition(" ")
        given, found = hashlib.sha256(token.strip().encode()).hexdigest(), None
        for sha256, tenant in self._hashes.items():  # all of them, so that time does not tell which came close
            if hmac.compare_digest(sha256, given):
                found = tenant
        if found is None or scheme.lower() != "bearer":
            raise Refused("unauthorized", _UNAUTHORIZED)
        return found


def add_tenant(path: str | os.PathLike[str], name: str, operator: bool = False) -> str:
    """Add a tenant to a file of tokens, made if it is not there; returns the token, which is kept nowhere.

    DataError for a name that is taken or cannot be one.
    """
    target = Path(path)
    entries = _entries(target) if target.exists() else []
    if not _NAME.fullmatch(name) or name in [each for each, _, _ in entries]:
        raise DataError(f"tenant {name!r}: taken, or not letters, digits, '.', '_' and '-'")
    token = "hepipe_" + secrets.token_urlsafe(_TOKEN_BYTES)
    entries.append((name, hashlib.sha256(token.encode()).hexdigest(), operator))
    rows = [{"name": each, "sha256": sha256, "operator": flag} for each, sha256, flag in entries]
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"version": 1, "tenants": rows}, stream, indent=1)
    partial.replace(target)
    return token


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _entries(path: Path) -> list[tuple[str, str, bool]]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        rows = [(row["name"], row["sha256"], row["operator"]) for row in fields["tenants"]]
        fits = fields["version"] == 1 and all(
            _NAME.fullmatch(name) and _HASH.fullmatch(sha256) and isinstance(operator, bool)
            for name, sha256, operator in rows
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path.name} is no file of tokens: {error}; hepipe token NAME makes one") from error
    names, hashes = {name for name, _, _ in rows}, {sha256 for _, sha256, _ in rows}
    if not fits or not rows or len(names) < len(rows) or len(hashes) < len(rows):
        raise DataError(f"{path.name} is no file of tokens: a field is wrong, or a name or token is there twice")
    return rows
