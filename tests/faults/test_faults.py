"""Every fault once: the right scores or a typed error in time, never a wrong number, and nobody else notices."""

from __future__ import annotations

import pytest

from faults import FAULTS, judged
from faults.scene import Scene


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_in_the_right_scores_or_a_typed_error(scene: Scene, name: str) -> None:
    judged(scene, FAULTS[name], 0)
