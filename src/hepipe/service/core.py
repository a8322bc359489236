"""The server itself, without HTTP: who asks what of which model under which key, and what it costs them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.wire import parameter_fields
from hepipe.service.inference import Binding
from hepipe.service.keys import KEY_ID, KeyStore, StoredKey
from hepipe.service.limits import Budget, Limits, Rates
from hepipe.service.metrics import Metrics
from hepipe.service.models import Repository, Served
from hepipe.service.pool import Ask, Pool, check_key, evaluate
from hepipe.service.problems import Refused
from hepipe.service.sessions import Place, Sessions
from hepipe.service.tenants import Tenant, Tenants
from hepipe.study.plan import Plan

_LARGE = 1 << 20
"""A frame that is read in a thread: 1 ms of digests. For smaller ones the way to a thread and back takes longer."""


@dataclass(frozen=True)
class Answer:
    """A result: its frame, and the fields that bind it to key, model, session, sequence and request."""

    frame: bytes
    fields: dict[str, Any]


class Core:
    """Models, keys, tenants, limits and workers of one server."""

    def __init__(
        self, models: Path, state: Path, tenants: Tenants, limits: Limits, *, allow_insecure: bool = False
    ) -> None:
        self.limits, self.tenants, self.metrics = limits, tenants, Metrics()
        self.models = Repository(models, allow_insecure)
        self.keys = KeyStore(state / "keys", limits.keys, limits.key_bytes)
        self.sessions = Sessions(limits.replay_s, limits.replay_bytes)
        self.rates = Rates(limits.rate, limits.burst)
        self.budget = Budget(state / "budgets", limits.rows)
        self.pool = Pool(limits.workers, limits.round_s, allow_insecure)
        self.round_pool = Pool(limits.round_workers, limits.round_s, allow_insecure)
        self.ready = False
        self.running = 0

    async def start(self) -> None:
        """Load the models and start a worker."""
        await asyncio.to_thread(self.models.reload)
        await self.pool.start(self.limits.deadline_s)
        self.ready = True

    def stop(self) -> None:
        """End the workers."""
        self.ready = False
        self.pool.close()
        self.round_pool.close()

    async def add_key(self, tenant: Tenant, key_id: str, data: bytes) -> tuple[StoredKey, bool]:
        """Check an upload in a worker and keep it; (the key, whether it is new). Idempotent."""
        _check_key_id(key_id)
        self.keys.check_quota(tenant.folder, key_id, len(data))
        self.rates.spend(f"{tenant.folder}-keys")
        with self._running():
            found = await self.pool.run(check_key(data), self.limits.deadline_s)
            if found["key_id"] != key_id:
                raise KeyMismatch(f"the upload holds key {found['key_id']}, not {key_id}")
            return await asyncio.to_thread(self.keys.put, tenant.folder, key_id, data)

    def key(self, tenant: Tenant, key_id: str) -> StoredKey:
        """A stored key; Refused (404)."""
        _check_key_id(key_id)
        return self.keys.get(tenant.folder, key_id)

    def delete_key(self, tenant: Tenant, key_id: str) -> None:
        """Forget a key and the replies under it; Refused (404)."""
        _check_key_id(key_id)
        self.keys.delete(tenant.folder, key_id)
        self.sessions.forget(tenant.folder, key_id)

    async def predict(
        self, tenant: Tenant, served: Served, frame: bytes, binding: Binding, ask: Ask | None = None
    ) -> Answer:
        """One prediction; ``ask`` relays rounds, without it only plans without rounds are evaluated.

        A request that was answered before gets its stored reply and costs nothing.
        """
        head, digest = await _read(frame)
        planned = served.planned(head)
        if planned.rounds and ask is None:
            raise Refused("refused", f"this plan takes {planned.rounds} rounds: ask for it over the WebSocket")
        key = self.keys.get(tenant.folder, head.key_id)
        place = Place(tenant.folder, head.key_id, binding, served.bundle.digest, digest)
        if (stored := self.sessions.stored(place)) is not None:
            self.metrics.replays.inc()
            return _answer(served, place, stored)
        with self.sessions.answering(place) as keep:
            self.rates.spend(f"{tenant.folder}-{head.key_id}")
            self.budget.spend(tenant.folder, head.key_id, served.bundle.name, head.samples)
            reply = await self._evaluated(served, planned, key, frame, ask)
            keep(reply)
        self.metrics.rows.labels(served.bundle.name, head.scheme).inc(head.samples)
        return _answer(served, place, reply)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """What a stop waits for."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def _evaluated(self, served: Served, planned: Plan, key: StoredKey, frame: bytes, ask: Ask | None) -> bytes:
        fields = parameter_fields(planned.parameters)
        job = {"model": served.bundle.digest, "key": str(key.path), "parameters": fields}
        counted = _Counted(ask, planned.rounds)
        pool, seconds = (
            (self.round_pool, self.limits.session_s) if planned.rounds else (self.pool, self.limits.deadline_s)
        )
        try:
            with self._running():
                name = served.bundle.digest, str(key.path)
                found = await pool.run(evaluate(job, served.data, frame), seconds, counted, name)
            self.metrics.blindings.labels("ahead").inc(found.ahead)
            self.metrics.blindings.labels("late").inc(found.late)
            return found.frame
        finally:
            self.metrics.rounds.labels(served.bundle.name).inc(counted.rounds)
            self.metrics.workers.set(self.pool.started + self.round_pool.started)


class _Counted:
    """Rounds, not more than planned."""

    def __init__(self, ask: Ask | None, most: int) -> None:
        self._ask, self._most, self.rounds = ask, most, 0

    async def __call__(self, frame: bytes) -> bytes:
        if self._ask is None or self.rounds >= self._most:
            raise HepipeError(f"a worker asked for more than the {self._most} rounds planned")
        self.rounds += 1
        return await self._ask(frame)


async def _read(frame: bytes) -> tuple[Frame, str]:
    """A tensor's frame parsed, and its digest."""

    def read() -> tuple[Frame, str]:
        return parse(frame, Kind.TENSOR), hashlib.sha256(frame).hexdigest()

    return read() if len(frame) < _LARGE else await asyncio.to_thread(read)


def _answer(served: Served, place: Place, frame: bytes) -> Answer:
    parameters = {
        "key_id": place.key_id, "session": place.binding.session, "seq": place.binding.seq,
        "model_digest": place.model, "request_sha256": place.digest,
        "response_sha256": hashlib.sha256(frame).hexdigest(),
    }  # fmt: skip
    fields = {"model_name": served.bundle.name, "model_version": served.bundle.version, "parameters": parameters}
    return Answer(frame, fields | ({"id": place.binding.request_id} if place.binding.request_id else {}))


def _check_key_id(key_id: str) -> None:
    if not KEY_ID.fullmatch(key_id):
        raise MalformedFrame("a key id is 32 hexadecimal digits in lower case")
