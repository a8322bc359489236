"""A model as a file: ``manifest.json`` and ``arrays.npz``, in a folder or a zip. No pickle, and nothing is executed.

The manifest names format, model, version and settings, holds the structure of the model, and the SHA-256 of the
arrays; the bundle's digest is the SHA-256 of the manifest, so it covers every byte. A digest shows damage, not who
wrote the file: load bundles from where you would run programs from.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import HepipeError, MalformedBundle, UnsupportedModel
from hepipe.models.codec import MODELS, check_profile, decode, encode, read_object
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import ClearParameters

FORMAT, FORMAT_VERSION = "hepipe-bundle", 1
MANIFEST, ARRAYS = "manifest.json", "arrays.npz"
MAX_MANIFEST = 1 << 22
MAX_ARRAYS = 1 << 26
MAX_ARRAY_COUNT = 4096
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELDS = {"format", "format_version", "hepipe", "name", "version", "settings", "model", "arrays_sha256"}
_REFUSED = (HepipeError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, RecursionError)
_DEEPEST = 64
_MOST_BITS = 1024
"""Of precision: a double has no more."""
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others have headers that ask for memory."""
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
# As numpy writes it, and nothing else: its own reader evaluates the header as Python's syntax.
_NPY_HEADER = re.compile(
    rb"\{'descr': '<([fi])8', 'fortran_order': False, 'shape': \((|\d{1,10},|\d{1,10}, \d{1,10})\), \} *\n"
)


@dataclass(frozen=True)
class Settings:
    """How a model is meant to be served.

    schemes         what clients may use
    policy          how nonlinearities are paid
    samples         the most rows in a request
    precision_bits  wanted precision of a score; None is the plan's default
    security_bits   of the parameters; 0 is for tests, and servers refuse it unless told
    """

    schemes: tuple[str, ...] = ("paillier", "ckks")
    policy: str = "polynomial"
    samples: int = 64
    precision_bits: float | None = None
    security_bits: int = 128

    def __post_init__(self) -> None:
        types_ok = all(type(each) is int for each in (self.samples, self.security_bits)) and isinstance(
            self.policy, str
        )
        names_ok = isinstance(self.schemes, tuple) and all(isinstance(each, str) for each in self.schemes)
        bits = self.precision_bits
        bits_ok = bits is None or (type(bits) in (int, float) and abs(bits) <= _MOST_BITS)
        if not (types_ok and names_ok and bits_ok and self.schemes and self.samples >= 1):
            raise MalformedBundle(f"settings {self} are none: schemes, policy, samples >= 1, numbers of bits")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model with its name, version and settings; ``digest`` is the SHA-256 of its manifest."""

    model: Any
    name: str
    version: str = "1"
    settings: Settings = field(default_factory=Settings)
    digest: str = ""


def save(path: str | Path, bundle: Bundle) -> str:
    """Write a bundle, a zip if ``path`` ends in .zip, else a folder, and the folders above it; returns its digest.

    UnsupportedModel for a model that no bundle holds; FileExistsError rather than overwrite one.
    """
    path = Path(path)
    manifest, arrays = _written(bundle)
    if path.exists():
        raise FileExistsError(f"{path} exists: a bundle is never overwritten; choose another name")
    if path.suffix == ".zip":
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.write(_zipped(manifest, arrays))
    else:
        path.mkdir(parents=True)
        (path / MANIFEST).write_bytes(manifest)
        (path / ARRAYS).write_bytes(arrays)
    return hashlib.sha256(manifest).hexdigest()


def load(path: str | Path) -> Bundle:
    """The bundle of a folder or zip; MalformedBundle for anything that ``save`` does not write."""
    return unpack(read(path))


def read(path: str | Path) -> bytes:
    """The bytes of a bundle as one zip, whether it lies in a folder or a zip; nothing of them is understood yet."""
    path = Path(path)
    try:
        if not path.is_dir():
            return _file(path, MAX_MANIFEST + MAX_ARRAYS)
        return _zipped(_file(path / MANIFEST, MAX_MANIFEST), _file(path / ARRAYS, MAX_ARRAYS))
    except OSError as error:
        raise MalformedBundle(f"{path.name} cannot be read: {error.strerror}") from error


def unpack(data: bytes) -> Bundle:
    """The bundle of a zip's bytes; MalformedBundle for anything that ``save`` does not write."""
    members = _unzipped(data, {MANIFEST: MAX_MANIFEST, ARRAYS: MAX_ARRAYS})
    if set(members) != {MANIFEST, ARRAYS}:
        raise MalformedBundle(f"a bundle holds {sorted(members)}, expected {MANIFEST} and {ARRAYS}")
    manifest, arrays = members[MANIFEST], members[ARRAYS]
    try:
        fields = read_object(manifest)
    except ValueError as error:
        raise MalformedBundle(f"the manifest cannot be read: {error}") from error
    if set(fields) != _FIELDS:
        raise MalformedBundle(f"the manifest has not exactly the fields {sorted(_FIELDS)}")
    if (fields["format"], repr(fields["format_version"])) != (FORMAT, repr(FORMAT_VERSION)):
        raise MalformedBundle(f"format {fields['format']!r} {fields['format_version']!r}, expected version 1")
    if hashlib.sha256(arrays).hexdigest() != fields["arrays_sha256"]:
        raise MalformedBundle("the arrays do not match their digest: the bundle was altered or truncated")
    names = (fields["name"], fields["version"])
    if not all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
        raise MalformedBundle(f"name and version {names}: letters, digits, '.', '_' and '-', at most 64")
    settings, model = _settings(fields["settings"]), _model(fields["model"], arrays)
    _evaluate_dry(model, settings)
    return Bundle(model, *names, settings, hashlib.sha256(manifest).hexdigest())


def _written(bundle: Bundle) -> tuple[bytes, bytes]:
    from hepipe import __version__

    if not isinstance(bundle.model, MODELS):
        known = ", ".join(kind.__name__ for kind in MODELS)
        raise UnsupportedModel(f"{type(bundle.model).__name__} cannot be saved: bundles hold {known}")
    if not (NAME.fullmatch(bundle.name) and NAME.fullmatch(bundle.version)):
        raise UnsupportedModel(f"name {bundle.name!r}, version {bundle.version!r}: letters, digits, '.', '_' and '-'")
    members = _Members({})
    model = encode(bundle.model, members)
    arrays = members.to_bytes()
    fields = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "hepipe": __version__, "name": bundle.name,
        "version": bundle.version, "settings": asdict(bundle.settings), "model": model,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
    }  # fmt: skip
    return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False).encode(), arrays


def _zipped(manifest: bytes, arrays: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in ((MANIFEST, manifest), (ARRAYS, arrays)):
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def _file(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise MalformedBundle(f"{path.name} has more than {limit} bytes")
    return data


def _unzipped(data: bytes, limits: dict[str, int]) -> dict[str, bytes]:
    """The members of a zip, none larger than its limit (of the name, or of "" for any other) when unpacked."""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                limit = limits.get(info.filename, limits.get("", 0))
                too_many = info.filename in found or len(found) >= MAX_ARRAY_COUNT
                if too_many or info.file_size > limit or info.compress_type not in _PACKINGS:
                    raise MalformedBundle(
                        f"member {info.filename[:40]!r} is twice there, unknown, too large, or packed in another way"
                    )
                with archive.open(info) as stream:
                    found[info.filename] = stream.read(limit + 1)[: info.file_size]
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise MalformedBundle(f"not a zip that can be read: {error}") from error
    return found


@dataclass
class _Members:
    """The arrays of a model under the names a0, a1 ... of an npz."""

    arrays: dict[str, npt.NDArray[Any]]

    def put(self, array: npt.NDArray[Any]) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = np.array(array, order="C")
        return name

    def get(self, reference: Any) -> npt.NDArray[Any]:
        if not isinstance(reference, str) or reference not in self.arrays:
            raise MalformedBundle(f"no array is called {reference!r}, or two fields share it")
        return self.arrays.pop(reference)

    def to_bytes(self) -> bytes:
        out = io.BytesIO()
        np.savez(out, **self.arrays)  # type: ignore[arg-type]
        return out.getvalue()


def _model(node: Any, arrays: bytes) -> Any:
    members = _unzipped(arrays, {"": MAX_ARRAYS})
    if sum(map(len, members.values())) > MAX_ARRAYS:
        raise MalformedBundle(f"the arrays have more than {MAX_ARRAYS} bytes")
    kept = _Members({name.removesuffix(".npy"): _npy(data) for name, data in members.items()})
    kind = next((each for each in MODELS if isinstance(node, dict) and node.get("class") == each.__name__), None)
    if kind is None:
        raise MalformedBundle(f"the model is none of {', '.join(each.__name__ for each in MODELS)}")
    try:
        model = decode(kind, node, kept)
    except RecursionError as error:
        raise MalformedBundle("the model is nested too deeply") from error
    if kept.arrays:
        raise MalformedBundle(f"arrays {sorted(kept.arrays)[:5]} belong to nothing")
    return model


def _npy(data: bytes) -> npt.NDArray[Any]:
    """One array of at most two dimensions, its header held against its size before anything is made of it."""
    size = int.from_bytes(data[8:10], "little")
    header, body = _NPY_HEADER.fullmatch(data[10 : 10 + size]), data[10 + size :]
    if data[:8] != _NPY_MAGIC or header is None:
        raise MalformedBundle("an array that is not npy 1.0, 8-byte numbers in C order, of two dimensions at most")
    shape = tuple(map(int, re.findall(rb"\d+", header[2])))
    if len(body) != 8 * math.prod(shape):
        raise MalformedBundle(f"an array of shape {shape} in {len(body)} bytes")
    return np.frombuffer(body, f"<{header[1].decode()}8").reshape(shape).astype(f"{header[1].decode()}8")


def _settings(node: Any) -> Settings:
    if not isinstance(node, dict) or not isinstance(node.get("schemes"), list):
        raise MalformedBundle("the settings are not those of a bundle")
    try:
        return Settings(**{**node, "schemes": tuple(node["schemes"])})
    except TypeError as error:
        raise MalformedBundle(f"the settings are not those of a bundle: {error}") from error


def _evaluate_dry(model: Any, settings: Settings) -> None:
    """The whole way of a row, without encryption: shapes, indices and maps that do not fit are found here."""
    profile = model.profile
    try:
        prepared = check_profile(profile)
        for exact in {scheme == "paillier" for scheme in settings.schemes}:  # a model may take other ways there
            ev = DryEvaluator(ClearParameters(depth=_DEEPEST, slots=1, exact=exact), settings.policy)
            scores = model.forward(ev, ev.fresh(prepared.shape, profile.input_bound))
            blinded = "blind" in ev.operations  # one value among random ones: wider than the profile's outputs
            if not blinded and scores.shape[1] != profile.outputs:
                raise MalformedBundle(f"{scores.shape[1]} scores where the profile states {profile.outputs}")
    except _REFUSED as error:
        raise MalformedBundle(f"the model does not fit together: {error}") from error
