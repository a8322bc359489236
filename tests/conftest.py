"""Which tests coverage traces: the tracer makes a test a quarter slower and more."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRACED = (
    "contract/test_layout.py",
    "contract/test_samples.py",
    "contract/test_scheme.py",
    "test_bundle.py",
    "test_ckks.py",
    "test_clear.py",
    "test_comparison.py",
    "test_dry.py",
    "test_frames.py",
    "test_keystore.py",
    "test_lanes.py",
    "test_learning.py",
    "test_masks.py",
    "test_nearest.py",
    "test_owners.py",
    "test_paillier.py",
    "test_paillier_keys.py",
    "test_paillier_masks.py",
    "test_paillier_proof.py",
    "test_paillier_randomness.py",
    "test_parameters.py",
    "test_pipe.py",
    "test_policy_client.py",
    "test_protocol.py",
    "test_refresh.py",
    "test_rotations.py",
    "test_seal.py",
    "test_wire.py",
)
"""Coverage is of schemes/ and protocol/: these reach all that any test reaches there but for a few lines."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Not pytest-cov's ``no_cover``, which does nothing in a process of pytest-xdist: two tracers run there."""
    if item.path in {HERE / name for name in TRACED}:
        return (yield)
    here, threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        return (yield)
    finally:
        sys.settrace(here)
        threading.settrace(threads)  # type: ignore[arg-type]
