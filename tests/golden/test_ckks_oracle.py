"""The pure-Python CKKS decryption against the stored slots and against SEAL's own decryption."""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import ckks_oracle as oracle
import numpy as np
import pytest
import tenseal.sealapi as seal

from hepipe.schemes import seal as hepipe_seal
from hepipe.schemes.base import CipherTensor, FloatArray, KeySet
from hepipe.schemes.ckks import CkksScheme, Stream, expand
from hepipe.schemes.parameters import CkksParameters

FOLDER = Path(__file__).parent / "ckks"
MANIFEST = json.loads((FOLDER / "vectors.json").read_text())


@dataclass(frozen=True)
class Case:
    group: dict[str, Any]
    test: dict[str, Any]

    @property
    def degree(self) -> int:
        return int(self.group["degree"])

    @property
    def primes(self) -> tuple[int, ...]:
        return tuple(int(prime, 16) for prime in self.group["primes"])

    @property
    def stream(self) -> bytes:
        return Path(FOLDER, self.test["file"]).read_bytes()

    @property
    def secret(self) -> bytes:
        return Path(FOLDER, self.group["secretKey"]).read_bytes()

    def expected(self) -> oracle.Slots:
        with np.load(FOLDER / self.group["slots"], allow_pickle=False) as slots:
            return np.asarray(slots[f"{self.test['tcId']:02}"], np.complex128)

    def by_oracle(self) -> oracle.Slots:
        return oracle.decrypt_slots(self.stream, self.secret, self.degree, self.primes)

    def by_seal(self) -> oracle.Slots:
        context = seal_context(self.degree, self.primes, not self.group["insecureParameters"])
        secret, ciphertext, plain = seal.SecretKey(), seal.Ciphertext(), seal.Plaintext()
        secret.load(context, str(FOLDER / self.group["secretKey"]))
        ciphertext.load(context, str(FOLDER / self.test["file"]))
        seal.Decryptor(context, secret).decrypt(ciphertext, plain)
        return np.array(seal.CKKSEncoder(context).decode_complex(plain))


@cache
def seal_context(degree: int, primes: tuple[int, ...], secure: bool) -> Any:
    parms = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parms.set_poly_modulus_degree(degree)
    parms.set_coeff_modulus([seal.Modulus(prime) for prime in primes])
    return seal.SEALContext(parms, True, seal.SEC_LEVEL_TYPE.TC128 if secure else seal.SEC_LEVEL_TYPE.NONE)


CASES = [Case(group, test) for group in MANIFEST["testGroups"] for test in group["tests"]]
every_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.group['name']}-{case.test['tcId']}-{case.test['comment'].replace(' ', '_')}"
)


def test_the_set_is_complete() -> None:
    assert MANIFEST["numberOfTests"] == len(CASES) >= 30
    assert [case.test["tcId"] for case in CASES] == list(range(1, len(CASES) + 1))
    assert {flag for case in CASES for flag in case.test["flags"]} == set(MANIFEST["notes"])
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 1_500_000


@every_case
def test_the_oracle_finds_the_stored_slots(case: Case) -> None:
    assert np.abs(case.by_oracle() - case.expected()).max() <= case.test["tolerance"]


@every_case
def test_the_oracle_agrees_with_seal(case: Case) -> None:
    theirs = case.by_seal()
    assert np.abs(case.by_oracle() - theirs).max() <= 1e-12 * np.abs(theirs).max()


@every_case
def test_the_stream_is_what_the_manifest_says(case: Case) -> None:
    parsed = oracle.parse_ciphertext(case.stream, case.degree, case.primes)
    level = case.test["level"]
    assert parsed.words.shape == (case.test["size"], level, case.degree)
    assert (parsed.scale, parsed.seeded) == (case.test["scale"], "Seeded" in case.test["flags"])
    assert parsed.primes == case.primes[:level]


def test_an_uncompressed_stream_reads_the_same(tmp_path: Path) -> None:
    case = CASES[0]
    body, _ = oracle.unwrap(case.stream)
    plain = case.stream[:5] + struct.pack("<BHQ", 0, 0, 16 + len(body)) + body
    (tmp_path / "plain.seal").write_bytes(plain)
    seal.Ciphertext().load(seal_context(case.degree, case.primes, True), str(tmp_path / "plain.seal"))
    first, second = (oracle.parse_ciphertext(stream, case.degree, case.primes) for stream in (case.stream, plain))
    assert np.array_equal(first.words, second.words)


def test_another_key_decrypts_to_noise() -> None:
    fresh, other = CASES[0], oracle.unwrap(CASES[0].secret)[0]
    words = np.frombuffer(other, "<u8", offset=len(other) - 8 * fresh.degree)[::-1].reshape(1, -1)
    parsed = oracle.parse_ciphertext(fresh.stream, fresh.degree, fresh.primes)
    slots = oracle.decode(oracle.decrypt(parsed, words), parsed.scale)
    assert np.abs(slots - fresh.expected()).max() > 100


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (2, 17), (3, 3), (4, 2), (5, 1), (6, 1), (8, 0xFF), (15, 1)])
def test_a_header_of_another_format_is_refused(offset: int, value: int) -> None:
    stream = bytearray(CASES[0].stream)
    stream[offset] = value
    with pytest.raises(oracle.StreamError):
        oracle.parse_ciphertext(bytes(stream), CASES[0].degree, CASES[0].primes)


@pytest.mark.parametrize("length", [0, 15, 16, 60, 1000])
def test_a_truncated_stream_is_refused(length: int) -> None:
    stream = CASES[0].stream[:length]
    stream = stream[:8] + struct.pack("<Q", length) if length == 16 else stream
    with pytest.raises(oracle.StreamError):
        oracle.parse_ciphertext(stream, CASES[0].degree, CASES[0].primes)


def test_random_changes_are_read_or_refused_but_never_crash() -> None:
    draw, case = np.random.default_rng(1).integers, CASES[0]
    for _ in range(300):
        stream = bytearray(case.stream)
        stream[draw(len(stream))] ^= 1 << draw(8)
        with suppress(oracle.StreamError):
            oracle.parse_ciphertext(bytes(stream), case.degree, case.primes)


def test_parameters_that_are_not_the_stream_s_are_refused() -> None:
    case = CASES[0]
    for degree, primes in ((2048, case.primes), (1024, (case.primes[0] + 2048,))):
        with pytest.raises(oracle.StreamError):
            oracle.parse_ciphertext(case.stream, degree, primes)
        with pytest.raises(oracle.StreamError):
            oracle.parse_secret_key(case.secret, degree, primes)


def test_a_word_that_is_not_reduced_is_refused() -> None:
    case = CASES[0]
    body = bytearray(oracle.unwrap(case.secret)[0])
    body[-8:] = struct.pack("<Q", case.primes[0])
    stream = case.stream[:5] + struct.pack("<BHQ", 0, 0, 16 + len(body)) + body
    with pytest.raises(oracle.StreamError, match="not reduced"):
        oracle.parse_secret_key(stream, case.degree, case.primes)


@pytest.mark.parametrize("length", [0, 5, 64, 127, 128])
def test_the_compression_is_blake2b(length: int) -> None:
    message = bytes(range(length))
    digest = oracle.blake2b_block([64 | 1 << 16 | 1 << 24], message).T.tobytes()
    assert digest == hashlib.blake2b(message).digest()


def test_the_generator_is_seal_s_across_a_buffer_boundary() -> None:
    seed = hashlib.blake2b(b"any seed").digest()
    theirs = seal.Blake2xbPRNG(list(struct.unpack("<8Q", seed)))
    words = islice(oracle._random_words(seed), 3 * oracle.XOF_BYTES // 8)
    assert [theirs.generate() | theirs.generate() << 32 for _ in range(3 * oracle.XOF_BYTES // 8)] == list(words)


# --- ciphertexts and keys that hepipe made ---------------------------------------------------------------------------

HEPIPE_SETS = {
    "real": CkksParameters(1024, (50, 30, 30, 50), 30.0, insecure=True),
    "complex": CkksParameters(1024, (50, 30, 50), 30.0, complex_slots=True, insecure=True),
    "tail": CkksParameters(1024, (60, 40), 24.0, tail_bits=20.0, complex_slots=True, insecure=True),
    "secure": CkksParameters(2048, (54,), 24.0, tail_bits=20.0, complex_slots=True),
}


def framed(body: bytes) -> bytes:
    """A SEAL stream around a body that hepipe composed or read."""
    return oracle.HEADER.pack(0xA15E, oracle.HEADER.size, 4, 3, 0, 0, oracle.HEADER.size + len(body)) + body


def stream_of(item: Any, parameters: CkksParameters, level: int) -> bytes:
    """A ciphertext of hepipe, taken apart into what travels and put together again."""
    body = item.body if isinstance(item, Stream) else hepipe_seal.save(expand(item, hepipe_seal.context(parameters)))
    parts = hepipe_seal.take_apart(body, parameters.poly_modulus_degree)
    scale = struct.unpack_from("<d", body, 32 + 1 + 3 * 8)[0]
    return framed(hepipe_seal.put_together(parts, hepipe_seal.context(parameters).parms_id(level), scale))


@cache
def hepipe_party(name: str) -> tuple[CkksParameters, KeySet, dict[str, tuple[CipherTensor, FloatArray]]]:
    """Every way a ciphertext of hepipe comes to be, with the values in it."""
    parameters = HEPIPE_SETS[name]
    scheme = CkksScheme(parameters)
    keys = scheme.keygen()
    ev = scheme.evaluator(KeySet(None, keys.public, keys.evaluation))
    values = np.random.default_rng(6).uniform(-2, 2, (parameters.slots - 3, 2))
    weights = np.array([[0.5], [-1.25]])
    fresh = scheme.encryptor(keys.secret).encrypt(values, 2.0)
    made = {
        "symmetric": (fresh, values),
        "public key": (scheme.encryptor(keys.public).encrypt(values, 2.0), values),
        "sum": (ev.add(fresh, fresh), 2 * values),
        "weighted sum": (ev.matmul_plain(fresh, weights), values @ weights),
        "zero weights": (ev.matmul_plain(fresh, 0 * weights), 0 * values[:, :1]),
        "x - x": (ev.sub(fresh, fresh), 0 * values),
        "shifted": (ev.add(fresh, [1.0, -1.0]), values + np.array([1.0, -1.0])),
        "rerandomized": (ev.rerandomize(ev.matmul_plain(fresh, weights)), values @ weights),
    }
    if not parameters.complex_slots:
        made["product"] = (ev.mul(fresh, fresh), values**2)
        made["rerandomized product"] = (ev.rerandomize(ev.mul(fresh, fresh)), values**2)
    return parameters, keys, made


LINEAR = ["symmetric", "public key", "sum", "weighted sum", "zero weights", "x - x", "shifted", "rerandomized"]


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        *((name, origin) for name in HEPIPE_SETS for origin in LINEAR),
        ("real", "product"),
        ("real", "rerandomized product"),
    ],
)
def test_the_oracle_decrypts_what_hepipe_made(name: str, origin: str) -> None:
    parameters, keys, made = hepipe_party(name)
    x, expected = made[origin]
    ours = CkksScheme(parameters).decryptor(keys.secret).decrypt(x)
    secret = framed(hepipe_seal.save(keys.secret._handle))
    for feature, item in enumerate(x.data[0]):
        stream = stream_of(item, parameters, x.level)
        slots = oracle.decrypt_slots(stream, secret, parameters.poly_modulus_degree, parameters.coeff_modulus)
        column = np.concatenate([slots.real, slots.imag]) if parameters.complex_slots else slots.real
        assert np.abs(column[: len(ours)] - ours[:, feature]).max() <= 1e-12 * max(1.0, np.abs(ours).max())
        assert np.abs(column[: len(ours)] - expected[:, feature]).max() < 1e-2
        # Slots that no sample fills hold the same constant or nothing, never a part of a result.
        rest = column[len(ours) :]
        assert np.abs(rest - rest.mean()).max() < 1e-2


def test_a_seed_of_hepipe_s_expands_as_the_oracle_expands_it() -> None:
    parameters, _, made = hepipe_party("real")
    item = made["symmetric"][0].data[0][0]
    seeded = oracle.parse_ciphertext(framed(item.body), 1024, parameters.coeff_modulus)
    whole = oracle.parse_ciphertext(
        framed(hepipe_seal.save(expand(item, hepipe_seal.context(parameters)))), 1024, parameters.coeff_modulus
    )
    assert seeded.seeded
    assert not whole.seeded
    assert np.array_equal(seeded.words, whole.words)
