"""Regenerates `ckks/`: SEAL ciphertexts with their secret keys and the slots they must decrypt to.

Run: python tests/golden/make_ckks.py [directory]

Every key and ciphertext has its own generator, seeded from its name, so a second run writes the same bytes. The secret
keys are public: nothing but a test may ever use them.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from ckks_oracle import Slots, decrypt_slots, parse_ciphertext

WARNING = "INSECURE: the secret keys are published with the ciphertexts; test data only"
NOTES = {
    "Seeded": "the uniform polynomial is stored as the 64-byte seed of a Blake2Xb generator",
    "Rejection": "about 1 in 35 words drawn from the seed exceeds the largest multiple of the prime and is drawn again",
    "PublicKey": "encrypted under the public key",
    "Evaluated": "the result of homomorphic operations",
    "Size3": "a product that was not relinearised: c0 + c1 s + c2 s^2",
    "Unrescaled": "the scale is the product of two scales",
    "Rotated": "made with Galois keys",
    "ComplexSlots": "the imaginary parts are not zero",
    "InsecureParameters": "below 128 bits even with a secret key that is kept secret",
}


@dataclass(frozen=True)
class Parameters:
    """One parameter set; `primes` are given when they are not the largest of their size."""

    name: str
    degree: int
    bits: tuple[int, ...]
    log_scale: int
    primes: tuple[int, ...] = ()
    secure: bool = True


@dataclass(frozen=True)
class Vector:
    """Something SEAL can save, its slots, and by how many bits its noise may exceed that of a fresh symmetric one."""

    saved: Any
    slots: Slots
    comment: str
    flags: tuple[str, ...] = ()
    noise_bits: int = 0
    log_scale: int | None = None  # of the operands, where it is not the parameter set's own


class Lab:
    """A parameter set with its secret key; every random choice starts from a seed named by a label."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.context = self.seeded("context")
        self.evaluator = seal.Evaluator(self.context)
        self.secret = seal.KeyGenerator(self.seeded("secret key")).secret_key()
        self.keys = seal.KeyGenerator(self.seeded("evaluation keys"), self.secret)
        self.slot_count = parameters.degree // 2
        # A special prime divides a public-key encryption's noise away; without one it is sqrt(N) times larger.
        self.public_noise_bits = 0 if self.context.using_keyswitching() else 4

    def seeded(self, label: str) -> Any:
        """A context whose generator always starts from one seed: for a single key or a single encryption."""
        p, parms = self.parameters, seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        seed = hashlib.blake2b(f"hepipe golden {p.name} {label}".encode()).digest()
        parms.set_poly_modulus_degree(p.degree)
        primes = [seal.Modulus(prime) for prime in p.primes] or seal.CoeffModulus.Create(p.degree, list(p.bits))
        parms.set_coeff_modulus(primes)
        parms.set_random_generator(seal.Blake2xbPRNGFactory(list(struct.unpack("<8Q", seed))))
        level = seal.SEC_LEVEL_TYPE.TC128 if p.secure else seal.SEC_LEVEL_TYPE.NONE
        return seal.SEALContext(parms, True, level)

    def primes(self) -> list[int]:
        return [modulus.value() for modulus in self.context.key_context_data().parms().coeff_modulus()]

    def message(self, label: str, complex_: bool = False) -> Slots:
        """Multiples of 1/256 in [-1, 1]: sums, products and cubes of them are exact in a double."""
        entropy = hashlib.blake2b(f"{self.parameters.name} {label}".encode(), digest_size=8).digest()
        draw = np.random.default_rng(int.from_bytes(entropy, "little")).integers
        parts = draw(-256, 257, (2, self.slot_count)) / 256
        slots: Slots = parts[0] + 1j * parts[1] * complex_
        return slots

    def encode(self, values: Slots | complex, log_scale: int | None = None, last_level: bool = False) -> Any:
        level = self.context.last_parms_id() if last_level else self.context.first_parms_id()
        listed = values.tolist() if isinstance(values, np.ndarray) else values
        plain = seal.Plaintext()
        seal.CKKSEncoder(self.context).encode(listed, level, 2.0 ** (log_scale or self.parameters.log_scale), plain)
        return plain

    def symmetric(self, label: str, plain: Any) -> Any:
        """Saved with the seed of its uniform half."""
        return seal.Encryptor(self.seeded(label), self.secret).encrypt_symmetric(plain)

    def unseeded(self, label: str, plain: Any) -> Any:
        out = seal.Ciphertext()
        seal.Encryptor(self.seeded(label), self.secret).encrypt_symmetric(plain, out)
        return out

    def public(self, label: str, plain: Any) -> Any:
        key, out = seal.PublicKey(), seal.Ciphertext()
        seal.KeyGenerator(self.seeded("public key"), self.secret).create_public_key(key)
        seal.Encryptor(self.seeded(label), key).encrypt(plain, out)
        return out

    def operand(self, label: str, log_scale: int | None = None, complex_: bool = True) -> tuple[Any, Slots]:
        slots = self.message(label, complex_)
        return self.unseeded(label, self.encode(slots, log_scale)), slots

    def apply(self, operation: str, *operands: Any) -> Any:
        out = seal.Ciphertext()
        getattr(self.evaluator, operation)(*operands, out)
        return out

    def product(self, x: Any, y: Any) -> Any:
        """Multiplied, relinearised, rescaled."""
        keys = seal.RelinKeys()
        self.keys.create_relin_keys(keys)
        return self.apply("rescale_to_next", self.apply("relinearize", self.apply("multiply", x, y), keys))

    def galois(self) -> Any:
        keys = seal.GaloisKeys()
        self.keys.create_galois_keys(keys)
        return keys


Recipe = Callable[[Lab], Vector]

# --- fresh encryptions -----------------------------------------------------------------------------------------------


def seeded_real(lab: Lab) -> Vector:
    x = lab.message("seeded real")
    return Vector(lab.symmetric("seeded real", lab.encode(x)), x, "symmetric encryption, real slots", ("Seeded",))


def seeded_complex(lab: Lab) -> Vector:
    x = lab.message("seeded complex", complex_=True)
    saved = lab.symmetric("seeded complex", lab.encode(x))
    return Vector(saved, x, "symmetric encryption, complex slots", ("Seeded", "ComplexSlots"))


def seeded_constant(lab: Lab) -> Vector:
    x = np.full(lab.slot_count, -0.625 + 0j)
    return Vector(lab.symmetric("constant", lab.encode(-0.625)), x, "symmetric encryption of a constant", ("Seeded",))


def seeded_zero(lab: Lab) -> Vector:
    x = np.zeros(lab.slot_count, complex)
    return Vector(lab.symmetric("zero", lab.encode(x)), x, "symmetric encryption of zero", ("Seeded",))


def seeded_short(lab: Lab) -> Vector:
    x = np.zeros(lab.slot_count, complex)
    x[:3] = [1, -2, 3]
    return Vector(lab.symmetric("short", lab.encode(x[:3])), x, "three values, the other slots zero", ("Seeded",))


def seeded_last_slot(lab: Lab) -> Vector:
    x = np.zeros(lab.slot_count, complex)
    x[-1] = 1j
    return Vector(lab.symmetric("last", lab.encode(x)), x, "only the last slot, i", ("Seeded", "ComplexSlots"))


def seeded_last_level(lab: Lab) -> Vector:
    x = lab.message("last level")
    saved = lab.symmetric("last level", lab.encode(x, last_level=True))
    return Vector(saved, x, "symmetric encryption at the last level", ("Seeded",))


def unseeded(lab: Lab) -> Vector:
    saved, x = lab.operand("unseeded", complex_=False)
    return Vector(saved, x, "symmetric encryption, both polynomials stored")


def public_real(lab: Lab) -> Vector:
    x = lab.message("public real")
    saved = lab.public("public real", lab.encode(x))
    return Vector(saved, x, "public-key encryption, real slots", ("PublicKey",), lab.public_noise_bits)


def public_complex(lab: Lab) -> Vector:
    x = lab.message("public complex", complex_=True)
    saved = lab.public("public complex", lab.encode(x))
    return Vector(
        saved, x, "public-key encryption, complex slots", ("PublicKey", "ComplexSlots"), lab.public_noise_bits
    )


# --- evaluated at one level ------------------------------------------------------------------------------------------


def evaluated(saved: Any, slots: Slots, comment: str, *flags: str, noise_bits: int = 0, **extra: int) -> Vector:
    return Vector(saved, slots, comment, ("Evaluated", "ComplexSlots", *flags), noise_bits, **extra)


def add(lab: Lab) -> Vector:
    (a, x), (b, y) = lab.operand("add left"), lab.operand("add right")
    return evaluated(lab.apply("add", a, b), x + y, "sum of two ciphertexts")


def subtract(lab: Lab) -> Vector:
    (a, x), (b, y) = lab.operand("subtract left"), lab.operand("subtract right")
    return evaluated(lab.apply("sub", a, b), x - y, "difference of two ciphertexts")


def add_plain(lab: Lab) -> Vector:
    (a, x), y = lab.operand("add plain"), lab.message("add plain, plain", complex_=True)
    return evaluated(lab.apply("add_plain", a, lab.encode(y)), x + y, "ciphertext plus plaintext")


def multiply_plain(lab: Lab) -> Vector:
    s = lab.parameters.log_scale - 8  # two scales have to fit under one prime
    (a, x), y = lab.operand("multiply plain", s), lab.message("multiply plain, plain", complex_=True)
    saved = lab.apply("multiply_plain", a, lab.encode(y, s))
    return evaluated(saved, x * y, "ciphertext times plaintext, not rescaled", "Unrescaled", log_scale=s)


def multiply_size3(lab: Lab) -> Vector:
    s = lab.parameters.log_scale - 8
    (a, x), (b, y) = lab.operand("size 3 left", s), lab.operand("size 3 right", s)
    flags, saved = ("Size3", "Unrescaled"), lab.apply("multiply", a, b)
    return evaluated(saved, x * y, "product of two ciphertexts, as it is", *flags, noise_bits=1, log_scale=s)


# --- evaluated down the chain ----------------------------------------------------------------------------------------


def multiply_rescale(lab: Lab) -> Vector:
    (a, x), (b, y) = lab.operand("multiply left"), lab.operand("multiply right")
    return evaluated(lab.product(a, b), x * y, "product, relinearised and rescaled", noise_bits=3)


def multiply_plain_rescale(lab: Lab) -> Vector:
    (a, x), y = lab.operand("rescale"), lab.message("rescale, plain", complex_=True)
    saved = lab.apply("rescale_to_next", lab.apply("multiply_plain", a, lab.encode(y)))
    return evaluated(saved, x * y, "ciphertext times plaintext, rescaled", noise_bits=1)


def cube(lab: Lab) -> Vector:
    a, x = lab.operand("cube")
    saved = lab.product(lab.product(a, a), lab.apply("mod_switch_to_next", a))
    return evaluated(saved, x**3, "third power: two levels", noise_bits=3)


def mod_switch(lab: Lab) -> Vector:
    a, x = lab.operand("mod switch")
    while a.parms_id() != lab.context.last_parms_id():
        a = lab.apply("mod_switch_to_next", a)
    return evaluated(a, x, "switched down to the last level")


def rotate(lab: Lab) -> Vector:
    a, x = lab.operand("rotate")
    saved = lab.apply("rotate_vector", a, 3, lab.galois())
    return evaluated(saved, np.roll(x, -3), "slots rotated left by three", "Rotated", noise_bits=2)


def conjugate(lab: Lab) -> Vector:
    a, x = lab.operand("conjugate")
    saved = lab.apply("complex_conjugate", a, lab.galois())
    return evaluated(saved, x.conj(), "slots conjugated", "Rotated", noise_bits=2)


def sum_of_slots(lab: Lab) -> Vector:
    a, x = lab.operand("sum of slots")
    keys, step = lab.galois(), 1
    while step < lab.slot_count:
        a = lab.apply("add", a, lab.apply("rotate_vector", a, step, keys))
        step *= 2
    return evaluated(a, np.full_like(x, x.sum()), "the sum of all slots in every slot", "Rotated", noise_bits=4)


# --- the files -------------------------------------------------------------------------------------------------------

FRESH: list[Recipe] = [seeded_real, seeded_complex, seeded_constant, seeded_zero, seeded_short, seeded_last_slot]
ONE_LEVEL: list[Recipe] = [unseeded, public_complex, add, add_plain, multiply_plain, multiply_size3]
CHAIN: list[Recipe] = [subtract, multiply_rescale, multiply_plain_rescale, cube, mod_switch]
GALOIS: list[Recipe] = [rotate, conjugate, sum_of_slots]

SETS: list[tuple[Parameters, list[Recipe]]] = [
    (Parameters("n1024", 1024, (27,), 18), [seeded_real, seeded_complex, seeded_constant, public_real]),
    (Parameters("n2048", 2048, (54,), 30), [*FRESH, *ONE_LEVEL]),
    (Parameters("n4096", 4096, (60, 49), 40), [seeded_real, seeded_constant, public_complex]),
    (Parameters("n4096-product", 4096, (36, 36, 37), 34), [multiply_rescale]),
    (Parameters("n8192", 8192, (60, 40, 60), 40), [multiply_rescale]),
    (
        Parameters("n1024-insecure-chain", 1024, (50, 30, 30, 60), 30, secure=False),
        [seeded_real, seeded_last_level, public_real, *CHAIN, *GALOIS],
    ),
    (
        Parameters("n1024-insecure-rejection", 1024, (60,), 40, (1054099661354784769,), secure=False),
        [seeded_real, seeded_complex],
    ),
]


def save(saveable: Any, path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    saveable.save(str(path))
    return path.read_bytes()


def tolerance(parameters: Parameters, vector: Vector) -> float:
    """Worst slot error: 2^-(log scale - log N - 1) when fresh, and the vector's noise bits on top."""
    log_scale = vector.log_scale or parameters.log_scale
    return math.ldexp(parameters.degree, 1 + vector.noise_bits - log_scale)


def entry(lab: Lab, recipe: Recipe, case: int, folder: Path) -> tuple[dict[str, Any], Slots]:
    vector, p, primes = recipe(lab), lab.parameters, lab.primes()
    stream = save(vector.saved, folder / p.name / f"{case:02}.seal")
    parsed = parse_ciphertext(stream, p.degree, primes)
    error = abs(decrypt_slots(stream, (folder / p.name / "secret.seal").read_bytes(), p.degree, primes) - vector.slots)
    if error.max() > tolerance(p, vector):
        raise SystemExit(f"{p.name} {recipe.__name__}: error {error.max():.3g} over {tolerance(p, vector):.3g}")
    if parsed.seeded != ("Seeded" in vector.flags):
        raise SystemExit(f"{p.name} {recipe.__name__}: unexpected layout")
    flags = [*vector.flags, *([] if p.secure else ["InsecureParameters"]), *(["Rejection"] if p.primes else [])]
    fields = {"size": parsed.words.shape[0], "level": len(parsed.primes), "scale": parsed.scale}
    head = {"tcId": case, "comment": vector.comment, "file": f"{p.name}/{case:02}.seal", **fields}
    return {**head, "tolerance": tolerance(p, vector), "result": "valid", "flags": flags}, vector.slots


def group(parameters: Parameters, recipes: list[Recipe], cases: Iterator[int], folder: Path) -> dict[str, Any]:
    lab = Lab(parameters)
    save(lab.secret, folder / parameters.name / "secret.seal")
    pairs = [entry(lab, recipe, next(cases), folder) for recipe in recipes]
    slots: dict[str, Any] = {f"{test['tcId']:02}": x if x.imag.any() else x.real for test, x in pairs}
    np.savez_compressed(folder / parameters.name / "slots.npz", **slots)
    files = {"secretKey": f"{parameters.name}/secret.seal", "slots": f"{parameters.name}/slots.npz"}
    head = {"name": parameters.name, "degree": parameters.degree, "primes": [hex(prime)[2:] for prime in lab.primes()]}
    return {**head, "insecureParameters": not parameters.secure, **files, "tests": [test for test, _ in pairs]}


def generate(folder: Path) -> None:
    cases = iter(range(1, 1000))
    groups = [group(parameters, recipes, cases, folder) for parameters, recipes in SETS]
    head = {"algorithm": "CKKS", "generator": {"name": "tenseal.sealapi", "version": version("tenseal")}}
    total = sum(len(g["tests"]) for g in groups)
    manifest = {**head, "warning": WARNING, "notes": NOTES, "numberOfTests": total, "testGroups": groups}
    (folder / "vectors.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "ckks")
