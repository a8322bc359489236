"""Changes that keep the form: a field, a number, a node of JSON or a member of a zip, and then the digest made right.

A digest in every message stops blind changes at the door. So most inputs get theirs computed anew, as a hostile peer
would, and one in eight keeps the old one. ``Havoc`` is libFuzzer's own mutation of a piece.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hepipe.schemes.frames import HEADER_BYTES

Havoc = Callable[[bytes], bytes]
Change = Callable[[bytes, bytes], bytes]
"""A new body from a header and a body."""

HEAD = struct.Struct(">4sBBBB16sIIhdQ")
_SIZES = (0, 1, 2, 3, 4, 7, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 1023, 1024, 65535, 65536, 1 << 24, 1 << 31)
_SCALES = (0.0, -0.0, 5e-324, 1e-300, 0.5, 19.999, 20.0, 28.0, 28.5, 57.9, 58.0, 59.0, 1e3, 8191.9, 8192.0, -1.0, 1e308)
INTEGERS = (0, 1, -1, 2, 3, 16, 17, 63, 64, 255, 1 << 16, 10**6, 1 << 31, 10**9, 1 << 53, 1 << 63, 1 << 64, 10**400)
SCALARS = (
    *INTEGERS, None, True, False, "", "a0", "a1", "x", "inf", "\0", 0.0, -0.0, 0.5, 1.0, 5e-324, 1e-300, 1e308,
    float("nan"), float("inf"), {"float": "inf"}, {"array": "a0"}, {"array": "a1"}, [], {}, [[]], [0, 1], [0.0] * 9,
)  # fmt: skip


def seldom(rng: Random, one_in: int = 8) -> bool:
    return rng.randrange(one_in) == 0


def replaced(data: bytes, start: int, piece: bytes) -> bytes:
    """``piece`` written over ``data``."""
    return data[:start] + piece + data[start + len(piece) :]


# --- frames ----------------------------------------------------------------------------------------------------------


def framed(head: bytes, body: bytes, rng: Random, old_digest: bytes) -> bytes:
    """A frame, its length and digest mostly right."""
    if not seldom(rng, 16):
        head = head[:-8] + struct.pack(">Q", len(body))
    digest = old_digest if seldom(rng) else hashlib.sha256(head + body).digest()
    return head + digest + body


def header_changed(head: bytes, rng: Random) -> bytes:
    fields = list(HEAD.unpack(head))
    place = rng.choice((1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9, 10))
    if place <= 4:
        fields[place] = rng.choice((0, 1, 2, 3, 4, 8, 16, 32, 37, 255))
    elif place == 5:
        fields[5] = rng.randbytes(16)
    elif place in (6, 7):
        fields[place] = rng.choice((rng.choice(_SIZES), rng.randrange(8), rng.randrange(1024)))
    elif place == 8:
        fields[8] = rng.choice((-32768, -1, 0, 0, 1, 1, 2, 3, 64, 65, 32767))
    elif place == 9:
        fields[9] = rng.choice((rng.choice(_SCALES), rng.uniform(0, 64), float("nan"), float("inf")))
    else:
        fields[10] = rng.choice((rng.choice(_SIZES), 2**64 - 1, (fields[10] + 1) % 2**64))
    return HEAD.pack(*fields)


def pieces(data: bytes, most: int = 4) -> list[tuple[bytes, bytes, bytes]]:
    """Header, digest and body of each frame in ``data``, as far as there are any."""
    found = []
    while len(data) >= HEADER_BYTES and len(found) < most:
        size = HEAD.unpack_from(data)[-1]
        end = HEADER_BYTES + min(size, len(data)) if len(found) + 1 < most else len(data)
        found.append((data[: HEAD.size], data[HEAD.size : HEADER_BYTES], data[HEADER_BYTES:end]))
        data = data[end:]
    return found


def frames_changed(data: bytes, rng: Random, havoc: Havoc, change: Change) -> bytes:
    """One of the frames changed, in its header or by ``change`` in its body; sometimes their order, or bytes at all."""
    parts = pieces(data)
    if not parts or seldom(rng, 16):
        return havoc(data)
    place = rng.randrange(len(parts))
    head, digest, body = parts[place]
    if seldom(rng, 4):
        head = header_changed(head, rng)
    if not seldom(rng, 4):
        body = change(head, body)
    whole = [h + d + b for h, d, b in parts]
    whole[place] = framed(head, body, rng, digest)
    if seldom(rng, 12):
        whole = rng.choice(([*whole, whole[place]], whole[::-1], whole[1:], [whole[place]]))
    return b"".join(whole)


# --- JSON ------------------------------------------------------------------------------------------------------------


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and a key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, key) for key in keys]
    return found + [place for key in keys for place in nodes(value[key])]


def json_changed(text: bytes, rng: Random, havoc: Havoc, words: Sequence[Any] = (), compact: bool = True) -> bytes:
    """JSON with one to three nodes changed, dropped, doubled or exchanged; text of another kind gets havoc."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return havoc(text)
    if seldom(rng, 16) or not nodes(value):
        return havoc(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = nodes(value)
        if places:
            _node_changed(*rng.choice(places), places, rng, words)
    return json_text(value, rng, compact)


def json_text(value: Any, rng: Random, compact: bool = True) -> bytes:
    """The text that hepipe writes, or now and then another of the same value."""
    form: dict[str, Any] = {"sort_keys": True} | ({"separators": (",", ":")} if compact else {"indent": 1})
    if seldom(rng, 16):
        form = rng.choice(({}, {"indent": 2}, {"ensure_ascii": False}))
    return json.dumps(value, **form).encode("utf-8", "surrogatepass")


def _node_changed(container: Any, key: Any, places: list[Any], rng: Random, words: Sequence[Any]) -> None:
    kind, old = rng.randrange(8), container[key]
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[rng.choice(("", "class", "x", "insecure", *words))] = old
    elif kind == 1:
        container.extend(copy.deepcopy([old] * rng.choice((1, 2, 40))))
    elif kind == 2:
        donor, other = rng.choice(places)
        # An earlier change of this round may have removed the donor's node.
        with contextlib.suppress(KeyError, IndexError):
            container[key] = copy.deepcopy(donor[other])
    elif kind == 3 and isinstance(old, (int, float)):
        container[key] = rng.choice((old + 1, old - 1, old * 2, -old, float(old) if abs(old) < 2**1000 else old))
    elif kind == 4 and words:
        container[key] = rng.choice(words)
    else:
        container[key] = copy.deepcopy(rng.choice(SCALARS))


# --- zips ------------------------------------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, bytes] | None:
    """The members of a small zip; None where it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 1 << 20:
                return None
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # whatever a damaged zip leads to: it gets havoc
        return None


def zipped(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", compression) as archive:  # names twice
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()
