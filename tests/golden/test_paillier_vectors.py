"""The Paillier vectors, against python-paillier and against the textbook in plain integers.

To put another implementation to the test, add a class of the form of `Computes` or `Judges` to the list below it.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import gmpy2
import numpy as np
import phe
import pytest

from hepipe.errors import HepipeError, MalformedFrame
from hepipe.schemes.base import CipherTensor, PublicBundle
from hepipe.schemes.frames import Frame, Kind
from hepipe.schemes.multiexp import WeightedSums
from hepipe.schemes.paillier import PaillierDecryptor, PaillierEncryptor, PaillierEvaluator, check_ciphertexts
from hepipe.schemes.paillier_keys import PaillierPublicKey, check_public
from hepipe.schemes.paillier_randomness import UniformSource
from hepipe.schemes.parameters import PaillierParameters
from hepipe.schemes.wire import unpack_tensor

VECTORS = json.loads(Path(__file__).with_name("paillier.json").read_text())
Test = dict[str, Any]

# --- implementations that compute ------------------------------------------------------------------------------------


class Computes(Protocol):
    """Made from a private key; ciphertexts are integers below n^2, messages and scalars integers in [0, n)."""

    refusals: tuple[type[Exception], ...]  # what it raises on a ciphertext it will not touch

    def __init__(self, n: int, p: int, q: int) -> None: ...
    def encrypt(self, m: int) -> int: ...
    def decrypt(self, c: int) -> int: ...
    def add(self, c1: int, c2: int) -> int: ...
    def multiply(self, c: int, k: int) -> int: ...
    def rerandomize(self, c: int) -> int: ...


class PlainIntegers:
    """Decryption modulo p^2 and q^2, from the definition."""

    refusals: tuple[type[Exception], ...] = ()

    def __init__(self, n: int, p: int, q: int) -> None:
        self.n, self.square, self.factors = n, n * n, (p, q)

    def encrypt(self, m: int) -> int:
        return (1 + m * self.n) * int(gmpy2.powmod(0xC0FFEE, self.n, self.square)) % self.square

    def decrypt(self, c: int) -> int:
        p, q = self.factors
        (mp, mq), inverse = (self._modulo(c, f) for f in self.factors), pow(p, -1, q)
        return mp + (mq - mp) * inverse % q * p

    def _modulo(self, c: int, f: int) -> int:
        logarithm = (int(gmpy2.powmod(c, f - 1, f * f)) - 1) // f
        return logarithm * pow((f - 1) * self.n // f, -1, f) % f

    def add(self, c1: int, c2: int) -> int:
        return c1 * c2 % self.square

    def multiply(self, c: int, k: int) -> int:
        return int(gmpy2.powmod(c, k if k <= self.n // 2 else k - self.n, self.square))

    def rerandomize(self, c: int) -> int:
        return self.add(c, self.encrypt(0))


class Phe:
    """python-paillier; its EncryptedNumber without its encoding."""

    refusals: tuple[type[Exception], ...] = ()

    def __init__(self, n: int, p: int, q: int) -> None:
        self.public = phe.PaillierPublicKey(n)
        self.private = phe.PaillierPrivateKey(self.public, p, q)

    def encrypt(self, m: int) -> int:
        return int(self.public.raw_encrypt(m))

    def decrypt(self, c: int) -> int:
        return int(self.private.raw_decrypt(c))

    def add(self, c1: int, c2: int) -> int:
        return self._raw(self._number(c1) + self._number(c2))

    def multiply(self, c: int, k: int) -> int:
        return int(self._number(c)._raw_mul(k))

    def rerandomize(self, c: int) -> int:
        number = self._number(c)
        number.obfuscate()
        return self._raw(number)

    def _number(self, c: int) -> Any:
        return phe.EncryptedNumber(self.public, c)

    @staticmethod
    def _raw(number: Any) -> int:
        return int(number.ciphertext(be_secure=False))


class Hepipe:
    """hepipe's own decryptor and evaluator, one lane wide; negative scalars are those above n / 2."""

    refusals: tuple[type[Exception], ...] = (HepipeError,)

    def __init__(self, n: int, p: int, q: int) -> None:
        self.n, bits = n, n.bit_length()
        self.parameters = PaillierParameters(bits, 0, 0, lane_bits=bits - 2, lanes=1, depth=2, insecure=bits < 2048)
        self.public = PaillierPublicKey(gmpy2.mpz(n))
        self.evaluator = PaillierEvaluator(self.parameters, self.public)
        # hepipe's secret keys know why their primes are prime; the vectors' do not. Decryption needs p and q only.
        secret: Any = SimpleNamespace(
            public=self.public, key_id=self.public.key_id, p=gmpy2.mpz(p), q=gmpy2.mpz(q),
            p_squared=gmpy2.mpz(p) ** 2, q_squared=gmpy2.mpz(q) ** 2,
        )  # fmt: skip
        self.decryptor = PaillierDecryptor(self.parameters, secret)
        self.encryptor = PaillierEncryptor(self.parameters, self.public, UniformSource(self.public))

    def encrypt(self, m: int) -> int:
        # An encryption of zero, moved to m: integers of the size of n have no float bound to be encrypted under.
        zero = self.encryptor.encrypt_integers(np.array([[0]], dtype=object), 1.0)
        return int(self.evaluator._add_integers(zero, np.array([m], dtype=object))[0][0])

    def decrypt(self, c: int) -> int:
        check_ciphertexts(self.public, [gmpy2.mpz(c)])
        return int(self.decryptor._plaintext(gmpy2.mpz(c)))

    def add(self, c1: int, c2: int) -> int:
        return self._only(self.evaluator.add(self._tensor(c1), self._tensor(c2)))

    def multiply(self, c: int, k: int) -> int:
        signed = k if k <= self.n // 2 else k - self.n
        return int(WeightedSums.of([[signed]]).run([gmpy2.mpz(c)], self.public.n_squared)[0])

    def rerandomize(self, c: int) -> int:
        return self._only(self.evaluator.rerandomize(self._tensor(c)))

    def _tensor(self, c: int) -> CipherTensor:
        return CipherTensor([[gmpy2.mpz(c)]], (1, 1), 2, 0.0, np.ones(1), self.public.key_id)

    @staticmethod
    def _only(x: CipherTensor) -> int:
        return int(x.data[0][0])


COMPUTES: list[type[Computes]] = [PlainIntegers, Phe, Hepipe]

# --- implementations that judge what a peer sends --------------------------------------------------------------------


class Judges(Protocol):
    def takes_ciphertext(self, n: int, text: str) -> bool: ...

    def takes_public_key(self, text: str, proved: bool) -> bool:
        """`proved` says whether the sender can prove gcd(n, phi(n)) = 1."""


class Rules:
    """The rules as written: exact hexadecimal, units modulo n^2 other than 1, keys of two allowed sizes."""

    primorial = math.prod(f for f in range(3, 65538, 2) if gmpy2.is_prime(f))

    def takes_ciphertext(self, n: int, text: str) -> bool:
        if not re.fullmatch(f"[0-9a-f]{{{n.bit_length() // 2}}}", text, re.ASCII):
            return False
        c = int(text, 16)
        return 1 < c < n * n and math.gcd(c, n) == 1

    def takes_public_key(self, text: str, proved: bool) -> bool:
        if not re.fullmatch("[0-9a-f]{512}|[0-9a-f]{768}", text, re.ASCII):
            return False
        n = int(text, 16)
        whole = n.bit_length() == 4 * len(text) and n % 2 == 1 and math.gcd(n, self.primorial) == 1
        return whole and not gmpy2.is_prime(n) and not gmpy2.is_power(n) and proved


class HepipeJudges:
    """hepipe's checks of a peer's bytes: the frame's fixed width, then the number. The proof is not part of a frame."""

    def takes_ciphertext(self, n: int, text: str) -> bool:
        try:
            raw = bytes.fromhex(text) if re.fullmatch("[0-9a-f]*", text, re.ASCII) else b""
        except ValueError:
            return False
        parameters = PaillierParameters(n.bit_length(), 0, 0, lane_bits=3, lanes=1, insecure=n.bit_length() < 2048)
        public = PaillierPublicKey(gmpy2.mpz(n))
        body = b"\0\0" + raw
        frame = Frame(Kind.TENSOR, "paillier", public.key_id, 1, 1, 1, 0.0, body).to_bytes()
        try:
            unpack_tensor(frame, PublicBundle(parameters, public, public))
        except MalformedFrame:
            return False
        return True

    def takes_public_key(self, text: str, proved: bool) -> bool:
        if len(text) not in (512, 768) or not re.fullmatch("[0-9a-f]*", text, re.ASCII):
            return False
        try:
            check_public(int(text, 16), 4 * len(text))
        except HepipeError:
            return False
        return proved


JUDGES: list[type[Judges]] = [Rules, HepipeJudges]

# --- the tests -------------------------------------------------------------------------------------------------------

Case = tuple[dict[str, Any], Test]
CASES: list[Case] = [(group, test) for group in VECTORS["testGroups"] for test in group["tests"]]


def cases(result: str, *kinds: str) -> pytest.MarkDecorator:
    chosen = [(group, test) for group, test in CASES if test["kind"] in kinds and test["result"] == result]
    names = [f"{test['tcId']}-{test['comment']}".replace(" ", "_") for _, test in chosen]
    return pytest.mark.parametrize(("group", "test"), chosen, ids=names)


@cache
def made(implementation: type[Computes], n: str, p: str, q: str) -> Computes:
    return implementation(int(n, 16), int(p, 16), int(q, 16))


@pytest.fixture(params=COMPUTES, ids=lambda made: made.__name__)
def computes(request: pytest.FixtureRequest, group: dict[str, Any]) -> Computes:
    return made(request.param, group["n"], group["p"], group["q"])


@pytest.fixture(params=JUDGES, ids=lambda made: made.__name__)
def judges(request: pytest.FixtureRequest) -> Judges:
    judge: Judges = request.param()
    return judge


def integers(test: Test, *fields: str) -> list[int]:
    return [int(test[field], 16) for field in fields]


def test_the_set_is_complete() -> None:
    assert VECTORS["numberOfTests"] == len(CASES) >= 200
    assert [test["tcId"] for _, test in CASES] == list(range(1, len(CASES) + 1))
    assert sum(test["result"] == "invalid" for _, test in CASES) >= 60
    assert {flag for _, test in CASES for flag in test["flags"]} == set(VECTORS["notes"])


@cases("valid", "decrypt", "rerandomize")
def test_decrypts(computes: Computes, group: dict[str, Any], test: Test) -> None:
    c, m = integers(test, "c", "m")
    assert computes.decrypt(c) == m


@cases("acceptable", "decrypt", "mul_scalar")
def test_decrypts_or_refuses_the_acceptable(computes: Computes, group: dict[str, Any], test: Test) -> None:
    c, m = integers(test, "c", "m")
    try:
        if "k" in test:
            c = computes.multiply(*integers(test, "c1", "k"))
        assert computes.decrypt(c) == m
    except computes.refusals:
        return


@cases("valid", "add")
def test_adds(computes: Computes, group: dict[str, Any], test: Test) -> None:
    c1, c2, c, m = integers(test, "c1", "c2", "c", "m")
    assert computes.add(c1, c2) == c
    assert computes.decrypt(c) == m


@cases("valid", "mul_scalar")
def test_multiplies(computes: Computes, group: dict[str, Any], test: Test) -> None:
    c1, k, c, m = integers(test, "c1", "k", "c", "m")
    assert computes.decrypt(computes.multiply(c1, k)) == m
    assert computes.decrypt(c) == m


@cases("valid", "rerandomize")
def test_rerandomizes(computes: Computes, group: dict[str, Any], test: Test) -> None:
    c1, c, m = integers(test, "c1", "c", "m")
    again = computes.rerandomize(c1)
    assert len({c1, c, again}) == 3
    assert computes.decrypt(again) == m


@cases("valid", "decrypt")
def test_encrypts_what_it_decrypts(computes: Computes, group: dict[str, Any], test: Test) -> None:
    (m,) = integers(test, "m")
    assert computes.decrypt(computes.encrypt(m)) == m


@cases("valid", "decrypt", "add", "mul_scalar", "rerandomize")
def test_takes_good_ciphertexts(judges: Judges, group: dict[str, Any], test: Test) -> None:
    for field in test.keys() & {"c", "c1", "c2"}:
        assert judges.takes_ciphertext(int(group["n"], 16), test[field])


@cases("invalid", "ciphertext")
def test_refuses_bad_ciphertexts(judges: Judges, group: dict[str, Any], test: Test) -> None:
    assert not judges.takes_ciphertext(int(group["n"], 16), test["c"])


@cases("valid", "public_key")
def test_takes_good_keys(judges: Judges, group: dict[str, Any], test: Test) -> None:
    assert judges.takes_public_key(test["n"], proved=True)


@cases("invalid", "public_key")
def test_refuses_bad_keys(judges: Judges, group: dict[str, Any], test: Test) -> None:
    assert not judges.takes_public_key(test["n"], proved=provable(test))


def provable(test: Test) -> bool:
    if "factors" not in test:
        return True
    factors = [int(factor, 16) for factor in test["factors"]]
    n, distinct = int(test["n"], 16), set(factors)
    assert n == math.prod(factors)
    return math.gcd(n, n // math.prod(distinct) * math.prod(f - 1 for f in distinct)) == 1


@cases("invalid", "public_key")
def test_only_some_bad_keys_need_the_proof(group: dict[str, Any], test: Test) -> None:
    assert Rules().takes_public_key(test["n"], proved=True) == ("NeedsProof" in test["flags"])
