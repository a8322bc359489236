"""A client's keys in a folder: each sealed with a passphrase, reused until the user makes new ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hepipe.errors import DataError, KeyMismatch
from hepipe.protocol.parties import Client, Plan
from hepipe.schemes.base import PublicBundle
from hepipe.schemes.keystore import load_public

_SUFFIX = ".hepkey"


def default_folder() -> Path:
    """``$XDG_DATA_HOME/hepipe/keys``, or its default below the home folder."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "hepipe" / "keys"


class KeyRing:
    """The key files of a folder, readable by their owner only."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)

    def list(self) -> list[tuple[Path, PublicBundle]]:
        """Every key file with its public half, the newest last. Takes no passphrase."""
        paths = sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        return [(path, load_public(path)) for path in paths]

    def new(self, plan: Plan, passphrase: str) -> Client:
        """A client with fresh keys for a plan, kept here; ValueError for a passphrase that is too short."""
        client = Client(plan)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        client.save(self.folder / f"{plan.parameters.name}-{client.public().key_id}{_SUFFIX}", passphrase)
        return client

    def client(self, plan: Plan, passphrase: str) -> Client:
        """A client with the newest key for the plan's parameters, or with a new one where there is none.

        KeyMismatch for a wrong passphrase.
        """
        fitting = [path for path, bundle in self.list() if bundle.parameters == plan.parameters]
        return Client.load(plan, fitting[-1], passphrase) if fitting else self.new(plan, passphrase)

    def has(self, parameters: Any) -> bool:
        """Whether there is a key for these parameters."""
        return any(bundle.parameters == parameters for _, bundle in self.list())

    def find(self, key_id: str) -> tuple[Path, PublicBundle]:
        """The key whose id begins with ``key_id``; DataError unless there is exactly one."""
        if not key_id:
            raise KeyMismatch("an empty key id names no key")
        found = [(path, bundle) for path, bundle in self.list() if bundle.key_id.startswith(key_id)]
        if len(found) != 1:
            raise DataError(f"{len(found)} keys have an id that begins with {key_id}: hepipe keys list shows them")
        return found[0]

    def delete(self, key_id: str) -> None:
        """Remove the key that ``find`` finds."""
        self.find(key_id)[0].unlink()
