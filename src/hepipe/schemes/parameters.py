"""Checked, immutable parameters: how many levels, how much room at each, what error, how secure.

One vocabulary for every scheme. A fresh ciphertext has ``depth`` levels; a product takes one. At each level a value v
fits when |v| * 2**log_scale stays below 2**capacity_bits. A product multiplies the scales; a levelled scheme then
divides by a prime of the modulus (``rescale_bits``), an additive one does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from hepipe.errors import BudgetExhausted, InsecureParameters, OutOfRange
from hepipe.schemes.primes import ntt_primes

# Largest log2(q), special prime included, for a ternary secret and sigma = 3.2, against classical attacks:
# HomomorphicEncryption.org Standard v1.1, table 1; the same numbers as SEAL's hestdparms.h.
MAX_LOG_Q = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
NOISE_SIGMA = 3.2
# A deviation of five sigma in a slot: probability 2**-20.7 two-sided.
TAIL_SIGMAS = 5.0
# Bits that a mask has over the value it hides: a statistical distance below 2**-79 from a mask alone.
STATISTICAL_BITS = 80
# Rounding noise e * s in a slot is a Gaussian times |s(zeta)|, whose square is exponential over the slots: Laplace, not
# Gaussian. Its two-sided 2**-20 quantile is 9.8 sigma; the factor brings it to the TAIL_SIGMAS it is multiplied with.
LAPLACE_TAIL = 9.8 / TAIL_SIGMAS
# NIST SP 800-57 Part 1, table 2: factoring-based keys.
FACTORING_SECURITY = {15360: 256, 7680: 192, 3072: 128, 2048: 112, 1024: 80}
MODULUS_BITS = {0: 1024, 112: 2048, 128: 3072, 192: 7680, 256: 15360}
"""Paillier modulus for a security asked for; 0 is the insecure size of tests."""
MOST_MODULUS_BITS = max(FACTORING_SECURITY)


class Parameters(Protocol):
    """What the bookkeeping needs to know of any scheme."""

    @property
    def name(self) -> str:
        """The scheme's name."""
        ...

    @property
    def depth(self) -> int:
        """Products a fresh ciphertext affords."""
        ...

    @property
    def slots(self) -> int:
        """Samples per ciphertext."""
        ...

    @property
    def log_scale(self) -> float:
        """log2 of the scale of a fresh ciphertext."""
        ...

    @property
    def security_bits(self) -> int:
        """Classical security in bits; 0 where nothing is encrypted."""
        ...

    @property
    def insecure(self) -> bool:
        """True for sets that exist for tests only."""
        ...

    def rescale_bits(self, level: int) -> float:
        """log2 of what a product made at ``level`` is divided by; 0 where it keeps its whole scale."""
        ...

    def plain_bits(self, level: int) -> float:
        """log2 of the scale at which a plaintext factor is encoded at ``level``."""
        ...

    def capacity_bits(self, level: int) -> float:
        """log2 of the bound on |value| * scale at ``level``."""
        ...

    def fresh_error(self) -> tuple[float, float]:
        """(worst-case, standard deviation) of the error that encoding and encryption add to a value."""
        ...

    def product_error(self, log_scale: float, level: int) -> float:
        """Standard deviation of the error that finishing a product at ``level`` adds, at the result's scale."""
        ...

    def switching_error(self, log_scale: float, level: int) -> float:
        """Standard deviation, in the worst slot, of the error that a rotation at ``level`` adds."""
        ...

    def ciphertext_bytes(self, level: int, fresh: bool = False) -> int:
        """Bytes of one ciphertext on the wire, ``fresh`` from the key owner or computed."""
        ...


def spend(level: int, depth: int, operation: str) -> int:
    """The level after one product, or BudgetExhausted with what would have been enough."""
    if level < 1:
        raise BudgetExhausted(f"{operation} needs 1 level, {level} left of {depth}: plan with depth >= {depth + 1}")
    return level - 1


@dataclass(frozen=True)
class ClearParameters:
    """No encryption. ``exact`` computes with scaled integers, as Paillier does, else with float64."""

    depth: int = 8
    log_scale: float = 40
    log_plain_scale: float = 40
    exact: bool = False
    slots: int = 1 << 20

    # Not fields: a key frame must not be able to claim another name, or security.
    name = "clear"
    security_bits = 0
    insecure = False

    def __post_init__(self) -> None:
        if self.depth < 0 or self.slots < 1 or not _scales(self.log_scale, self.log_plain_scale):
            raise OutOfRange("depth must be >= 0, slots >= 1, and scales from 0 to 8191 bits")
        if self.exact and not _whole(self.log_scale, self.log_plain_scale):
            raise OutOfRange("scales of the integer reference are whole bits")

    def rescale_bits(self, level: int) -> float:
        """Exact integers grow like Paillier's; floats keep their scale like CKKS."""
        return 0.0 if self.exact else self.log_plain_scale

    def plain_bits(self, level: int) -> float:
        """The scale of a plaintext factor."""
        return self.log_plain_scale

    def capacity_bits(self, level: int) -> float:
        """Integers of any size, or the range of a double."""
        return math.inf if self.exact else 1000.0

    def fresh_error(self) -> tuple[float, float]:
        """Only exact integers round their input."""
        return (2.0 ** -(self.log_scale + 1) if self.exact else 0.0), 0.0

    def product_error(self, log_scale: float, level: int) -> float:
        """Products are exact."""
        return 0.0

    def switching_error(self, log_scale: float, level: int) -> float:
        """Rotations move numbers."""
        return 0.0

    def ciphertext_bytes(self, level: int, fresh: bool = False) -> int:
        """A float64 per slot would travel; counted per sample elsewhere, so 8 bytes a slot is never reached here."""
        return 8


@dataclass(frozen=True)
class PaillierParameters:
    """Paillier over an n of ``modulus_bits``; the plaintext holds ``lanes`` signed lanes of ``lane_bits`` each.

    Values are fixed-point with one scale known to both sides, so no exponent travels (protocols.md T5: an exponent
    gives away the size of each weight).
    """

    modulus_bits: int = 3072
    log_scale: float = 28
    log_plain_scale: float = 28
    lane_bits: int = 96
    lanes: int = 31
    depth: int = 1
    insecure: bool = False

    name = "paillier"

    def __post_init__(self) -> None:
        if self.modulus_bits < 2048 and not self.insecure:
            raise InsecureParameters(
                f"modulus_bits={self.modulus_bits} gives about {self.security_bits} bits of security: use 3072 "
                "(128 bits), or 2048 (112 bits); smaller keys exist only as TEST_INSECURE sets"
            )
        if self.modulus_bits % 64 or self.lanes < 1 or self.lane_bits < 3 or self.depth < 0:
            raise OutOfRange("modulus_bits must be a multiple of 64, lanes >= 1, lane_bits >= 3 and depth >= 0")
        if self.modulus_bits > MOST_MODULUS_BITS:  # a peer's key is checked by powers modulo n
            raise OutOfRange(f"modulus_bits={self.modulus_bits}: {MOST_MODULUS_BITS} give 256 bits of security already")
        if not _scales(self.log_scale, self.log_plain_scale) or not _whole(self.log_scale, self.log_plain_scale):
            raise OutOfRange("Paillier scales are whole bits, from 0 to 8191")
        if self.lanes * self.lane_bits > self.modulus_bits - 2:
            raise OutOfRange(
                f"{self.lanes} lanes of {self.lane_bits} bits need {self.lanes * self.lane_bits + 2} bits, "
                f"the modulus has {self.modulus_bits}: use at most {(self.modulus_bits - 2) // self.lane_bits} lanes"
            )

    @property
    def slots(self) -> int:
        """Samples per ciphertext."""
        return self.lanes

    @property
    def security_bits(self) -> int:
        """By NIST SP 800-57 for a modulus of this size. Not post-quantum."""
        return next((bits for size, bits in FACTORING_SECURITY.items() if self.modulus_bits >= size), 0)

    def rescale_bits(self, level: int) -> float:
        """A product keeps its whole scale: nothing divides under Paillier."""
        return 0.0

    def plain_bits(self, level: int) -> float:
        """The scale of a plaintext factor."""
        return self.log_plain_scale

    def capacity_bits(self, level: int) -> float:
        """A lane holds |v| < 2**(lane_bits - 1); the bit below that is a guard for the rounding of inputs."""
        return self.lane_bits - 2

    def fresh_error(self) -> tuple[float, float]:
        """Rounding to the fixed-point grid; encryption itself is exact."""
        return 2.0 ** -(self.log_scale + 1), 0.0

    def product_error(self, log_scale: float, level: int) -> float:
        """Products of integers are exact."""
        return 0.0

    def switching_error(self, log_scale: float, level: int) -> float:
        """Lanes do not rotate."""
        return 0.0

    def ciphertext_bytes(self, level: int, fresh: bool = False) -> int:
        """A residue modulo n**2."""
        return self.modulus_bits // 4


@dataclass(frozen=True)
class CkksParameters:
    """CKKS over Z[X]/(X^N + 1), N = ``poly_modulus_degree``.

    coeff_modulus_bits  sizes of the primes: q0, then one per rescaling, last the special prime of key switching and
                        of public-key encryption; a single prime is q0 alone
    log_scale           log2 of the scale of a fresh ciphertext
    tail_bits           > 0: log2 of the plaintext scale of one last product that q0 holds without rescaling
    complex_slots       two samples per slot, as real and imaginary part: linear circuits only
    rotations           steps that samples can be rotated by: one Galois key each, kept sorted and modulo the slots
    standard_bits       the column of the standard that log2(q) is checked against
    """

    poly_modulus_degree: int = 8192
    coeff_modulus_bits: tuple[int, ...] = (60, 40, 40, 60)
    log_scale: float = 40.0
    tail_bits: float = 0.0
    complex_slots: bool = False
    standard_bits: int = 128
    insecure: bool = False
    rotations: tuple[int, ...] = ()

    name = "ckks"

    def __post_init__(self) -> None:
        object.__setattr__(self, "coeff_modulus_bits", tuple(self.coeff_modulus_bits))
        if not all(isinstance(bits, int) for bits in self.coeff_modulus_bits):
            raise OutOfRange(f"coeff_modulus_bits={self.coeff_modulus_bits}: sizes of primes are whole numbers")
        bounds = MAX_LOG_Q.get(self.standard_bits)
        if bounds is None or self.poly_modulus_degree not in bounds:
            raise InsecureParameters(
                f"no bound on log2(q) is known for N={self.poly_modulus_degree} at {self.standard_bits} bits: "
                f"use N in {list(MAX_LOG_Q[128])} and 128, 192 or 256 bits"
            )
        total, limit = sum(self.coeff_modulus_bits), bounds[self.poly_modulus_degree]
        if total > limit and not self.insecure:
            raise InsecureParameters(
                f"log2(q)={total} at N={self.poly_modulus_degree} is {total - limit} bits over the standard's bound "
                f"of {limit} for {self.standard_bits} bits: drop a prime or double N"
            )
        if not self.coeff_modulus_bits or not all(20 <= bits <= 60 for bits in self.coeff_modulus_bits):
            raise OutOfRange("coeff_modulus_bits needs at least one prime, each of 20 to 60 bits")
        if len(self.coeff_modulus_bits) == 1 and not self.complex_slots:
            raise OutOfRange("products of ciphertexts need a special prime: add one, or set complex_slots")
        if not (_scales(self.log_scale, self.tail_bits) and self.log_scale < 1000 and self.tail_bits < 1000):
            raise OutOfRange(f"log_scale={self.log_scale}, tail_bits={self.tail_bits}: scales are from 0 to 1000 bits")
        if self.complex_slots and self.depth > 1:
            raise OutOfRange("complex slots carry linear circuits only: use depth 1")
        self._check_rotations()

    def _check_rotations(self) -> None:
        if not all(type(step) is int for step in self.rotations):
            raise OutOfRange(f"rotations={self.rotations}: steps are whole numbers")
        if self.rotations and self.complex_slots:
            raise OutOfRange("complex slots cannot be rotated: half of the samples are imaginary parts")
        object.__setattr__(self, "rotations", tuple(sorted({step % self.slots for step in self.rotations} - {0})))

    @property
    def sums_samples(self) -> bool:
        """Whether there is a rotation for every power of two, so that sums over all slots can be formed."""
        return not self.complex_slots and {1 << i for i in range(self.slots.bit_length() - 1)} <= set(self.rotations)

    @property
    def security_bits(self) -> int:
        """The column of the standard these parameters were checked against; 0 for TEST_INSECURE sets."""
        return 0 if self.insecure else self.standard_bits

    @property
    def depth(self) -> int:
        """One product per rescaling prime, and one more where q0 holds an unrescaled product."""
        return max(len(self.coeff_modulus_bits) - 2, 0) + (self.tail_bits > 0)

    @property
    def slots(self) -> int:
        """Samples per ciphertext."""
        return self.poly_modulus_degree // (1 if self.complex_slots else 2)

    @cached_property
    def coeff_modulus(self) -> tuple[int, ...]:
        """The primes themselves: the largest of each size that are 1 modulo 2N, as SEAL's CoeffModulus::Create."""
        return ntt_primes(self.poly_modulus_degree, self.coeff_modulus_bits)

    def chain_index(self, level: int) -> int:
        """SEAL's chain index of a ciphertext at ``level``: 0 is the smallest modulus, q0 alone."""
        return max(level - (self.tail_bits > 0), 0)

    def primes_at(self, level: int) -> tuple[int, ...]:
        """The primes of the modulus at ``level``."""
        return self.coeff_modulus[: self.chain_index(level) + 1]

    def rescale_bits(self, level: int) -> float:
        """The prime that a product at ``level`` is divided by; none at the tail."""
        index = self.chain_index(level)
        return math.log2(self.coeff_modulus[index]) if index else 0.0

    def plain_bits(self, level: int) -> float:
        """The dropped prime itself, so that rescaling restores the scale exactly; ``tail_bits`` at the tail."""
        return self.rescale_bits(level) or self.tail_bits

    def capacity_bits(self, level: int) -> float:
        """|value| * scale must stay below q / 2, or it wraps silently; SEAL's encoder wants q / 4.

        That also covers a complex slot, which is up to sqrt(2) larger than its parts.
        """
        return sum(math.log2(prime) for prime in self.primes_at(level)) - 2

    def _slot_std(self, coefficient_variance: float) -> float:
        # The canonical embedding sums N coefficients of unit-modulus weight; half the variance is in the real part.
        return math.sqrt(coefficient_variance * self.poly_modulus_degree / 2)

    def encoding_error(self, log_scale: float) -> float:
        """Standard deviation of what the encoder rounds: half a unit at most in each coefficient."""
        return self._slot_std(1 / 12) / 2**log_scale

    def fresh_error(self) -> tuple[float, float]:
        """Gaussian noise of symmetric encryption plus the rounding of the encoder."""
        return 0.0, self._slot_std(NOISE_SIGMA**2 + 1 / 12) / 2**self.log_scale

    def product_error(self, log_scale: float, level: int) -> float:
        """Rounding of both polynomials, one of them times the ternary secret: (1 + 2N/3) / 12 a coefficient.

        With one prime nothing rounds; there it is the noise of an encryption of zero, which no special prime divides:
        e + u e' + s e'', u and s ternary.
        """
        ternary = 2 * self.poly_modulus_degree / 3
        single = len(self.coeff_modulus_bits) == 1
        variance = NOISE_SIGMA**2 * (1 + 2 * ternary) if single else (1 + ternary) / 12
        return LAPLACE_TAIL * self._slot_std(variance) / 2**log_scale

    def switching_error(self, log_scale: float, level: int) -> float:
        """Rounding after the division by the special prime P, and the noise e_i of each key times a digit d_i < q_i.

        SEAL's digits lie in [0, q), not around 0: their mean q/2 stands in all coefficients, which in the slot nearest
        to 1, the first, sums up to N q / pi. So with q0 as large as P the first slot loses log2(N**1.5) bits: keep P
        some bits larger than q0 where samples are rotated.
        """
        digits = sum((prime / self.coeff_modulus[-1]) ** 2 for prime in self.primes_at(level))
        switched = digits * (self.poly_modulus_degree / math.pi) ** 2 * self._slot_std(NOISE_SIGMA**2) ** 2
        return math.hypot(self.product_error(log_scale, level), math.sqrt(switched) / 2**log_scale)

    def ciphertext_bytes(self, level: int, fresh: bool = False) -> int:
        """Two polynomials, or one and a 64-byte seed when the key owner encrypts; whole bytes a residue."""
        words = sum((prime.bit_length() + 7) // 8 for prime in self.primes_at(level)) * self.poly_modulus_degree
        return words + 64 if fresh else 2 * words


def _scales(*bits: float) -> bool:
    return all(0 <= b < 8192 for b in bits)  # NaN is neither


def _whole(*bits: float) -> bool:
    return all(b == int(b) for b in bits)


TEST_INSECURE_PAILLIER = PaillierParameters(modulus_bits=1024, lanes=10, insecure=True)
"""Insecure: fast keys for tests only."""
TEST_INSECURE_CKKS = CkksParameters(1024, (50, 30, 30, 50), 30.0, insecure=True)
"""Insecure: a small ring for tests only."""
