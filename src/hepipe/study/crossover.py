"""Where the winner changes: modelled latency of two schemes against round-trip time and bandwidth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from hepipe.study.captions import number
from hepipe.study.measure import NETWORKS, Measurement, Network
from hepipe.study.tables import Compared

HOME = NETWORKS[1]
"""The network that is varied: its round-trip time at its bandwidth, its bandwidth at its round-trip time."""
SPELLED = {"paillier": "Paillier", "ckks": "CKKS"}


def with_rtt(rtt_ms: float) -> Network:
    """HOME at another round-trip time."""
    return replace(HOME, rtt_ms=rtt_ms)


def with_up_mbit(up_mbit: float) -> Network:
    """HOME at another bandwidth, in the same proportion up and down."""
    return replace(HOME, up_mbit=up_mbit, down_mbit=HOME.down_mbit * up_mbit / HOME.up_mbit)


def equal_rtt(one: Measurement, other: Measurement) -> float:
    """The round-trip time in ms at which both take as long at HOME's bandwidth; NaN if there is none above 0.

    A latency is a line in the round-trip time, whose slope is the number of rounds plus one.
    """
    near = with_rtt(0.0)
    return _positive(other.network_ms(near) - one.network_ms(near), one.rounds - other.rounds)


def equal_up_mbit(one: Measurement, other: Measurement) -> float:
    """The bandwidth up in Mbit/s at which both take as long at HOME's round-trip time; NaN if there is none above 0.

    A latency is a line in the reciprocal of the bandwidth, whose slope is the bytes.
    """
    endless = with_up_mbit(math.inf)
    fixed = other.network_ms(endless) - one.network_ms(endless)
    sent = (one.network_ms(HOME) - other.network_ms(HOME)) + fixed
    return HOME.up_mbit * _positive(sent, fixed)


def _positive(above: float, below: float) -> float:
    return above / below if below and above / below > 0 else math.nan


def faster(items: Sequence[Measurement], network: Network) -> str:
    """The scheme with the least modelled latency of a batch."""
    return min(items, key=lambda item: item.network_ms(network)).scheme


def encrypted(compared: Compared) -> list[Measurement]:
    """The measurements that hide something."""
    return [item for item in compared.measurements if item.scheme != "clear"]


def crossover_table(*comparisons: Compared) -> pd.DataFrame:
    """Who is faster on each network, and where two schemes are equal: a row a comparison of two encrypted schemes.

    equal at RTT ms     at the bandwidth of HOME; missing where one scheme is faster at every round-trip time
    equal at Mbit/s up  at the round-trip time of HOME, both directions in its proportion; missing likewise
    """
    rows = []
    for compared in comparisons:
        items = encrypted(compared)
        if len(items) == 2:
            rows.append(
                {"model": compared.model, "samples": compared.samples, "without a network": _fastest(items)}
                | {network.name: faster(items, network) for network in NETWORKS}
                | {"equal at RTT ms": equal_rtt(*items), "equal at Mbit/s up": equal_up_mbit(*items)}
            )
    return pd.DataFrame(rows)


def _fastest(items: Sequence[Measurement]) -> str:
    return min(items, key=lambda item: item.batch.total).scheme


def crossover_findings(*comparisons: Compared) -> list[str]:
    """A sentence a comparison of two encrypted schemes: the winner near and far, and where it changes."""
    return [_sentence(compared) for compared in comparisons if len(encrypted(compared)) == 2]


def _sentence(compared: Compared) -> str:
    items, near, far = encrypted(compared), NETWORKS[0], NETWORKS[-1]
    first, last = faster(items, near), faster(items, far)
    head = f"{compared.model[:1].upper()}{compared.model[1:]}, {compared.samples} row" + "s" * (compared.samples != 1)
    turn = "and still" if first == last else f"but {SPELLED.get(last, last)}"
    return (
        f"{head}: {SPELLED.get(first, first)} is {_lead(items, near)} "
        f"faster in a {near.name}, {turn} {_lead(items, far)} over {far.name}; {_where(items)}."
    )


def _lead(items: Sequence[Measurement], network: Network) -> str:
    low, high = sorted(item.network_ms(network) for item in items)
    return f"{number(high / low)} times"


def _where(items: Sequence[Measurement]) -> str:
    rtt, up = equal_rtt(*items), equal_up_mbit(*items)
    by_rtt = f"a round trip of {number(rtt)} ms" if rtt > 0 else "no round trip"
    by_up = f"{number(up)} Mbit/s up" if up > 0 else "no bandwidth"
    return f"at {number(HOME.up_mbit)} Mbit/s up {by_rtt} makes them equal, at {number(HOME.rtt_ms)} ms {by_up} does"
