"""Inputs of vectors: as hexadecimal or base64, or, where that would be long, as parts from which they follow.

{"hex": text}                        these bytes
{"repeat": text, "times": n}         these bytes, n times
{"residues": label, "prime": q, "count": N, "set": {place: value}}
    N numbers below q, little-endian in as many bytes as q has: SHAKE-256 of the label, 8 bytes little-endian a
    number, modulo q; those of "set" replaced by their values
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

Part = dict[str, Any]


def expand(parts: list[Part]) -> bytes:
    return b"".join(map(_part, parts))


def of_vector(test: dict[str, Any]) -> bytes:
    """The input of a vector."""
    if "hex" in test:
        return bytes.fromhex(test["hex"])
    return base64.b64decode(test["base64"], validate=True) if "base64" in test else expand(test["parts"])


def hexadecimal(data: bytes) -> Part:
    return {"hex": data.hex()}


def residues(label: str, prime: int, count: int, **values: int) -> Part:
    """``values``: i17=5 sets the number at place 17."""
    made: Part = {"residues": label, "prime": prime, "count": count}
    return made | ({"set": {name[1:]: value for name, value in values.items()}} if values else {})


def _part(part: Part) -> bytes:
    if "hex" in part:
        return bytes.fromhex(part["hex"])
    if "repeat" in part:
        return bytes.fromhex(part["repeat"]) * int(part["times"])
    prime, count = int(part["prime"]), int(part["count"])
    stream = hashlib.shake_256(part["residues"].encode()).digest(8 * count)
    numbers = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") % prime for i in range(count)]
    for place, value in part.get("set", {}).items():
        numbers[int(place)] = int(value)
    width = (prime.bit_length() + 7) // 8
    return b"".join(number.to_bytes(width, "little") for number in numbers)
