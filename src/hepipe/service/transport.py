"""How a client's messages reach a server: HTTP and WebSockets, under TLS 1.3, again where an answer was lost."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from hepipe.errors import MalformedFrame, PeerLost, Unsupported
from hepipe.protocol.pipe import MAX_BYTES
from hepipe.service.limits import is_loopback
from hepipe.service.problems import Refused

T = TypeVar("T")
_BACKOFF_S = 0.2
_AGAIN = {"busy", "worker-lost", "deadline", "too-many"}


class Transport:
    """One server: https, or http to this machine only, since a token would travel in the clear.

    Every attempt sends the same bytes; where the server may have acted on a lost message already, they hold a session
    and a sequence number by which it knows.
    """

    def __init__(
        self, url: str, token: str | None, authority: str | Path | None, timeout_s: float, retries: int
    ) -> None:
        parts = httpx2.URL(url)
        if parts.scheme not in ("http", "https") or (parts.scheme == "http" and not is_loopback(parts.host)):
            raise Unsupported(f"{url}: use https; plain http is for this machine only")
        self._url, self._timeout_s, self._retries = str(parts).rstrip("/"), timeout_s, retries
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._tls = ssl.create_default_context(cafile=None if authority is None else str(authority))
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._http = httpx2.Client(base_url=self._url, headers=self._headers, verify=self._tls, timeout=timeout_s)

    def call(
        self, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, Any]:
        """Body and headers of an answer; Refused with the server's words, PeerLost without an answer."""
        return self._retried(lambda: self._once(method, path, content, headers))

    def converse(self, path: str, talk: Callable[[WebSocketEnds], T]) -> T:
        """What ``talk`` returns over a WebSocket; Refused with the server's words, PeerLost if it breaks."""
        return self._retried(lambda: self._connected(path, talk))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _once(self, method: str, path: str, content: bytes, headers: dict[str, str] | None) -> tuple[bytes, Any]:
        try:
            answer = self._http.request(method, path, content=content or None, headers=headers)
        except httpx2.RequestError as error:
            raise PeerLost(f"{method} got no answer from the server: {type(error).__name__}") from error
        if answer.status_code >= 400:
            raise Refused.from_body(answer.content, answer.status_code)
        return answer.content, answer.headers

    def _connected(self, path: str, talk: Callable[[WebSocketEnds], T]) -> T:
        url = "ws" + self._url.removeprefix("http") + path
        tls = self._tls if url.startswith("wss") else None
        opening = connect(
            url, ssl=tls, additional_headers=self._headers, compression=None, max_size=MAX_BYTES,
            open_timeout=self._timeout_s, close_timeout=1,
        )  # fmt: skip
        try:
            # One thread reads and writes: OpenSSL allows no two, and what one of two writes may never arrive.
            with start_blocking_portal() as portal, portal.wrap_async_context_manager(opening) as socket:
                return talk(WebSocketEnds(portal, socket, self._timeout_s))
        except InvalidStatus as error:
            raise Refused.from_body(bytes(error.response.body or b""), error.response.status_code) from error
        except (WebSocketException, OSError) as error:
            raise PeerLost(f"the connection to the server broke: {type(error).__name__}") from error

    def _retried(self, once: Callable[[], T]) -> T:
        """``once``, again while only the way there or back, or the server's load, was at fault."""
        for attempt in range(self._retries):
            try:
                return once()
            except PeerLost:
                pass
            except Refused as refused:
                if refused.kind not in _AGAIN and refused.retry_after_s is None:
                    raise
            time.sleep(_BACKOFF_S * 2**attempt)
        return once()


class WebSocketEnds:
    """A WebSocket as ``protocol.pipe.converse`` wants it; a text in place of a frame is the server's refusal.

    sent      the first message of this side
    received  the last message of the other
    """

    def __init__(self, portal: BlockingPortal, socket: ClientConnection, timeout_s: float) -> None:
        self._portal, self._socket, self._timeout_s = portal, socket, timeout_s
        self.sent = self.received = b""

    def send(self, message: bytes) -> None:
        """Send one frame; Refused with the server's words if it has closed the conversation with a reason."""
        self.sent = self.sent or message
        try:
            self._portal.call(self._socket.send, message)
        except ConnectionClosed:
            self.receive()
            raise

    def receive(self) -> bytes:
        """One frame; Refused with the server's words."""
        message = self._portal.call(self._next)
        if isinstance(message, str):
            raise Refused.from_body(message.encode(), 503)
        self.received = message
        return message

    def send_text(self, message: str) -> None:
        """Send one text."""
        self._portal.call(self._socket.send, message)

    def receive_text(self) -> str:
        """One text; MalformedFrame for anything else."""
        message = self._portal.call(self._next)
        if not isinstance(message, str):
            raise MalformedFrame("a binary message where the server says what its answer is bound to")
        return message

    async def _next(self) -> str | bytes:
        async with asyncio.timeout(self._timeout_s):
            return await self._socket.recv()
