"""A server on a socket: TLS 1.3 and tokens wherever others could connect, a reload on SIGHUP, a stop that finishes."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from hepipe.errors import HepipeError, Unsupported
from hepipe.service.app import create_app
from hepipe.service.core import Core
from hepipe.service.limits import HEADER_JSON_BYTES, Limits, is_loopback
from hepipe.service.tenants import Tenants

log = logging.getLogger("hepipe.service")
_MOST_CONNECTIONS = 512
_POLL_S = 0.05
_CLOSING_S = 10


@dataclass(frozen=True)
class Address:
    """Where to listen. ``certificate`` and ``key`` are PEM files; without them the host must be this machine."""

    host: str = "127.0.0.1"
    port: int = 8800
    certificate: Path | None = None
    key: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.certificate is not None


def serve(
    models: Path,
    state: Path,
    address: Address,
    tokens: Path | None = None,
    limits: Limits | None = None,
    *,
    allow_insecure: bool = False,
    listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the bundles of ``models`` until SIGTERM or SIGINT, which finish what runs; keys are kept in ``state``.

    tokens          a file of ``hepipe token``; without it whoever reaches the server may use it
    allow_insecure  take bundles and keys of the tests
    listening       is called with the URL once the server takes connections

    Unsupported unless tokens and TLS guard an address that is not this machine's own.
    """
    check_address(address, tokens)
    tenants = Tenants({}) if tokens is None else Tenants.load(tokens)
    core = Core(models, state, tenants, limits or Limits(), allow_insecure=allow_insecure)
    core.models.reload()
    config = _config(core, address)
    listener = _bound(address)
    port = listener.getsockname()[1]
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = f"{'https' if address.secure else 'http'}://{host}:{port}"
    try:
        _Server(config, core, lambda: listening(url)).run(sockets=[listener])
    finally:
        core.stop()  # also where the start failed


def check_address(address: Address, tokens: Path | None) -> None:
    """Unsupported unless an address beyond this machine has TLS and tokens."""
    if (address.certificate is None) != (address.key is None):
        raise Unsupported("TLS takes a certificate and its key: give both or none")
    if is_loopback(address.host) or (address.secure and tokens is not None):
        return
    raise Unsupported(
        f"{address.host} can be reached from other machines: give --tls-cert, --tls-key and --tokens, or listen on "
        "127.0.0.1"
    )


def _config(core: Core, address: Address) -> uvicorn.Config:
    config = uvicorn.Config(
        create_app(core),
        log_config=None,
        log_level="warning",  # it would say who opens which WebSocket
        access_log=False,  # the application's own log holds no path
        server_header=False,
        proxy_headers=False,
        ws="websockets-sansio",
        http="h11",
        ws_max_size=max(core.models.request_bytes, HEADER_JSON_BYTES),
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=1 << 16,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_CLOSING_S,  # after the predictions: what is left are idle connections
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return config


def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio takes Nagle's delay off a connection only if its protocol is named; with it an answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host.strip("[]"), address.port))
    except OSError as error:
        raise Unsupported(f"cannot listen on {address.host}:{address.port}: {error.strerror}") from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn, with a reload on SIGHUP, and with predictions in rounds finished before it closes WebSockets."""

    def __init__(self, config: uvicorn.Config, core: Core, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._core, self._listening = core, listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
            self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._core.ready = False
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        try:
            async with asyncio.timeout(self._core.limits.session_s):
                while self._core.running:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            log.warning("%d predictions were still running", self._core.running)
        await super().shutdown(sockets)

    def _reload(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reloaded())

    async def _reloaded(self) -> None:
        try:
            await asyncio.to_thread(self._core.models.reload)
            log.info("models: %s", self._core.models.names())
        except HepipeError as error:
            log.error("models as before: %s", error)
