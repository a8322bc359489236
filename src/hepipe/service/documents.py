"""What the OpenAPI document says of bodies that are read by hand: frames, problems, metadata."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from hepipe.service.inference import LENGTH_HEADER
from hepipe.service.problems import MEDIA_TYPE, TITLES


class Health(BaseModel):
    """Whether the server lives, or is ready."""

    live: bool | None = None
    ready: bool | None = None


class ServerMetadata(BaseModel):
    """The server's name, version and extensions."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One BYTES tensor: a frame of hepipe."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model as the Open Inference Protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """A model that can be asked."""

    name: str
    ready: bool


class ModelList(BaseModel):
    """Every model's versions, the default one last."""

    models: dict[str, list[str]]


class PublishedModel(BaseModel):
    """The public half of a model, and for each scheme what a prediction takes, reveals and needs of keys."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    digest: str
    profile: dict[str, Any]
    plans: dict[str, dict[str, Any]]
    sha256: str


class KeyStatus(BaseModel):
    """A key that is stored."""

    key_id: str
    sha256: str
    size: int


class KeyList(BaseModel):
    """The keys of whoever asks."""

    keys: list[KeyStatus]


class Problem(BaseModel):
    """A refusal (RFC 9457); ``error`` repeats ``detail`` for clients of the Open Inference Protocol."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    retry_after_s: float | None = None


BINARY = {"type": "string", "format": "binary"}
FRAME_BODY = {
    "requestBody": {
        "required": True,
        "description": "JSON of the Open Inference Protocol with one BYTES tensor, then that tensor: one hepipe frame",
        "content": {"application/octet-stream": {"schema": BINARY}},
    },
    "parameters": [
        {
            "name": LENGTH_HEADER, "in": "header", "required": True, "schema": {"type": "integer", "minimum": 1},
            "description": "bytes of the JSON before the tensor",
        }
    ],
}  # fmt: skip
KEY_BODY = {
    "requestBody": {
        "required": True,
        "description": "a PUBLIC_KEYS frame of hepipe; of Paillier, then a KEY_PROOF frame",
        "content": {"application/octet-stream": {"schema": BINARY}},
    }
}
FRAME_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON with one BYTES tensor, then that tensor: the frame of the scores",
        "content": {"application/octet-stream": {"schema": BINARY}},
        "headers": {LENGTH_HEADER: {"schema": {"type": "integer"}, "description": "bytes of the JSON"}},
    }
}
KEY_STORED: dict[int | str, dict[str, Any]] = {201: {"model": KeyStatus, "description": "Stored"}}
METRICS_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem answers with these statuses, for a route's documentation."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        titles = [title for code, title in TITLES.values() if code == status]
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        described[status] = {"description": "; or ".join(titles), "content": content}
    return described
