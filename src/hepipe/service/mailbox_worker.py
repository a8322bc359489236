"""The server's side of a mailbox: a process that looks for requests, evaluates them, and may die at any moment.

Several may work on one mailbox. A request whose worker died is tried again, at most MAX_ATTEMPTS times, each time with
rounds, masks and blindings of its own; after that it is refused, since it may be what killed them.

A prediction with rounds lives in its worker while it waits for the key holder, who may come and go between rounds; the
masks are nowhere else. One request is computed at a time, ``waiting`` of them may wait.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame, PeerLost, StoreFailed
from hepipe.protocol.parties import Server, registered
from hepipe.schemes.frames import Kind, parse
from hepipe.schemes.wire import parameter_fields
from hepipe.service.mailbox import MAX_ATTEMPTS, pauses
from hepipe.service.mailbox_lease import Leases
from hepipe.service.mailbox_letters import JOBS, KEYS, MODEL_ID, MODELS, Job, Letter, Part, Place, jobs
from hepipe.service.mailbox_rounds import Desk, MailboxLink, Waiting
from hepipe.service.mailbox_store import Store
from hepipe.service.models import Repository, Served
from hepipe.service.problems import Refused
from hepipe.service.uploads import SecretKeyUploaded, check_upload
from hepipe.service.worker import evaluated
from hepipe.study.plan import Plan

log = logging.getLogger("hepipe.service")
_CLEAN_EVERY_S = 3600.0
_KEPT = 16
"""Evaluators, each with one client's keys, that are kept ready."""


class MailboxWorker:
    """Answers the requests for the bundles of a folder; learns nothing of inputs or scores."""

    def __init__(
        self,
        url: str,
        models: Path,
        waiting: Waiting | None = None,
        *,
        options: dict[str, Any] | None = None,
        allow_insecure: bool = False,
    ) -> None:
        self.store, self._waiting, self._allow_insecure = Store(url, options), waiting or Waiting(), allow_insecure
        repository = Repository(models, allow_insecure)
        repository.reload()
        names = repository.names()
        served = [repository.get(name, version) for name, versions in names.items() for version in versions]
        self._models = {each.bundle.digest: each for each in served}
        self._servers: OrderedDict[tuple[str, str], Server] = OrderedDict()
        self._desk = Desk(self.store, self._waiting)
        self._leases = Leases(self.store, self._waiting.lease_s)
        self._threads = ThreadPoolExecutor(self._waiting.jobs, "hepipe-mailbox")
        self._running: set[str] = set()
        self._ignored: set[str] = set()
        self._cleaned = -_CLEAN_EVERY_S
        for each in served:
            self._publish(each)

    def run(self) -> None:
        """Work until ``stop``; what is being computed is finished, what waits for a key holder is given up."""
        waiting = pauses(self._waiting.poll_s)
        while not self._desk.stopping.is_set():
            try:
                if self.step():
                    waiting = pauses(self._waiting.poll_s)
            except HepipeError as error:
                log.warning("the mailbox could not be looked through, trying again: %s", error)
            self._desk.stopping.wait(next(waiting))
        self._threads.shutdown(wait=True)
        self._leases.close()

    def stop(self) -> None:
        """Have ``run`` return; from any thread or signal handler."""
        self._desk.stopping.set()

    def step(self) -> int:
        """Look once, begin whatever may be begun; how many that is."""
        if time.monotonic() - self._cleaned > _CLEAN_EVERY_S:
            self._cleaned = time.monotonic()
            clean(self.store, self._waiting.expire_s)
        begun, listed = 0, set()
        for digest, served in self._models.items():
            found = jobs(self.store.list(f"{JOBS}/{digest}"))
            listed |= set(found)
            for job_id, job in found.items():
                free = len(self._running) < self._waiting.jobs and not self._desk.stopping.is_set()
                begun += free and self._begin(served, job_id, job)
        self._ignored &= listed
        self._leases.forget(listed)
        return begun

    def _begin(self, served: Served, job_id: str, job: Job) -> bool:
        """Claim a request that nobody works on, and start on it; whether that was so."""
        if job_id in self._running | self._ignored or "request" not in job.parts or "reply" in job.parts:
            return False
        here = Place(served.bundle.digest, job_id, "", "")
        if job.attempt and not self._leases.abandoned(here, job.attempt):
            return False
        try:
            data = self.store.read(here.name("request"), served.request_bytes)
            if data is None:
                return False
            letter = Letter.parse(data)
            place = dataclasses.replace(letter.place, model=here.model, job=here.job)
            letter.expect(place, [Part.REQUEST], 0)
        except MalformedFrame as error:
            # To whom a refusal would have to be bound cannot be read either: it is left to expire.
            log.warning("job %s is no request: %s", job_id[:8], error)
            self._ignored.add(job_id)
            return False
        if job.attempt >= MAX_ATTEMPTS:
            self._refuse(place, Refused("worker-lost", f"{MAX_ATTEMPTS} workers ended while they evaluated this"))
            return False
        if not self._leases.claim(place, job.attempt + 1):
            return False
        self._running.add(job_id)
        self._threads.submit(self._process, served, letter, job.attempt + 1)
        return True

    def _process(self, served: Served, letter: Letter, attempt: int) -> None:
        place = letter.place
        try:
            with self._desk.compute:
                frame = self._evaluated(served, letter, attempt)
            self.store.create(place.name("reply"), Letter(Part.RESULT, place, attempt, 0, frame).to_bytes())
        except (PeerLost, StoreFailed) as error:
            log.info("job %s, attempt %d: %s", place.job[:8], attempt, error)
        except HepipeError as error:
            self._refuse(place, error)
        except Exception:  # a defect of ours costs this attempt only
            log.exception("job %s, attempt %d failed", place.job[:8], attempt)
        finally:
            self._finished(place, attempt)

    def _finished(self, place: Place, attempt: int) -> None:
        """Let go of a job; where its request is gone the client has gone too, and what was written since is deleted."""
        self._leases.drop(place, attempt)
        try:
            job = jobs(self.store.list(f"{JOBS}/{place.model}")).get(place.job, Job())
            if "request" not in job.parts:
                self.store.delete(f"{JOBS}/{place.model}/{name}" for name in job.names)
        except StoreFailed as error:
            log.warning("job %s was not tidied: %s", place.job[:8], error)
        self._running.discard(place.job)

    def _refuse(self, place: Place, error: HepipeError) -> None:
        refused = Refused("secret-key", str(error)) if isinstance(error, SecretKeyUploaded) else Refused.of(error)
        body = json.dumps(refused.body()).encode()
        try:
            self.store.create(place.name("reply"), Letter(Part.REFUSAL, place, 0, 0, body).to_bytes())
        except StoreFailed as failed:
            log.warning("job %s was not refused: %s", place.job[:8], failed)

    def _evaluated(self, served: Served, letter: Letter, attempt: int) -> bytes:
        head = parse(letter.body, Kind.TENSOR)
        planned = served.planned(head)
        if head.key_id != letter.place.key_id:
            raise KeyMismatch("the letter is for another key than the tensor in it")
        server = self._server(served, planned, head.key_id)
        link = MailboxLink(self._desk, letter.place, attempt, planned.rounds, served.request_bytes)
        limits = served.bundle.model.profile.input_bound
        return evaluated(server, letter.body, limits, parameter_fields(planned.parameters), link)

    def _server(self, served: Served, planned: Plan, key_id: str) -> Server:
        name = (served.bundle.digest, key_id)
        if name not in self._servers:
            data = self.store.read(f"{KEYS}/{key_id}", served.key_bytes)
            if data is None:
                raise Refused("unknown", f"no key {key_id[:8]} is in the mailbox: register(client) leaves it there")
            check_upload(data)
            bundle = registered(data, allow_insecure=self._allow_insecure)
            if bundle.key_id != key_id or bundle.parameters != planned.parameters:
                raise KeyMismatch("this key has another id or other parameters than the plan: make keys for this model")
            policy = served.bundle.settings.policy
            self._servers[name] = Server(served.bundle.model, bundle, policy, allow_insecure=self._allow_insecure)
            while len(self._servers) > _KEPT:
                self._servers.popitem(last=False)
        self._servers.move_to_end(name)
        return self._servers[name]

    def _publish(self, served: Served) -> None:
        name, data = f"{MODELS}/{served.bundle.digest}", json.dumps(served.published()).encode()
        if not self.store.create(name, data):  # written by another version of hepipe
            self.store.delete([name])
            self.store.create(name, data)


def clean(store: Store, older_s: float) -> int:
    """Delete the jobs that nobody touched for ``older_s``, and whatever else lies among them; how many objects.

    Ages are taken by the store's clock, so that no other clock can make a fresh request old.
    """
    deleted = 0
    for model in filter(MODEL_ID.fullmatch, store.list(JOBS)):
        folder = f"{JOBS}/{model}"
        old = store.older(folder, older_s)
        alive = {name for job in jobs(store.list(folder)).values() if not job.names <= old for name in job.names}
        # The request first, so that no worker begins it.
        gone = sorted(old - alive, key=lambda name: not name.endswith(".request"))
        store.delete(f"{folder}/{name}" for name in gone)
        deleted += len(gone)
    return deleted
