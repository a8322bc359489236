"""The routes: Open Inference Protocol v2, and keys and profiles beside it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hepipe import __version__
from hepipe.service import documents as doc
from hepipe.service.core import Core
from hepipe.service.inference import INPUT, LENGTH_HEADER, OUTPUT, pack_response, unpack_request
from hepipe.service.keys import StoredKey
from hepipe.service.limits import read_body
from hepipe.service.models import Served
from hepipe.service.problems import Refused
from hepipe.service.tenants import Tenant

EXTENSIONS = ["binary_tensor_data", "hepipe_keys", "hepipe_profile", "hepipe_rounds"]
router = APIRouter()
_bearer = HTTPBearer(auto_error=False, description="a token of hepipe token NAME")


def core_of(request: Request) -> Core:
    """The server behind a request."""
    core: Core = request.app.state.core
    return core


async def tenant_of(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Tenant:
    """Who asks; Refused (401)."""
    return core_of(request).tenants.authenticate(request.headers.get("authorization"), request.headers.get("host"))


Asking = Annotated[Tenant, Depends(tenant_of)]


@router.get("/v2", response_model=doc.ServerMetadata)
async def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "hepipe", "version": __version__, "extensions": EXTENSIONS}


@router.get("/v2/health/live", response_model=doc.Health, response_model_exclude_none=True)
async def live() -> dict[str, bool]:
    """Whether the server answers."""
    return {"live": True}


@router.get(
    "/v2/health/ready", response_model=doc.Health, response_model_exclude_none=True, responses=doc.refusals(503)
)
async def ready(request: Request) -> dict[str, bool]:
    """Whether it takes predictions: models loaded, a worker started, not stopping."""
    if not core_of(request).ready:
        raise Refused("busy", "the server is starting or stopping", 1)
    return {"ready": True}


@router.get("/v2/hepipe/models", response_model=doc.ModelList, responses=doc.refusals(401))
async def model_list(request: Request, tenant: Asking) -> dict[str, Any]:
    """The models that are served, with their versions."""
    return {"models": core_of(request).models.names()}


_MODEL = doc.refusals(401, 404)


@router.get("/v2/models/{model}/ready", response_model=doc.ModelReady, responses=_MODEL)
@router.get("/v2/models/{model}/versions/{version}/ready", response_model=doc.ModelReady, responses=_MODEL)
async def model_ready(request: Request, tenant: Asking, model: str, version: str | None = None) -> dict[str, Any]:
    """Whether a model can be asked."""
    return {"name": core_of(request).models.get(model, version).bundle.name, "ready": True}


@router.get("/v2/models/{model}/profile", response_model=doc.PublishedModel, responses=_MODEL)
@router.get("/v2/models/{model}/versions/{version}/profile", response_model=doc.PublishedModel, responses=_MODEL)
async def model_profile(request: Request, tenant: Asking, model: str, version: str | None = None) -> dict[str, Any]:
    """All that is public: schema, schemes, parameters, packing, rounds, what is revealed, sizes."""
    return core_of(request).models.get(model, version).published()


@router.get("/v2/models/{model}", response_model=doc.ModelMetadata, responses=_MODEL)
@router.get("/v2/models/{model}/versions/{version}", response_model=doc.ModelMetadata, responses=_MODEL)
async def model_metadata(request: Request, tenant: Asking, model: str, version: str | None = None) -> dict[str, Any]:
    """The tensors of a model: one frame in, one frame out."""
    models = core_of(request).models
    served = models.get(model, version)
    versions = models.names()[model] if version is None else [version]
    return {"name": served.bundle.name, "versions": versions, "platform": "hepipe"} | _tensors()


def _tensors() -> dict[str, Any]:
    frame = {"datatype": "BYTES", "shape": [1]}
    return {"inputs": [{"name": INPUT} | frame], "outputs": [{"name": OUTPUT} | frame]}


_INFER: dict[str, Any] = {
    "response_class": Response,
    "responses": doc.FRAME_ANSWER | doc.refusals(400, 401, 404, 409, 413, 415, 422, 429, 503),
    "openapi_extra": doc.FRAME_BODY,
}


@router.post("/v2/models/{model}/infer", **_INFER)
@router.post("/v2/models/{model}/versions/{version}/infer", **_INFER)
async def infer(request: Request, tenant: Asking, model: str, version: str | None = None) -> Response:
    """Predict encrypted rows without rounds; plans with rounds go over the WebSocket of the same model."""
    core = core_of(request)
    served: Served = core.models.get(model, version)
    body = await _body(request, served.request_bytes)
    frame, binding = unpack_request(body, request.headers.get(LENGTH_HEADER))
    answer = await core.predict(tenant, served, frame, binding)
    reply, size = pack_response(answer.frame, answer.fields)
    return Response(reply, media_type="application/octet-stream", headers={LENGTH_HEADER: str(size)})


@router.get("/v2/hepipe/keys", response_model=doc.KeyList, responses=doc.refusals(401))
async def key_list(request: Request, tenant: Asking) -> dict[str, Any]:
    """The keys of whoever asks."""
    return {"keys": [_status(stored) for stored in core_of(request).keys.list(tenant.folder)]}


@router.put(
    "/v2/hepipe/keys/{key_id}",
    response_model=doc.KeyStatus,
    responses=doc.KEY_STORED | doc.refusals(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=doc.KEY_BODY,
)
async def put_key(request: Request, response: Response, tenant: Asking, key_id: str) -> dict[str, Any]:
    """Store public and evaluation keys, once; 200 if they are here already. A secret key is refused, and burnt."""
    core = core_of(request)
    data = await _body(request, core.models.key_bytes)
    stored, new = await core.add_key(tenant, key_id, data)
    response.status_code = 201 if new else 200
    return _status(stored)


@router.get("/v2/hepipe/keys/{key_id}", response_model=doc.KeyStatus, responses=doc.refusals(400, 401, 404))
async def get_key(request: Request, tenant: Asking, key_id: str) -> dict[str, Any]:
    """Whether a key is stored; the same answer for a key of another tenant as for none."""
    return _status(core_of(request).key(tenant, key_id))


@router.delete("/v2/hepipe/keys/{key_id}", status_code=204, responses=doc.refusals(400, 401, 404, 503))
async def delete_key(request: Request, tenant: Asking, key_id: str) -> None:
    """Forget a key and every reply under it."""
    core_of(request).delete_key(tenant, key_id)


@router.get(
    "/metrics",
    response_class=Response,
    responses=doc.METRICS_ANSWER | doc.refusals(401, 403),
)
async def metrics(request: Request, tenant: Asking) -> Response:
    """Counters over all tenants, for operators."""
    if not tenant.operator:
        raise Refused("forbidden", "the metrics count everybody's requests: use the token of an operator")
    shown = core_of(request).metrics
    return Response(shown.text(), headers={"Content-Type": shown.content_type})


async def _body(request: Request, limit: int) -> bytes:
    return await read_body(request.headers.items(), request.stream(), limit, core_of(request).limits.body_s)


def _status(stored: StoredKey) -> dict[str, Any]:
    return {"key_id": stored.key_id, "sha256": stored.sha256, "size": stored.size}
