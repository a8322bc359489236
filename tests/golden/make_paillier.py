"""Regenerates `paillier.json`: vectors in the manner of Wycheproof, made by pypaillier (Rust, GMP) and lightphe.

Run: python tests/golden/make_paillier.py [file]

Keys, messages and lightphe's randomness follow from labels, so a second run gives the same keys. pypaillier draws its
own randomness: its ciphertexts differ from run to run. The private keys are public: only a test may ever use them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gmpy2
import paillier as pypaillier
import phe
from lightphe.cryptosystems.Paillier import Paillier as LightPaillier
from paillier_numbers import below, divides_next, number, of_length, power, prime

Test = dict[str, Any]

WARNING = "INSECURE: the private keys are published with the vectors; test data only"
NOTES = {
    "NegativeMessage": "the message is n - |m|: a reader with a signed range must return -|m|",
    "Boundary": "at the edge of the message space, or of the signed range (-n/3, n/3) python-paillier uses",
    "NotInvertible": "a message or scalar that shares a factor with n: legal, unlike such a ciphertext",
    "Wraparound": "the exact result is not in [0, n) and is reduced modulo n",
    "NegativeScalar": "k is n - |k|; any ciphertext of m is right, whichever way the power was taken",
    "Unblinded": "c = 1 + m n: a ciphertext of m that hides nothing",
    "TrivialRandomness": "a ciphertext under randomness 1 or -1, or so small that anyone can write it",
    "UnblindedZero": "c = 1 encrypts zero for every key and hides nothing; it must not be taken from a peer",
    "OutOfRange": "not in [1, n^2)",
    "NotAUnit": "shares a factor with n, so it decrypts to garbage and may give away the key",
    "Encoding": "not the lower-case hexadecimal of exactly 2|n| bits (a ciphertext) or |n| bits (a key)",
    "UpperCase": "hexadecimal in upper case",
    "KeySize": "a length other than 2048 or 3072 bits",
    "Even": "n is even",
    "SmallFactor": "n has a prime factor of at most 65537",
    "SmallFactorBeyondTrialDivision": "n has a small factor just above 65537, and gcd(n, phi(n)) = 1",
    "Prime": "n is prime",
    "PrimePower": "n is a perfect power",
    "NeedsProof": "gcd(n, phi(n)) > 1, which only a proof by the key holder (or `factors`, given here) can show",
    "MultiPrime": "three primes, gcd(n, phi(n)) = 1: works as a key",
    "ClosePrimes": "Fermat's method factors n at once: the owner's loss, works as a key",
    "NotBlum": "the primes are 1 modulo 4, as python-paillier's may be",
}

# --- the implementations ---------------------------------------------------------------------------------------------


class Key:
    """Blum primes with gcd(p - 1, q - 1) = 2: what pypaillier's short exponents rest on."""

    def __init__(self, bits: int) -> None:
        self.bits, self.p, self.q = bits, prime(f"{bits} p", bits // 2), prime(f"{bits} q", bits // 2)
        self.n, self.phi = self.p * self.q, (self.p - 1) * (self.q - 1)
        sound = self.p % 4 == self.q % 4 == 3 and math.gcd(self.p - 1, self.q - 1) == 2
        if not sound or self.n.bit_length() != bits or math.gcd(self.n, self.phi) != 1:
            raise SystemExit(f"the labels of the {bits}-bit key give unsuitable primes")

    def text(self, c: int) -> str:
        return f"{c:0{self.bits // 2}x}"


class Rust:
    """pypaillier: a blob is a scale byte and the big-endian ciphertext."""

    name = "pypaillier"

    def __init__(self, key: Key) -> None:
        self.public = pypaillier.PublicKey.from_n(key.n.to_bytes(key.bits // 8))

    def encrypt(self, m: int, label: str) -> int:
        return self._value(pypaillier.encrypt_integers(self.public, [m])[0])

    def add(self, c1: int, c2: int) -> int:
        return self._value(pypaillier.add_many(self.public, [self._blob(c1), self._blob(c2)]))

    def multiply(self, c: int, k: int) -> int:
        return self._value(pypaillier.multiply_integers_public(self.public, [self._blob(c)], [k])[0])

    def rerandomize(self, c: int, label: str) -> int:
        return self._value(pypaillier.rerandomize(self.public, [self._blob(c)])[0])

    @staticmethod
    def _blob(c: int) -> bytes:
        return b"\0" + c.to_bytes(-(-c.bit_length() // 8))

    @staticmethod
    def _value(blob: bytes) -> int:
        return int.from_bytes(blob[1:])


class Python:
    """lightphe: g = n + 1, Python's own pow."""

    name = "lightphe"

    def __init__(self, key: Key) -> None:
        keys = {"public_key": {"g": key.n + 1, "n": key.n}, "private_key": {"phi": key.phi}}
        self.key, self.scheme = key, LightPaillier(keys=keys)

    def encrypt(self, m: int, label: str) -> int:
        return int(self.scheme.encrypt(m % self.key.n, random_key=below(f"{self.key.bits} r {label}", self.key.n)))

    def decrypt(self, c: int) -> int:
        return int(self.scheme.decrypt(c))

    def add(self, c1: int, c2: int) -> int:
        return int(self.scheme.add(c1, c2))

    def multiply(self, c: int, k: int) -> int:
        return int(self.scheme.multiply_by_constant(c, k % self.key.n))

    def rerandomize(self, c: int, label: str) -> int:
        return self.add(c, self.encrypt(0, label))


Maker = Rust | Python

# --- vectors under a key ---------------------------------------------------------------------------------------------


def small_messages(key: Key) -> Iterator[tuple[str, int]]:
    """What pypaillier takes: signed, up to n / 2^21."""
    edge = key.n >> 21
    named = {"0": 0, "1": 1, "-1": -1, "2": 2, "-2": -2, "255": 255, "256": 256, "2^32 - 1": 2**32 - 1}
    named |= {"2^53 + 1": 2**53 + 1, "2^64": 2**64, "-2^63": -(2**63), "2^127 - 1": 2**127 - 1, "-2^200": -(2**200)}
    named |= {"n / 2^21, the largest pypaillier takes": edge, "-n / 2^21": -edge}
    yield from named.items()
    for bits in (48, 512, 1900):
        yield f"random, {bits} bits", number(f"{key.bits} message {bits}", bits)


def full_messages(key: Key) -> Iterator[tuple[str, int]]:
    n, third = key.n, key.n // 3
    named = {"0": 0, "1": 1, "n - 1": n - 1, "n - 2": n - 2, "(n - 1) / 2": n // 2, "(n + 1) / 2": n // 2 + 1}
    named |= {"the largest python-paillier calls positive": third - 1, "one more": third}
    named |= {"the smallest python-paillier calls negative": n - third + 1, "one less": n - third}
    named |= {"p": key.p, "q": key.q, "n - p": n - key.p, f"2^{key.bits - 1}": 2 ** (key.bits - 1)}
    yield from named.items()
    for i in range(4):
        yield f"random below n, {i}", below(f"{key.bits} full message {i}", n)


def message_flags(key: Key, m: int) -> list[str]:
    third = key.n // 3
    flags = {"NegativeMessage": key.n - third < m % key.n, "NotInvertible": m and math.gcd(m, key.n) > 1}
    edges = (third - 1, third, key.n - third, key.n - third + 1, key.n // 2, key.n // 2 + 1, key.n - 1)
    return [flag for flag, here in {**flags, "Boundary": m in edges}.items() if here]


def ciphertext(key: Key, c: int, m: int, **rest: Any) -> Test:
    return {**rest, "c": key.text(c), "m": f"{m % key.n:x}"}


def decrypt_tests(key: Key, rust: Rust, python: Python) -> Iterator[Test]:
    for maker, messages in ((rust, small_messages(key)), (python, full_messages(key))):
        for comment, m in messages:
            c = maker.encrypt(m, comment)
            head = {"comment": f"message {comment}", "kind": "decrypt", "source": maker.name}
            yield ciphertext(key, c, m, **head, flags=message_flags(key, m))


def acceptable_tests(key: Key, python: Python) -> Iterator[Test]:
    """Ciphertexts by arithmetic that nobody who encrypts would send: a reader may refuse them."""
    n, n2, m = key.n, key.n**2, below(f"{key.bits} unblinded", key.n)
    cases = [("n + 1 encrypts 1", n + 1, "Unblinded"), ("1 + m n, random m", 1 + m * n, "Unblinded")]
    cases += [("1 + (n - 1) n encrypts -1", 1 + (n - 1) * n, "Unblinded")]
    cases += [("n^2 - 1 encrypts 0 under randomness -1", n2 - 1, "TrivialRandomness")]
    cases += [("2 encrypts something", 2, "TrivialRandomness"), ("n^2 - 2", n2 - 2, "TrivialRandomness")]
    for comment, c, flag in cases:
        head = {"comment": comment, "kind": "decrypt", "source": "integers", "result": "acceptable", "flags": [flag]}
        yield ciphertext(key, c, python.decrypt(c), **head)
    upper = ciphertext(key, python.encrypt(m, "upper case"), m, comment="upper-case hexadecimal", kind="decrypt")
    yield {**upper, "c": upper["c"].upper(), "source": "lightphe", "result": "acceptable", "flags": ["UpperCase"]}


def pairs(key: Key, maker: Maker) -> Iterator[tuple[str, int, int]]:
    yield from (("0 + 0", 0, 0), ("0 + 1", 0, 1), ("1 + 1", 1, 1), ("-1 + 1", -1, 1), ("-1 - 1", -1, -1))
    x, y = (number(f"{key.bits} {maker.name} summand {i}", 1500) for i in range(2))
    yield from (("two of 1500 bits", x, y), ("x - y", x, -y), ("x - x", x, -x), ("x + x", x, x))
    if isinstance(maker, Python):
        half, (x, y) = key.n // 2, (below(f"{key.bits} big summand {i}", key.n) for i in range(2))
        yield from (("n/2 + n/2", half, half + 1), ("n - 1 and 2", key.n - 1, 2), ("random below n", x, y))


def add_tests(key: Key, rust: Rust, python: Python) -> Iterator[Test]:
    for maker in (rust, python):
        for comment, x, y in pairs(key, maker):
            c1 = maker.encrypt(x, f"left of {comment}")
            c2 = c1 if x == y != 0 else maker.encrypt(y, f"right of {comment}")
            head = {"comment": comment, "kind": "add", "source": maker.name, "c1": key.text(c1), "c2": key.text(c2)}
            flags = ["Wraparound"] if not 0 <= x % key.n + y % key.n < key.n else []
            yield ciphertext(key, maker.add(c1, c2), x + y, **head, flags=flags)


def scalars(key: Key, maker: Maker) -> Iterator[tuple[str, int]]:
    for k in (1, 2, 3, 255, 2**16, 2**24 + 1, -1, -2, -3, -255, -(2**24)):
        yield str(k), k
    if isinstance(maker, Rust):
        yield from (("2^53 - 1", 2**53 - 1), ("-2^64", -(2**64)), ("200 bits", number(f"{key.bits} scalar", 200)))
    else:
        yield from (("p", key.p), ("(n - 1) / 2", key.n // 2), ("random below n", below(f"{key.bits} k", key.n)))


def scalar_flags(key: Key, m: int, k: int) -> list[str]:
    flags = {"NegativeScalar": k < 0, "NotInvertible": math.gcd(k, key.n) > 1}
    return [flag for flag, here in {**flags, "Wraparound": not 0 <= m * k < key.n}.items() if here]


def scalar_tests(key: Key, rust: Rust, python: Python) -> Iterator[Test]:
    for maker in (rust, python):
        for comment, k in scalars(key, maker):
            m = number(f"{key.bits} {maker.name} factor {comment}", 1200)
            c1 = maker.encrypt(m, f"factor {comment}")
            head = {"comment": f"times {comment}", "kind": "mul_scalar", "source": maker.name}
            operands = {"c1": key.text(c1), "k": f"{k % key.n:x}", "flags": scalar_flags(key, m, k)}
            yield ciphertext(key, maker.multiply(c1, k), m * k, **head, **operands)
    c1 = python.encrypt(5, "times zero")
    head = {"comment": "times 0 gives 1", "kind": "mul_scalar", "source": "lightphe", "result": "acceptable"}
    yield ciphertext(key, 1, 0, **head, c1=key.text(c1), k="0", flags=["UnblindedZero"])


def rerandomize_tests(key: Key, rust: Rust, python: Python) -> Iterator[Test]:
    for maker in (rust, python):
        for comment, m in (("0", 0), ("1", 1), ("-1", -1), ("1000 bits", number(f"{key.bits} again", 1000))):
            c1 = maker.encrypt(m, f"again {comment}")
            head = {"comment": f"the same message, {comment}", "kind": "rerandomize", "source": maker.name}
            fresh = maker.rerandomize(c1, f"noise {comment}")
            yield ciphertext(key, fresh, m, **head, c1=key.text(c1), flags=message_flags(key, m))


# --- ciphertexts to refuse -------------------------------------------------------------------------------------------


def refused(kind: str, field: str, flag: str, cases: dict[str, str], **rest: Any) -> Iterator[Test]:
    for comment, text in cases.items():
        head = {"comment": comment, "kind": kind, "source": "integers"}
        yield {**head, field: text, **rest, "result": "invalid", "flags": [flag]}


def refused_values(key: Key, good: int) -> Iterator[Test]:
    n, p, q, some = key.n, key.p, key.q, below(f"{key.bits} multiple", key.n)
    outside = {"0": 0, "n^2": n**2, "n^2 + 1, which is 1 again": n**2 + 1}
    outside |= {"the largest value of this length": 2 ** (2 * key.bits) - 1}
    if n**2 + good < 2 ** (2 * key.bits):
        outside["a good ciphertext plus n^2"] = n**2 + good
    shared = {"n": n, "2 n": 2 * n, "n^2 - n": n**2 - n, "a multiple of n": some * n}
    shared |= {"p": p, "q": q, "p^2": p**2, "q^2": q**2, "a multiple of p": some * p, "a multiple of q": some * q}
    shared |= {"a good ciphertext times p": good * p % n**2, "n^2 - q": n**2 - q}
    for flag, values in (("UnblindedZero", {"1": 1}), ("OutOfRange", outside), ("NotAUnit", shared)):
        yield from refused("ciphertext", "c", flag, {name: key.text(c) for name, c in values.items()})


def refused_texts(text: str) -> dict[str, str]:
    """Other spellings of a good number, most of which Python's int(text, 16) takes."""
    out = {"empty": "", "one byte missing at the end": text[:-2], "a zero byte in front": "00" + text}
    out |= {"a zero byte at the end": text + "00", "half of it": text[: len(text) // 2], "twice": text * 2}
    out |= {"one digit missing": text[1:], "negative": "-" + text, "negative, same length": "-" + text[1:]}
    out |= {"0x in front": "0x" + text, "0x, same length": "0x" + text[2:], "plus sign, same length": "+" + text[1:]}
    out |= {"space in front, same length": " " + text[1:], "line feed at the end": text + "\n"}
    out |= {"underscore, same length": text[:2] + "_" + text[3:], "not a digit": "g" + text[1:]}
    return out | {"full-width digit": "\N{FULLWIDTH DIGIT ONE}" + text[1:], "NUL at the end": text[:-1] + "\0"}


def key_group(key: Key, cases: Iterator[int]) -> dict[str, Any]:
    rust, python = Rust(key), Python(key)
    good = python.encrypt(1, "good")
    kinds: tuple[Callable[[Key, Rust, Python], Iterator[Test]], ...]
    kinds = (decrypt_tests, add_tests, scalar_tests, rerandomize_tests)
    tests = [test for kind in kinds for test in kind(key, rust, python)] + list(acceptable_tests(key, python))
    tests += [*refused_values(key, good), *refused("ciphertext", "c", "Encoding", refused_texts(key.text(good)))]
    numbers = {"n": f"{key.n:x}", "p": f"{key.p:x}", "q": f"{key.q:x}"}
    verify(key, python, rust, tests)
    return {"type": "operations", "keySize": key.bits, **numbers, "tests": [finish(test, cases) for test in tests]}


def finish(test: Test, cases: Iterator[int]) -> Test:
    last = {"result": test.get("result", "valid"), "flags": test["flags"]}
    return {"tcId": next(cases), **{k: v for k, v in test.items() if k not in last}, **last}


def verify(key: Key, python: Python, rust: Rust, tests: list[Test]) -> None:
    """python-paillier and lightphe must decrypt what has a message, pypaillier refuse the values that are no units."""
    private = phe.PaillierPrivateKey(phe.PaillierPublicKey(key.n), key.p, key.q)
    for test in tests:
        if "m" in test:
            c, m = int(test["c"], 16), int(test["m"], 16)
            if private.raw_decrypt(c) != m or (test["source"] != "lightphe" and python.decrypt(c) != m):
                raise SystemExit(f"{test['comment']} does not decrypt")
        elif test["flags"][0] in ("OutOfRange", "NotAUnit") and not pypaillier_refuses(rust, int(test["c"], 16)):
            raise SystemExit(f"pypaillier takes {test['comment']}")


def pypaillier_refuses(rust: Rust, c: int) -> bool:
    try:
        rust.multiply(c, 3)  # its additions do not look for common factors
    except ValueError:
        return True
    return False


# --- public keys -----------------------------------------------------------------------------------------------------


def wrong_keys() -> Iterator[tuple[str, str, int]]:
    for n in (0, 1, 2, 3, 15):
        yield "KeySize", str(n), n
    for bits in (512, 1024, 1536, 2047, 2049, 3071):
        yield "KeySize", f"p q of {bits} bits", math.prod(of_length(bits, prime(f"wrong size {bits}", bits // 2)))
    yield "KeySize", "2^2048", 2**2048
    yield "Even", "2^2047", 2**2047
    for bits in (2048, 3072):
        yield "Even", f"twice a prime, {bits} bits", math.prod(of_length(bits, 2))
        yield "Prime", f"a prime of {bits} bits", math.prod(of_length(bits))
        yield "PrimePower", f"p^2, {bits} bits", math.prod(power(bits, 2))
    yield "PrimePower", "p^3", math.prod(power(2048, 3))
    yield "PrimePower", "(p q)^2", math.prod(of_length(1024, prime("square", 512))) ** 2
    for small in (3, 7, 257, 65521, 65537):
        yield "SmallFactor", f"{small} times a prime", math.prod(of_length(2048, small))
    yield "SmallFactor", "3 p q, 3072 bits", math.prod(of_length(3072, 3, prime("3 p q", 1536)))
    yield "SmallFactor", "2^2048 - 1", 2**2048 - 1


def keys_that_need_a_proof() -> Iterator[tuple[str, list[int]]]:
    for bits in (2048, 3072):
        p = prime(f"squared {bits}", bits // 3)
        yield f"p^2 q, {bits} bits", of_length(bits, p, p)
        yield f"q = 1 modulo p, {bits} bits", divides_next(bits)


def unusual_keys() -> Iterator[tuple[str, str, str, list[int]]]:
    blum = [prime(f"not Blum {i}", 1024, residue=1) for i in range(2)]
    yield "primes 1 modulo 4", "NotBlum", "valid", blum
    yield "65539 q", "SmallFactorBeyondTrialDivision", "acceptable", of_length(2048, 65539)
    three = of_length(2048, prime("three 1", 683), prime("three 2", 683))
    yield "p q r", "MultiPrime", "acceptable", three
    close = prime("close", 1024)
    yield "q is the next prime after p", "ClosePrimes", "acceptable", [close, int(gmpy2.next_prime(close))]


def key_tests(keys: list[Key]) -> Iterator[Test]:
    head = {"kind": "public_key", "source": "integers"}
    for key in keys:
        yield {**head, "comment": f"the key of {key.bits} bits above", "n": f"{key.n:x}", "flags": []}
    for comment, flag, result, factors in unusual_keys():
        yield {**head, "comment": comment, "n": f"{math.prod(factors):x}", "result": result, "flags": [flag]}
    good = f"{keys[0].n:x}"
    yield {**head, "comment": "upper case", "n": good.upper(), "result": "acceptable", "flags": ["UpperCase"]}
    for flag, comment, n in wrong_keys():
        yield from refused("public_key", "n", flag, {comment: f"{n:x}"})
    for comment, primes in keys_that_need_a_proof():
        texts = [f"{prime:x}" for prime in primes]
        yield from refused("public_key", "n", "NeedsProof", {comment: f"{math.prod(primes):x}"}, factors=texts)
    yield from refused("public_key", "n", "Encoding", refused_texts(good))


def generate(file: Path) -> None:
    cases, keys = iter(range(1, 10_000)), [Key(2048), Key(3072)]
    groups = [key_group(key, cases) for key in keys]
    groups.append({"type": "publicKeys", "tests": [finish(test, cases) for test in key_tests(keys)]})
    versions = ", ".join(f"{package} {version(package)}" for package in ("pypaillier", "lightphe"))
    head = {"algorithm": "Paillier", "generator": {"name": "tests/golden/make_paillier.py", "version": versions}}
    total = sum(len(group["tests"]) for group in groups)
    vectors = {**head, "warning": WARNING, "notes": NOTES, "numberOfTests": total, "testGroups": groups}
    file.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("paillier.json"))
