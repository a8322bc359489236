"""What an earlier system gave away, run with this library's own Paillier: for showing, never for use.

Encrypted-Medical-Predictions walks a tree at the client: the server sends back Enc(x - t) for every inner node, and the
client, who holds the key, reads x - t and knows x (protocols.md 2.4, "rejected").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hepipe.errors import OutOfRange
from hepipe.models.schema import Schema
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


def _old_answer(probe: Any, columns: Any, thresholds: Any, security_bits: int) -> Any:
    """The old protocol, both parties: Enc(x), then Enc(x - t) for every node, then what the client decrypts."""
    given = PaillierParameters(
        MODULUS_BITS[security_bits], log_scale=_SCALE_BITS, lanes=1, insecure=security_bits == 0
    )  # fmt: skip
    scheme = scheme_of(given)
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt(probe[None, :], probe)
    ev = scheme.evaluator(keys)
    answer = ev.rerandomize(ev.sub(ev.take(x, columns.tolist()), thresholds))
    return scheme.decryptor(keys.secret).decrypt(answer)[0]
