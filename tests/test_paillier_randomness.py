"""Where blinding factors come from: the law of each source, tables that pay, and pools used once."""

import secrets
from functools import lru_cache

import gmpy2
import numpy as np
import pytest

from hepipe.errors import InsecureParameters
from hepipe.schemes.paillier import PaillierScheme, RandomnessPool
from hepipe.schemes.paillier_keys import FixedBase, PaillierPublicKey, Prime
from hepipe.schemes.paillier_randomness import TABLE_PAYS_AFTER, DjnSource, HolderSource, UniformSource
from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER


@lru_cache
def keys():
    return PaillierScheme(TEST_INSECURE_PAILLIER).keygen()


def test_blinding_of_the_holder_is_an_nth_residue():
    key = keys().secret
    n_squared, carmichael = key.public.n_squared, (key.p - 1) * (key.q - 1) // 2
    for source in (HolderSource(key), UniformSource(key.public), DjnSource(key.public)):
        for residue in source.draw(20):
            # The n-th residues are exactly the subgroup whose order divides lambda.
            assert gmpy2.powmod(residue, carmichael, n_squared) == 1
            assert gmpy2.gcd(residue, n_squared) == 1
    assert gmpy2.powmod(1 + key.public.n, carmichael, n_squared) != 1


def test_blinding_of_the_holder_reaches_both_cosets_of_every_small_factor():
    # A base of smaller order would never leave a proper subgroup: half of the draws must be non-squares.
    key = keys().secret
    for prepared in (False, True):
        source = HolderSource(key)
        if prepared:
            source.prepare()
        signs = {(gmpy2.legendre(r % key.p, key.p), gmpy2.legendre(r % key.q, key.q)) for r in source.draw(100)}
        assert signs == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_powers_of_a_generator_are_all_residues_each_once():
    prime = Prime(gmpy2.mpz(15), gmpy2.mpz(7))
    p = prime.value
    table = FixedBase(gmpy2.powmod(prime.generator(), p, p * p), p * p, p.bit_length())
    assert sorted(table.power(e) for e in range(p - 1)) == sorted(gmpy2.powmod(r, p, p * p) for r in range(1, p))


def test_exponents_and_bases_are_drawn_from_their_whole_range(monkeypatch):
    key, limits = keys().secret, []
    randbelow = secrets.randbelow
    module = "hepipe.schemes.paillier_randomness.secrets"
    monkeypatch.setattr(f"{module}.randbelow", lambda limit: limits.append(limit) or randbelow(limit))
    HolderSource(key).draw(1)
    UniformSource(key.public).draw(1)
    assert limits == [key.p - 1, key.q - 1, key.public.n - 1]
    source, sizes = DjnSource(key.public), []
    monkeypatch.setattr(f"{module}.randbits", lambda bits: sizes.append(bits) or 5)
    residue = source.draw(1)[0]
    assert sizes == [512]
    assert gmpy2.jacobi(residue % key.public.n, key.public.n) == 1


@pytest.mark.parametrize("make", [HolderSource, lambda secret: DjnSource(secret.public)])
def test_tables_are_built_when_they_pay(make):
    source = make(keys().secret)

    def tables():
        return getattr(source, "_tables", None) or getattr(source, "_table", None)

    source.draw(TABLE_PAYS_AFTER)
    assert tables() is None
    source.draw(1)
    built = tables()
    assert built is not None
    source.prepare()
    assert tables() is built


def test_a_zero_exponent_is_one(monkeypatch):
    monkeypatch.setattr("hepipe.schemes.paillier_randomness.secrets.randbelow", lambda _: 0)
    assert HolderSource(keys().secret).draw(1) == [1]


def test_units_are_drawn_again_until_they_are_units(monkeypatch):
    key = keys().secret
    drawn = iter([int(key.p) - 1, 4])
    monkeypatch.setattr("hepipe.schemes.paillier_randomness.secrets.randbelow", lambda _: next(drawn))
    assert UniformSource(key.public).draw(1) == [gmpy2.powmod(5, key.public.n, key.public.n_squared)]


def test_short_exponents_need_a_blum_modulus():
    with pytest.raises(InsecureParameters, match="n = 1 mod 4"):
        DjnSource(PaillierPublicKey(gmpy2.mpz(7 * 13)))


class Counting:
    def __init__(self):
        self.drawn = 0

    def prepare(self):
        pass

    def draw(self, count):
        self.drawn += count
        return list(range(self.drawn - count, self.drawn))


def test_a_pool_hands_out_each_value_once():
    source = Counting()
    pool = RandomnessPool(keys().public, source)
    pool.prepare()
    for count in (2, 5, 5, 3):
        pool.fill(count)  # up to so many, not so many more
    assert len(pool) == 5
    taken = [pool.take(), *pool.take_many(3), *pool.take_many(4), pool.take(), *pool.take_many(0)]
    assert taken == list(range(9))
    assert (len(pool), source.drawn, pool.late) == (0, 9, 4)


def test_encryption_uses_what_was_filled():
    holder = PaillierScheme(TEST_INSECURE_PAILLIER).encryptor(keys().secret)
    holder.prepare()
    holder.fill(3)
    x = holder.encrypt(np.ones((2, 2)))
    assert len(holder.pool) == 1
    assert (PaillierScheme(TEST_INSECURE_PAILLIER).decryptor(keys().secret).decrypt(x) == 1).all()
