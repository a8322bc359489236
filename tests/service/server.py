"""A server for the tests: ``server.py FOLDER PORT [NAME=VALUE of Limits ...]``; prints its URL.

Models, tokens and certificate are what the folder holds. Where it holds a file ``clock``, the wall clock of the process
is off by as many seconds as the file says, at every moment.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from pathlib import Path

from hepipe.service.limits import Limits
from hepipe.service.run import Address, serve


def main(folder: Path, port: int, *options: str) -> None:
    given = {name: json.loads(value) for name, value in (option.split("=") for option in options)}
    tls = [folder / "cert.pem", folder / "key.pem"] if (folder / "cert.pem").exists() else []
    if (folder / "clock").exists():
        _follow(folder / "clock")
    tokens = folder / "tokens" if (folder / "tokens").exists() else None
    limits = dataclasses.replace(Limits(rate=1e4, burst=10_000, round_workers=2), **given)
    serve(
        folder / "models", folder / "state", Address("127.0.0.1", port, *tls), tokens, limits,
        allow_insecure=True, listening=lambda url: print(url, flush=True),
    )  # fmt: skip


def _follow(clock: Path) -> None:
    right = time.time
    time.time = lambda: right() + float(clock.read_text())


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
