"""A long training on disk: ciphertexts as frames and public state as JSON, in a folder that is whole at every moment.

    manifest.json        {"version": 1, "public": {...}, "frames": {name: sha256}}, canonical
    <sha256>.frame       the frames it names, each under the digest of its bytes

Frames are written first, then the manifest replaces the old one in one atomic step, then frames that nothing names are
removed. A process killed at any point leaves the last complete state. No pickle, no secret key, no plaintext.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hepipe.errors import MalformedFrame

VERSION = 1
MANIFEST = "manifest.json"
_MAX_MANIFEST = 1 << 20
_MAX_FRAME = 1 << 31
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Checkpoint:
    """One training in one folder, made when first written."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._digests: dict[str, tuple[bytes, str]] = {}

    def save(self, public: Mapping[str, Any], frames: Mapping[str, bytes]) -> None:
        """Replace the saved state; a frame that is already there is not written again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        digests = {name: self._digest(name, frame) for name, frame in frames.items()}
        for name, digest in digests.items():
            path = self._path(digest)
            if not path.exists():
                _write(path, frames[name])
        text = _canonical({"version": VERSION, "public": dict(public), "frames": digests})
        _write(self.folder / MANIFEST, text)
        for path in set(self.folder.glob("*.frame")) - {self._path(digest) for digest in digests.values()}:
            path.unlink()

    def load(self) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """Public state and frames, or None where nothing was saved. MalformedFrame for what ``save`` never wrote.

        The digests find damage, not malice: whoever takes frames from here parses them as if a peer had sent them.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        public, digests = _manifest(_read(path, _MAX_MANIFEST))
        frames = {}
        for name, digest in digests.items():
            frames[name] = _read(self._path(digest), _MAX_FRAME)
            if hashlib.sha256(frames[name]).hexdigest() != digest:
                raise MalformedFrame(f"{self._path(digest)} was altered: restore the folder, or remove it and restart")
        return public, frames

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.frame"

    def _digest(self, name: str, frame: bytes) -> str:
        """Remembered, since rows and keys are the same bytes at every step."""
        known = self._digests.get(name)
        if known is None or known[0] is not frame:
            known = self._digests[name] = (frame, hashlib.sha256(frame).hexdigest())
        return known[1]


def _manifest(text: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        found = json.loads(text)
        canonical = _canonical(found)
    except (ValueError, RecursionError) as error:
        raise MalformedFrame(f"a manifest that is not JSON: {error}") from error
    if not isinstance(found, dict) or set(found) != {"version", "public", "frames"} or canonical != text:
        raise MalformedFrame("a manifest with other fields than version, public and frames, or not canonical")
    public, digests = found["public"], found["frames"]
    if found["version"] != VERSION or not isinstance(public, dict) or not isinstance(digests, dict):
        raise MalformedFrame(f"a manifest of version {found['version']}, this code reads {VERSION}")
    if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests.values()):
        raise MalformedFrame("a manifest whose frames are not named by SHA-256 digests")
    return public, digests


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise MalformedFrame(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise MalformedFrame(f"{path} has more than {limit} bytes")
    return data


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing: a new file, on disk, then renamed over the old one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with part.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
