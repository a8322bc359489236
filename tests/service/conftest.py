"""A real server in a process of its own, on a port of this machine, with two tenants and an operator."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hepipe.models.bundle import Bundle, Settings, save
from hepipe.service.client import RemoteServer
from hepipe.service.tenants import add_tenant
from served_models import MAKERS, made, policy_of, schemes_of

TESTS = Path(__file__).parent.parent
SAMPLES = 3
SMALL = {"samples": SAMPLES, "precision_bits": 8.0, "security_bits": 0}
"""Insecure: keys of 1024 bits, rings of 1024."""


def export(folder: Path, *names: str, version: str = "1", **more: Any) -> None:
    """Write bundles of the test models, under test keys."""
    folder.mkdir(exist_ok=True)
    for name in names:
        given = Settings(schemes_of(name), **{**SMALL, "policy": policy_of(name), **more})
        save(folder / f"{name}-{version}.zip", Bundle(made(name), name, version, given))


@dataclass
class Running:
    """A server's process, its folder and the tokens of its tenants."""

    folder: Path
    options: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    """The command that runs it."""
    tokens: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: Any = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start it, wherever it listened before."""
        port = self.url.rpartition(":")[2] or "0"
        script = str(TESTS / "service" / "server.py")
        words = [*self.within, sys.executable, script, str(self.folder), port, *self.options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log.open("ab"), env=environment)
        assert select.select([self.process.stdout], [], [], 120)[0], (
            "no URL within two minutes: " + self.log.read_text()
        )
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url.startswith("http"), self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process.stdout.close()
        return int(status)

    def http(self, tenant: str | None = "alice") -> httpx2.Client:
        headers = {} if tenant is None else {"Authorization": f"Bearer {self.tokens[tenant]}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60)

    def remote(self, model: str, tenant: str = "alice", **more: Any) -> RemoteServer:
        given = {"token": self.tokens.get(tenant), "allow_insecure": True, "policy": policy_of(model)}
        return RemoteServer(self.url, model, **{**given, **more})

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    spawned = b"spawn_main" in (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if parent == self.process.pid and spawned:
                    found.append(int(entry.name))
        return found


def wait_for(condition: Callable[[], Any], seconds: float = 30, pause_s: float = 0.02) -> Any:
    """What ``condition`` returns once it is true; asked again after every pause."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause_s)
    return value


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    server = Running(tmp_path_factory.mktemp("server"), ("keys=500",))
    export(server.folder / "models", *MAKERS)
    server.tokens = {
        name: add_tenant(server.folder / "tokens", name, name == "root") for name in ("alice", "bob", "root")
    }
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server behind nginx, with models whose numbers are like no others, for tests that leave both at work."""
    from service import odd_models, proxy, test_tls  # they need this module

    behind, outside = tmp_path_factory.mktemp("behind"), tmp_path_factory.mktemp("nginx")
    server = Running(behind, ("workers=1", "round_workers=1", "keys=500"))
    (behind / "models").mkdir()
    for name in odd_models.MODELS:
        settings = Settings(odd_models.schemes_of(name), **SMALL)
        save(behind / "models" / f"{name}.zip", Bundle(odd_models.odd(name), name, "1", settings))
    server.tokens = {"alice": add_tenant(behind / "tokens", "alice")}
    test_tls.certify(outside)
    server.start()
    middle = proxy.Proxied(server, outside)
    yield middle
    middle.stop()
    server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Makes a server that a test may break: ``own("linear", rate=..., tokens=("alice",))``."""
    made_here: list[Running] = []

    def make(*names: str, tokens: tuple[str, ...] = ("alice",), options: tuple[str, ...] = (), **more: Any) -> Running:
        server = Running(tmp_path, options)
        export(tmp_path / "models", *names, **more)
        server.tokens = {name: add_tenant(tmp_path / "tokens", name) for name in tokens}
        made_here.append(server)
        server.start()
        return server

    yield make
    for server in made_here:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)
