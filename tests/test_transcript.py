"""What travels: rounds and bytes as planned for any circuit, and masked values that say nothing of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy import stats

from hepipe.circuits import polynomial
from hepipe.circuits.functions import RELU, SIGMOID, TANH
from hepipe.circuits.linear import affine
from hepipe.errors import OutOfRange, Unsupported
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink, Transcript
from hepipe.protocol.parties import Client, Server
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.fixedpoint import from_fixed
from hepipe.schemes.frames import Kind, parse
from hepipe.schemes.masks import mask_bits_for
from hepipe.schemes.paillier import PaillierEncryptor, PaillierScheme
from hepipe.schemes.paillier_randomness import HolderSource, RandomnessPool
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER
from hepipe.schemes.wire import unpack_ciphertexts
from hepipe.study.plan import plan

# --- rounds and bytes of random circuits ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Circuit:
    """Layers of an affine map and what follows it: an MLP of any activations."""

    layers: list[tuple[np.ndarray, np.ndarray, str]]
    profile: Profile = field(init=False)
    reveals: str = "scores"

    def __post_init__(self) -> None:
        features = self.layers[0][0].shape[0]
        object.__setattr__(self, "profile", Profile.of("regression", Schema.unknown(features, bound=1.0), 1))

    def forward(self, ev: Any, x: Any) -> Any:
        for weights, intercept, activation in self.layers:
            x = AFTER[activation](ev, affine(ev, x, weights, intercept))
        return x

    def clear(self, x: np.ndarray) -> np.ndarray:
        for weights, intercept, activation in self.layers:
            x = IN_CLEAR[activation](x @ weights + intercept)
        return x


def paired(ev: Any, z: Any) -> Any:
    """Every unit with its neighbour, and its square, in one round: wider than it was."""
    turned = ev.take(z, [*range(1, z.shape[1]), 0])
    product, square = ev.mul_pairs([(z, turned), (z, z)])
    return ev.join([square, product])


AFTER: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda ev, z: z,
    "square": lambda ev, z: ev.mul(z, z),
    "pairs": paired,
    "cubic": lambda ev, z: polynomial.evaluate(ev, z, SIGMOID.polynomial(3, 2.0)),
    "quartic": lambda ev, z: polynomial.evaluate(ev, z, RELU.polynomial(4, 2.0)),
    "relu": lambda ev, z: ev.ask(RELU, z),
    "tanh": lambda ev, z: ev.ask(TANH, z),
}
IN_CLEAR: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda z: z,
    "square": np.square,
    "pairs": lambda z: np.hstack([z * z, z * np.roll(z, -1, axis=1)]),
    "cubic": lambda z: SIGMOID.polynomial(3, 2.0)(2 * z),
    "quartic": lambda z: RELU.polynomial(4, 2.0)(2 * z),
    "relu": RELU.exact,
    "tanh": TANH.exact,
}
ASKED = {"relu", "tanh"}


@st.composite
def circuits(draw: st.DrawFn, names: list[str]) -> Circuit:
    """One to three layers, |value| <= 1 throughout."""
    rng, layers, width = np.random.default_rng(draw(st.integers(0, 2**32))), [], draw(st.integers(1, 3))
    for _ in range(draw(st.integers(1, 3))):
        units, name = draw(st.integers(1, 3)), draw(st.sampled_from(names))
        weights, intercept = rng.uniform(-1, 1, (width, units)), rng.uniform(-0.25, 0.25, units)
        weights *= 0.7 / np.abs(weights).sum(axis=0)
        layers.append((weights, intercept, name))
        width = 2 * units if name == "pairs" else units
    return Circuit(layers)


@cache
def paillier_keys() -> KeySet:
    return PaillierScheme(TEST_INSECURE_PAILLIER).keygen()


def run(circuit: Circuit, scheme: str, samples: int, policy: str) -> None:
    """One query by frames; everything the plan foretold is compared."""
    try:
        made = plan(circuit, scheme, samples, policy, precision_bits=8, security_bits=0)
    except (OutOfRange, Unsupported):
        reject()  # deeper than the small keys of tests hold
    client = Client(made, paillier_keys() if scheme == "paillier" else None)
    keys = client.public_bytes()
    server = Server(circuit, keys, policy, allow_insecure=True)
    x = np.random.default_rng(samples).uniform(-1, 1, (samples, circuit.layers[0][0].shape[0]))
    link, upload = client.link(), client.pack(client.encrypt(x))
    download = server.pack(server.evaluate(server.unpack(upload), link))
    found = link.transcript
    assert found.rounds == made.rounds
    assert len(upload) + found.bytes_up == made.bytes_up
    assert len(download) + found.bytes_down == made.bytes_down
    assert len(keys) == made.key_bytes
    assert [m.sender for m in found.messages] == ["server", "client"] * made.rounds
    scores = client.decrypt(client.unpack(download))
    assert np.abs(scores - circuit.clear(x)).max() < 2.0**-7


@settings(max_examples=40, deadline=None)
@given(circuits([*IN_CLEAR.keys() - ASKED]), st.integers(1, 3))
def test_paillier_s_transcript_is_the_plan_s(circuit: Circuit, samples: int) -> None:
    run(circuit, "paillier", samples, "polynomial")


@settings(max_examples=40, deadline=None)
@given(circuits([*IN_CLEAR]), st.integers(1, 3))
def test_paillier_s_transcript_is_the_plan_s_under_policy_client(circuit: Circuit, samples: int) -> None:
    run(circuit, "paillier", samples, "client")


@settings(max_examples=30, deadline=None)
@given(circuits([*IN_CLEAR]), st.integers(1, 3))
def test_ckks_s_transcript_is_the_plan_s(circuit: Circuit, samples: int) -> None:
    run(circuit, "ckks", samples, "client")


# --- masked values of two models --------------------------------------------------------------------------------------

VALUES = 10_000
ALPHA = 1e-6
LANE = replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022, depth=3)
BATCH, UNITS = 100, 4
QUERY = np.full((BATCH, 2), 1.0)
# At both ends of what one bound allows: pre-activations all 1, or -1, 0 and 1/2.
MODELS = {"even": np.full((2, UNITS), 0.5), "odd": np.array([[-0.5, 0.5, -0.25, 0.75], [-0.5, -0.5, 0.75, -0.25]])}


class Enough(Exception):
    """A request was seen; its answer is of no interest."""


class Eavesdropper:
    """The key holder's end of a link, who only listens."""

    transcript = Transcript()

    def request(self, kind: str, frame: bytes) -> bytes:
        self.frame = frame
        raise Enough


@cache
def masked_values(name: str) -> np.ndarray:
    """What the client decrypts of 10^4 masked factors of the square of x @ weights: shape (values / units, units)."""
    scheme, keys = PaillierScheme(LANE), paillier_keys()
    bundle = PublicBundle(LANE, keys.public, keys.evaluation)
    evaluator = scheme.evaluator(KeySet(None, keys.public, keys.evaluation))
    # Only to be done in seconds: the key holder draws r^n from the same law, 10 times faster.
    evaluator.pool = RandomnessPool(keys.public, HolderSource(keys.secret))
    link, rows = Eavesdropper(), []
    x = PaillierEncryptor(LANE, keys.public, HolderSource(keys.secret)).encrypt(QUERY, 1.0)
    for _ in range(VALUES // UNITS // BATCH):
        ev = Interactive(evaluator, link, bundle)
        z = ev.matmul_plain(x, MODELS[name])
        with pytest.raises(Enough):
            ev.mul(z, z)
        rows += decrypted(link.frame, bundle, scheme.decryptor(keys.secret))
    return np.array(rows, dtype=object)


def decrypted(request: bytes, bundle: PublicBundle, decryptor: Any) -> list[list[int]]:
    frame = parse(request, Kind.MASKED_FACTORS)
    return [[int(decryptor._plaintext(c)) for c in row] for row in unpack_ciphertexts(frame, frame.body[4:], bundle)]


def mask_bits() -> int:
    """Those of a bound of 1, and a hair for the rounding of weights, at the scale of the pre-activations."""
    return mask_bits_for(np.full(UNITS, 1.0 + 2.0**-20), LANE.log_scale + LANE.log_plain_scale)


def digits(values: np.ndarray, shift: int) -> np.ndarray:
    """How often each of the 256 bytes at a place occurs."""
    return np.bincount([(int(v) >> shift) & 255 for v in values.flat], minlength=256)


@pytest.mark.slow
def test_masked_values_have_one_law_whatever_the_model() -> None:
    """KS at level 1e-6 on 10^4 values a model sees a distance of 0.038 between the laws with power over one half.

    A mask of no more bits than its value differs by 0.25 at least (last test), one of 80 bits more by 2**-80.
    """
    bits = mask_bits()
    found = {name: masked_values(name) for name in MODELS}
    parts = {name: from_fixed(values, bits) for name, values in found.items()}
    assert all(values.size == VALUES == len(set(values.flat)) for values in found.values())
    assert stats.ks_2samp(*(part.ravel() for part in parts.values())).pvalue > ALPHA
    for unit in range(UNITS):  # a unit of its own law would drown among the others
        assert stats.ks_2samp(*(part[:, unit] for part in parts.values())).pvalue > ALPHA
    for part in parts.values():
        assert stats.kstest(part.ravel(), "uniform").pvalue > ALPHA


@pytest.mark.slow
def test_no_byte_of_a_masked_value_depends_on_the_model() -> None:
    """Chi-square over the 256 values of a byte: the lowest, those where the value itself lies, the highest."""
    scale = int(LANE.log_scale + LANE.log_plain_scale)
    for shift in (0, scale - 8, scale, mask_bits() - 8):
        counts = [digits(masked_values(name), shift) for name in MODELS]
        assert stats.chi2_contingency(np.array(counts)).pvalue > ALPHA
        for count in counts:
            assert stats.chisquare(count).pvalue > ALPHA


@pytest.mark.slow
def test_masks_of_one_request_are_independent() -> None:
    """The units of one query: no linear and no rank relation from which a difference of activations could be read."""
    for name in MODELS:
        part = from_fixed(masked_values(name), mask_bits())
        for a in range(UNITS):
            for b in range(a):
                assert stats.pearsonr(part[:, a], part[:, b]).pvalue > ALPHA
                assert stats.kstest((part[:, a] - part[:, b]) % 1.0, "uniform").pvalue > ALPHA


def test_these_tests_see_masks_that_are_too_short_shared_or_missing() -> None:
    rng = np.random.default_rng(1)
    scale = 1 << 40
    activations = {name: QUERY[:1] @ weights for name, weights in MODELS.items()}
    rows = VALUES // UNITS
    short = {name: rng.integers(0, 2 * scale, (rows, UNITS)) + z * scale for name, z in activations.items()}
    assert stats.ks_2samp(*(part.ravel() for part in short.values())).pvalue < ALPHA
    shared = rng.integers(0, 2**62, (rows, 1)) + (activations["odd"] * scale).astype(np.int64)
    difference = ((shared[:, 1] - shared[:, 0]) / 2.0**62) % 1.0
    assert stats.kstest(difference, "uniform").pvalue < ALPHA
    coarse = rng.integers(0, 2**50, (VALUES,)) << 8  # masks that are multiples of 256 leave the lowest byte
    assert stats.chisquare(digits(coarse + 5, 0)).pvalue < ALPHA


def test_the_length_of_masks_follows_the_stated_bound_and_so_tells_it_to_a_bit() -> None:
    """What masked values do say: the power of two that holds a layer's pre-activations, one number a request."""
    scale = LANE.log_scale + LANE.log_plain_scale
    lengths = [mask_bits_for(np.array([bound]), scale) for bound in (0.6, 0.9, 1.0, 1.1, 1.9)]
    assert lengths == [int(scale) + 80 + bit for bit in (0, 0, 0, 1, 1)]


def test_a_local_link_records_what_passed_even_when_an_answer_fails() -> None:
    link = LocalLink(lambda frame: (_ for _ in ()).throw(ValueError("no answer")))
    with pytest.raises(ValueError, match="no answer"):
        link.request("masked product", b"frame")
    assert (link.transcript.rounds, link.transcript.bytes_down) == (0, 5)
