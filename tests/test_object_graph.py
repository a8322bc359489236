"""The walk that shows what a party does not hold finds what is there, wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from object_graph import floats, reachable


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


@dataclass
class Plain:
    inner: object


class Secret:
    """What must be found."""


PLACES = {
    "attribute": Plain,
    "slot": Slotted,
    "list": lambda secret: [1, [secret]],
    "key": lambda secret: {secret: 1},
    "iterator": lambda secret: Plain(iter([secret])),
    "array": lambda secret: np.array([[None, secret]], dtype=object),
    "array in an array": lambda secret: np.array([np.array([secret, 1], dtype=object), 1], dtype=object),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_finds_what_is_there(place: str) -> None:
    secret = Secret()
    assert [item for item in reachable(Plain(PLACES[place](secret))) if item is secret]


def test_it_reads_numbers_alone_and_in_arrays() -> None:
    held = Plain([0.5, np.array([[1.5, 2.5]]), np.array([3.5, None], dtype=object)])
    assert floats(reachable(held)) >= {0.5, 1.5, 2.5, 3.5}
