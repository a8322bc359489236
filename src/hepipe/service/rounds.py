"""Predictions with rounds, over one WebSocket each.

    client  text    {"session": ..., "seq": ..., "id": ...}, all optional
    client  binary  the TENSOR frame
    server  binary  a frame of a round; client binary its answer; as often as the plan has rounds
    server  binary  the TENSOR frame of the scores
    server  text    what it is bound to: model, version, key, session, seq and digests; then the connection closes

Instead of any of the server's messages a text with a problem may come, after which it closes.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from hepipe.errors import HepipeError, MalformedFrame, PeerLost
from hepipe.service.core import Answer, Core
from hepipe.service.inference import Binding, json_object
from hepipe.service.limits import HEADER_JSON_BYTES
from hepipe.service.models import Served
from hepipe.service.problems import MEDIA_TYPE, Refused
from hepipe.service.tenants import Tenant

router = APIRouter()
_REFUSED, _DONE = 1008, 1000


@router.websocket("/v2/models/{model}/rounds")
@router.websocket("/v2/models/{model}/versions/{version}/rounds")
async def predict(socket: WebSocket, model: str, version: str | None = None) -> None:
    """One prediction; refused before the connection is made where token or model are wrong."""
    core: Core = socket.app.state.core
    try:
        tenant = core.tenants.authenticate(socket.headers.get("authorization"), socket.headers.get("host"))
        served = core.models.get(model, version)
    except Refused as refused:
        body = JSONResponse(refused.body(), refused.status, refused.headers(), MEDIA_TYPE)
        await socket.send_denial_response(body)
        return
    await socket.accept()
    with suppress(WebSocketDisconnect, RuntimeError):
        await _answered(_Conversation(socket, core, served), tenant)


async def _answered(talk: _Conversation, tenant: Tenant) -> None:
    try:
        answer = await talk.predict(tenant)
    except HepipeError as error:
        await talk.socket.send_text(json.dumps(Refused.of(error).body()))
        await talk.socket.close(_REFUSED)
        return
    await talk.socket.send_bytes(answer.frame)
    await talk.socket.send_text(json.dumps(answer.fields))
    await talk.socket.close(_DONE)


class _Conversation:
    """One client's WebSocket, in whole messages of limited size and in limited time."""

    def __init__(self, socket: WebSocket, core: Core, served: Served) -> None:
        self.socket, self._core, self._served = socket, core, served

    async def predict(self, tenant: Tenant) -> Answer:
        """The whole query."""
        limits = self._core.limits
        fields = json_object(await self._text(limits.body_s))
        if not set(fields) <= {"session", "seq", "id"}:
            raise MalformedFrame(f"fields {sorted(fields)}: session, seq and id are known")
        binding = Binding(fields.get("id", ""), fields.get("session", ""), fields.get("seq", 0))
        frame = await self._binary(limits.body_s)
        return await self._core.predict(tenant, self._served, frame, binding, self._ask)

    async def _ask(self, frame: bytes) -> bytes:
        """One round with the client."""
        try:
            await self.socket.send_bytes(frame)
            return await self._binary(self._core.limits.round_s)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise PeerLost("the client left in the middle of a query") from error

    async def _text(self, seconds: float) -> str:
        message = (await self._message(seconds)).get("text")
        if not isinstance(message, str) or len(message) > HEADER_JSON_BYTES:
            raise MalformedFrame("a JSON text with session, seq and id comes first")
        return message

    async def _binary(self, seconds: float) -> bytes:
        message = (await self._message(seconds)).get("bytes")
        if not isinstance(message, bytes) or len(message) > self._served.request_bytes:
            raise MalformedFrame(f"a binary message of at most {self._served.request_bytes} bytes comes here")
        return message

    async def _message(self, seconds: float) -> dict[str, object]:
        try:
            async with asyncio.timeout(seconds):
                message = await self.socket.receive()
        except TimeoutError as error:
            raise Refused("deadline", f"no message within {seconds:g} s") from error
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        return dict(message)
