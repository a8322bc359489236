"""A short run of every fuzz target (`make fuzz` is the long one), and faults planted to see that they are found."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

from fuzz.report import fuzz
from fuzz.targets import MAKERS, target
from hepipe.errors import HepipeError

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None, reason="needs atheris, which has wheels for Linux on x86-64 and Python 3.11 to 3.13"
)
RUNS = {
    "envelope": 5_000, "paillier-vector": 5_000, "paillier-key": 3_000, "ckks-frame": 3_000,
    "ckks-keys": 2_000, "model-file": 1_500, "inference": 5_000, "letter": 5_000,
}  # fmt: skip


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_a_decoder_gives_a_value_or_a_typed_error_and_nothing_else(name: str, tmp_path: Path) -> None:
    outcome = fuzz(name, RUNS[name], 20, tmp_path)
    assert outcome.faults(RUNS[name]) == [], outcome.said
    if name == "ckks-frame":
        assert outcome.counts["notes"]["evaluated"] > 50


@pytest.mark.parametrize("name", MAKERS)
def test_the_seeds_are_accepted_and_cut_ones_are_not(name: str) -> None:
    aim = target(name)
    for seed in aim.seeds:
        aim.check(seed)
        with pytest.raises(HepipeError):
            aim.check(seed[:-1])
        if aim.sealed:
            assert aim.sealed(seed)


@needs_atheris
@pytest.mark.parametrize("fault", ["raises", "hangs", "grows", "crashes"])
def test_a_fault_is_found_and_its_input_kept(fault: str, tmp_path: Path) -> None:
    outcome = fuzz(f"broken.{fault}", 200, 1, tmp_path)
    assert outcome.faults(200), "the fault went unnoticed"
    if fault != "grows":  # noticed at the next look, some inputs later
        assert [path.read_bytes() for path in outcome.findings] == [b"bad"], outcome.said


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers beyond a double, on their way to be refused
@pytest.mark.parametrize("name", MAKERS)
def test_changes_differ_from_what_they_change_and_some_are_accepted(name: str) -> None:
    """What a mutator is for, without atheris: most changes keep the digest right, and not all are refused."""
    aim, accepted, sealed = target(name), 0, 0
    for number in range(600):
        rng = Random(number)
        data = aim.change(aim.seeds[number % len(aim.seeds)], rng, lambda piece: piece[: len(piece) // 2])
        sealed += aim.sealed is None or aim.sealed(data)
        with suppress(HepipeError):
            aim.check(data)
            accepted += data not in aim.seeds
    assert accepted > 0
    assert sealed > 300
