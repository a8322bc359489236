"""A server in a process of its own on this machine, for trials: it ends with whoever started it.

with LocalServer(Bundle(model, "salary", settings=Settings(samples=8))) as server:
    remote = server.remote("salary")
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path

from hepipe.errors import PeerLost
from hepipe.models.bundle import Bundle, save
from hepipe.service.client import RemoteServer

INSECURE = "--allow-insecure"
_START_S = 120.0
_LONG_S = 3600.0
"""For a message and a prediction: whoever tries may try what is slow."""


class LocalServer:
    """``hepipe serve`` without a token, on a free port of this machine, of the given bundles.

    Bundles that are planned without security are taken: the keys of tests stay on this machine. ``stop`` ends it and
    removes all that it kept; so does the end of this process, whichever way it ends.

    url, process, folder  where it listens, what runs, and what holds its bundles, keys and log
    """

    def __init__(self, *bundles: Bundle) -> None:
        self.folder = folder = Path(tempfile.mkdtemp(prefix="hepipe-server-"))
        for bundle in bundles:
            save(folder / "models" / f"{bundle.name}-{bundle.version}.zip", bundle)
        self._settings = {bundle.name: bundle.settings for bundle in bundles}
        words = [INSECURE] if any(each.security_bits == 0 for each in self._settings.values()) else []
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder), *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,  # an interrupt is for the client, and the server's group is its own
            )  # fmt: skip
        self._end = weakref.finalize(self, _end, self.process, folder)
        self.url = self._announced(folder / "log")

    def remote(self, model: str, url: str | None = None) -> RemoteServer:
        """A model of this server; ``url`` where the way there leads over a relay."""
        given = self._settings[model]
        return RemoteServer(
            url or self.url, model, timeout_s=_LONG_S, policy=given.policy, allow_insecure=given.security_bits == 0
        )

    def stop(self) -> None:
        """End it; harmless if it has ended."""
        self._end()

    def _announced(self, log: Path) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        line = stdout.readline() if select.select([stdout], [], [], _START_S)[0] else b""
        if not line:
            said = log.read_text(errors="replace").strip().rpartition("\n")[2]
            self.stop()
            raise PeerLost(f"the server did not start: {said or 'it said nothing'}")
        return line.decode().strip()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _main(folder: Path, allow_insecure: bool) -> None:
    """The server's process."""
    from hepipe.service.limits import Limits
    from hepipe.service.run import Address, serve

    threading.Thread(target=_end_with_owner, args=(folder,), daemon=True).start()
    limits = Limits(workers=1, round_workers=1, rate=1e4, deadline_s=_LONG_S, round_s=_LONG_S, session_s=_LONG_S)
    serve(
        folder / "models", folder / "state", Address(port=0), None, limits,
        allow_insecure=allow_insecure, listening=lambda url: print(url, flush=True),
    )  # fmt: skip


def _end_with_owner(folder: Path) -> None:
    """Wait until whoever holds the other end of stdin lets go, or is gone; there is nothing left to finish then."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin: its lock would be missed when the interpreter ends
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), INSECURE in sys.argv[2:])
