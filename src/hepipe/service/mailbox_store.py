"""Objects behind an fsspec URL: created once or not at all, read within a limit, listed by name.

What a mailbox needs of a store is a create that fails if the object is there and that shows the whole object or none.
fsspec promises neither, so each backend gets its own, and a store is tried before it is used:

    file    a hidden partial file, then a hard link, which fails if the name is taken (fsspec would look, then write);
            who else may read it is a matter of the folder and the umask
    memory  under a lock: threads of one process
    s3      one PUT with If-None-Match: *, never in parts; servers that ignore the condition are found by the trial
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from hepipe.errors import HepipeError, MalformedFrame, StoreFailed, Unsupported

_HIDDEN = "."
_MEMORY = threading.Lock()
_CONFLICTS = 8
_OPTIONS = {"file": {"auto_mkdir": True}, "s3": {"use_listings_cache": False}}


class Store:
    """The objects below ``url``; ``options`` (endpoint_url, key, secret) go to the backend, or it asks its environment.

    Unsupported for a backend without an exclusive create; StoreFailed, from every method, if the store does not answer
    or refuses the credentials.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        protocol = fsspec.utils.get_protocol(url)
        if protocol not in _CREATE:
            raise Unsupported(f"a mailbox on {protocol}://: exclusive creates are known of {', '.join(_CREATE)} only")
        with self._guarded(url):
            self._fs, root = fsspec.url_to_fs(url, **dict(options or {}) | _OPTIONS.get(protocol, {}))
        self._root, self._create, self.url = root.rstrip("/"), _CREATE[protocol], url
        self._try()

    def create(self, name: str, data: bytes) -> bool:
        """Write an object that is not there; False, and nothing is changed, if there is another one."""
        with self._guarded(name):
            try:
                self._create(self._fs, self._path(name), data)
            except FileExistsError:
                # A PUT whose answer was lost is sent again, and then meets its own object.
                return self.read(name, len(data)) == data if self._size(name) == len(data) else False
        return True

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whether it is there or not; a reader may see it half written."""
        with self._guarded(name):
            self._fs.pipe_file(self._path(name), data)

    def read(self, name: str, limit: int) -> bytes | None:
        """The content, None without the object; MalformedFrame, with no byte read, if it is larger than ``limit``."""
        with self._guarded(name):
            size = self._size(name)
            if size is None:
                return None
            if not 0 < size <= limit:
                raise MalformedFrame(f"{name}: an object of {size} bytes, at most {limit} are read")
            try:
                return bytes(self._fs.cat_file(self._path(name), start=0, end=limit))
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> set[str]:
        """The names of the objects in a folder, without the folder; empty if there is none."""
        with self._guarded(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return set()
        return {name for name in self._names(folder, found) if not name.startswith(_HIDDEN)}

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already do not matter."""
        for name in names:
            with self._guarded(name):
                try:
                    self._fs.rm_file(self._path(name))
                except FileNotFoundError:
                    continue

    def older(self, folder: str, seconds: float) -> set[str]:
        """The objects of a folder, partial ones too, last written over ``seconds`` ago by the store's own clock."""
        mark = f"{folder}/{_mark()}"
        self.put(mark, b"now")
        try:
            now, old = self._written(mark), set()
            with self._guarded(folder):
                names = self._names(folder, self._fs.ls(self._path(folder), detail=False))
            for name in names - {mark.rpartition("/")[2]}:
                written = self._written(f"{folder}/{name}")
                if written is not None and (now - written).total_seconds() > seconds:
                    old.add(name)
        finally:
            self.delete([mark])
        return old

    def _names(self, folder: str, found: Iterable[str]) -> set[str]:
        """The last parts of paths in the folder; S3 lists an empty folder as itself."""
        within = self._path(folder) + "/"
        paths = (str(path).rstrip("/") for path in found)
        return {path.removeprefix(within) for path in paths if path.startswith(within)}

    def _written(self, name: str) -> Any:
        with self._guarded(name):
            try:
                return self._fs.modified(self._path(name))
            except FileNotFoundError:
                return None

    def _size(self, name: str) -> int | None:
        try:
            return int(self._fs.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _try(self) -> None:
        """Unsupported unless a second create of one object is refused here and now."""
        name = _mark()
        first = self.create(name, b"first")
        try:
            if not first or self.create(name, b"other") or self.read(name, 5) != b"first":
                raise Unsupported(f"{self.url} overwrites what exists: its server does not know If-None-Match")
        finally:
            self.delete([name])

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except HepipeError:
            raise
        except ImportError as error:
            raise Unsupported(f"{error}: for a mailbox on s3://, pip install 'hepipe[s3]'") from error
        except Exception as error:  # backends raise what they like: botocore's errors are no OSErrors
            reason = f"{type(error).__name__}: {error}"[:500]
            raise StoreFailed(f"{name}: {reason}; check the address, the credentials and that it exists") from error


def _mark() -> str:
    return f"{_HIDDEN}trial-{secrets.token_hex(8)}"


def _create_file(fs: Any, path: str, data: bytes) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, f"{_HIDDEN}partial-{secrets.token_hex(8)}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(partial, path)
    finally:
        os.unlink(partial)


def _create_memory(fs: Any, path: str, data: bytes) -> None:
    with _MEMORY:
        if fs.exists(path):
            raise FileExistsError(path)
        fs.pipe_file(path, data)


def _create_s3(fs: Any, path: str, data: bytes) -> None:
    for _ in range(_CONFLICTS):
        try:
            fs.pipe_file(path, data, mode="create", chunksize=max(len(data), 1))
            return
        except OSError as error:
            # s3fs makes an OSError of it whose class depends on the server's wording; the code is in the cause.
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
            if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
                raise FileExistsError(path) from error
            if code != "ConditionalRequestConflict":  # another create of this object is not decided yet
                raise
    raise FileExistsError(path)


_CREATE: dict[str, Callable[[Any, str, bytes], None]] = {
    "file": _create_file, "memory": _create_memory, "s3": _create_s3,
}  # fmt: skip
