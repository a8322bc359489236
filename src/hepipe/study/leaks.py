"""What earlier systems gave away, run with this library's own Paillier: for showing, never for use.

Encrypted-Medical-Predictions walks a tree at the client: the server sends back Enc(x - t) for every inner node, and the
client, who holds the key, reads x - t and knows x (protocols.md 2.4, "rejected"). InfoCrypt sends back the distances to
all centroids: |x - c|**2 - |x|**2 is linear in x, and d + 1 answers are its coefficients (protocols.md 2.6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hepipe.errors import OutOfRange
from hepipe.models.schema import Schema
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray
from hepipe.schemes.parameters import MODULUS_BITS, PaillierParameters
from hepipe.schemes.registry import scheme_of

_STEP = 2.0**20
"""Between the columns of the probing query: more than twice any threshold, so that an answer names its column."""
_SCALE_BITS = 48


def differences(tree: Any, schema: Schema, security_bits: int = 128) -> pd.DataFrame:
    """What the key holder reads of a tree after one query of the old protocol, beside the truth: a row an inner node.

    tree    fitted DecisionTree* on the raw columns of ``schema``
    return  node, column read, threshold read; column and threshold are those of the tree

    Price: one encryption a column, one addition and one decryption a node; 0 levels, 0 rounds. REVEALS to the client
    the column and the threshold of every inner node. OutOfRange for a threshold of 2**19 or more.
    """
    inner = np.flatnonzero(tree.tree_.feature >= 0)
    columns, thresholds = tree.tree_.feature[inner], tree.tree_.threshold[inner]
    if (np.abs(thresholds) >= _STEP / 2).any():
        raise OutOfRange(f"a threshold of {np.abs(thresholds).max():.6g}: the probing query tells those below 2**19")
    probe = _STEP * np.arange(1.0, len(schema.columns) + 1)
    seen = _old_answer(probe, columns, thresholds, security_bits)
    read = np.rint(seen / _STEP).astype(int) - 1
    names = np.asarray(schema.names)
    found = {"column read": names[read], "threshold read": probe[read] - seen}
    return pd.DataFrame({"node": inner, **found, "column": names[columns], "threshold": thresholds})


def centroids(centres: npt.ArrayLike, names: Sequence[str], security_bits: int = 128) -> pd.DataFrame:
    """What the key holder solves for after d + 1 queries of the old protocol, beside the truth: a row a cluster.

    centres  of k-means on raw columns with these names, (clusters, d)
    return   cluster, then for each column what is read and what it is

    Price: d + 1 rows of d + 1 encryptions, d + 1 products with a public weight and one decryption for each distance; 0
    levels, 0 rounds. REVEALS to the client every centroid.
    """
    truth = np.asarray(centres, dtype=np.float64)
    queries = np.vstack([np.zeros(truth.shape[1]), np.eye(truth.shape[1])])
    square = (queries**2).sum(axis=1, keepdims=True)
    sent = np.hstack([queries, square])
    weights = np.vstack([-2 * truth.T, np.ones(len(truth))])
    seen = _opened(sent, security_bits, lambda ev, x: ev.add(ev.matmul_plain(x, weights), (truth**2).sum(axis=1)))
    slopes = np.linalg.solve(np.hstack([queries, np.ones_like(square)]), seen - square)[:-1]
    found = {"cluster": np.arange(len(truth))}
    for name, read, true in zip(names, slopes / -2, truth.T, strict=True):
        found |= {f"{name} read": read, name: true}
    return pd.DataFrame(found)


def _old_answer(probe: Any, columns: Any, thresholds: Any, security_bits: int) -> Any:
    """The old protocol, both parties: Enc(x), then Enc(x - t) for every node, then what the client decrypts."""
    return _opened(probe[None, :], security_bits, lambda ev, x: ev.sub(ev.take(x, columns.tolist()), thresholds))[0]


def _opened(sent: FloatArray, security_bits: int, answer: Callable[[Evaluator, CipherTensor], CipherTensor]) -> Any:
    """What the client decrypts of the server's answer to the encrypted rows ``sent``."""
    given = PaillierParameters(
        MODULUS_BITS[security_bits], log_scale=_SCALE_BITS, lanes=1, insecure=security_bits == 0
    )  # fmt: skip
    scheme = scheme_of(given)
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(sent, np.abs(sent).max(axis=0))
    ev = scheme.evaluator(keys)
    return scheme.decryptor(keys.secret).decrypt(ev.rerandomize(answer(ev, x)))
