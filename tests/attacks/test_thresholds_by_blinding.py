"""The usual repair of Enc(x - t): a random positive factor of 40 bits, so that "only the sign" is left."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable

import numpy as np
from client_tree import GRID, LEAVES, entries, tree_parties
from client_view import phe_keys
from scipy import stats

TOP = 1 << 20
REPEATS = 40
"""The gcd of so many random factors is 1 but with probability 2**-40."""


def repaired_server(ciphertext: object, threshold: int) -> object:
    return (ciphertext - threshold) * (1 + secrets.randbelow(1 << 40))  # type: ignore[operator]


def bisected(is_above: Callable[[int], bool], top: int) -> int:
    """The largest x from 0 to top - 1 that is not above the threshold, in log2(top) queries."""
    low, high = 0, top
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return low


def test_the_gcd_of_repeated_answers_is_the_distance_to_the_threshold() -> None:
    public, private = phe_keys()
    threshold, x = 412_345, 700_000
    answers = [private.decrypt(repaired_server(public.encrypt(x), threshold)) for _ in range(REPEATS)]
    assert x - math.gcd(*answers) == threshold


def test_the_sign_alone_gives_the_threshold_by_bisection() -> None:
    public, private = phe_keys()
    queries = []

    def is_above(x: int) -> bool:
        queries.append(x)
        return bool(private.decrypt(repaired_server(public.encrypt(x), 412_345)) > 0)

    assert bisected(is_above, TOP) == 412_345
    assert len(queries) == 20


def hidden(thresholds: tuple[int, ...], x: list[float], repeats: int) -> list[int]:
    client, server = tree_parties(*thresholds)
    return [v for _ in range(repeats) for v in entries(client, server, x) if abs(v) >= 2**900]


def test_repeated_answers_of_ours_have_no_common_divisor() -> None:
    values = hidden((3, 6, 1), [999.0, 0.0, 0.0], REPEATS)
    assert len(values) == REPEATS * (len(LEAVES) - 1)
    assert math.gcd(*values) == 1


def test_signs_in_answers_of_ours_are_fair_coins_on_either_side_of_a_threshold() -> None:
    for x in ([GRID[3], 0.0, 0.0], [GRID[3] + 1, 0.0, 0.0]):
        signs = [value > 0 for value in hidden((3, 6, 1), x, 70)]
        assert stats.binomtest(sum(signs), len(signs)).pvalue > 1e-6


def test_what_remains_is_the_label_itself_which_gives_a_threshold_s_bin_and_no_more() -> None:
    """Inherent: a client that asks log2(bins) times on each side of a split learns which public bin it lies in."""
    client, server = tree_parties(3, 6, 1)

    def is_right(x: int) -> bool:
        return bool(client.decrypt(server.evaluate(client.encrypt([[float(x), 0.0, 0.0]])))[0, 0] != LEAVES[0])

    found = bisected(is_right, 1000)
    assert found == GRID[3]
    assert np.isin(found, GRID)
