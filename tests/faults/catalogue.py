"""The catalogue: what a fault is, how its requests may end, and the judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from faults.bystander import Bystander
from faults.scene import SCHEMES, Ending, Scene

Inject = Callable[[Scene, int], Iterator[Ending]]
"""Does it to the server, the ``number``-th time; yields how alice's requests ended."""


@dataclass(frozen=True)
class Fault:
    """One way in which things go wrong.

    ends      how a request may end, beside "deadline", which a slow machine may always make of it
    restarts  whether the server is started again
    """

    name: str
    inject: Inject
    ends: frozenset[str]
    restarts: bool


FAULTS: dict[str, Fault] = {}


def fault(name: str, *ends: str, restarts: bool = False) -> Callable[[Inject], Inject]:
    """Enter a function into the catalogue."""

    def enter(inject: Inject) -> Inject:
        assert name not in FAULTS
        FAULTS[name] = Fault(name, inject, frozenset(ends), restarts)
        return inject

    return enter


def judged(scene: Scene, one: Fault, number: int) -> list[Ending]:
    """Inject a fault; its endings. AssertionError for a wrong number, another ending, or one that others notice."""
    with Bystander(scene, one.restarts):
        endings = list(one.inject(scene, number))
        for scheme in SCHEMES:  # and alice goes on
            after = scene.party("linear", scheme).ask(retries=8)
            assert after.how == "right", f"after it, linear on {scheme} ends in {after.how}"
    assert endings
    for ending in endings:
        assert ending.how in one.ends | {"deadline"}, f"{one.name} ended in {ending.how}"
    return endings
