"""What the client sees of comparisons on Paillier: 10^4 transcripts of each of two models, alike to every test.

The keys have 256 bits, so that ten thousand blindings of full length take seconds. The code knows no length but the
modulus's; that blindings are as long as any modulus is shown at 1024 bits, where fewer values convict shorter ones.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats

from hepipe.protocol.comparison import MaskedNumbers, ZeroTests, answer_masked_numbers, answer_zero_tests
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.rounds import masked_integers
from hepipe.schemes import paillier_evaluator
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.fixedpoint import from_fixed, magnitude_bits
from hepipe.schemes.frames import Kind, kind_of, parse
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.paillier_randomness import HolderSource, RandomnessPool
from hepipe.schemes.parameters import PaillierParameters
from hepipe.schemes.wire import unpack_ciphertexts

RUNS = 10_000
ALPHA = 1e-6
SMALL, LONG = 256, 1024


class Parties(NamedTuple):
    """Both parties under one key of a size that is no secret."""

    bundle: PublicBundle
    encryptor: Any
    decryptor: Any
    evaluator: Any

    @property
    def n(self) -> int:
        return int(self.bundle.public.n)


@cache
def parties(modulus_bits: int) -> Parties:
    """The server draws its randomness as the key holder does: the same law, 10 times faster."""
    given = PaillierParameters(modulus_bits, lanes=1, lane_bits=modulus_bits - 2, depth=2, insecure=True)
    scheme = PaillierScheme(given)
    keys = scheme.keygen()
    evaluator = scheme.evaluator(KeySet(None, keys.public, keys.evaluation))
    evaluator.pool = RandomnessPool(keys.public, HolderSource(keys.secret))
    bundle = PublicBundle(given, keys.public, keys.evaluation)
    return Parties(bundle, scheme.encryptor(keys.secret), scheme.decryptor(keys.secret), evaluator)


def plaintexts(request: bytes, modulus_bits: int) -> np.ndarray:
    """All the client can decrypt of zero tests, a row a sample."""
    frame, own = parse(request, Kind.ZERO_TESTS), parties(modulus_bits)
    (count,) = struct.unpack_from(">I", frame.body)
    rows = unpack_ciphertexts(frame, frame.body[4 + 2 * count :], own.bundle)
    return np.array([[int(own.decryptor._plaintext(c)) for c in row] for row in rows], dtype=object)


# --- a number given by its bits, and a secret threshold ---------------------------------------------------------------

MODELS = (2, 7)
"""Thresholds below and above the number."""
CASES = [*((model, RUNS) for model in MODELS), (0, 1_000), (8, 1_000)]
"""These, and both ends of what 3 bits hold."""
NUMBER = (1, 0, 1)
"""5, the lowest bit first."""


@cache
def seen(threshold: int, runs: int, modulus_bits: int) -> np.ndarray:
    """The plaintexts of so many comparisons of one number with one threshold, a row each."""
    own = parties(modulus_bits)
    x = own.encryptor.encrypt(np.tile(NUMBER, (runs, 1)), 1.0)
    numbers = np.full((runs, 1), threshold, dtype=object)
    return plaintexts(ZeroTests(own.evaluator, x, [range(3)], numbers).request(own.bundle), modulus_bits)


def zeros(values: np.ndarray) -> np.ndarray:
    """Per row how many zeros."""
    return np.asarray((values == 0).sum(axis=1))


def fair(coins: np.ndarray) -> float:
    """The p-value of "as often a zero as none"; 0 where a row has two."""
    return 0.0 if coins.max() > 1 else float(stats.binomtest(int(coins.sum()), len(coins)).pvalue)


def places(values: np.ndarray) -> float:
    """The p-value of "a zero stands anywhere alike"."""
    found = (values == 0).argmax(axis=1)[zeros(values) > 0]
    return float(stats.chisquare(np.bincount(found, minlength=values.shape[1])).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "runs"), CASES)
def test_a_zero_is_a_fair_coin_at_a_uniform_place_whatever_the_threshold(threshold: int, runs: int) -> None:
    """A bias of 0.025 of 10^4 coins is seen with power over one half; a server without coins has 0.5."""
    values = seen(threshold, runs, SMALL)
    assert values.shape == (runs, 4)
    assert fair(zeros(values)) > ALPHA
    assert places(values) > ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threshold", "runs", "modulus_bits"),
    [*((*case, SMALL) for case in CASES), *((threshold, 100, LONG) for threshold, _ in CASES)],
)
def test_all_that_is_not_zero_is_uniform_modulo_n(threshold: int, runs: int, modulus_bits: int) -> None:
    n = parties(modulus_bits).n
    others = [int(v) for v in seen(threshold, runs, modulus_bits).flat if v]
    assert len(set(others)) == len(others)
    assert stats.kstest([v / n for v in others], "uniform").pvalue > ALPHA
    for prime in (2, 3, 5, 7):
        assert stats.chisquare(np.bincount([v % prime for v in others], minlength=prime)).pvalue > ALPHA


@pytest.mark.slow
def test_two_thresholds_look_the_same_to_the_client() -> None:
    """KS at level 1e-6 on 10^4 values a side sees a distance of 0.038; each place is also looked at by itself."""
    low, high = (seen(threshold, RUNS, SMALL) for threshold in MODELS)
    table = [[int(count), RUNS - int(count)] for count in (zeros(low).sum(), zeros(high).sum())]
    assert stats.chi2_contingency(table).pvalue > ALPHA
    for columns in (slice(None), *range(4)):
        sides = [[int(v) / parties(SMALL).n for v in values[:, columns].flat if v] for values in (low, high)]
        assert stats.ks_2samp(*sides).pvalue > ALPHA


def test_the_same_statistics_convict_a_server_without_coins_blinding_or_shuffling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parties(SMALL)  # a key is never made of patched randomness: that search would not end
    monkeypatch.setattr(paillier_evaluator.secrets, "randbits", lambda bits: 0)
    assert fair(zeros(seen.__wrapped__(7, 100, SMALL))) < ALPHA
    monkeypatch.undo()
    monkeypatch.setattr(paillier_evaluator.secrets, "randbelow", lambda _: 7)
    others = [int(v) for v in seen.__wrapped__(7, 100, SMALL).flat if v]
    assert len(set(others)) < len(others)
    monkeypatch.undo()
    monkeypatch.setattr(paillier_evaluator, "_SHUFFLER", type("Fixed", (), {"shuffle": staticmethod(lambda _: None)}))
    assert places(seen.__wrapped__(7, 100, SMALL)) < ALPHA


def test_blindings_shorter_than_the_modulus_are_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a hundredth of the values, where they are as short as a constant that fits the small keys."""
    parties(LONG)
    below = paillier_evaluator.secrets.randbelow
    monkeypatch.setattr(paillier_evaluator.secrets, "randbelow", lambda n: below(1 << SMALL))
    n, others = parties(LONG).n, [int(v) for v in seen.__wrapped__(7, 100, LONG).flat if v]
    assert stats.kstest([v / n for v in others], "uniform").pvalue < ALPHA


def test_the_ciphertexts_of_a_test_are_new_every_time() -> None:
    own = parties(SMALL)
    x = own.encryptor.encrypt([NUMBER], 1.0)
    rows = [own.evaluator.blinded_tests(x, [range(3)], np.array([[7]], dtype=object))[0].data[0] for _ in range(20)]
    assert len({int(c) for row in rows for c in row}) == 80


# --- the sign of an encrypted number ----------------------------------------------------------------------------------


@cache
def masked(value: float) -> np.ndarray:
    """What the client decrypts of 10^4 masked numbers, as a fraction of the mask."""
    own = parties(SMALL)
    x = own.encryptor.encrypt(np.full((RUNS, 1), value), 4.0)
    frame = parse(MaskedNumbers(own.evaluator, x).request(own.bundle), Kind.MASKED_NUMBERS)
    (width,) = struct.unpack_from(">H", frame.body)
    assert width == magnitude_bits(x.bound, x.log_scale) == 31
    found, _, _ = masked_integers(frame, frame.body[2:], own.bundle, own.decryptor)
    return from_fixed(found[:, 0], width + 1 + 80)


def test_masked_numbers_have_one_law_whatever_they_hide() -> None:
    """KS at level 1e-6 on 10^4 values a side sees a distance of 0.038; a mask of the number's own size has 0.5."""
    low, high = masked(-4.0), masked(4.0)
    assert len({*low, *high}) == 2 * RUNS
    assert stats.ks_2samp(low, high).pvalue > ALPHA
    for side in (low, high):
        assert stats.kstest(side, "uniform").pvalue > ALPHA


def whole(value: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Both rounds of so many signs of a whole number: the lowest 3 bits of the masked ones, and the coins."""
    own, requests = parties(SMALL), []

    def answer(request: bytes) -> bytes:
        requests.append(request)
        half = answer_zero_tests if kind_of(request) == Kind.ZERO_TESTS else answer_masked_numbers
        return half(request, own.bundle, own.encryptor, own.decryptor)

    x = own.encryptor.encrypt_integers(np.full((runs, 1), value, dtype=object), 1.0, log_scale=0)
    Interactive(own.evaluator, LocalLink(answer), own.bundle).negative(x, 0.5)
    first, second = requests
    frame = parse(first, Kind.MASKED_NUMBERS)
    numbers, _, _ = masked_integers(frame, frame.body[2:], own.bundle, own.decryptor)
    return (numbers[:, 0] & 7).astype(int), zeros(plaintexts(second, SMALL)).astype(int)


def joint(low: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """How often each of the low bits came with each side of the coin."""
    return np.bincount(low + 8 * coins, minlength=16)


@pytest.mark.slow
def test_both_rounds_of_a_sign_together_say_nothing_of_the_number() -> None:
    """A client knows a masked number's low bits when it sees the coin of their comparison with the mask's."""
    found = {value: whole(value, RUNS // 4) for value in (-1, 1)}
    tables = [joint(*rounds) for rounds in found.values()]
    assert stats.chi2_contingency(tables).pvalue > ALPHA
    for (_, coins), table in zip(found.values(), tables, strict=True):
        assert stats.chisquare(table).pvalue > ALPHA
        assert fair(coins) > ALPHA


def test_without_the_coin_both_rounds_together_tell_the_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    parties(SMALL)
    bits = paillier_evaluator.secrets.randbits
    monkeypatch.setattr(paillier_evaluator.secrets, "randbits", lambda count: 0 if count == 1 else bits(count))
    tables = [joint(*whole(value, 200)) for value in (-1, 1)]
    assert min(stats.chisquare(table).pvalue for table in tables) < ALPHA
