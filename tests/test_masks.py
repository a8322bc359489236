"""The room of masked products: what the dry run lets pass, runs; what it refuses is refused before anything is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.errors import OutOfRange
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.rounds import answer_masked_factors
from hepipe.schemes import paillier_evaluator
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER, ClearParameters, PaillierParameters

LANE = dataclasses.replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=4)
WIDEST = 429
"""Bits of the largest value that can be squared at 1024 bits: two masks of 80 more in 1022 bits less three."""


@cache
def keys() -> KeySet:
    return PaillierScheme(LANE).keygen()


@dataclass(frozen=True)
class Steps:
    """Squares, products of the two columns, and factors of a power of two, one after the other."""

    names: tuple[str, ...]
    factor: float

    def run(self, ev: Any, x: Any) -> Any:
        for name in self.names:
            if name == "factor":
                x = ev.mul_plain(x, self.factor)
            elif name == "square":
                x = ev.mul(x, x)
            else:
                x = ev.mul(x, ev.take(x, [1, 0]))
        return x


@st.composite
def cases(draw: st.DrawFn) -> tuple[PaillierParameters, float, Steps]:
    names = tuple(draw(st.lists(st.sampled_from(["factor", "square", "pair"]), min_size=1, max_size=3)))
    products = sum(name != "factor" for name in names)
    size, plain = draw(st.integers(-8, 40)), draw(st.integers(1, 60))
    # Around the largest scale for which the last product has room.
    edge = WIDEST // 2 ** max(products - 1, 0) - size - plain * (names[0] == "factor")
    parameters = dataclasses.replace(LANE, log_scale=edge + draw(st.integers(-5, 3)), log_plain_scale=plain)
    return parameters, 2.0**size, Steps(names, 2.0 ** draw(st.integers(-1, 1)))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_what_the_dry_run_lets_pass_runs_exactly_and_what_it_refuses_is_refused(case: Any) -> None:
    parameters, bound, steps = case
    values = np.array([[bound, -bound]])
    dry = DryEvaluator(parameters)
    short = refusal(lambda: steps.run(dry, dry.fresh((1, 2), bound)))
    found = refusal(lambda: _run(parameters, values, bound, steps))
    assert (short or "").partition(":")[0] == (found or "").partition(":")[0]
    if short:
        return
    planned = steps.run(dry := DryEvaluator(parameters), dry.fresh((1, 2), bound))
    y, rounds, integers = _run(parameters, values, bound, steps)
    scheme = ClearScheme(ClearParameters(4, parameters.log_scale, parameters.log_plain_scale, exact=True))
    names = scheme.keygen()
    expected = steps.run(scheme.evaluator(names), scheme.encryptor(names.secret).encrypt(values, bound))
    assert (integers == scheme.decryptor(names.secret).decrypt_integers(expected)).all()
    assert (rounds, y.log_scale, y.bound.tolist()) == (dry.rounds, planned.log_scale, planned.bound.tolist())


def refusal(call: Callable[[], Any]) -> str | None:
    """What an OutOfRange says, if there is one."""
    try:
        call()
    except OutOfRange as error:
        return str(error)
    return None


def _run(parameters: PaillierParameters, values: np.ndarray, bound: float, steps: Steps) -> tuple[Any, int, np.ndarray]:
    scheme = PaillierScheme(parameters)
    bundle = PublicBundle(parameters, keys().public, keys().evaluation)
    encryptor, decryptor = scheme.encryptor(keys().secret), scheme.decryptor(keys().secret)
    link = LocalLink(lambda request: answer_masked_factors(request, bundle, encryptor, decryptor))
    ev = Interactive(scheme.evaluator(keys()), link, bundle)
    y = steps.run(ev, encryptor.encrypt(values, bound))
    return y, link.transcript.rounds, decryptor.decrypt_integers(y)


@pytest.mark.parametrize("mask", [lambda bits: (1 << bits) - 1, lambda bits: 0], ids=["largest", "none"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_widest_values_that_are_let_pass_multiply_under_any_mask(
    monkeypatch: pytest.MonkeyPatch, mask: Any, sign: float
) -> None:
    keys()  # a key is never made of patched randomness: that search would not end
    monkeypatch.setattr(paillier_evaluator.secrets, "randbits", mask)
    parameters = dataclasses.replace(LANE, log_scale=WIDEST - 9)
    _, rounds, integers = _run(parameters, np.array([[sign * 512.0, 512.0]]), 512.0, Steps(("square",), 1.0))
    assert rounds == 1
    assert integers.tolist() == [[1 << 2 * WIDEST] * 2]


def test_one_bit_more_is_refused_before_anything_is_sent() -> None:
    parameters = dataclasses.replace(LANE, log_scale=WIDEST + 1)
    sent: list[bytes] = []
    scheme = PaillierScheme(parameters)
    bundle = PublicBundle(parameters, keys().public, keys().evaluation)
    ev = Interactive(scheme.evaluator(keys()), LocalLink(lambda frame: sent.append(frame) or frame), bundle)
    x = scheme.encryptor(keys().secret).encrypt(np.ones((1, 2)), 1.0)
    with pytest.raises(OutOfRange, match=r"masks of 510 and 510 bits.* need 1020 bits, the plaintext holds 1019"):
        ev.mul(x, x)
    assert sent == []
