"""Model files: a zip of a manifest and arrays, with the digest that the manifest has of the arrays."""

from __future__ import annotations

import hashlib
import json
import zipfile
from random import Random
from typing import Any

from fuzz.mutators import Havoc, json_changed, members, seldom, zipped
from fuzz.targets import Target
from hepipe.models import bundle as bundles
from hepipe.models.bundle import ARRAYS, MANIFEST, Bundle, Settings
from hepipe.models.codec import _BY_NAME
from served_models import made, policy_of, schemes_of

_SEEDS = ("linear", "imputed", "square", "powers", "tree", "bits", "sign", "index", "sigmoid", "tanh")
_WORDS = (
    *_BY_NAME, "bits", "sign", "index", "distances", "relu", "client", "polynomial", "paillier", "ckks", "clear",
)  # fmt: skip
_HEADERS = (
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }",
    b"{'descr': '<f8', 'fortran_order': True, 'shape': (1, 1), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': (",
    b"[" * 200,
    b"{",
)


def bundle() -> Target:
    return Target("model file", [_seed(name) for name in _SEEDS], _check, _changed, _sealed)


def _seed(name: str) -> bytes:
    return _zip(Bundle(made(name), name, settings=Settings(schemes_of(name), policy_of(name), 3)))


def _zip(bundle_: Bundle) -> bytes:
    return bundles._zipped(*bundles._written(bundle_))


def _check(data: bytes) -> None:
    """What was read can be written, and is the same when it is read again."""
    again = _zip(bundles.unpack(data))
    assert _zip(bundles.unpack(again)) == again, "an accepted bundle changes when it is saved and loaded"


def _sealed(data: bytes) -> bool:
    files = members(data) or {}
    try:
        return bool(json.loads(files[MANIFEST])["arrays_sha256"] == hashlib.sha256(files[ARRAYS]).hexdigest())
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


def _changed(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    files = members(data)
    if files is None or set(files) != {MANIFEST, ARRAYS} or seldom(rng, 12):
        return havoc(data)
    manifest, arrays = files[MANIFEST], files[ARRAYS]
    if seldom(rng, 3):
        arrays = _arrays_changed(arrays, rng, havoc)
    else:
        manifest = json_changed(manifest, rng, havoc, _WORDS, compact=False)
    if not seldom(rng):
        manifest = _resealed(manifest, arrays)
    whole = [(MANIFEST, manifest), (ARRAYS, arrays)]
    if seldom(rng, 24):
        extra = (rng.choice((MANIFEST, ARRAYS, "../a.npy", "/etc/x", "a0.npy", "")), b"x")
        whole = rng.choice(([*whole, extra], whole[:1], whole[::-1], [whole[0], *whole]))
    kinds = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    out = zipped(whole, rng.choice(kinds) if seldom(rng, 10) else zipfile.ZIP_STORED)
    return havoc(out) if seldom(rng, 24) else out


def _resealed(manifest: bytes, arrays: bytes) -> bytes:
    try:
        fields: Any = json.loads(manifest)
    except (ValueError, RecursionError):
        return manifest
    if not isinstance(fields, dict):
        return manifest
    fields["arrays_sha256"] = hashlib.sha256(arrays).hexdigest()
    return json.dumps(fields, indent=1, sort_keys=True).encode()


def _arrays_changed(arrays: bytes, rng: Random, havoc: Havoc) -> bytes:
    files = members(arrays)
    if not files or seldom(rng, 12):
        return havoc(arrays)
    names = list(files)
    name, kind = rng.choice(names), rng.randrange(7)
    content = files[name]
    if kind == 0:
        files[name] = content[:-8] + rng.choice((b"\0" * 6 + b"\xf8\x7f", b"\0" * 6 + b"\xf0\x7f", rng.randbytes(8)))
    elif kind == 1:
        files[name] = files[rng.choice(names)]
    elif kind == 2:
        header = rng.choice((*_HEADERS, havoc(content[10:128]))).ljust(118)
        files[name] = content[:8] + len(header).to_bytes(2, "little") + header + content[128:]
    elif kind == 3:
        place = rng.randrange(128, max(len(content), 129)) // 8 * 8
        word = rng.choice((0, 1, -1, 17, 64, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)))
        files[name] = content[:place] + word.to_bytes(8, "little", signed=True) + content[place + 8 :]
    elif kind == 4:
        files[rng.choice(("a99.npy", "a0", "../a0.npy", "a0.npy.npy"))] = files.pop(name)
    elif kind == 5:
        files[name] = rng.choice((content[:-8], content + content[-8:], content[:9], b""))
    else:
        files[name] = havoc(content)
    return zipped(list(files.items()), zipfile.ZIP_DEFLATED if seldom(rng, 6) else zipfile.ZIP_STORED)
