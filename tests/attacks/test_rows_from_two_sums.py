"""Sums over any cohort on demand: two that differ in one person are that person's row."""

from __future__ import annotations

import numpy as np
import pytest
from client_view import phe_keys

from hepipe.errors import AgreementBroken
from hepipe.models.schema import Column, Schema
from hepipe.training.aggregate import Aggregator, DataOwner, KeyHolder
from hepipe.training.agreement import Agreement

RNG = np.random.default_rng(9)
ROWS = np.column_stack([np.ones(60), RNG.integers(-9, 10, (60, 2)), RNG.integers(0, 100, 60)]).astype(int)
"""(1, two columns, target); the last person joins late."""


def row_from(with_it: np.ndarray, without_it: np.ndarray) -> list[int]:
    """The difference of two Gram matrices is the outer product of one row (1, x, y): its first line is the row."""
    return [int(v) for v in (with_it - without_it)[0]]


def test_two_exact_sums_of_a_system_that_answers_any_cohort_are_a_row() -> None:
    public, private = phe_keys()
    grams = []
    for cohort in (ROWS, ROWS[:-1]):
        parts = [part.T @ part for part in np.array_split(cohort, 3)]
        total = [sum((public.encrypt(int(p[i, j])) for p in parts[1:]), public.encrypt(int(parts[0][i, j])))
                 for i in range(4) for j in range(4)]  # fmt: skip
        grams.append(np.array([private.decrypt(c) for c in total]).reshape(4, 4))
    assert row_from(*grams) == ROWS[-1].tolist()


def test_a_second_sum_is_released_by_no_aggregator_and_decrypted_by_no_key_holder() -> None:
    schema = Schema((Column("a", -9.0, 9.0), Column("b", -9.0, 9.0)))
    agreed = Agreement(schema, Column("y", 0.0, 100.0), ("p", "q", "r"), 64, security_bits=0)
    holder = KeyHolder(agreed)
    released = []
    for cohort in (ROWS, ROWS[:-1]):
        aggregator = Aggregator(agreed, holder.public())
        for name, part in zip(agreed.owners, np.array_split(cohort, 3), strict=True):
            aggregator.receive(DataOwner(name, agreed, holder.public()).contribute(part[:, 1:3], part[:, 3]))
        released.append(aggregator.release())
        with pytest.raises(AgreementBroken, match="released already"):
            aggregator.release()
    assert holder.solve(released[0]).rows == 60
    with pytest.raises(AgreementBroken, match="a second one could be compared"):
        holder.solve(released[1])
