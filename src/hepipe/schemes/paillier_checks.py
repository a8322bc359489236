"""What Paillier's encryptor, decryptor and evaluator all check: ciphertexts, layout, scales and bounds."""

from __future__ import annotations

from collections.abc import Sequence

import gmpy2
import numpy as np
import numpy.typing as npt

from hepipe.errors import MalformedFrame, OutOfRange, ScaleMismatch, ShapeMismatch
from hepipe.schemes.base import CipherTensor, FloatArray, blocks
from hepipe.schemes.fixedpoint import GUARD_SHIFT, GUARD_UNITS, from_fixed, to_fixed
from hepipe.schemes.lanes import Mpz
from hepipe.schemes.paillier_keys import PaillierPublicKey

IntegerArray = npt.NDArray[np.object_]
"""Python integers of any size."""


def check_ciphertexts(public: PaillierPublicKey, integers: Sequence[Mpz]) -> None:
    """MalformedFrame unless every integer c is a possible ciphertext: 1 < c < n**2 and gcd(c, n) = 1.

    The bare 1 is an unblinded zero and is refused. Price: a product a ciphertext and one gcd.
    """
    product, n, n_squared = gmpy2.mpz(1), public.n, public.n_squared
    for place, c in enumerate(integers):
        if not 1 < c < n_squared:
            raise MalformedFrame(f"ciphertext {place} is not between 1 and n**2: damaged, or another key's")
        product = product * c % n
    if gmpy2.gcd(product, n) != 1:
        raise MalformedFrame("a ciphertext shares a factor with n: it was not made by encryption")


def block_spans(x: CipherTensor, lanes: int) -> list[slice]:
    """The samples of each block of x; ShapeMismatch if its ciphertexts do not make up its shape."""
    spans = blocks(x.shape[0], lanes)
    if len(x.data) != len(spans) or any(len(row) != x.shape[1] for row in x.data):
        raise ShapeMismatch(f"the ciphertexts do not make up {x.shape} with {lanes} lanes: the parameters differ")
    return spans


def whole_bits(bits: float) -> int:
    """A scale as an integer; ScaleMismatch if it is not whole."""
    if bits != int(bits):
        raise ScaleMismatch(f"log_scale {bits} is not whole: Paillier's scales are whole bits, ask for {round(bits)}")
    return int(bits)


def on_grid(limits: FloatArray, log_scale: float) -> FloatArray:
    """The bounds, raised to the fixed-point grid where they are so small that rounding could exceed them."""
    # A larger bound is left as it was stated: the guard at decryption covers its rounding.
    rounded = from_fixed(to_fixed(limits, log_scale), log_scale)
    return np.where(rounded > limits * (1 + 2.0 ** -(GUARD_SHIFT + 1)), rounded, limits)


def check_bound(bound: FloatArray) -> None:
    """OutOfRange unless every bound is a finite number from 0 up."""
    if not (np.isfinite(bound).all() and (bound >= 0).all()):
        raise OutOfRange(f"the bound on |value| is {bound}: give a finite number that is not negative")


def check_range(integers: IntegerArray, bound: FloatArray, log_scale: float, what: str) -> None:
    """OutOfRange if an integer of a feature is over bound * 2**log_scale and the guard for rounding."""
    check_bound(bound)
    for feature, limit in enumerate(to_fixed(bound, whole_bits(log_scale))):
        largest = max(map(abs, integers[:, feature]))
        if largest > limit + (limit >> GUARD_SHIFT) + GUARD_UNITS:
            raise OutOfRange(
                f"feature {feature}: {what} of {bound[feature]:.6g}: an overflow, or a wrong key; "
                "decrypt with the right key, or plan with a larger bound"
            )
