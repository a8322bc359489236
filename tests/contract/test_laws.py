"""Laws of arithmetic on ciphertexts: exact integers on Paillier, within the stated bound on CKKS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
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


def addition(party: Party, case: Case) -> None:
    add(fresh(party, case.a), fresh(party, case.b)).check()


def multiplication_by_a_plain_factor(party: Party, case: Case) -> None:
    times(fresh(party, case.a), case.k).check()


def commutativity(party: Party, case: Case) -> None:
    a, b = fresh(party, case.a), fresh(party, case.b)
    assert_same(add(a, b), add(b, a))


def associativity(party: Party, case: Case) -> None:
    a, b, c = (fresh(party, values) for values in (case.a, case.b, case.c))
    assert_same(add(add(a, b), c), add(a, add(b, c)))


def distributivity_over_sums(party: Party, case: Case) -> None:
    a, b = fresh(party, case.a), fresh(party, case.b)
    assert_same(times(add(a, b), case.k), add(times(a, case.k), times(b, case.k)))


def distributivity_over_factors(party: Party, case: Case) -> None:
    a = fresh(party, case.a)
    left, right = times(a, case.k + case.m), add(times(a, case.k), times(a, case.m))
    left.check()
    right.check()
    # The sum of two rounded factors is not the rounded sum: alike to a unit of the factor's scale, never bit for bit.
    assert np.abs(left.values - right.values).max() <= left.error() + right.error()


def identity(party: Party, case: Case) -> None:
    a = fresh(party, case.a)
    assert_same(add(a, fresh(party, np.zeros_like(case.a))), a)
    assert_same(shifted(a, np.zeros(case.a.shape[1])), a)
    one = times(a, 1.0)
    assert np.abs(one.values - case.a).max() <= one.error()


def inverse(party: Party, case: Case) -> None:
    a, b = fresh(party, case.a), fresh(party, case.b)
    assert_same(sub(add(a, b), b), a)
    zero = sub(a, a)
    assert np.abs(zero.values).max() <= zero.error()
    negative = times(a, -1.0)
    assert np.abs(negative.values + case.a).max() <= negative.error()


def affine_maps(party: Party, case: Case) -> None:
    shifted(projected(fresh(party, case.a), case.weights), case.b[0, :1].repeat(2)).check()
    shifted(fresh(party, case.a), case.b).check()


def serialisation(party: Party, case: Case) -> None:
    a = fresh(party, case.a)
    for book in (a, times(a, case.k)):
        frame = pack_tensor(book.x, party.bundle)
        back = unpack_tensor(frame, unpack_keys(pack_keys(party.bundle), allow_insecure=True))
        Book(party, back, book.dry, book.clear, book.integers).check()
        assert pack_tensor(back, party.bundle) == frame


def rerandomisation(party: Party, case: Case) -> None:
    a = fresh(party, case.a)
    again = [party.evaluator.rerandomize(a.x) for _ in range(2)]
    dry = party.dry().rerandomize(a.dry)
    for x in again:
        Book(party, x, dry, a.clear, a.integers).check()
    if party.parameters.name != "clear":
        assert len({pack_tensor(x, party.bundle)[HEADER_BYTES:] for x in (a.x, *again)}) == 3


Law = Callable[["Party", Case], None]
LAWS: list[Law] = [
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
every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
shared: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@every_law
@settings(max_examples=500, **shared)
@given(case=case())
def test_a_law_holds_for_every_example_on_test_keys(lawful: Party, law: Law, case: Case) -> None:
    law(lawful, case)


@every_law
@settings(max_examples=50, **shared)
@given(case=case())
def test_a_law_holds_at_secure_sizes(secure: Party, law: Law, case: Case) -> None:
    law(secure, case)


@pytest.mark.parametrize("law", [law for law in LAWS if law is not serialisation], ids=lambda law: law.__name__)
@settings(max_examples=100, **shared)
@given(case=case())
def test_a_law_holds_without_encryption(clear: Party, law: Law, case: Case) -> None:
    law(clear, case)
