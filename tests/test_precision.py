"""The precision of CKKS at N = 8192 over more than 2**20 slots an operation, against what the dry run promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hepipe.schemes.base import CipherTensor, KeySet
from hepipe.schemes.ckks import CkksScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import CkksParameters
from tails import worst_of_many

PARAMETERS = CkksParameters(8192, (60, 40, 40, 60), 40.0)
SLOTS, COLUMNS, KEYS = 4096, 22, 12
FloatArray = npt.NDArray[np.float64]
WEIGHTS = np.random.default_rng(8).uniform(-1, 1, (COLUMNS, COLUMNS))
SCHEME = CkksScheme(PARAMETERS)


@cache
def keys(which: int) -> KeySet:
    """One of several keys: the noise of a slot depends on the secret's value there, so one key is one sample."""
    return SCHEME.keygen()


Circuit = tuple[Callable[[Any, CipherTensor], CipherTensor], Callable[[FloatArray], FloatArray]]
CIRCUITS: dict[str, Circuit] = {
    "fresh": (lambda ev, x: x, lambda v: v),
    "after mul_plain": (lambda ev, x: ev.mul_plain(x, 0.75), lambda v: 0.75 * v),
    "after mul": (lambda ev, x: ev.mul(x, x), lambda v: v * v),
    "after matmul_plain": (lambda ev, x: ev.matmul_plain(x, WEIGHTS), lambda v: v @ WEIGHTS),
    "rerandomized": (lambda ev, x: ev.rerandomize(x), lambda v: v),
}


def errors_of(circuit: Circuit) -> FloatArray:
    encrypted, clear = circuit
    found = []
    for which in range(KEYS):
        values = np.random.default_rng(which).uniform(-1, 1, (SLOTS, COLUMNS))
        x = SCHEME.encryptor(keys(which).secret).encrypt(values, 1.0)
        result = SCHEME.decryptor(keys(which).secret).decrypt(encrypted(SCHEME.evaluator(keys(which)), x))
        found.append(np.abs(result - clear(values)))
    return np.concatenate(found).ravel()


@pytest.mark.slow
@pytest.mark.secure
@pytest.mark.parametrize("name", list(CIRCUITS))
def test_the_error_over_a_million_slots_is_what_the_dry_run_says(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    errors, dry = errors_of(CIRCUITS[name]), DryEvaluator(PARAMETERS)
    promised = CIRCUITS[name][0](dry, dry.fresh((SLOTS, COLUMNS), 1.0))
    assert errors.size >= 2**20
    bits = -np.log2(np.maximum(errors, 2.0**-60))
    worst, mean, spread = float(bits.min()), float(bits.mean()), float(bits.std())
    for key, value in (("min_bits", worst), ("mean_bits", mean), ("std_bits", spread)):
        record_property(key, round(value, 2))
    bound = dry.error_bound(promised)
    # At 2**-20 a slot, one of a million may lie beyond; ten are one chance in a million runs; beyond twice, none.
    assert (errors > bound).sum() <= 10
    assert errors.max() <= worst_of_many(dry, promised)
    # The promise is not a wide one either: within three bits of the worst slot.
    assert -np.log2(bound) > worst - 3
    if name == "fresh":
        assert worst >= PARAMETERS.log_scale - np.log2(PARAMETERS.poly_modulus_degree) - 1
    assert worst < mean
    assert 0.5 < spread < 3
