"""How a number could lie in a record: as digits, as a float of either order, as a whole number at any scale.

A trace is at least seven bytes long and says at least 36 bits, so that none is there by chance: in 4 MB of ciphertexts
the odds of the shortest are 2**-34, and a small number among zeros does not count.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

SHORTEST, LEAST_BITS = 7, 48
_PAIR_BITS = 36
_SCALES = range(8, 73)


class Record:
    """Bytes in which traces are looked for, many at a time."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._data = b"".join(parts)
        count = len(self._data) - SHORTEST + 1
        digits = np.frombuffer(self._data, np.uint8).astype(np.uint64)
        self._heads = np.unique(sum(digits[i : i + count] << np.uint64(8 * i) for i in range(SHORTEST)))

    def found(self, traces: Iterable[bytes]) -> set[bytes]:
        """Those of the traces that are in it."""
        listed = sorted(set(traces))
        assert all(len(trace) >= SHORTEST for trace in listed)
        heads = np.array([int.from_bytes(trace[:SHORTEST], "little") for trace in listed], np.uint64)
        likely = np.isin(heads, self._heads)
        return {trace for trace, one in zip(listed, likely, strict=True) if one and trace in self._data}

    def around(self, trace: bytes) -> bytes:
        """Where a trace was found, for whoever must find out why."""
        place = self._data.index(trace)
        return self._data[max(place - 32, 0) : place + len(trace) + 32]


def of_numbers(values: Any) -> set[bytes]:
    """Traces of an array of reals: of every entry, and of rows and columns where entries are too short alone."""
    given = np.atleast_1d(np.asarray(values, dtype=np.float64))
    found: set[bytes] = set()
    for value in given.ravel().tolist():
        found |= _digits(value) | _doubles(value)
        found |= {trace for scale in _SCALES for trace in of_whole_number(round(value * 2**scale))}
    for order in (given.ravel(), given.T.ravel()):
        found |= {trace for pair in itertools.pairwise(order) for trace in _pairs(*pair)}
        found |= _base64(order.astype("<f8").tobytes()) | _base64(order.astype("<f4").tobytes())
    return {trace for trace in found if len(trace) >= SHORTEST}


def of_whole_number(value: int) -> set[bytes]:
    """Traces of an integer, none if it is too small to be told from chance: as bytes, decimal and hexadecimal."""
    if _length(value) - _length(value & -value) + 1 < LEAST_BITS:
        return set()
    found, size = {str(value).encode(), f"{value:x}".encode(), f"{value:X}".encode()}, value.bit_length() // 8 + 1
    for width in {size, 8, 16} - {each for each in (8, 16) if each < size}:
        for order in ("big", "little"):
            found.add(value.to_bytes(width, order, signed=True))  # type: ignore[arg-type]
    if value > 0:
        bare = value.to_bytes((value.bit_length() + 7) // 8, "big")
        found |= {bare, bare[::-1]}
    return {trace for trace in found if len(trace) >= SHORTEST}


def of_list(values: Any) -> set[bytes]:
    """Traces of small integers that belong together, at least three of them."""
    listed = np.ravel(values)
    if len(listed) < 3:
        return set()
    found = {json.dumps(listed.tolist(), separators=each).encode() for each in ((", ", ": "), (",", ":"))}
    found |= {listed.astype(kind).tobytes() for kind in ("<i4", ">i4", "<i8", ">i8")}
    return {trace for trace in found if len(trace) >= SHORTEST}


def of_bytes(data: bytes, size: int = 16) -> set[bytes]:
    """Traces of a secret that is bytes: every whole piece of ``size``, in either order, in base64 and hexadecimal."""
    pieces = [data[i : i + size] for i in range(0, len(data) - size + 1, size)] or [data]
    pieces = [piece for piece in pieces if len(set(piece)) > 2]
    found = {trace for piece in pieces for trace in (piece, piece[::-1], piece.hex().encode())}
    return found | _base64(data)


def of_key_number(value: int) -> set[bytes]:
    """Traces of a large secret integer: whole, and any 64-bit piece of it."""
    raw = int(value).to_bytes((int(value).bit_length() + 7) // 8, "big")
    return of_whole_number(int(value)) | of_bytes(raw, 8) | of_bytes(raw[::-1], 8)


def of_text(text: str) -> set[bytes]:
    """Traces of a passphrase."""
    return {text.encode(), text.encode("utf-16-le"), text.encode().hex().encode()} | _base64(text.encode())


def _digits(value: float) -> set[bytes]:
    """Decimal texts of six digits and more."""
    texts = {repr(value)} | {f"{value:.{n}{kind}}" for n in range(3, 18) for kind in "feg"}
    return {text.encode() for text in texts if len(text.partition("e")[0].lstrip("-0.").replace(".", "")) >= 6}


def _doubles(value: float) -> set[bytes]:
    """A double in either order, also where its last byte is another: after rounding, or another order of a sum."""
    raw = np.float64(value).tobytes()
    return {raw[1:], raw[:0:-1]} if _bits(value) >= LEAST_BITS else set()


def _pairs(first: float, second: float) -> set[bytes]:
    """Two neighbours as floats of 32 bits, and as whole numbers of 32 and 64."""
    both = np.array([first, second])
    found = set()
    if sum(map(_bits, both.astype(np.float32).tolist())) >= _PAIR_BITS:
        found = {both.astype(kind).tobytes() for kind in ("<f4", ">f4")}
    for scale in _SCALES:
        whole = np.round(both * 2.0**scale)
        for width in (32, 64):
            if np.abs(whole).max() < 2.0 ** (width - 1) and sum(map(_bits, whole.tolist())) >= _PAIR_BITS:
                found |= {whole.astype(f"{order}i{width // 8}").tobytes() for order in "<>"}
    return found


def _bits(value: float) -> int:
    """How much a float says: the bits of its mantissa up to the last one."""
    whole = int(np.frexp(value)[0] * 2.0**53)
    return _length(whole) - _length(whole & -whole) + 1


def _length(value: float) -> int:
    return abs(int(value)).bit_length()


def _base64(data: bytes) -> set[bytes]:
    """What of a base64 text is the same wherever in it the data begin; six characters of it are 36 bits."""
    found = set()
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + data)
        found.add(text[4 * (shift > 0) : len(text) - 4])
    return {trace for trace in found if len(trace) >= 2 * SHORTEST}
