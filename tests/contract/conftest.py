"""Every scheme with its keys, as the contract suite and the laws use it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from hepipe.schemes.base import CipherTensor, Decryptor, Encryptor, Feature, KeySet, PublicBundle
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.parameters import (
    TEST_INSECURE_CKKS,
    TEST_INSECURE_PAILLIER,
    CkksParameters,
    ClearParameters,
    PaillierParameters,
)
from hepipe.schemes.registry import scheme_of

SMALL: dict[str, Any] = {
    "clear": ClearParameters(depth=2, slots=64),
    "clear-exact": ClearParameters(depth=2, slots=64, log_scale=28, log_plain_scale=28, exact=True),
    "paillier": replace(TEST_INSECURE_PAILLIER, depth=2, lanes=7, lane_bits=140),
    "paillier-one-lane": replace(TEST_INSECURE_PAILLIER, depth=2, lanes=1, lane_bits=1022),
    "ckks": TEST_INSECURE_CKKS,
    "ckks-rotating": CkksParameters(
        1024, (50, 30, 30, 60), 30.0, insecure=True, rotations=(-1, *(1 << i for i in range(9)))
    ),
    "ckks-complex": CkksParameters(1024, (50, 30, 50), 30.0, complex_slots=True, insecure=True),
    "ckks-tail": CkksParameters(1024, (60, 40), 20.0, tail_bits=20.0, complex_slots=True, insecure=True),
    "ckks-one-prime": CkksParameters(1024, (54,), 26.0, tail_bits=19.0, complex_slots=True, insecure=True),
}
SECURE: dict[str, Any] = {
    "paillier-3072": PaillierParameters(depth=2, lanes=21, lane_bits=144),
    "ckks-8192": CkksParameters(8192, (60, 40, 40, 60), 40.0),
}


@dataclass(frozen=True, eq=False)
class Party:
    """One scheme, its keys, and what is made of them."""

    scheme: Any
    keys: KeySet
    encryptor: Encryptor
    decryptor: Decryptor
    evaluator: Any

    @property
    def parameters(self) -> Any:
        return self.scheme.parameters

    @property
    def bundle(self) -> PublicBundle:
        return PublicBundle(self.parameters, self.keys.public, self.keys.evaluation)

    @property
    def secure(self) -> bool:
        return self.parameters.security_bits >= 112

    @property
    def exact(self) -> bool:
        """Whether results equal the integer reference bit for bit."""
        return self.parameters.name == "paillier" or getattr(self.parameters, "exact", False)

    @property
    def travels(self) -> bool:
        """Whether its tensors can be framed; the integer reference cannot."""
        return not getattr(self.parameters, "exact", False)

    @property
    def multiplies(self) -> bool:
        return Feature.MUL in self.scheme.features

    def other(self) -> Party:
        """The same scheme under other keys."""
        return party_of(self.parameters, which=1)

    def dry(self) -> DryEvaluator:
        return DryEvaluator(self.parameters)

    def ciphertexts(self, x: CipherTensor) -> int:
        return -(-x.shape[0] // self.parameters.slots) * x.shape[1]


@cache
def party_of(parameters: Any, which: int = 0) -> Party:
    scheme = scheme_of(parameters)
    keys = scheme.keygen()
    public = KeySet(None, keys.public, keys.evaluation)
    return Party(scheme, keys, scheme.encryptor(keys.secret), scheme.decryptor(keys.secret), scheme.evaluator(public))


@pytest.fixture(
    params=[*SMALL, *(pytest.param(name, marks=pytest.mark.secure) for name in SECURE)],
    ids=lambda name: name,
)
def party(request: pytest.FixtureRequest) -> Party:
    """Every scheme, on test keys and once at a secure size."""
    return party_of((SMALL | SECURE)[request.param])


@pytest.fixture(params=list(SMALL))
def small(request: pytest.FixtureRequest) -> Party:
    """Every scheme on test keys."""
    return party_of(SMALL[request.param])


@pytest.fixture(params=[name for name in SMALL if name.startswith("clear")])
def clear(request: pytest.FixtureRequest) -> Party:
    """The integer reference and the one of floats."""
    return party_of(SMALL[request.param])


@pytest.fixture(params=[name for name in SMALL if name.startswith(("paillier", "ckks"))])
def encrypting(request: pytest.FixtureRequest) -> Party:
    """Every scheme that hides something, on test keys."""
    return party_of(SMALL[request.param])


@pytest.fixture(params=[name for name in SMALL if Feature.SUM_SAMPLES in scheme_of(SMALL[name]).features])
def summing(request: pytest.FixtureRequest) -> Party:
    """Every scheme that declares sums over samples, on test keys."""
    return party_of(SMALL[request.param])


@pytest.fixture
def rotating() -> Party:
    """CKKS with Galois keys."""
    return party_of(SMALL["ckks-rotating"])


@pytest.fixture(params=["paillier", "ckks", "ckks-complex"])
def lawful(request: pytest.FixtureRequest) -> Party:
    """One test set of each kind of arithmetic."""
    return party_of(SMALL[request.param])


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.secure) for name in SECURE])
def secure(request: pytest.FixtureRequest) -> Party:
    """Every scheme that hides something, at a secure size."""
    return party_of(SECURE[request.param])
