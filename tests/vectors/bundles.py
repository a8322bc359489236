"""Model files: a linear model of two columns, and what may be wrong with its zip, its manifest and its arrays."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.mutators import zipped
from hepipe.models import bundle as written
from hepipe.models.linear import linear_regression
from hepipe.models.schema import Column, Schema
from served_models import made
from test_bundle import CHANGES, MISSHAPEN, with_header
from vectors.forge import Case

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
Members = dict[str, bytes]


def _base(model: Any = None) -> tuple[dict[str, Any], bytes]:
    """A manifest and arrays."""
    schema = Schema((Column("age", 16, 70), Column("healthy", 0, 10)))
    model = model or linear_regression([1.5, -2.0], 3.0, schema)
    manifest, arrays = written._written(written.Bundle(model, "m"))
    return json.loads(manifest), arrays


def _whole(manifest: dict[str, Any] | bytes, arrays: bytes, *more: tuple[str, bytes], packing: int = _STORED) -> bytes:
    """A bundle; the digest of a manifest that is not text yet is made right."""
    if isinstance(manifest, dict):
        manifest = json.dumps(manifest | {"arrays_sha256": hashlib.sha256(arrays).hexdigest()}, indent=1).encode()
    return zipped([("manifest.json", manifest), ("arrays.npz", arrays), *more], packing)


def _npz(change: Callable[[Members], Any]) -> bytes:
    """The arrays with some members changed."""
    manifest, arrays = _base()
    with zipfile.ZipFile(io.BytesIO(arrays)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    return _whole(manifest, zipped(list(members.items())))


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _zips() -> list[Case]:
    manifest, arrays = _base()
    good = _whole(manifest, arrays)
    text = json.dumps(manifest).encode()
    twice = _whole(manifest, arrays, ("manifest.json", b"{}"))
    flipped = bytearray(_whole(manifest, arrays))
    flipped[flipped.index(b"NUMPY") + 130] ^= 1
    encrypted = bytearray(good)
    encrypted[6] |= 1
    encrypted[good.rindex(b"PK\1\2", 0, good.rindex(b"PK\1\2")) + 8] |= 1
    bomb = zipped([("a0.npy", bytes(written.MAX_ARRAYS + 1))], _DEFLATED)

    def case(comment: str, content: bytes) -> Case:
        return Case(comment, "Zip", content, "MalformedBundle")

    return [
        case("nothing", b""),
        case("a pickle of a model", pickle.dumps({"class": "LinearModel", "weights": [1.5, -2.0]}, 4)),
        case("two letters", b"PK"),
        case("a zip cut in half", good[: len(good) // 2]),
        case("a zip of nothing", zipped([])),
        case("no arrays", zipped([("manifest.json", text)])),
        case("no manifest", zipped([("arrays.npz", arrays)])),
        case("the manifest twice", twice),
        case("a third member", _whole(manifest, arrays, ("readme.txt", b"x"))),
        case("a member with a path out of the folder", _whole(manifest, arrays, ("../../etc/cron.d/x", b"x"))),
        case("an absolute path", _whole(manifest, arrays, ("/etc/passwd", b"x"))),
        case("the manifest under a path", zipped([("m/manifest.json", text), ("m/arrays.npz", arrays)])),
        case("a folder", _whole(manifest, arrays, ("folder/", b""))),
        case("a pickled model beside", _whole(manifest, arrays, ("model.pkl", pickle.dumps([1], 4)))),
        case("packed by bzip2", _whole(manifest, arrays, packing=zipfile.ZIP_BZIP2)),
        case("packed by LZMA", _whole(manifest, arrays, packing=zipfile.ZIP_LZMA)),
        case("a flipped bit of an array", bytes(flipped)),
        case("an encrypted member", bytes(encrypted)),
        case("a manifest that unpacks to 4 MB and a byte",
             zipped([("manifest.json", b" " * (written.MAX_MANIFEST + 1)), ("arrays.npz", arrays)], _DEFLATED)),
        case("arrays that unpack to 64 MB and a byte", _whole(manifest, bomb, packing=_DEFLATED)),
    ]  # fmt: skip


def _manifests() -> list[Case]:
    manifest, arrays = _base()
    cases = []
    for comment, change in CHANGES.items():
        changed = json.loads(json.dumps(manifest))
        changed["arrays_sha256"] = hashlib.sha256(arrays).hexdigest()
        change(changed)
        if changed.get("arrays_sha256") != "0" * 64 or comment == "digest of other arrays":
            cases.append(Case(comment, "Manifest", _whole(json.dumps(changed).encode(), arrays), "MalformedBundle"))
    twice = json.dumps(manifest)[:-1] + ', "name": "other"}'
    cases.append(Case("a name twice", "Json", _whole(twice.encode(), arrays), "MalformedBundle"))
    for comment, (name, change) in MISSHAPEN.items():
        changed, own = _base(made(name))
        change(changed["model"])
        cases.append(Case(comment, "Model", _whole(changed, own), "MalformedBundle"))
    return cases


def _texts() -> list[Case]:
    _, arrays = _base()
    texts = {
        "no JSON": b"LinearModel",
        "a list": b"[]",
        "nested 100,000 deep": b"[" * 100_000,
        "a number of 5000 digits": b'{"format":' + b"1" * 5000 + b"}",
        "half a surrogate in UTF-8": b'{"format":"\xed\xa0\x80"}',
    }
    return [Case(f"a manifest: {name}", "Json", _whole(text, arrays, packing=_DEFLATED), "MalformedBundle")
            for name, text in texts.items()]  # fmt: skip


def _arrays() -> list[Case]:
    def case(comment: str, flag: str, change: Callable[[Members], Any]) -> Case:
        return Case(comment, flag, _npz(change), "MalformedBundle")

    def put(name: str, array: Any) -> Callable[[Members], Any]:
        return lambda members: members.update({name: _npy(array)})

    manifest, _ = _base()
    headers = {
        "an open bracket": b"{'descr': (",
        "a negative shape": b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }\n",
        "a terabyte": b"{'descr': '<f8', 'fortran_order': False, 'shape': (137438953472,), }\n",
        "an overflowing shape": b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999), }\n",
        "fields": b"{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (1,), }\n",
        "an expression": b"{'descr': '<f8', 'fortran_order': False, 'shape': (1 if True else 2,), }\n",
        "big-endian numbers": b"{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }\n",
    }
    return [
        case("an array of objects, which is a pickle", "Pickle", put("a1.npy", np.array([{}], dtype=object))),
        case("a pickle for an array", "Pickle", lambda m: m.update({"a1.npy": pickle.dumps([1.0], 4)})),
        case("float32", "Array", put("a3.npy", np.array([1.5, -2.0], np.float32))),
        case("text", "Array", put("a3.npy", np.array(["x", "y"]))),
        case("complex numbers", "Array", put("a3.npy", np.array([1j, 2j]))),
        case("three dimensions", "Array", put("a3.npy", np.zeros((1, 1, 1)))),
        case("columns first", "Array", put("a3.npy", np.asfortranarray(np.ones((2, 2))))),
        case("one weight too many", "Array", put("a2.npy", np.ones((3, 1)))),
        case("weights of one dimension", "Array", put("a2.npy", np.ones(2))),
        case("no weights", "Array", put("a2.npy", np.ones((0, 1)))),
        case("a weight that is NaN", "Array", put("a2.npy", np.array([[math.nan], [1.0]]))),
        case("a weight that is infinite", "Array", put("a2.npy", np.array([[math.inf], [1.0]]))),
        case("a member missing", "Array", lambda m: m.pop("a2.npy")),
        case("a member more", "Array", put("a9.npy", np.ones(1))),
        case("a member with a path", "Array", lambda m: m.update({"../a2.npy": m.pop("a2.npy")})),
        case("an array cut short", "Array", lambda m: m.update({"a2.npy": m["a2.npy"][:-1]})),
        case("an array and a byte", "Array", lambda m: m.update({"a2.npy": m["a2.npy"] + b"\0"})),
        case("npy 2.0", "Array", lambda m: m.update({"a2.npy": m["a2.npy"][:6] + b"\2" + m["a2.npy"][7:]})),
        Case("arrays that are a pickle", "Pickle", _whole(manifest, pickle.dumps({"a0": 1}, 4)), "MalformedBundle"),
        Case("arrays that are nothing", "Array", _whole(manifest, b""), "MalformedBundle"),
        *(
            Case(f"a header with {name}", "Array", _whole(manifest, with_header(header)), "MalformedBundle")
            for name, header in headers.items()
        ),
    ]


def bundles() -> list[Case]:
    manifest, arrays = _base()
    tree, own = _base(made("tree"))
    return [
        Case("a linear model", "Control", _whole(manifest, arrays), None),
        Case("the same, packed", "Control", _whole(manifest, arrays, packing=_DEFLATED), None),
        Case("a tree", "Control", _whole(tree, own), None),
        *_zips(),
        *_manifests(),
        *_texts(),
        *_arrays(),
    ]
