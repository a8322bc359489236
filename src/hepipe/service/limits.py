"""What one request, key and tenant may take: sizes before reading, time, requests a second, rows in all, from where."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from hepipe.service.problems import Refused

HEADER_JSON_BYTES = 1 << 14
"""Of the JSON before the binary tensors of a request."""
_BUCKETS = 10_000


@dataclass(frozen=True)
class Limits:
    """The limits of a server; times in seconds, sizes in bytes.

    body_s           a body must be here whole within this time, so that nobody holds a connection by trickling
    deadline_s       a prediction without rounds, waiting for a worker included
    round_s          one answer of a client in a prediction with rounds
    session_s        a prediction with rounds in all
    replay_s         how long a reply is kept for whoever asks again; replay_bytes in all
    keys, key_bytes  of one tenant
    rate, burst      requests a second of one key, and how many at once
    rows             of one key and model, in all; None is no limit. A linear model is known after as many rows as it
                     has columns and one more (Tramer et al., USENIX Security 2016)
    workers          processes for predictions; round_workers for predictions that wait for their client
    """

    body_s: float = 60.0
    deadline_s: float = 60.0
    round_s: float = 30.0
    session_s: float = 600.0
    replay_s: float = 600.0
    replay_bytes: int = 1 << 26
    keys: int = 16
    key_bytes: int = 1 << 29
    rate: float = 50.0
    burst: int = 100
    rows: int | None = None
    workers: int = 2
    round_workers: int = 4


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own, by name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def read_body(headers: list[tuple[str, str]], chunks: AsyncIterator[bytes], limit: int, seconds: float) -> bytes:
    """The body of a request, of ``limit`` bytes at most, in ``seconds``; else Refused, before the rest is read."""
    fields = {name.lower(): value for name, value in headers}
    if fields.get("content-encoding", "identity") != "identity":
        raise Refused("unsupported-encoding", "send the body as it is: ciphertexts do not compress")
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise Refused("malformed", "the header Content-Length is no number")
    if int(length) > limit:
        raise Refused("too-large", f"a body of {length} bytes, at most {limit} are taken here")
    try:
        async with asyncio.timeout(seconds):
            return await _joined(chunks, limit)
    except TimeoutError as error:
        raise Refused("deadline", f"the body was not here within {seconds:g} s") from error


async def _joined(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    parts, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise Refused("too-large", f"a body of more than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


class Rates:
    """Token buckets: ``rate`` requests a second for each name, ``burst`` at once."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, name: str) -> None:
        """Count one request; Refused (429) with the time to wait if there were too many."""
        now = self._clock()
        level, since = self._buckets.pop(name, (float(self._burst), now))
        level = min(self._burst, level + (now - since) * self._rate)
        self._buckets[name] = (max(level - 1, 0.0) if level >= 1 else level, now)
        while len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        if level < 1:
            raise Refused("too-many", f"more than {self._rate:g} requests a second", max((1 - level) / self._rate, 1))


class Budget:
    """Rows that each key may still ask of each model; counted on disk, so that a restart gives none back."""

    def __init__(self, folder: Path, rows: int | None) -> None:
        self._folder, self._rows = folder, rows

    def spend(self, tenant: str, key_id: str, model: str, rows: int) -> None:
        """Count ``rows``, before they are evaluated; Refused (429) if that is more than are left."""
        if self._rows is None:
            return
        try:
            self._count(self._folder / tenant / f"{key_id}.rows", model, rows, self._rows)
        except (OSError, ValueError) as error:
            raise Refused("storage", "the rows of this key cannot be counted now: try again later", 60) from error

    def _count(self, path: Path, model: str, rows: int, most: int) -> None:
        used: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        total = used.get(model, 0) + rows
        if total > most:
            left = most - used.get(model, 0)
            raise Refused("too-many", f"{rows} rows, but only {left} of {most} are left for this key and model")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            partial.write_text(json.dumps(used | {model: total}))
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
