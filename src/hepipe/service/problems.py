"""Refusals as one typed body (RFC 9457), made at the server and read again at the client.

``error`` repeats ``detail``, since that is the field the Open Inference Protocol's clients look for.
"""

from __future__ import annotations

import json
from typing import Any

from hepipe import errors
from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame, PeerLost

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:hepipe:problem:"
TITLES = {
    "malformed": (400, "The request cannot be read"),
    "unauthorized": (401, "No valid token"),
    "forbidden": (403, "Not with this token"),
    "unknown": (404, "There is no such thing, or not for this token"),
    "conflict": (409, "The request contradicts an earlier one"),
    "too-large": (413, "The body is too large"),
    "unsupported-encoding": (415, "The body is compressed"),
    "refused": (422, "The request can be read but not served"),
    "secret-key": (422, "The upload holds a secret key"),
    "too-many": (429, "Too many requests"),
    "internal": (500, "The server failed"),
    "storage": (503, "The server cannot write to its disk"),
    "worker-lost": (503, "The process that evaluated the request ended"),
    "busy": (503, "All workers are busy, or the server is stopping"),
    "deadline": (503, "The request took longer than it may"),
}
"""Every kind of refusal: its status and title."""
_OF_PROXIES = {502: "busy", 504: "deadline"}
"""What a proxy says of a server that it does not reach, or that does not answer it: both pass."""
_OF_WORKERS = {"SecretKeyUploaded": "secret-key", "KeyLost": "unknown"}
"""Errors that only workers raise, and the refusals that they become."""


class Refused(HepipeError):
    """A request that the server does not serve: ``kind`` is a key of TITLES, ``retry_after_s`` when to try again."""

    def __init__(self, kind: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.retry_after_s = kind, detail, retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return TITLES[self.kind][0]

    def body(self) -> dict[str, Any]:
        """The problem document."""
        status, title = TITLES[self.kind]
        fields = {"type": _PREFIX + self.kind, "title": title, "status": status, "detail": self.detail}
        return fields | {"error": self.detail} | ({"retry_after_s": self.retry_after_s} if self.retry_after_s else {})

    def headers(self) -> dict[str, str]:
        """The headers that belong to it."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        # A body that came too slowly is waited for no longer. The rest of one that was refused unread is taken and
        # dropped: a proxy that is still sending it might not pass on the answer before a closed connection.
        headers |= {"Connection": "close"} if self.kind == "deadline" else {}
        return headers if self.retry_after_s is None else headers | {"Retry-After": f"{self.retry_after_s:.0f}"}

    @classmethod
    def of(cls, error: HepipeError) -> Refused:
        """The refusal that an error of hepipe becomes."""
        if isinstance(error, Refused):
            return error
        if isinstance(error, PeerLost):
            return cls("worker-lost", "the process that evaluated this request ended: send it again", 1)
        malformed = isinstance(error, (MalformedFrame, KeyMismatch))
        return cls("malformed" if malformed else "refused", str(error))

    @classmethod
    def from_body(cls, body: bytes, status: int) -> Refused:
        """The refusal of a server's answer; an answer of anything else is one too, with its status."""
        try:
            fields = json.loads(body)
            kind, detail = str(fields["type"]).removeprefix(_PREFIX), str(fields["detail"])
            retry = None if fields.get("retry_after_s") is None else float(fields["retry_after_s"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            kind, detail, retry = "", "", None
        if kind not in TITLES:
            kinds = [name for name, (each, _) in TITLES.items() if each == status]
            kind = kinds[-1] if kinds else _OF_PROXIES.get(status, "internal")
            detail = f"the server answered with status {status}"
        return cls(kind, detail[:2000], retry)


def worker_error(name: str, detail: str) -> HepipeError:
    """The error of hepipe that a worker reports by its name."""
    if name in _OF_WORKERS:
        return Refused(_OF_WORKERS[name], detail)
    kind = getattr(errors, name, HepipeError)
    known = isinstance(kind, type) and issubclass(kind, HepipeError)
    return kind(detail) if known else HepipeError(detail)
