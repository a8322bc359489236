"""Requests that come twice: the same bytes get the stored reply, never a second evaluation.

A place is (tenant, key, session, seq); without a session the digest of the request is its place. Within a session seq
only grows, so a request of long ago cannot be played again. Kept in memory: after a restart a repeat is evaluated
anew, with new randomness, which tells no more than another query would.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hepipe.service.inference import Binding
from hepipe.service.problems import Refused

_MOST_SESSIONS = 100_000


@dataclass(frozen=True)
class Place:
    """Where a request stands: tenant and key it belongs to, session and seq, the model, and the request's digest."""

    tenant: str
    key_id: str
    binding: Binding
    model: str
    digest: str

    @property
    def session(self) -> tuple[str, str, str]:
        """The session, of this tenant and key only."""
        return self.tenant, self.key_id, self.binding.session

    @property
    def slot(self) -> tuple[tuple[str, str, str], str]:
        """The session and the place in it."""
        return self.session, str(self.binding.seq) if self.binding.session else f"{self.model}-{self.digest}"


@dataclass(frozen=True)
class _Kept:
    model: str
    digest: str
    reply: bytes
    until: float


class Sessions:
    """The replies of the last ``replay_s`` seconds, ``replay_bytes`` of them at most."""

    def __init__(self, replay_s: float, replay_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._replay_s, self._replay_bytes, self._clock = replay_s, replay_bytes, clock
        self._kept: OrderedDict[tuple[tuple[str, str, str], str], _Kept] = OrderedDict()
        self._last: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._running: set[tuple[tuple[str, str, str], str]] = set()
        self._size = 0

    def stored(self, place: Place) -> bytes | None:
        """The reply to this very request, if it was answered before; None for a new one.

        Refused (409) where the place was taken by another request, is being answered, or lies behind the session.
        """
        self._expire()
        kept = self._kept.get(place.slot)
        if kept is not None:
            if (kept.model, kept.digest) != (place.model, place.digest):
                raise Refused("conflict", f"seq {place.binding.seq} of this session was another request")
            return kept.reply
        if place.slot in self._running:
            raise Refused("conflict", "this request is being answered: ask again for its reply", 1)
        if place.binding.session and place.binding.seq <= self._last.get(place.session, -1):
            raise Refused("conflict", f"seq {place.binding.seq} lies behind this session, and its reply is gone")
        return None

    @contextmanager
    def answering(self, place: Place) -> Iterator[Callable[[bytes], None]]:
        """Hold a place while it is answered; call with the reply to keep it. Without a reply the place is free again.

        The caller has just asked ``stored`` and found nothing.
        """
        self._running.add(place.slot)
        try:
            yield lambda reply: self._keep(place, reply)
        finally:
            self._running.discard(place.slot)

    def forget(self, tenant: str, key_id: str) -> None:
        """Drop the replies under a key that was deleted."""
        for slot in [slot for slot in self._kept if slot[0][:2] == (tenant, key_id)]:
            self._drop(slot)

    def _keep(self, place: Place, reply: bytes) -> None:
        self._kept[place.slot] = _Kept(place.model, place.digest, reply, self._clock() + self._replay_s)
        self._size += len(reply)
        if place.binding.session:
            last = self._last.pop(place.session, -1)
            self._last[place.session] = max(last, place.binding.seq)  # two at once may end in another order
        self._expire()

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            slot, oldest = next(iter(self._kept.items()))
            if oldest.until > now and self._size <= self._replay_bytes:
                break
            self._drop(slot)
        while len(self._last) > _MOST_SESSIONS:
            self._last.popitem(last=False)

    def _drop(self, slot: tuple[tuple[str, str, str], str]) -> None:
        self._size -= len(self._kept.pop(slot).reply)
