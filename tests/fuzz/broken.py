"""Decoders with a fault each, to show that every kind of fault is found."""

from __future__ import annotations

import ctypes
import time
from random import Random

from fuzz.mutators import Havoc
from fuzz.targets import Target
from hepipe.errors import MalformedFrame

_KEPT: list[bytearray] = []
_PARTS = [b"good", b"bad"]


def _target(name: str) -> Target:
    def check(data: bytes) -> None:
        if data == b"bad":
            _FAULTS[name]()
        if data != b"good":
            raise MalformedFrame("neither good nor bad")

    def change(data: bytes, rng: Random, havoc: Havoc) -> bytes:
        return rng.choice((b"bad", b"good", havoc(data)))

    return Target(name, [b"good"], check, change, None)


def _raise() -> None:
    raise ZeroDivisionError


def _hang() -> None:
    start = time.process_time()
    while time.process_time() < start + 1.1:
        pass


def _grow() -> None:
    _KEPT.append(bytearray(b"x" * (300 << 20)))


def _crash() -> None:
    ctypes.string_at(0)


_FAULTS = {"raises": _raise, "hangs": _hang, "grows": _grow, "crashes": _crash}


def raises() -> Target:
    return _target("raises")


def hangs() -> Target:
    return _target("hangs")


def grows() -> Target:
    return _target("grows")


def crashes() -> Target:
    return _target("crashes")
