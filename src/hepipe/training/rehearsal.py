"""Divergence is caught before training: the owner rehearses the descent on its own rows, in the clear.

Beyond its domain the polynomial of a sigmoid grows instead of saturating, and descent runs away without a sign of it in
the ciphertexts. Norms alone bound |z| by max |row| |w|, which is too much to be of use: the largest whitened row of the
CHD data has norm 15.5 and the optimum 1.8, a bound of 28, while |z| is 5 at most. So the owner runs the same circuit on
the clear evaluator, steps * rows * columns multiplications, and sees the largest |z| itself: no safe step size is
refused and no unsafe one let pass. It takes less than encrypting the rows does: an owner of all rows saves no
arithmetic by a trainer, with this check or without it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hepipe.errors import OutOfRange
from hepipe.schemes.base import FloatArray
from hepipe.schemes.clear import ClearScheme
from hepipe.schemes.parameters import ClearParameters
from hepipe.training.descent import DOMAIN, Descent
from hepipe.training.layout import Diagonals

_HALVINGS = 20


def trajectory(descent: Descent, rows: FloatArray) -> FloatArray:
    """The weights after each step, shape (steps, columns): the descent's own circuit on the clear evaluator."""
    layout = Diagonals.holding(*rows.shape)
    clear = ClearScheme(ClearParameters(depth=1 + descent.steps * descent.step_levels(layout)))
    keys = clear.keygen()
    encryptor, decryptor = clear.encryptor(keys.secret), clear.decryptor(keys.secret)
    data = [encryptor.encrypt(values, row_bound(rows)) for values in layout.arrange(rows)]
    states = replace(descent, refresh=False).run(clear.evaluator(keys), layout, data)
    with np.errstate(over="ignore", invalid="ignore"):
        return DOMAIN * np.array([layout.weights(decryptor.decrypt(state.weights)) for state in states])


def reach(descent: Descent, rows: FloatArray) -> float:
    """The largest |z| at which the polynomial is evaluated, or the largest |weight| if that is more; inf for NaN."""
    weights = trajectory(descent, rows)
    with np.errstate(over="ignore", invalid="ignore"):
        largest = max(float(np.abs(rows @ weights[:-1].T).max(initial=0.0)), float(np.abs(weights).max()))
    return largest if math.isfinite(largest) else math.inf


def row_bound(rows: FloatArray) -> float:
    """A power of two over every |value| of the rows: the only thing about them that is published."""
    return float(2.0 ** math.ceil(math.log2(max(float(np.abs(rows).max()), 2.0**-64))))


def check_domain(descent: Descent, rows: FloatArray) -> float:
    """``reach``, or OutOfRange with the largest safe step size where it exceeds the polynomial's domain."""
    largest = reach(descent, rows)
    if largest <= DOMAIN:
        return largest
    raise OutOfRange(
        f"with rate {descent.rate:g} a score reaches |z| = {largest:.3g} within {descent.steps} steps, the polynomial "
        f"of degree {descent.degree} holds for |z| <= {DOMAIN:g}: use rate <= {largest_rate(descent, rows):.4g}"
    )


def largest_rate(descent: Descent, rows: FloatArray) -> float:
    """``descent.rate`` if it keeps every score in the domain, else the largest below it that does, to three digits.

    Found by bisection below the first safe half; 0 if none of 2**-20 of the rate or more does.
    """
    if reach(descent, rows) <= DOMAIN:
        return descent.rate
    high, low = descent.rate, descent.rate / 2
    for _ in range(_HALVINGS):
        if reach(replace(descent, rate=low), rows) <= DOMAIN:
            break
        high, low = low, low / 2
    else:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if reach(replace(descent, rate=middle), rows) <= DOMAIN else (low, middle)
    digit = 10.0 ** (math.floor(math.log10(low)) - 2)
    return math.floor(low / digit) * digit
