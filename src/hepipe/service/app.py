"""The application: routes, one form for every error, and a log that holds no input, key, token or id."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hepipe import __version__
from hepipe.errors import HepipeError
from hepipe.service import documents, rounds, routes
from hepipe.service.core import Core
from hepipe.service.problems import MEDIA_TYPE, Refused

log = logging.getLogger("hepipe.service")
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


def create_app(core: Core) -> FastAPI:
    """The application of a server; workers start and end with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await core.start()
        yield
        core.stop()

    # The interactive documentation would fetch scripts from elsewhere.
    app = FastAPI(title="hepipe", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.core = core
    app.include_router(routes.router)
    app.include_router(rounds.router)
    app.add_exception_handler(HepipeError, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(ClientDisconnect, _refused)
    app.add_exception_handler(Exception, _refused)
    app.add_middleware(_Watch, core=core)
    _describe(app)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        detail = {404: "no such route", 405: "no such method here"}.get(error.status_code, str(error.detail))
        body = Refused("unknown", detail).body() | {"status": error.status_code}
        return JSONResponse(body, error.status_code, error.headers, MEDIA_TYPE)
    if isinstance(error, (RequestValidationError, ClientDisconnect)):
        error = Refused("malformed", "a parameter of the path, or the body, is not what the API document says")
    if not isinstance(error, HepipeError):
        log.error("%s in a request", type(error).__name__, exc_info=error)
        error = Refused("internal", "the server failed: the request was not answered")
    refused = Refused.of(error)
    return JSONResponse(refused.body(), refused.status, refused.headers(), MEDIA_TYPE)


class _Watch:
    """Logs and counts requests by the pattern of their route, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, core: Core) -> None:
        self._app, self._core = app, core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), [0]

        async def watched(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status[0] = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            elif message["type"] == "websocket.close":
                status[0] = message.get("code", 1000)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._record(scope, status[0], time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope.get("method", "WEBSOCKET")
        method = method if method in ("GET", "PUT", "POST", "DELETE", "WEBSOCKET") else "OTHER"
        self._core.metrics.requests.labels(method, route, status).inc()
        self._core.metrics.seconds.labels(route).observe(seconds)
        log.info("%s %s %d %.1f ms", method, route, status, 1e3 * seconds)


def _describe(app: FastAPI) -> None:
    """Put the problem body into the document, to which all refusals refer."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = documents.Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                if "HTTPValidationError" in str(operation["responses"].get("422", "")):
                    del operation["responses"]["422"]
                # Bytes that are no HTTP are answered before any route is known, with a line of text.
                malformed = operation["responses"].setdefault("400", documents.refusals(400)[400])
                malformed["content"] = {**malformed["content"], "text/plain": {"schema": {"type": "string"}}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
