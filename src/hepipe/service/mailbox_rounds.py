"""Rounds through a mailbox: the worker's half waits for a key holder who comes by when he likes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hepipe.errors import HepipeError, PeerLost, StoreFailed
from hepipe.protocol.link import Message, Transcript
from hepipe.service.mailbox import POLL_S, pauses
from hepipe.service.mailbox_letters import JOBS, Job, Letter, Part, Place, jobs
from hepipe.service.mailbox_store import Store

log = logging.getLogger("hepipe.service")
LEASE_S = 30.0
EXPIRE_S = 7 * 86_400.0


@dataclass(frozen=True)
class Waiting:
    """How long a worker waits, in seconds.

    lease_s   for a sign of life of another worker, before its request is tried again
    answer_s  for a key holder's answer, before the request is given up
    expire_s  before what nobody touched is deleted
    poll_s    at most between two looks
    jobs      how many predictions may wait for their key holders at once
    """

    lease_s: float = LEASE_S
    answer_s: float = 86_400.0
    expire_s: float = EXPIRE_S
    poll_s: float = POLL_S
    jobs: int = 64


class Desk:
    """What the predictions of one worker share: the store, the turn to compute, and the word to stop."""

    def __init__(self, store: Store, waiting: Waiting) -> None:
        self.store, self.waiting = store, waiting
        self.compute, self.stopping = threading.Lock(), threading.Event()

    def job(self, place: Place) -> Job:
        """A job as it is now; the store may be away for a while. PeerLost when stopped."""
        while not self.stopping.is_set():
            try:
                return jobs(self.store.list(f"{JOBS}/{place.model}")).get(place.job, Job())
            except StoreFailed as error:
                log.warning("job %s waits for the mailbox: %s", place.job[:8], error)
                self.stopping.wait(self.waiting.poll_s)
        raise PeerLost("the worker was stopped")

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Let others compute."""
        self.compute.release()
        try:
            yield
        finally:
            self.compute.acquire()


class MailboxLink:
    """A worker's link to a key holder, in one attempt at one request: for protocols the same as LocalLink.

    rounds  the most that are planned; limit, the bytes of an answer

    PeerLost from ``request`` if no answer comes, if the client withdrew, or if another attempt is on.
    """

    def __init__(self, desk: Desk, place: Place, attempt: int, rounds: int, limit: int) -> None:
        self._desk, self._place, self._attempt, self._rounds, self._limit = desk, place, attempt, rounds, limit
        self._round = 0
        self.transcript = Transcript()

    def request(self, kind: str, frame: bytes) -> bytes:
        """Leave a frame for the key holder and wait for the answer. One round."""
        self._round += 1
        if self._round > self._rounds:
            raise HepipeError(f"the circuit asks for more than the {self._rounds} rounds planned")
        numbers = (self._attempt, self._round)
        letter = Letter(Part.ASK, self._place, *numbers, frame)
        try:
            self._desk.store.create(self._place.name("ask", *numbers), letter.to_bytes())
            self.transcript.messages.append(Message(kind, "server", len(frame)))
            with self._desk.waits():
                data = self._answer()
        except StoreFailed as error:
            raise PeerLost(f"round {self._round} could not be asked") from error
        reply = Letter.parse(data).expect(self._place, [Part.ANSWER], *numbers).body
        self.transcript.messages.append(Message(kind, "client", len(reply)))
        return reply

    def _answer(self) -> bytes:
        """The object with the answer, once it is there."""
        desk = self._desk
        end, waiting = time.monotonic() + desk.waiting.answer_s, pauses(desk.waiting.poll_s)
        while time.monotonic() < end:
            job = desk.job(self._place)
            if "request" not in job.parts or "reply" in job.parts or job.attempt > self._attempt:
                raise PeerLost("given up: the client left, or another attempt is on")
            if (self._attempt, self._round) in job.answers:
                return desk.store.read(self._place.name("answer", self._attempt, self._round), self._limit) or b""
            desk.stopping.wait(next(waiting))
        raise PeerLost(f"no answer to round {self._round} within {desk.waiting.answer_s:g} s")
