"""Laws of arithmetic on ciphertexts: exact integers on Paillier, within the stated bound on CKKS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepipe.schemes.base import CipherTensor
from hepipe.schemes.fixedpoint import from_fixed, to_fixed
from hepipe.schemes.frames import HEADER_BYTES
from hepipe.schemes.wire import pack_keys, pack_tensor, unpack_keys, unpack_tensor
from tails import worst_of_many

if TYPE_CHECKING:
    from conftest import Party

FloatArray = npt.NDArray[np.float64]
BOUND = 16.0
finite = st.floats(-BOUND, BOUND)


@dataclass(frozen=True)
class Case:
    """Three tensors of one shape, a factor, another, and weights."""

    a: FloatArray
    b: FloatArray
    c: FloatArray
    k: float
    m: float
    weights: FloatArray


@st.composite
def case(draw: st.DrawFn) -> Case:
    """Small tensors: hypothesis chooses the awkward corner, a generator fills the rest."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples, features = draw(st.integers(1, 8)), draw(st.sampled_from([1, 1, 2]))
    tensors = rng.uniform(-BOUND, BOUND, (3, samples, features))
    tensors[:, 0, 0] = draw(finite), draw(finite), draw(finite)
    weights = rng.uniform(-BOUND, BOUND, (features, 2))
    weights[0] = draw(finite), draw(st.sampled_from([0.0, 1.0, -1.0, BOUND]))
    return Case(*tensors, draw(finite), draw(finite), weights)


@dataclass(frozen=True)
class Book:
    """One circuit, run on ciphertexts, on the dry evaluator and on numbers at once."""

    party: Party
    x: CipherTensor
    dry: CipherTensor
    clear: FloatArray
    integers: npt.NDArray[Any]

    @cached_property
    def decrypted(self) -> npt.NDArray[Any]:
        """Exact integers where the scheme has them, else values."""
        decryptor: Any = self.party.decryptor
        return decryptor.decrypt_integers(self.x) if self.party.exact else decryptor.decrypt(self.x)

    @property
    def values(self) -> FloatArray:
        return from_fixed(self.decrypted, self.x.log_scale) if self.party.exact else self.decrypted

    def error(self) -> float:
        # the rounding of float64 itself
        slack = 2.0**-45 * max(1.0, float(np.abs(self.clear).max()))
        return worst_of_many(self.party.dry(), self.dry) + slack

    def check(self) -> None:
        assert np.abs(self.values - self.clear).max() <= self.error()
        if self.party.exact:
            assert self.decrypted.tolist() == self.integers.tolist()


def fresh(party: Party, values: FloatArray) -> Book:
    x, dry = party.encryptor.encrypt(values, BOUND), party.dry().fresh(values.shape, BOUND)
    return Book(party, x, dry, values, to_fixed(values, party.parameters.log_scale) if party.exact else np.zeros(0))


def combine(left: Book, right: Book, name: str) -> Book:
    ev, dry, sign = left.party.evaluator, left.party.dry(), 1 if name == "add" else -1
    return Book(
        left.party,
        getattr(ev, name)(left.x, right.x),
        getattr(dry, name)(left.dry, right.dry),
        left.clear + sign * right.clear,
        left.integers + sign * right.integers,
    )


def add(left: Book, right: Book) -> Book:
    return combine(left, right, "add")


def sub(left: Book, right: Book) -> Book:
    return combine(left, right, "sub")


def times(book: Book, factor: float) -> Book:
    bits = book.party.parameters.plain_bits(book.x.level)
    encoded = to_fixed(np.array([factor]), bits)[0] if book.party.exact else 0
    return Book(
        book.party,
        book.party.evaluator.mul_plain(book.x, factor),
        book.party.dry().mul_plain(book.dry, factor),
        book.clear * factor,
        book.integers * encoded,
    )


def shifted(book: Book, constant: FloatArray) -> Book:
    encoded = to_fixed(constant, book.x.log_scale) if book.party.exact else 0
    return Book(
        book.party,
        book.party.evaluator.add(book.x, constant),
        book.party.dry().add(book.dry, constant),
        book.clear + constant,
        book.integers + encoded,
    )


def projected(book: Book, weights: FloatArray) -> Book:
    bits = book.party.parameters.plain_bits(book.x.level)
    return Book(
        book.party,
        book.party.evaluator.matmul_plain(book.x, weights),
        book.party.dry().matmul_plain(book.dry, weights),
        book.clear @ weights,
        book.integers @ to_fixed(weights, bits) if book.party.exact else book.integers,
    )


def assert_same(left: Book, right: Book) -> None:
    """Both sides of a law: each right, and alike (the very same integers where the scheme is exact)."""
    left.check()
    right.check()
    assert (left.x.level, left.x.log_scale) == (right.x.level, right.x.log_scale)
    assert np.abs(left.values - right.values).max() <= left.error() + right.error()
    if left.party.exact:
        assert left.integers.tolist() == right.integers.tolist()


# --- the laws --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A case encrypted once: the laws share its ciphertexts, which no operation may change."""

    party: Party
    case: Case

    @cached_property
    def a(self) -> Book:
        return fresh(self.party, self.case.a)

    @cached_property
    def b(self) -> Book:
        return fresh(self.party, self.case.b)

    @cached_property
    def c(self) -> Book:
        return fresh(self.party, self.case.c)

    @cached_property
    def sum(self) -> Book:
        return add(self.a, self.b)

    @cached_property
    def product(self) -> Book:
        return times(self.a, self.case.k)


def addition(of: Example) -> None:
    of.sum.check()


def multiplication_by_a_plain_factor(of: Example) -> None:
    of.product.check()


def commutativity(of: Example) -> None:
    assert_same(of.sum, add(of.b, of.a))


def associativity(of: Example) -> None:
    assert_same(add(of.sum, of.c), add(of.a, add(of.b, of.c)))


def distributivity_over_sums(of: Example) -> None:
    assert_same(times(of.sum, of.case.k), add(of.product, times(of.b, of.case.k)))


def distributivity_over_factors(of: Example) -> None:
    left, right = times(of.a, of.case.k + of.case.m), add(of.product, times(of.a, of.case.m))
    left.check()
    right.check()
    # The sum of two rounded factors is not the rounded sum: alike to a unit of the factor's scale, never bit for bit.
    assert np.abs(left.values - right.values).max() <= left.error() + right.error()


def identity(of: Example) -> None:
    zero, one = fresh(of.party, np.zeros_like(of.case.a)), times(of.a, 1.0)
    assert_same(add(of.a, zero), of.a)
    assert_same(shifted(of.a, np.zeros(of.case.a.shape[1])), of.a)
    assert np.abs(one.values - of.case.a).max() <= one.error()


def inverse(of: Example) -> None:
    zero, negative = sub(of.a, of.a), times(of.a, -1.0)
    assert_same(sub(of.sum, of.b), of.a)
    assert np.abs(zero.values).max() <= zero.error()
    assert np.abs(negative.values + of.case.a).max() <= negative.error()


def affine_maps(of: Example) -> None:
    shifted(projected(of.a, of.case.weights), of.case.b[0, :1].repeat(2)).check()
    shifted(of.a, of.case.b).check()


def serialisation(of: Example) -> None:
    party = of.party
    for book in (of.a, of.product):
        frame = pack_tensor(book.x, party.bundle)
        back = unpack_tensor(frame, unpack_keys(pack_keys(party.bundle), allow_insecure=True))
        Book(party, back, book.dry, book.clear, book.integers).check()
        assert pack_tensor(back, party.bundle) == frame


def rerandomisation(of: Example) -> None:
    party, a = of.party, of.a
    again = [party.evaluator.rerandomize(a.x) for _ in range(2)]
    dry = party.dry().rerandomize(a.dry)
    for x in again:
        Book(party, x, dry, a.clear, a.integers).check()
    if party.parameters.name != "clear":
        assert len({pack_tensor(x, party.bundle)[HEADER_BYTES:] for x in (a.x, *again)}) == 3


LAWS: list[Callable[[Example], None]] = [
    addition,
    multiplication_by_a_plain_factor,
    commutativity,
    associativity,
    distributivity_over_sums,
    distributivity_over_factors,
    identity,
    inverse,
    affine_maps,
    serialisation,
    rerandomisation,
]
shared: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=500, **shared)
@given(case=case())
def test_the_laws_hold_for_every_example_on_test_keys(lawful: Party, case: Case) -> None:
    example = Example(lawful, case)
    for law in LAWS:
        law(example)


@settings(max_examples=50, **shared)
@given(case=case())
def test_the_laws_hold_at_secure_sizes(secure: Party, case: Case) -> None:
    example = Example(secure, case)
    for law in LAWS:
        law(example)


@settings(max_examples=100, **shared)
@given(case=case())
def test_the_laws_hold_without_encryption(clear: Party, case: Case) -> None:
    example = Example(clear, case)
    for law in LAWS:
        if law is not serialisation:
            law(example)
