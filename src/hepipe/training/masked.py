"""Ridge regression whose sums nobody sees: the key holder solves a system that was masked over Z_n.

Giacomelli, Jha, Joye, Page and Yoon (ACNS 2018, eprint 2017/979). The aggregator holds Enc(A) and Enc(b) of the normal
equations A w = b. It draws R uniform among the invertible matrices modulo n, and r uniform, and sends

    Enc(A R), Enc(b + A r)    the key holder answers    v = (A R)^-1 (b + A r) = R^-1 (w + r)    w = R v - r

modulo n. Each weight is a fraction whose numerator and denominator are bounded by Hadamard's inequality, and n is more
than twice their product, so the residue determines the fraction: the model is exact.

| party       | learns                                                                                         |
| ----------- | ---------------------------------------------------------------------------------------------- |
| data owner  | nothing                                                                                        |
| aggregator  | how many rows each owner has; the model, as exact fractions: their denominators divide det(A), |
|             | so that is more than the weights rounded to float64                                            |
| key holder  | how many rows there are in all, which it checks; else nothing: A R is uniform among the        |
|             | invertible matrices and b + A r uniform, whatever A and b are (if A is singular, that it is)   |

The two must not work together, as in ``aggregate``. rounds 1. Price: (features + 1) * (features + 2) exponentiations
of full length by the aggregator, in one ladder a row, as many re-randomisations (28 ms at 3072 bits, or from a filled
pool), and as many decryptions. At 3072 bits on one core: 1.5 s of masking for 4 columns, 22 s for 15, and 0.3 s and
3 s for the key holder. Columns that depend on each other up to their rounding go unnoticed here, since nobody sees
the system: take alpha > 0 where that may be.
"""

from __future__ import annotations

import secrets
import struct

import gmpy2

from hepipe.errors import AgreementBroken, MalformedFrame, OutOfRange
from hepipe.schemes.base import PublicBundle
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.lanes import Mpz
from hepipe.schemes.multiexp import WeightedSums
from hepipe.schemes.wire import unpack_ciphertexts
from hepipe.training.aggregate import Aggregator, KeyHolder, check_digest, check_total
from hepipe.training.agreement import Agreement, Solution
from hepipe.training.exact import rational, solve_modulo

_HEAD = struct.Struct(">32sQ")
"""The agreement's digest and the number of rows."""


class MaskingAggregator(Aggregator):
    """An aggregator that masks the sums before they leave. Learns the rows of each owner, and the model."""

    learns = "how many rows each owner has; the model, as exact fractions"

    def __init__(self, agreement: Agreement, public: bytes) -> None:
        if not agreement.masked:
            raise AgreementBroken("under this agreement the key holder learns the sums: use an Aggregator")
        super().__init__(agreement, public)
        self._masks: tuple[list[list[int]], list[int]] | None = None
        self._rows = 0

    def release(self) -> bytes:
        """One MASKED_SYSTEM frame for the key holder: Enc(A R | b + A r), re-randomised. Errors as the base class."""
        total, self._rows = self._total()
        matrix, right = self._system([row[0] for row in total.data])
        size, n = len(right), self._bundle.public.n
        self._masks = R, r = _random_matrix(size, int(n)), [secrets.randbelow(int(n)) for _ in range(size)]
        # Output j of a row is the product of its ciphertexts to the powers of column j: the row times R, then r.
        plan = WeightedSums.of([[*column] for column in zip(*R, strict=True)] + [r])
        n_squared, masked = self._bundle.public.n_squared, list[Mpz]()
        for row, b in zip(matrix, right, strict=True):
            *left, last = plan.run(row, n_squared)
            masked += [*left, last * b]
        blinding = self._evaluator.pool.take_many(len(masked))
        fresh = [c * u % n_squared for c, u in zip(masked, blinding, strict=True)]
        head = _HEAD.pack(self.agreement.digest, self._rows)
        body = head + _joined(fresh, self.agreement.modulus_bits // 4)
        return Frame(Kind.MASKED_SYSTEM, "paillier", total.key_id, size, size + 1, 0, 0.0, body).to_bytes()

    def fill(self) -> None:
        """Make the randomness of ``release`` ahead; offline work."""
        size = self.agreement.features + 1
        self._evaluator.pool.fill(size * (size + 1))

    def finish(self, answer: bytes) -> Solution:
        """The model from the key holder's MASKED_SOLUTION frame.

        MalformedFrame for what is none; OutOfRange for residues that are no fractions with one bounded denominator:
        a wrong answer is met so, unless it was made to pass.
        """
        if self._masks is None:
            raise AgreementBroken("no masked system was released that this could answer")
        n, (R, r) = self._bundle.public.n, self._masks
        masked = _parse_solution(answer, self.agreement, self._bundle)
        residues = [sum(a * v for a, v in zip(row, masked, strict=True)) - s for row, s in zip(R, r, strict=True)]
        bounds = self.agreement.solution_bounds
        weights = [rational(value, n, *bounds) for value in residues]
        if gmpy2.lcm(*(denominator for _, denominator in weights)) > bounds[1]:
            raise OutOfRange("the weights have no common denominator within its bound: a wrong answer")
        return self.agreement.unscaled(weights, self._rows)

    def _system(self, sums: list[Mpz]) -> tuple[list[list[Mpz]], list[Mpz]]:
        """Enc(A) with its penalties, and Enc(b)."""
        public, size = self._bundle.public, self.agreement.features + 1
        gram: dict[tuple[int, int], Mpz] = {}
        for i, j, c in zip(*(each.tolist() for each in self.agreement.entries), sums, strict=True):
            gram[i, j] = gram[j, i] = c
        for j, penalty in enumerate(self.agreement.penalties, start=1):
            gram[j, j] = gram[j, j] * (1 + penalty * public.n) % public.n_squared
        return [[gram[i, j] for j in range(size)] for i in range(size)], [gram[i, size] for i in range(size)]


class MaskedKeyHolder(KeyHolder):
    """Makes the keys and solves one masked system modulo n. Learns the number of rows in all, and not the model."""

    learns = "how many rows there are in all"

    def answer(self, system: bytes) -> bytes:
        """The MASKED_SOLUTION frame to a MASKED_SYSTEM frame.

        AgreementBroken for a second system or too few rows; IllPosed where the columns depend on each other.
        """
        frame = parse(system, Kind.MASKED_SYSTEM)
        size, n = self.agreement.features + 1, self._bundle.public.n
        if (frame.samples, frame.features, frame.level, frame.log_scale) != (size, size + 1, 0, 0.0):
            raise MalformedFrame(f"a system of shape {(frame.samples, frame.features)}, expected {(size, size + 1)}")
        if len(frame.body) < _HEAD.size:
            raise MalformedFrame(f"a body of {len(frame.body)} bytes has no head of {_HEAD.size}")
        digest, rows = _HEAD.unpack_from(frame.body)
        check_digest(digest, self.agreement)
        check_total(rows, self.agreement)
        ciphertexts = unpack_ciphertexts(frame, frame.body[_HEAD.size :], self._bundle)
        self._once()
        plain = [self._decryptor.residues(row) for row in ciphertexts]
        solution = solve_modulo([row[:-1] for row in plain], [row[-1] for row in plain], n)
        body = self.agreement.digest + _joined(solution, self.agreement.modulus_bits // 8)
        return Frame(Kind.MASKED_SOLUTION, "paillier", self._bundle.key_id, size, 1, 0, 0.0, body).to_bytes()


def _random_matrix(size: int, n: int) -> list[list[int]]:
    """Uniform among all matrices modulo n; one that cannot be inverted has a probability below 2**-500 at any size."""
    return [[secrets.randbelow(n) for _ in range(size)] for _ in range(size)]


def _joined(residues: list[Mpz], width: int) -> bytes:
    return b"".join(int(value).to_bytes(width, "big") for value in residues)


def _parse_solution(answer: bytes, agreement: Agreement, bundle: PublicBundle) -> list[Mpz]:
    """The residues of a MASKED_SOLUTION frame; MalformedFrame unless each is below n and nothing is left over."""
    frame, size, width = parse(answer, Kind.MASKED_SOLUTION), agreement.features + 1, agreement.modulus_bits // 8
    outer = (frame.scheme, frame.key_id, frame.samples, frame.features, frame.level, frame.log_scale, frame.flags)
    if outer != ("paillier", bundle.key_id, size, 1, 0, 0.0, 0) or len(frame.body) != 32 + size * width:
        raise MalformedFrame(
            f"an answer of {len(frame.body)} bytes, expected {size} residues of {width} under this key"
        )
    check_digest(frame.body[:32], agreement)
    residues = [gmpy2.mpz.from_bytes(frame.body[at : at + width], "big") for at in range(32, len(frame.body), width)]
    if max(residues) >= bundle.public.n:
        raise MalformedFrame("a residue that is not below n: damaged, or another key's")
    return residues
