"""Keys: sound by construction, certified, validated on the way in, and silent about their content."""

import copy
import hashlib
import itertools
import json
import pickle

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.errors import InsecureParameters, MalformedFrame, OutOfRange
from hepipe.schemes.paillier_keys import (
    FixedBase,
    PaillierPublicKey,
    PaillierSecretKey,
    Prime,
    check_public,
    generate_secret_key,
    prime_factors,
    random_prime,
)
from hepipe.schemes.secret import SecretKey

BITS = 1024


@pytest.fixture(scope="module")
def key():
    return generate_secret_key(BITS)


@pytest.mark.parametrize("bits", [256, 512, 1024])
def test_the_form_of_generated_keys(bits):
    for _ in range(5):
        key = generate_secret_key(bits)
        p, q, n = key.p, key.q, key.public.n
        assert n == p * q
        assert n.bit_length() == bits
        assert p.bit_length() == q.bit_length() == bits // 2
        assert p % 4 == q % 4 == 3
        assert gmpy2.gcd(p - 1, q - 1) == 2
        assert gmpy2.gcd(n, (p - 1) * (q - 1)) == 1
        assert abs(p - q).bit_length() > bits // 2 - 100
        for prime, a, b in zip((p, q), key.a, key.b, strict=True):
            assert prime == 2 * a * b + 1
            assert gmpy2.is_prime(b)
            assert b.bit_length() == bits // 2 - 25


@pytest.mark.secure
def test_a_key_of_secure_size():
    key = generate_secret_key(3072)
    assert check_public(int(key.public.n), 3072) == key.public


def test_generator_certificate(key):
    n_squared_residues = ((key.generator_p, key.p, 0), (key.generator_q, key.q, 1))
    for g, p, i in n_squared_residues:
        assert gmpy2.powmod(g, p - 1, p * p) == 1
        for factor in {2, int(key.b[i]), *prime_factors(int(key.a[i]))}:
            assert gmpy2.powmod(g, (p - 1) // factor, p * p) != 1


def test_generator_reaches_every_residue_of_a_small_prime():
    prime = Prime(gmpy2.mpz(15), gmpy2.mpz(7))
    p = prime.value
    reached = {gmpy2.powmod(prime.generator(), p * e, p * p) for e in range(p - 1)}
    assert reached == {gmpy2.powmod(r, p, p * p) for r in range(1, p)}


@given(st.integers(1, 2**20))
def test_prime_factors(half):
    number = 2 * half + 1
    factors = prime_factors(number)
    assert all(number % f == 0 and gmpy2.is_prime(f) for f in factors)
    for f in factors:
        while number % f == 0:
            number //= f
    assert number == 1


def test_key_id_is_a_tagged_hash_of_n(key):
    n = int(key.public.n)
    expected = hashlib.sha256(b"hepipe.paillier.public.v1\0" + (128).to_bytes(4, "big") + n.to_bytes(128, "big"))
    assert key.key_id == key.public.key_id == expected.hexdigest()[:32]
    assert generate_secret_key(256).key_id != key.key_id


def test_reprs_hide_the_content(key):
    assert repr(key) == str(key) == f"{key}" == f"<SecretKey {key.key_id[:4]}…>"
    assert str(key.p) not in f"{key!r} {key.public!r} {random_prime(128)!r}"
    assert repr(key.public) == f"<PublicKey {key.key_id[:8]}, {BITS} bits>"


@pytest.mark.parametrize(
    "leak",
    [bytes, copy.copy, copy.deepcopy, pickle.dumps, lambda k: k.__getstate__(), lambda k: k.__reduce__()]
    + [lambda k, v=v: pickle.dumps(k, protocol=v) for v in range(6)]
    + [lambda k: pickle.dumps({"a": [k]}), lambda k: copy.deepcopy([k])],
)
def test_a_secret_key_stays_where_it_is(key, leak):
    with pytest.raises(TypeError):
        leak(key)


def test_what_the_key_store_encrypts(key):
    parts = {name: int(value, 16) for name, value in json.loads(key._material()).items()}
    assert parts == key.expose_factors()
    assert isinstance(key, SecretKey)
    assert vars(key) == {"key_id": key.public.key_id}


def test_factors_out_and_in(key):
    factors = key.expose_factors()
    assert all(type(v) is int for v in factors.values())
    again = PaillierSecretKey.from_factors(factors)
    assert (again.p, again.q, again.key_id) == (key.p, key.q, key.key_id)
    assert (again.generator_p, again.generator_q) == (key.generator_p, key.generator_q)


@pytest.mark.parametrize("change", [{"a_p": None}, {"extra": 1}])
def test_parts_with_other_names(key, change):
    factors = {k: v for k, v in (key.expose_factors() | change).items() if v is not None}
    with pytest.raises(MalformedFrame, match="has the parts"):
        PaillierSecretKey.from_factors(factors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f | {"a_p": f["a_p"] + 1}, "small odd"),
        (lambda f: f | {"a_p": -f["a_p"]}, "small odd"),
        (lambda f: f | {"a_p": 2**40 + 1}, "small odd"),
        (lambda f: f | {"b_p": f["b_p"] + 2}, "must both be prime"),
        (lambda f: f | {"b_p": 2}, "must both be prime"),
        (lambda f: f | {"b_p": -f["b_p"]}, "must both be prime"),
        (lambda f: f | {"a_p": 3, "b_p": 3}, "the same size"),
        (lambda f: f | {"a_q": f["a_p"], "b_q": f["b_p"]}, "gcd"),
    ],
)
def test_unsound_parts(key, change, message):
    with pytest.raises(InsecureParameters, match=message):
        PaillierSecretKey.from_factors(change(key.expose_factors()))


def test_neighbours_share_a_cofactor():
    # A common cofactor makes neighbours easy to build; it is refused for that alone.
    first = random_prime(128)
    for step in itertools.count(2, 2):
        b = gmpy2.next_prime(first.b + step * 1000)
        if gmpy2.is_prime(2 * first.a * b + 1):
            break
    low, high = 2 * first.a * first.b + 1, 2 * first.a * b + 1
    assert low < high
    with pytest.raises(InsecureParameters, match="gcd"):
        PaillierSecretKey(first, Prime(first.a, b))


def test_primes_too_close_and_coprime(monkeypatch):
    key = generate_secret_key(512)
    monkeypatch.setattr(Prime, "value", property(lambda self: key.p if self.b == key.b[0] else key.p + 2))
    p, q = object.__new__(Prime), object.__new__(Prime)
    for prime, i in ((p, 0), (q, 1)):
        object.__setattr__(prime, "a", key.a[i])
        object.__setattr__(prime, "b", key.b[i])
    with pytest.raises(InsecureParameters, match="too close"):
        PaillierSecretKey(p, q)


def test_n_and_phi_must_be_coprime():
    # q - 1 = 2 p (...) is impossible for two primes of one size with small cofactors: force it.
    class Fake:
        def __init__(self, value, a, b):
            self.value, self.a, self.b = gmpy2.mpz(value), gmpy2.mpz(a), gmpy2.mpz(b)

    with pytest.raises(InsecureParameters, match="phi"):
        PaillierSecretKey(Fake(15, 7, 1), Fake(12, 11, 1))


def test_key_sizes_that_make_no_sense():
    for bits in (0, 255, 254, 1025):
        with pytest.raises(OutOfRange, match="at least 256"):
            generate_secret_key(bits)


def test_generation_starts_over_when_the_primes_are_close(monkeypatch):
    import hepipe.schemes.paillier_keys as module

    real, made = module.random_prime, []

    def recorded(bits, coprime_to=1):
        made.append(made[0] if len(made) == 1 else real(bits, coprime_to))
        return made[-1]

    monkeypatch.setattr(module, "random_prime", recorded)
    generate_secret_key(256)
    assert len(made) == 3


def _product(*factors):
    value = gmpy2.mpz(1)
    for factor in factors:
        value *= factor
    return int(value)


def prime_of(bits, top=3):
    return gmpy2.next_prime((gmpy2.mpz(top) << (bits - 2)) + 12345)


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (_product(prime_of(512), prime_of(513)), MalformedFrame, "1025 bits, 1024 were agreed"),
        (15, MalformedFrame, "4 bits"),
        (-_product(prime_of(512), prime_of(512) + 2), MalformedFrame, "agreed"),
        (2**1023, MalformedFrame, "even"),
        (_product(3, prime_of(1023, 2)), InsecureParameters, "prime factor up to 65537"),
        (_product(65537, prime_of(1008)), InsecureParameters, "prime factor up to 65537"),
        (int(prime_of(1024)), InsecureParameters, "is a prime"),
        (_product(prime_of(512), prime_of(512)), InsecureParameters, "perfect power"),
        (_product(*[gmpy2.next_prime((1 << 256) - 10**6)] * 4), InsecureParameters, "perfect power"),
    ],
    ids=["long", "short", "negative", "even", "times 3", "times 65537", "prime", "square", "fourth power"],
)
def test_moduli_a_peer_may_not_send(n, error, message):
    with pytest.raises(error, match=message):
        check_public(n, BITS)


def test_a_good_modulus_passes(key):
    assert check_public(int(key.public.n), BITS) == key.public
    assert key.public.n_squared == key.public.n**2


def test_phe_has_the_same_keys(key):
    phe_key = key.to_phe()
    assert phe_key.public_key.n == key.public.to_phe().n == int(key.public.n)
    assert {phe_key.p, phe_key.q} == {int(key.p), int(key.q)}


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 150), st.data())
def test_fixed_base_powers(window, bits, data):
    modulus = gmpy2.mpz(2**127 - 1)
    table = FixedBase(gmpy2.mpz(3), modulus, bits, min(window, 8))
    for exponent in (0, 1, 2**bits - 1, data.draw(st.integers(0, 2**bits - 1))):
        assert table.power(exponent) == gmpy2.powmod(3, exponent, modulus)


def test_fixed_base_refuses_exponents_it_does_not_cover():
    table = FixedBase(gmpy2.mpz(3), gmpy2.mpz(101), 16)
    for exponent in (-1, 2**16):
        with pytest.raises(OutOfRange, match="16 bits"):
            table.power(exponent)


def test_public_keys_compare_by_modulus():
    assert PaillierPublicKey(gmpy2.mpz(77)) == PaillierPublicKey(gmpy2.mpz(77)) != PaillierPublicKey(gmpy2.mpz(91))
