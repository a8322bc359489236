"""Linear circuits: one weighted sum of columns an output. Levels: 1. Rounds: 0 on every scheme."""

from __future__ import annotations

import numpy.typing as npt

from hepipe.schemes.base import CipherTensor, Evaluator


def affine(ev: Evaluator, x: CipherTensor, weights: npt.ArrayLike, intercept: npt.ArrayLike) -> CipherTensor:
    """x @ weights + intercept, for weights of shape (features, outputs). Price 1 / 0.

    Reveals the scores to whoever decrypts: d + 1 of them give away a linear model of d features (Tramer et al.,
    USENIX Security 2016); nothing to the server.
    """
    return ev.add(ev.matmul_plain(x, weights), intercept)
