"""Decoders under fire: altered frames are refused by their digest, and by what is checked behind it.

The second half recomputes the digest of every altered frame, as a hostile peer would: a decoder may raise nothing but
its own typed errors, and what it accepts must be exactly what packing it again gives.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepipe.errors import HepipeError, InsecureParameters, KeyMismatch, MalformedFrame, OutOfRange
from hepipe.protocol.rounds import MaskedProduct, answer_masked_factors
from hepipe.schemes import keystore, seal
from hepipe.schemes.base import CipherTensor, KeySet, PublicBundle
from hepipe.schemes.frames import HEADER_BYTES, SEEDED, Frame, Kind, parse
from hepipe.schemes.keystore import save_keys
from hepipe.schemes.parameters import (
    TEST_INSECURE_CKKS,
    TEST_INSECURE_PAILLIER,
    CkksParameters,
    ClearParameters,
    PaillierParameters,
)
from hepipe.schemes.registry import scheme_of
from hepipe.schemes.wire import pack_keys, pack_tensor, unpack_keys, unpack_tensor

HEAD = HEADER_BYTES - 32
ONE_LANE = dataclasses.replace(TEST_INSECURE_PAILLIER, lanes=1, lane_bits=1022)
COMPLEX = CkksParameters(1024, (50, 30, 50), 30.0, complex_slots=True, insecure=True)
PARAMETERS: dict[str, Any] = {
    "clear": ClearParameters(),
    "paillier": TEST_INSECURE_PAILLIER,
    "one-lane": ONE_LANE,
    "ckks": TEST_INSECURE_CKKS,
    "complex": COMPLEX,
}
VALUES = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
Decoder = Callable[[bytes], object]


@cache
def keys_of(name: str) -> KeySet:
    return scheme_of(PARAMETERS[name]).keygen()


@cache
def bundle_of(name: str) -> PublicBundle:
    return PublicBundle(PARAMETERS[name], keys_of(name).public, keys_of(name).evaluation)


def encrypted(name: str) -> CipherTensor:
    return scheme_of(PARAMETERS[name]).encryptor(keys_of(name).secret).encrypt(VALUES, 4.0)


def computed(name: str) -> CipherTensor:
    ev: Any = scheme_of(PARAMETERS[name]).evaluator(keys_of(name))
    return ev.rerandomize(ev.mul_plain(encrypted(name), 0.5))  # type: ignore[no-any-return]


def masked(name: str) -> tuple[Any, bytes]:
    ev: Any = scheme_of(ONE_LANE).evaluator(keys_of(name))
    x = encrypted(name)
    products = MaskedProduct(ev, [(x, x), (x, encrypted(name))])
    return products, products.request(bundle_of(name))


def answering(request: bytes) -> bytes:
    scheme: Any = scheme_of(ONE_LANE)
    secret = keys_of("one-lane").secret
    return answer_masked_factors(request, bundle_of("one-lane"), scheme.encryptor(secret), scheme.decryptor(secret))


@dataclasses.dataclass(frozen=True)
class Target:
    """A decoder, a frame it accepts, and what packing the decoded thing again gives."""

    frame: bytes
    decode: Callable[[bytes], Any]
    again: Callable[[Any], bytes] | None


@cache
def target(name: str) -> Target:
    what, _, scheme = name.partition(" ")
    if what in ("fresh", "result"):
        tensor = encrypted(scheme) if what == "fresh" else computed(scheme)
        bundle = bundle_of(scheme)
        return Target(
            pack_tensor(tensor, bundle), lambda data: unpack_tensor(data, bundle), lambda x: pack_tensor(x, bundle)
        )
    if what == "keys":
        return Target(pack_keys(bundle_of(scheme)), lambda data: unpack_keys(data, allow_insecure=True), pack_keys)
    products, request = masked("one-lane")
    if what == "factors":
        return Target(request, answering, None)
    reply = answering(request)
    return Target(reply, lambda data: products.finish(data, bundle_of("one-lane")), None)


TENSORS = [f"{what} {name}" for name in ("clear", "paillier", "ckks", "complex") for what in ("fresh", "result")]
KEYS = [f"keys {name}" for name in ("clear", "paillier", "ckks", "complex")]
ROUNDS = ["factors", "products"]
every_decoder = pytest.mark.parametrize("name", [*TENSORS, *KEYS, *ROUNDS])


def mutations(frame: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, changed bytes, cuts, repeats, insertions, and splices of the frame with itself."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        data, kind = bytearray(frame), rng.integers(7)
        # Half of the changes hit the header, or the fields right behind it.
        place = int(rng.integers(min(len(data), 2 * HEADER_BYTES) if rng.integers(2) else len(data)))
        if kind <= 1:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[place : place + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            data[place:place] = rng.bytes(int(rng.integers(1, 40)))
        elif kind == 5:
            del data[place : place + int(rng.integers(1, 40))]
        else:
            other = int(rng.integers(len(data)))
            data[place : place + 8] = data[other : other + 8]
        yield bytes(data)


@every_decoder
def test_the_unaltered_frame_is_accepted(name: str) -> None:
    aim = target(name)
    decoded = aim.decode(aim.frame)
    if aim.again:
        assert aim.again(decoded) == aim.frame


@every_decoder
def test_no_altered_frame_is_ever_accepted(name: str) -> None:
    aim = target(name)
    for data in mutations(aim.frame, 1_500, seed=len(name)):
        if data == aim.frame:
            continue
        with pytest.raises(MalformedFrame):
            aim.decode(data)


def resealed(data: bytes, rng: np.random.Generator) -> bytes | None:
    """The digest made right again and, mostly, the length and the names that would stop it at once."""
    if len(data) < HEADER_BYTES:
        return None
    head, body = bytearray(data[:HEAD]), data[HEADER_BYTES:]
    if rng.integers(8):
        head[:5] = b"HEPF\x01"
        struct.pack_into(">Q", head, HEAD - 8, len(body))
    return bytes(head) + hashlib.sha256(bytes(head) + body).digest() + body


def awkward(frame: bytes, rng: np.random.Generator) -> bytes:
    """A frame with one header field set to an awkward value: lengths, counts, levels and scales at their edges."""
    head = bytearray(frame)
    form, offset = [(">B", 5), (">B", 6), (">B", 7), (">I", 24), (">I", 28), (">h", 32), (">d", 34)][
        int(rng.integers(7))
    ]
    choices: list[Any] = [0, 1, 2, 3, 4, 7, 20, 64, 100, 255]
    if form == ">I":
        choices += [1 << 16, 1 << 24, 2**32 - 1]
    if form == ">d":
        choices = [0.0, -0.0, 1e-300, 27.5, 29.0, 30.0, 30.000001, 49.0, 60.0, 110.0, 1023.0, 1024.0, 8191.9, math.nan]
    struct.pack_into(form, head, offset, choices[int(rng.integers(len(choices)))])
    return bytes(head)


@every_decoder
def test_behind_the_digest_only_typed_errors_and_valid_contents(name: str) -> None:
    aim, rng = target(name), np.random.default_rng(len(name))
    accepted = refused = 0
    start = time.monotonic()
    count = 250 if name == "factors" else 800
    for place, mutated in enumerate(mutations(aim.frame, count, seed=100 + len(name))):
        data = resealed(awkward(aim.frame, rng) if place % 3 == 0 else mutated, rng)
        if data is None or data == aim.frame:
            continue
        try:
            decoded = aim.decode(data)
        except HepipeError:
            refused += 1
            continue
        accepted += 1
        if aim.again:
            assert aim.again(decoded) == data
    assert refused > accepted * (0.1 if name in ("fresh clear", "result clear") else 0.5)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("name", [name for name in TENSORS if name.endswith(("ckks", "complex"))])
def test_accepted_residues_are_below_their_primes(name: str) -> None:
    scheme = name.split()[1]
    aim, rng, parameters = target(name), np.random.default_rng(9), PARAMETERS[scheme]
    for mutated in mutations(aim.frame, 300, seed=17):
        data = resealed(mutated, rng)
        try:
            x = aim.decode(data or b"")
        except HepipeError:
            continue
        for item in (item for row in x.data for item in row):
            words = seal.take_apart(item.body, parameters.poly_modulus_degree).residues
            assert (words < np.array(parameters.primes_at(x.level), np.uint64)[:, None]).all()


# --- what passes the parser, inside SEAL -----------------------------------------------------------------------------

CHILD = """
    import dataclasses, sys
    import numpy as np
    from hepipe.errors import HepipeError
    from hepipe.schemes.base import PublicBundle
    from hepipe.schemes.parameters import TEST_INSECURE_CKKS
    from hepipe.schemes.registry import scheme_of
    from hepipe.schemes.frames import Kind, parse
    from hepipe.schemes.wire import pack_tensor, unpack_tensor

    scheme = scheme_of(TEST_INSECURE_CKKS)
    keys = scheme.keygen()
    bundle = PublicBundle(scheme.parameters, keys.public, keys.evaluation)
    decryptor, ev = scheme.decryptor(keys.secret), scheme.evaluator(bundle)
    fresh = scheme.encryptor(keys.secret).encrypt([[1.0]], 4.0)
    tensors = (fresh, ev.mul_plain(fresh, 0.5), ev.rerandomize(fresh))
    originals = [parse(pack_tensor(x, bundle), Kind.TENSOR) for x in tensors]
    rng, loaded, numbers, refused = np.random.default_rng(int(sys.argv[1])), 0, 0, 0
    while loaded < int(sys.argv[2]):
        frame = originals[rng.integers(3)]
        body = bytearray(frame.body)
        for _ in range(rng.integers(1, 5)):
            body[rng.integers(len(body))] ^= 1 << rng.integers(8)
        scale = frame.log_scale if rng.integers(3) else float(rng.uniform(0, 120))
        samples = int(rng.integers(1, 512))
        changed = dataclasses.replace(frame, samples=samples, log_scale=scale, body=bytes(body))
        try:
            x = unpack_tensor(changed.to_bytes(), bundle)
        except HepipeError:
            continue
        loaded += 1
        for use, *more in ((decryptor.decrypt,), (ev.add, x), (ev.mul_plain, 1.5), (ev.rerandomize,)):
            try:
                use(x, *more)
                numbers += 1
            except HepipeError:
                refused += 1
    print(loaded, numbers, refused)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_frames_that_pass_the_parser_never_crash_seal(seed: int) -> None:
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(seed), "1100"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2000:]
    loaded, numbers, refused = map(int, child.stdout.split())
    assert loaded == 1100
    assert numbers > 1100
    assert refused > 100


# --- tensors, one check at a time ------------------------------------------------------------------------------------


def changed(frame: bytes, kind: Kind, **fields: Any) -> bytes:
    return dataclasses.replace(parse(frame, kind), **fields).to_bytes()


@pytest.mark.parametrize(
    ("name", "fields", "error", "message"),
    [
        ("fresh paillier", {"samples": 0}, MalformedFrame, "is not one of these parameters"),
        ("fresh paillier", {"samples": 11}, MalformedFrame, "bytes of ciphertexts, expected"),
        ("fresh paillier", {"level": 2}, MalformedFrame, "is not one of these parameters"),
        ("fresh paillier", {"flags": SEEDED}, MalformedFrame, "only fresh CKKS ciphertexts are seeded"),
        ("fresh paillier", {"body": b"\0"}, MalformedFrame, "cannot hold 3 bounds"),
        ("fresh paillier", {"scheme": "ckks"}, KeyMismatch, "a ckks frame"),
        ("fresh paillier", {"key_id": "00" * 16}, KeyMismatch, "expected key"),
        ("result ckks", {"flags": SEEDED}, MalformedFrame, "only fresh CKKS ciphertexts are seeded"),
        ("fresh ckks", {"flags": 0}, MalformedFrame, "bytes of ciphertexts, expected"),
        ("fresh ckks", {"log_scale": 109.5}, MalformedFrame, "does not fit the modulus at level 2"),
        ("fresh ckks", {"log_scale": 2000.0}, MalformedFrame, "does not fit the modulus at level 2"),
        ("result ckks", {"log_scale": 49.5}, MalformedFrame, "does not fit the modulus at level 0"),
        ("fresh ckks", {"samples": 1 << 24}, MalformedFrame, "bytes of ciphertexts, expected"),
    ],
)
def test_a_tensor_frame_fits_its_parameters(name: str, fields: Any, error: type[HepipeError], message: str) -> None:
    aim = target(name)
    with pytest.raises(error, match=message):
        aim.decode(changed(aim.frame, Kind.TENSOR, **fields))


@pytest.mark.parametrize("name", ["fresh clear", "fresh paillier", "fresh ckks"])
def test_a_bound_is_a_power_of_two_that_a_double_holds(name: str) -> None:
    aim = target(name)
    body = parse(aim.frame, Kind.TENSOR).body
    for bits in (1024, -1024, 32767, -32768):
        with pytest.raises(MalformedFrame, match="a bound beyond the range of a double"):
            aim.decode(changed(aim.frame, Kind.TENSOR, body=struct.pack(">h", bits) + body[2:]))
    assert aim.decode(changed(aim.frame, Kind.TENSOR, body=struct.pack(">h", 5) + body[2:])).bound[0] == 32


def test_a_bound_of_zero_travels_as_the_smallest_power_of_two() -> None:
    ev: Any = scheme_of(PARAMETERS["clear"]).evaluator(keys_of("clear"))
    zero = scheme_of(PARAMETERS["clear"]).encryptor(keys_of("clear").secret).encrypt(0 * VALUES, 0.0)
    found = unpack_tensor(pack_tensor(ev.add(zero, 0.0), bundle_of("clear")), bundle_of("clear"))
    assert (found.bound == 2.0**-1023).all()


def test_a_clear_value_that_is_not_finite_is_refused() -> None:
    aim = target("fresh clear")
    body = parse(aim.frame, Kind.TENSOR).body
    for value in (math.nan, math.inf):
        with pytest.raises(MalformedFrame, match="not finite"):
            aim.decode(changed(aim.frame, Kind.TENSOR, body=body[:-8] + struct.pack(">d", value)))


@pytest.mark.parametrize("value", [0, 1, "n", "n squared", "all bits"])
def test_what_is_no_paillier_ciphertext_is_refused(value: int | str) -> None:
    aim, n = target("fresh paillier"), int(keys_of("paillier").public.n)
    numbers = {"n": n, "n squared": n * n, "all bits": 2**2048 - 1}
    number = numbers[value] if isinstance(value, str) else value
    body = parse(aim.frame, Kind.TENSOR).body
    with pytest.raises(MalformedFrame):
        aim.decode(changed(aim.frame, Kind.TENSOR, body=body[:-256] + number.to_bytes(256, "big")))


@pytest.mark.parametrize("name", ["fresh ckks", "result ckks"])
def test_a_ckks_ciphertext_that_hides_nothing_is_refused(name: str) -> None:
    aim = target(name)
    body = parse(aim.frame, Kind.TENSOR).body
    piece = (len(body) - 6) // 3
    half = piece // 2 if name == "result ckks" else piece - 64
    zeroed = (
        body[: -half if name == "result ckks" else -piece]
        + b"\0" * half
        + (body[-64:] if name == "fresh ckks" else b"")
    )
    with pytest.raises(MalformedFrame, match="its last polynomial is zero"):
        aim.decode(changed(aim.frame, Kind.TENSOR, body=zeroed))


def test_a_ckks_ciphertext_that_hides_nothing_modulo_one_prime_is_refused() -> None:
    """Its c1 is zero modulo q0 only: at level 0, where a result leaves, it would be in the clear."""
    primes, degree = TEST_INSECURE_CKKS.primes_at(1), TEST_INSECURE_CKKS.poly_modulus_degree
    residues = np.ones((2, len(primes), degree), np.uint64)

    def unpacked() -> CipherTensor:
        body = b"\0\1" + seal.pack_residues(residues, primes)
        frame = Frame(Kind.TENSOR, "ckks", bundle_of("ckks").key_id, 1, 1, 1, 30.0, body)
        return unpack_tensor(frame.to_bytes(), bundle_of("ckks"))

    assert unpacked().level == 1
    residues[1, 0] = 0
    with pytest.raises(MalformedFrame, match="zero modulo a prime"):
        unpacked()


@pytest.mark.parametrize("name", ["fresh paillier", "fresh ckks", "keys ckks"])
def test_false_counts_allocate_nothing(name: str) -> None:
    aim = target(name)
    kind = Kind.PUBLIC_KEYS if name.startswith("keys") else Kind.TENSOR
    data = changed(aim.frame, kind, samples=1 << 24, features=1 << 15)
    tracemalloc.start()
    with pytest.raises(MalformedFrame):
        aim.decode(data)
    assert tracemalloc.get_traced_memory()[1] < 10 * len(data) + 1_000_000
    tracemalloc.stop()


# --- keys, one check at a time ---------------------------------------------------------------------------------------


def key_frame(name: str, parameters: dict[str, Any] | bytes | None = None, keys: bytes | None = None) -> bytes:
    """The key frame of a scheme with other parameters, or other key material."""
    frame = parse(target(f"keys {name}").frame, Kind.PUBLIC_KEYS)
    (size,) = struct.unpack_from(">I", frame.body)
    text, material = frame.body[4 : 4 + size], frame.body[4 + size :]
    if isinstance(parameters, dict):
        fields = json.loads(text) | parameters
        fields = {key: value for key, value in fields.items() if value != "absent"}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    elif parameters is not None:
        text = parameters
    body = struct.pack(">I", len(text)) + text + (material if keys is None else keys)
    return dataclasses.replace(frame, body=body).to_bytes()


@pytest.mark.parametrize(
    ("name", "parameters", "error"),
    [
        ("ckks", {"poly_modulus_degree": 1000}, InsecureParameters),
        ("ckks", {"poly_modulus_degree": "1024"}, MalformedFrame),
        ("ckks", {"coeff_modulus_bits": 50}, MalformedFrame),
        ("ckks", {"coeff_modulus_bits": ["a", "b"]}, OutOfRange),
        ("ckks", {"coeff_modulus_bits": [50.5, 30, 30, 50]}, OutOfRange),
        ("ckks", {"coeff_modulus_bits": []}, OutOfRange),
        ("ckks", {"coeff_modulus_bits": [20] * 40, "poly_modulus_degree": 32768}, OutOfRange),
        ("ckks", {"log_scale": True}, MalformedFrame),
        ("ckks", {"log_scale": 1e308}, OutOfRange),
        ("ckks", {"log_scale": -3.0}, OutOfRange),
        ("ckks", {"tail_bits": -1.0}, OutOfRange),
        ("ckks", {"standard_bits": 64}, InsecureParameters),
        ("ckks", {"complex_slots": 1}, MalformedFrame),
        ("ckks", {"insecure": False}, InsecureParameters),
        ("ckks", {"extra": 1}, MalformedFrame),
        ("ckks", {"log_scale": "absent"}, MalformedFrame),
        ("ckks", {"log_scale": 31.0}, KeyMismatch),
        ("complex", {"complex_slots": False}, MalformedFrame),
        ("paillier", {"modulus_bits": 1 << 60}, OutOfRange),
        ("paillier", {"modulus_bits": 15424}, OutOfRange),
        ("paillier", {"modulus_bits": 960, "lanes": 9}, MalformedFrame),
        ("paillier", {"lane_bits": -5}, OutOfRange),
        ("paillier", {"lanes": 0}, OutOfRange),
        ("paillier", {"log_scale": 28.5}, OutOfRange),
        ("paillier", {"log_scale": -1.0}, OutOfRange),
        ("paillier", {"depth": -1}, OutOfRange),
        ("paillier", {"insecure": False}, InsecureParameters),
        ("clear", {"name": "paillier"}, MalformedFrame),
        ("clear", {"security_bits": 256}, MalformedFrame),
        ("clear", {"slots": 0}, OutOfRange),
        ("clear", {"depth": -1}, OutOfRange),
    ],
)
def test_parameters_of_a_key_frame_are_checked(name: str, parameters: Any, error: type[HepipeError]) -> None:
    with pytest.raises(error):
        unpack_keys(key_frame(name, parameters), allow_insecure=True)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b'{"depth": 1}',
        b'{"log_scale":NaN}',
        b'{"log_scale":1e400}',
        b"[" * 4000,
        b"\xff\xfe",
        b'{"depth":1,"depth":1}',
        pickle.dumps({"depth": 1}),
        b"x" * 5000,
    ],
)
def test_parameters_that_are_not_canonical_json_are_refused(text: bytes) -> None:
    for name in ("clear", "paillier", "ckks"):
        with pytest.raises(MalformedFrame):
            unpack_keys(key_frame(name, text), allow_insecure=True)


def test_a_key_frame_has_no_other_header_than_its_own() -> None:
    aim = target("keys paillier")
    for fields in ({"samples": 1}, {"features": 1}, {"level": 1}, {"log_scale": 1.0}, {"flags": SEEDED}):
        with pytest.raises(MalformedFrame, match="a key frame with the shape"):
            aim.decode(changed(aim.frame, Kind.PUBLIC_KEYS, **fields))
    with pytest.raises(MalformedFrame, match="no parameters where a key frame has them"):
        aim.decode(changed(aim.frame, Kind.PUBLIC_KEYS, body=b"\0\0"))


def test_key_material_has_its_exact_length() -> None:
    with pytest.raises(MalformedFrame, match="the clear scheme has no key material"):
        unpack_keys(key_frame("clear", keys=b"\0"))
    for keys in (b"", b"\1" * 127, b"\1" * 129):
        with pytest.raises(MalformedFrame, match="a modulus of"):
            unpack_keys(key_frame("paillier", keys=keys), allow_insecure=True)
    for keys in (b"", b"\0" * (1024 * 22 + 64)):
        with pytest.raises(MalformedFrame, match="bytes of CKKS keys"):
            unpack_keys(key_frame("ckks", keys=keys), allow_insecure=True)


def test_a_weak_modulus_is_refused_even_in_a_sound_frame() -> None:
    n = 65537 * ((1 << 1006) + 1)
    for weak, error in ((15, MalformedFrame), ((1 << 1023) + 2, MalformedFrame), (3 * n, InsecureParameters)):
        with pytest.raises(error):
            unpack_keys(key_frame("paillier", keys=(weak | (weak == 3 * n)).to_bytes(128, "big")), allow_insecure=True)


def test_a_frame_that_names_another_key_is_refused() -> None:
    for name in ("paillier", "ckks"):
        frame = dataclasses.replace(parse(target(f"keys {name}").frame, Kind.PUBLIC_KEYS), key_id="00" * 16)
        with pytest.raises(KeyMismatch, match="names key 00000000 but holds key"):
            unpack_keys(frame.to_bytes(), allow_insecure=True)


@pytest.mark.parametrize("name", ["paillier", "ckks"])
def test_parameters_of_the_tests_need_leave(name: str) -> None:
    with pytest.raises(InsecureParameters, match="allow_insecure=True"):
        unpack_keys(target(f"keys {name}").frame)


@pytest.mark.parametrize("name", ["paillier", "ckks"])
def test_no_frame_holds_the_secret_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = keys_of(name).secret
    if name == "paillier":
        pieces = [int(v).to_bytes(64, order) for v in (secret.p, secret.q) for order in ("big", "little")]
        pieces += [piece[16:48] for piece in pieces]
    else:
        material = seal.save(secret._handle)
        pieces = [material[start : start + 32] for start in range(64, len(material) - 32, 1024)]
    monkeypatch.setattr(keystore, "_COST", {"n": 2**4, "r": 8, "p": 1})
    save_keys(tmp_path / "stored", keys_of(name), PARAMETERS[name], "a passphrase of length")
    frames = [target(f"{what} {name}").frame for what in ("keys", "fresh", "result")]
    frames += [target("factors").frame] if name == "paillier" else []
    frames += [(tmp_path / "stored").read_bytes()]
    assert not [piece for piece in pieces for frame in frames if piece in frame]


def test_the_integer_reference_and_other_keys_do_not_travel() -> None:
    exact = scheme_of(ClearParameters(exact=True))
    keys = exact.keygen()
    x = exact.encryptor(keys.secret).encrypt(VALUES, 4.0)
    with pytest.raises(HepipeError, match="integers of any size"):
        pack_tensor(x, PublicBundle(exact.parameters, keys.public, keys.evaluation))
    with pytest.raises(KeyMismatch, match="cannot travel under key"):
        pack_tensor(x, bundle_of("clear"))


def test_a_secure_key_needs_no_leave() -> None:
    parameters = PaillierParameters()
    keys = scheme_of(parameters).keygen()
    frame = pack_keys(PublicBundle(parameters, keys.public, keys.evaluation))
    assert unpack_keys(frame).key_id == keys.public.key_id


@pytest.mark.parametrize("log_scale", [28, 28.0])
def test_parameters_travel_whether_their_scale_is_written_as_integer_or_float(log_scale: float) -> None:
    parameters = dataclasses.replace(TEST_INSECURE_PAILLIER, log_scale=log_scale)
    bundle = PublicBundle(parameters, keys_of("paillier").public, keys_of("paillier").evaluation)
    assert unpack_keys(pack_keys(bundle), allow_insecure=True).parameters == parameters


def test_a_frame_of_another_kind_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="one of"):
        unpack_tensor(target("keys ckks").frame, bundle_of("ckks"))
    with pytest.raises(MalformedFrame, match="one of"):
        unpack_keys(target("fresh ckks").frame)
    assert isinstance(parse(target("fresh ckks").frame, Kind.TENSOR), Frame)
