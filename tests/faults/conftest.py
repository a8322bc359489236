"""One server for all faults, each of which leaves it at work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.scene import Scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()
