"""Every fault once: the right scores or a typed error in time, never a wrong number, and nobody else notices."""

from __future__ import annotations

import pytest

from faults import FAULTS, judged
from faults.scene import Scene


@pytest.mark.parametrize(("name", "number"), [*((name, 0) for name in FAULTS), ("slow client", 1)])
def test_a_fault_ends_in_the_right_scores_or_a_typed_error(scene: Scene, name: str, number: int) -> None:
    judged(scene, FAULTS[name], number)
