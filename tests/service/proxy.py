"""nginx between a client and a server, and recorders on both of its sides: every byte that it takes and gives."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hepipe.service.client import RemoteServer
from hepipe.service.inference import LENGTH_HEADER
from relay import Change, Relay
from service.conftest import Running, wait_for

SITE = Path(__file__).with_name("nginx.conf")
# Debian keeps it where the PATH of most users does not look.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx here: apt-get install nginx")
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass
class Conversation:
    """The bytes of one connection: ``up`` from whoever made it, ``down`` to him."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


class Recorder(Relay):
    """A relay that writes down all it passes on, before it does, each connection apart."""

    def __init__(self, port: int) -> None:
        self.conversations: list[Conversation] = []
        super().__init__(port, self._next, lambda number: _into(self.conversations[-1].down))

    def _next(self, number: int) -> Change:
        self.conversations.append(Conversation())
        return _into(self.conversations[-1].up)


def _into(written: bytearray) -> Change:
    def change(data: bytes) -> bytes:
        written.extend(data)
        return data

    return change


class Nginx:
    """nginx with the site that users are given, in a folder that holds certificate and key."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.folder, self._upstream = folder, upstream
        for _ in range(5):  # a port that is free now may be taken before nginx has it
            if self._started():
                return
        raise AssertionError((folder / "start.log").read_text())

    def _started(self) -> bool:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._configure()
        assert NGINX is not None
        words = [NGINX, "-p", str(self.folder), "-c", "main.conf", "-e", "start.log"]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.process.poll() is not None or self._listens(), 60)
        return self.process.poll() is None

    def _configure(self) -> None:
        site = SITE.read_text()
        for given, here in (
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"), ("http://127.0.0.1:8800", self._address()),
            ("/etc/hepipe/", f"{self.folder}/"), ("/var/log/nginx/", f"{self.folder}/"),
        ):  # fmt: skip
            assert given in site
            site = site.replace(given, here)
        (self.folder / "site.conf").write_text(site)
        temporary = "\n".join(f"{name}_temp_path temporary;" for name in _TEMPORARY)
        (self.folder / "main.conf").write_text(
            "daemon off; master_process off; pid nginx.pid;\nevents { worker_connections 1024; }\n"
            f"http {{\naccess_log off;\n{temporary}\ninclude site.conf;\n}}\n"
        )

    def _address(self) -> str:
        return f"http://127.0.0.1:{self._upstream}"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@dataclass
class Proxied:
    """A server behind nginx; ``outer`` records what passes between client and nginx, ``inner`` what nginx sees."""

    server: Running
    folder: Path
    inner: Recorder = field(init=False)
    outer: Recorder = field(init=False)
    nginx: Nginx = field(init=False)

    def __post_init__(self) -> None:
        self.inner = Recorder(int(self.server.url.rpartition(":")[2]))
        self.nginx = Nginx(self.folder, self.inner.port)
        self.outer = Recorder(self.nginx.port)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.outer.port}"

    @property
    def authority(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.tokens.get('alice')}"}

    def http(self, **more: str) -> httpx2.Client:
        """A client whose requests to infer have a header of one byte."""
        headers = self.headers | {LENGTH_HEADER: "1"} | more
        return httpx2.Client(base_url=self.url, headers=headers, verify=self.trusted, timeout=60)

    def remote(self, model: str, **more: Any) -> RemoteServer:
        given = {"token": self.server.tokens.get("alice"), "authority": self.authority, "allow_insecure": True}
        return RemoteServer(self.url, model, **{**given, **more})

    def stop(self) -> None:
        self.nginx.stop()
        self.inner.close()
        self.outer.close()
