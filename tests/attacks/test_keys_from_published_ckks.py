"""The CKKS key from two decryptions that were published (Li and Micciancio, EUROCRYPT 2021, eprint 2020/1533).

A decryption is m = c0 + c1 s, noise and all. TenSEAL publishes the real parts of the slots, which are the part of m
that X -> 1/X leaves alone; in the transformed domain that is one equation in the words of s at a root and at its
inverse, so two ciphertexts give all words of s.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ckks_oracle as oracle
import numpy as np
import pytest
import tenseal as ts
from client_view import parties, profile

from hepipe.models.linear import LinearModel
from hepipe.schemes import seal
from hepipe.schemes.primes import ntt_primes

DEGREE, SIZES = 8192, (60, 40, 40, 60)
RNG = np.random.default_rng(5)
Published = list[tuple[Any, float, Any]]
"""NTT words (2, N) of a ciphertext under the first prime, its scale, and the slots that were published."""


def transform(coefficients: Any, prime: int) -> Any:
    """The inverse of the oracle's inverse transform."""
    degree = coefficients.size
    root = oracle.minimal_root(degree, prime)
    values = coefficients * oracle.powers(root, degree, prime) % prime
    twiddles, half = oracle.powers(root * root % prime, degree // 2, prime), degree // 2
    while half:
        first, second = values.reshape(-1, 2, half).transpose(1, 0, 2)
        turned = (first - second) * twiddles[:: degree // 2 // half]
        values, half = np.stack([first + second, turned], axis=1).ravel() % prime, half // 2
    return values


def symmetric_part(slots: Any, scale: float) -> Any:
    """m(X) + m(1/X) in whole coefficients, from the real parts of all slots of m."""
    degree = 2 * len(slots)
    place = (oracle.powers(3, degree // 2, 2 * degree).astype(int) - 1) // 2
    values = np.empty(degree)
    values[place] = values[degree - 1 - place] = np.asarray(slots) * scale
    coefficients = np.fft.fft(values) / degree * np.exp(-1j * np.pi * np.arange(degree) / degree)
    return np.rint(2 * coefficients.real).astype(np.int64).astype(object)


def recovered_key(published: Published, prime: int) -> Any:
    """The words of s: two equations a s + a' s' = u in s and s' = s reversed. Words that have no solution are 0."""
    equations = []
    for (c0, c1), scale, slots in published:
        known = transform(symmetric_part(slots, scale), prime)
        equations.append((c1, (known - c0 - c0[::-1]) % prime))
    (a, u), (b, v) = equations
    determinant = (a * b[::-1] - a[::-1] * b) % prime
    inverse = np.array([pow(d, -1, prime) if d else 0 for d in determinant.tolist()], dtype=object)
    return (u * b[::-1] - v * a[::-1]) % prime * inverse % prime


def is_ternary(words: Any, prime: int) -> bool:
    """Whether these are the words of a secret key: coefficients -1, 0 and 1. The attacker can check itself."""
    return set(oracle.inverse_ntt(words, prime).tolist()) == {0, 1, prime - 1}


def stream(item: Any) -> bytes:
    """What SEAL saves."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "item")
        item.save(str(path))
        return path.read_bytes()


@cache
def tenseal_context() -> Any:
    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=DEGREE, coeff_mod_bit_sizes=SIZES, n_threads=1)
    context.global_scale = 2**40
    return context


def published(vectors: list[Any], change: Callable[[Any], Any]) -> tuple[Published, int]:
    """Ciphertexts on their way back to their owner, and what it publishes of the decryptions."""
    primes, found = ntt_primes(DEGREE, SIZES), []
    for vector in vectors:
        ciphertext = oracle.parse_ciphertext(stream(vector.ciphertext()[0]), DEGREE, primes)
        words = ciphertext.words[:, 0].astype(object)
        found.append((words, ciphertext.scale, change(np.array(vector.decrypt()))))
    return found, primes[0]


@cache
def vectors(count: int = 2) -> list[Any]:
    return [ts.ckks_vector(tenseal_context(), RNG.uniform(-1, 1, DEGREE // 2)) for _ in range(count)]


def secret_words() -> Any:
    primes = ntt_primes(DEGREE, SIZES)
    return oracle.parse_secret_key(stream(tenseal_context().secret_key().data), DEGREE, primes)[0].astype(object)


def rounded(bits: int) -> Callable[[Any], Any]:
    return lambda slots: np.rint(slots * 2.0**bits) / 2.0**bits


def noisy(bits: int) -> Callable[[Any], Any]:
    return lambda slots: slots + RNG.normal(0, 2.0**-bits, len(slots))


@pytest.mark.parametrize("change", [lambda slots: slots, rounded(40), noisy(40)], ids=["exact", "rounded", "noisy"])
def test_two_published_decryptions_are_the_key(change: Callable[[Any], Any]) -> None:
    words = recovered_key(*published(vectors(), change))
    assert is_ternary(words, ntt_primes(DEGREE, SIZES)[0])
    assert (words == secret_words()).all()


@pytest.mark.parametrize("operation", [lambda x: x * 0.5, lambda x: x * x], ids=["scaled", "squared"])
def test_they_may_be_results_of_a_server(operation: Callable[[Any], Any]) -> None:
    context = tenseal_context()
    if not context.has_relin_keys():
        context.generate_relin_keys()
    words = recovered_key(*published([operation(x) for x in vectors()], lambda slots: slots))
    assert (words == secret_words()).all()


def test_one_is_not_enough_for_this_attack() -> None:
    twice = [vectors()[0]] * 2
    found, prime = published(twice, lambda slots: slots)
    assert not recovered_key(found, prime).any()


@pytest.mark.parametrize("change", [rounded(20), noisy(20)], ids=["rounded", "flooded"])
def test_published_to_20_bits_they_give_no_word_of_it(change: Callable[[Any], Any]) -> None:
    """Stops this direct form; a proof takes noise for a number of queries (protocols.md 3.4), Paillier none at all."""
    found, prime = published(vectors(), change)
    words = recovered_key(found, prime)
    assert not is_ternary(words, prime)
    assert (words == secret_words()).sum() < 3


@cache
def decrypted_by_ours() -> tuple[list[tuple[Any, Any]], Any, Any]:
    """Two full batches: ciphertexts of results and their scores, with the client and its parameters."""
    model = LinearModel(profile(2), np.array([[0.5], [-0.25]]), np.zeros(1))
    client, server, made = parties(Squared(model), "ckks", samples=512)
    results = [server.evaluate(client.encrypt(RNG.uniform(-1, 1, (512, 2)))) for _ in range(2)]
    return [(y.data[0][0], client.decrypt(y)[:, 0]) for y in results], client, made.parameters


class Squared:
    """A circuit with a product, so that a slot holds one sample."""

    def __init__(self, linear: LinearModel) -> None:
        self.linear, self.profile, self.reveals = linear, linear.profile, "scores"
        self.prepare, self.head = linear.prepare, linear.head

    def forward(self, ev: Any, x: Any) -> Any:
        z = self.linear.forward(ev, x)
        return ev.mul(z, z)


def attack_on_ours(change: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The words found, and those of the key, under the first prime."""
    results, client, parameters = decrypted_by_ours()
    degree, primes = parameters.poly_modulus_degree, parameters.coeff_modulus
    parts = [
        (seal.take_apart(seal.save(item), degree).residues[:, 0].astype(object), item.scale) for item, _ in results
    ]
    found = [(words, scale, change(scores)) for (words, scale), (_, scores) in zip(parts, results, strict=True)]
    secret = oracle.parse_secret_key(stream(client._keys.secret._handle), degree, primes)[0].astype(object)
    return recovered_key(found, primes[0]), secret


def test_scores_of_ours_must_not_be_published_either() -> None:
    """Why SECURITY.md forbids it: no implementation of CKKS is exempt."""
    words, secret = attack_on_ours(lambda scores: scores)
    assert (words == secret).all()


@pytest.mark.parametrize(
    "change", [lambda scores: (scores > 0.1).astype(float), rounded(12)], ids=["labels", "rounded"]
)
def test_labels_of_ours_give_no_key(change: Callable[[Any], Any]) -> None:
    words, secret = attack_on_ours(change)
    assert (words == secret).sum() < 3
