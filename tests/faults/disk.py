"""Disks that are full or read-only, and files that were damaged on them."""

from __future__ import annotations

import resource
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.catalogue import fault
from faults.scene import SCHEMES, Ending, Party, Scene
from hepipe.protocol.parties import Client
from hepipe.service.problems import Refused
from service.conftest import wait_for


def stored(scene: Scene, client: Client) -> list[Path]:
    """The file of a client's key."""
    return list(scene.keys.rglob(f"{client.public().key_id}-*"))


def flip_in(path: Path) -> bytes:
    """Alter some byte of a file; what was there before."""
    before = path.read_bytes()
    place = secrets.randbelow(len(before))
    path.write_bytes(before[:place] + bytes([before[place] ^ (1 + secrets.randbelow(255))]) + before[place + 1 :])
    return before


def uploaded(party: Party) -> Ending:
    """How the upload of new keys ends; None of it is left behind unless it succeeds."""

    def scores() -> object:
        party.client = Client(party.server().plan(party.scheme))
        return party.scores(party.reached())

    return party.ends(scores)


@fault("disk full for keys", "storage")
def disk_full(scene: Scene, number: int) -> Iterator[Ending]:
    """No file of the server may grow beyond half a key."""
    party = Party(scene, "alice", "linear", SCHEMES[number % 2])
    size = len(Client(party.server().plan(party.scheme)).registration_bytes())
    pid = scene.running.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        yield uploaded(party)
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert list(scene.keys.rglob(".*")) == [], "half a key was left on a full disk"


@fault("read-only disk", "storage", "right")
def read_only(scene: Scene, number: int) -> Iterator[Ending]:
    """Keys can neither be added nor deleted; those that are there can be used."""
    party = Party(scene, "alice", "linear", SCHEMES[number % 2])
    old = scene.party("linear", SCHEMES[number % 2])
    (path,) = stored(scene, old.client)
    with mode(path.parent, 0o500):
        yield uploaded(party)
        yield old.ask()
        with scene.running.http() as http:
            answer = http.delete(f"/v2/hepipe/keys/{old.client.public().key_id}")
        yield old.ends(lambda: _raise(Refused.from_body(answer.content, answer.status_code)))
    yield old.ask()


def _raise(error: Exception) -> None:
    raise error


@contextmanager
def mode(folder: Path, bits: int) -> Iterator[None]:
    before = folder.stat().st_mode
    folder.chmod(bits)
    try:
        yield
    finally:
        folder.chmod(before)


@fault("corrupt stored public key", "right")
def damaged_key(scene: Scene, number: int) -> Iterator[Ending]:
    """Found by the next worker that reads it, and mended by its client, who sends it again."""
    party = Party(scene, "alice", "linear", SCHEMES[number % 2])  # no worker knows these keys yet
    server = party.reached()
    (path,) = stored(scene, party.client)
    before, uploads = flip_in(path), scene.log.count("PUT")
    yield party.ask(server)
    assert scene.log.count("PUT") == uploads + 1
    assert path.read_bytes() == before
    party.server().unregister(party.client)


@fault("corrupt model file", "right")
def damaged_model(scene: Scene, number: int) -> Iterator[Ending]:
    """Found when the folder is read again: everything stays as it was."""
    path = scene.models / "linear-1.zip"
    before = flip_in(path)
    try:
        bad = scene.log.count("models as before: linear-1.zip")
        scene.running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: scene.log.count("models as before: linear-1.zip") > bad)
        for scheme in SCHEMES:
            yield scene.party("linear", scheme).ask()
    finally:
        path.write_bytes(before)
        scene.reload()
