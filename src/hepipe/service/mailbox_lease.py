"""Who evaluates a request in a mailbox: claims that are created once, and kept alive for as long as they are meant.

No clock is compared with another. A worker rewrites an object beside its claim; whoever sees that object unchanged for
``lease_s`` of his own time may claim the next attempt. The earlier worker may only have been slow: it goes on under its
own number, its rounds are answered no more, and of two replies the first one stays. Both are right.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable

from hepipe.errors import HepipeError, MalformedFrame
from hepipe.service.mailbox_letters import Place
from hepipe.service.mailbox_store import Store

log = logging.getLogger("hepipe.service")
_ALIVE_BYTES = 64
_BEATS = 4
"""In the time of a lease, so that one lost write costs nothing."""


class Leases:
    """The claims of this process, and what it saw of those of others."""

    def __init__(self, store: Store, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._lease_s, self._clock = store, lease_s, clock
        self._held: set[str] = set()
        self._seen: dict[str, tuple[bytes | None, float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hepipe-leases", daemon=True)
        self._thread.start()

    def claim(self, place: Place, attempt: int) -> bool:
        """Take an attempt at a request and keep it alive until ``drop``; False if another worker has it."""
        if not self._store.create(place.name("claim", attempt), secrets.token_bytes(16)):
            return False
        with self._lock:
            self._held.add(place.name("alive", attempt))
        return True

    def drop(self, place: Place, attempt: int) -> None:
        """Stop keeping a claim alive; after this nothing is written for it any more."""
        with self._lock:
            self._held.discard(place.name("alive", attempt))

    def abandoned(self, place: Place, attempt: int) -> bool:
        """Whether a claim has shown no life for ``lease_s`` since this process first looked."""
        name = place.name("alive", attempt)
        if name in self._held:
            return False
        try:
            found = self._store.read(name, _ALIVE_BYTES)
        except MalformedFrame:  # half written, so alive; or another's, which will not change
            found = None
        now = self._clock()
        if name not in self._seen or self._seen[name][0] != found:
            self._seen[name] = (found, now)
        return now - self._seen[name][1] > self._lease_s

    def forget(self, keep: Iterable[str]) -> None:
        """Drop what was seen of claims other than those of the jobs ``keep``."""
        jobs = set(keep)
        self._seen = {name: seen for name, seen in self._seen.items() if name.rpartition("/")[2][:32] in jobs}

    def close(self) -> None:
        """Stop keeping anything alive."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / _BEATS):
            with self._lock:
                for name in self._held:
                    try:
                        self._store.put(name, secrets.token_bytes(16))
                    except HepipeError as error:
                        log.warning("a claim could not be kept alive: %s", error)
