"""SEAL's streams taken apart and put together; what SEAL and hepipe must agree on."""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from hepipe.errors import HepipeError, MalformedFrame
from hepipe.schemes import seal
from hepipe.schemes.ckks import CkksScheme, expand
from hepipe.schemes.parameters import TEST_INSECURE_CKKS, CkksParameters

PRIMES = TEST_INSECURE_CKKS.coeff_modulus
KEYS = CkksScheme(TEST_INSECURE_CKKS).keygen()


def residues(polynomials: int, primes: tuple[int, ...], degree: int) -> seal.Residues:
    rng = np.random.default_rng(1)
    return np.stack([[rng.integers(0, q, degree, dtype=np.uint64) for q in primes] for _ in range(polynomials)])


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("seeded", [False, True])
def test_what_is_put_together_comes_apart_again(level: int, seeded: bool) -> None:
    primes, context = TEST_INSECURE_CKKS.primes_at(level), seal.context(TEST_INSECURE_CKKS)
    seed = bytes(range(64)) if seeded else None
    parts = seal.Polynomials(residues(1 if seeded else 2, primes, 1024), seed)
    back = seal.take_apart(seal.put_together(parts, context.parms_id(level), 2.0**30), 1024)
    assert (back.residues == parts.residues).all()
    assert back.seed == seed


@pytest.mark.parametrize("level", [0, 1, 2])
def test_seal_loads_and_saves_the_very_same_body(level: int) -> None:
    context = seal.context(TEST_INSECURE_CKKS)
    parts = seal.Polynomials(residues(2, TEST_INSECURE_CKKS.primes_at(level), 1024))
    body = seal.put_together(parts, context.parms_id(level), 2.0**29.5)
    loaded = seal.load(sealapi.Ciphertext(), context.seal, body)
    assert seal.save(loaded) == body
    assert loaded.scale == 2.0**29.5


def test_a_seed_expands_to_what_was_encrypted() -> None:
    x = CkksScheme(TEST_INSECURE_CKKS).encryptor(KEYS.secret).encrypt([[1.5]], 2.0)
    body = x.data[0][0].body
    assert seal.take_apart(body, 1024).seed == body[-64:]
    whole = seal.take_apart(seal.save(expand(x.data[0][0], seal.context(TEST_INSECURE_CKKS))), 1024)
    assert whole.seed is None
    assert whole.residues.shape == (2, 3, 1024)


@pytest.mark.parametrize("polynomials", [1, 2])
@pytest.mark.parametrize("primes", [PRIMES, PRIMES[:1], (12289,), (2**60 - 2**14 + 1,)])
def test_residues_pack_into_whole_bytes_and_back(polynomials: int, primes: tuple[int, ...]) -> None:
    words = residues(polynomials, primes, 64)
    data = seal.pack_residues(words, primes)
    assert len(data) == polynomials * 64 * sum(-(-q.bit_length() // 8) for q in primes)
    assert (seal.unpack_residues(data, polynomials, primes, 64) == words).all()


def test_residues_of_another_length_or_size_are_malformed() -> None:
    data = seal.pack_residues(residues(1, PRIMES, 64), PRIMES)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(MalformedFrame, match=f"of {len(wrong)} bytes, expected {len(data)}"):
            seal.unpack_residues(wrong, 1, PRIMES, 64)
    for prime, place in ((PRIMES[0], 0), (PRIMES[1], 7 * 64)):
        largest, wrong = (prime - 1).to_bytes(8, "little"), prime.to_bytes(8, "little")
        width = -(-prime.bit_length() // 8)
        seal.unpack_residues(data[:place] + largest[:width] + data[place + width :], 1, PRIMES, 64)
        with pytest.raises(MalformedFrame, match="a residue is not below its prime"):
            seal.unpack_residues(data[:place] + wrong[:width] + data[place + width :], 1, PRIMES, 64)


def test_the_chain_ends_at_the_first_prime() -> None:
    context = seal.context(TEST_INSECURE_CKKS)
    ids = [tuple(context.parms_id(level)) for level in range(3)]
    assert len({*ids, tuple(context.key_parms_id)}) == 4
    assert context.parms_id(0) == context.seal.last_parms_id()
    assert context.parms_id(2) == context.seal.first_parms_id()


def test_one_context_serves_all_keys_of_a_parameter_set() -> None:
    assert seal.context(TEST_INSECURE_CKKS) is seal.context(CkksParameters(1024, (50, 30, 30, 50), 30.0, insecure=True))


def test_a_build_with_other_primes_is_refused() -> None:
    parameters = CkksParameters(1024, (40, 30, 40), 30.0, insecure=True)
    parameters.__dict__["coeff_modulus"] = (1, 2, 3)
    with pytest.raises(HepipeError, match="SEAL chose other primes"):
        seal.Context(parameters)


def test_what_seal_refuses_is_a_typed_error() -> None:
    parameters = CkksParameters(1024, (50, 30, 50), 30.0, insecure=True)
    object.__setattr__(parameters, "insecure", False)  # past hepipe's own check
    with pytest.raises(HepipeError, match=r"SEAL refuses .*"):
        seal.Context(parameters)


def test_streams_work_where_the_system_has_no_anonymous_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    context = seal.context(TEST_INSECURE_CKKS)
    body = seal.put_together(seal.Polynomials(residues(2, PRIMES[:1], 1024)), context.parms_id(0), 2.0**30)
    assert seal.save(seal.load(sealapi.Ciphertext(), context.seal, body)) == body


def test_an_uncompressed_stream_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"a body that no one compressed"

    class Uncompressed:
        def save(self, path: str) -> None:
            with open(path, "wb") as stream:
                stream.write(struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 0, 0, 16 + len(body)) + body)

    found: Any = seal.save(Uncompressed())
    assert found == body
