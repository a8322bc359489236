"""The server that is hurt, the client who is hurt with it, and the judge of how each request ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from hepipe.circuits.activation import IDENTITY, on_request
from hepipe.circuits.functions import TANH
from hepipe.errors import HepipeError
from hepipe.models.bundle import Bundle, Settings, save
from hepipe.models.importers import from_sklearn
from hepipe.models.logistic import clear_scores
from hepipe.models.mlp import mlp
from hepipe.models.profile import Profile
from hepipe.protocol.link import Link, LocalLink
from hepipe.protocol.parties import Client
from hepipe.service.client import RemoteServer
from hepipe.service.problems import Refused
from hepipe.service.tenants import add_tenant
from hepipe.service.transport import Transport
from relay import Changes, Relay, unchanged
from served_models import FRAME, SCHEMA, TARGET, made
from service.conftest import SAMPLES, SMALL, Running, export, wait_for

X = FRAME.iloc[:SAMPLES]
SCHEMES = ("paillier", "ckks")
DEADLINE_S = 60.0
"""Of every attempt at a request; ``GRACE_S`` more until the client knows."""
GRACE_S = 2.0
LIMITS = (f"deadline_s={DEADLINE_S}", f"session_s={DEADLINE_S}", "round_s=3", "body_s=3", "keys=1000")
_PRUNED = ("--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


def deep() -> Any:
    """Two hidden layers of one width whose activations the key holder computes: two rounds that look alike."""
    rng = np.random.default_rng(7)
    layers = [(rng.normal(size=(n, 2)) / size, rng.normal(size=2), on_request(TANH)) for n, size in ((3, 40), (2, 1))]
    return mlp(Profile.of("regression", SCHEMA, 1), [*layers, ([[0.5], [1.0]], np.zeros(1), IDENTITY)], FRAME)


def other_linear() -> Any:
    """What another version of "linear" might be."""
    return from_sklearn(LinearRegression().fit(FRAME, -TARGET), SCHEMA)


@dataclass(frozen=True)
class Ending:
    """How a request ended: "right", or the kind of its typed error."""

    how: str
    seconds: float
    recovery_s: float | None = None


@dataclass
class Party:
    """One tenant's client of one model on one scheme."""

    scene: Scene
    tenant: str
    name: str
    scheme: str

    @cached_property
    def client(self) -> Client:
        return self.server().client(self.scheme)

    @cached_property
    def error_bound(self) -> float:
        """Of the plan: how far right scores may be from the clear ones."""
        return self.server().plan(self.scheme).error_bound

    @property
    def model(self) -> Any:
        return self.scene.deep if self.name == "deep" else made(self.name)

    @property
    def policy(self) -> str:
        return "client" if self.name == "deep" else "polynomial"

    def server(self, **more: Any) -> RemoteServer:
        given = {"policy": self.policy, "timeout_s": DEADLINE_S, "version": "1"}
        return self.scene.running.remote(self.name, self.tenant, **{**given, **more})

    def reached(self, relay: Relay | None = None, retries: int = 0, timeout_s: float = DEADLINE_S) -> RemoteServer:
        """The server with this client's keys; predictions go through ``relay``, what comes before them does not."""
        server = self.server(retries=retries, timeout_s=timeout_s)
        server.register(self.client)
        server.plan(self.scheme)
        if relay is not None:
            token = self.scene.running.tokens[self.tenant]
            server.close()
            server._transport = Transport(f"http://127.0.0.1:{relay.port}", token, None, timeout_s, retries)
        return server

    def ask(self, server: RemoteServer | None = None, rows: Any = X, link: Link | None = None, **more: Any) -> Ending:
        """One prediction, held against the clear one."""
        remote = server or self.reached(**more)
        try:
            return self.ends(lambda: self.scores(remote, rows, link), rows, 1 + remote._transport._retries)
        finally:
            remote.close()

    def scores(self, server: RemoteServer, rows: Any = X, link: Link | None = None) -> Any:
        return self.client.decrypt(server.evaluate(self.client.encrypt(rows), link or self.client.link()))

    def ends(self, call: Callable[[], Any], rows: Any = X, attempts: int = 1) -> Ending:
        """How a call for the scores of ``rows`` ends: never in a wrong number, an untyped error or too late."""
        error_bound, start = self.error_bound, time.monotonic()
        try:
            found = call()
        except HepipeError as error:
            how = error.kind if isinstance(error, Refused) else type(error).__name__
        else:
            worst = np.abs(found - clear_scores(self.model, rows, self.policy)).max()
            assert worst <= error_bound, f"a wrong number: {self.name} on {self.scheme} is off by {worst}"
            how = "right"
        seconds = time.monotonic() - start
        assert seconds <= attempts * DEADLINE_S + GRACE_S, f"{how} after {seconds:.1f} s"
        return Ending(how, seconds)

    def link(self, before: Callable[[int], None]) -> LocalLink:
        """A link that calls ``before`` with the number of every round, then answers it."""
        rounds: list[bytes] = []

        def answer(frame: bytes) -> bytes:
            rounds.append(frame)
            before(len(rounds))
            return self.client.answer(frame)

        return LocalLink(answer)


@dataclass
class Scene:
    """A server process with two tenants: alice, whom the faults hit, and bob, who must not notice."""

    folder: Path
    parties: dict[tuple[str, str, str], Party] = field(default_factory=dict)
    others: dict[Path, Running] = field(default_factory=dict)
    deep: Any = field(default_factory=deep)

    @cached_property
    def running(self) -> Running:
        server = Running(self.folder, LIMITS, without_privileges())
        export(self.models, "linear", "powers", "square")
        self.save(Bundle(self.deep, "deep", "1", Settings(SCHEMES, **SMALL, policy="client")))
        server.tokens = {name: add_tenant(self.folder / "tokens", name) for name in ("alice", "bob")}
        self.clock.write_text("0")
        server.start()
        return server

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def keys(self) -> Path:
        return self.folder / "state" / "keys"

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    @property
    def log(self) -> str:
        return self.running.log.read_text()

    def save(self, bundle: Bundle) -> Path:
        path = self.models / f"{bundle.name}-{bundle.version}.zip"
        save(path, bundle)
        return path

    def party(self, name: str = "linear", scheme: str = "ckks", tenant: str = "alice") -> Party:
        """Made once, so that keys are sent once."""
        return self.parties.setdefault((tenant, name, scheme), Party(self, tenant, name, scheme))

    @contextmanager
    def relay(self, up: Changes = unchanged, down: Changes = unchanged) -> Iterator[Relay]:
        """A bad line to the server."""
        with Relay(int(self.running.url.rpartition(":")[2]), up, down) as relay:
            yield relay

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.running.stop(number)
        self.running.start()

    def reload(self) -> None:
        """Have the folder of models read again, and wait until it was."""
        before = self.log.count("models: ")
        self.running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.log.count("models: ") > before)

    def beside(self, server: Running, prepare: Callable[[Path], Any]) -> Running:
        """Another server, of the linear model alone, started once."""
        if server.folder not in self.others:
            server.folder.mkdir()
            export(server.folder / "models", "linear")
            prepare(server.folder)
            self.others[server.folder] = server
            server.start()
        return self.others[server.folder]

    def close(self) -> None:
        for server in (self.running, *self.others.values()):
            if server.process.poll() is None:
                server.stop(signal.SIGKILL)


def without_privileges() -> tuple[str, ...]:
    """A command that takes from root what would let it write where the mode says no."""
    return ("setpriv", *_PRUNED) if os.geteuid() == 0 else ()
