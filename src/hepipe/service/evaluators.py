"""The evaluators that a worker keeps ready, and their pools of blinding factors, filled while it has nothing to do.

A blinding factor is r**n with r uniform, drawn in this process from the operating system's randomness, kept nowhere
else, and taken out of its key's queue by the one ciphertext that it blinds. So none is ever used twice: not by two
workers, and not after a restart, which begins with empty pools.
"""

from __future__ import annotations

from collections import OrderedDict

from hepipe.protocol.parties import Server

KEPT_BYTES = 1 << 26
"""Of keys, as they were uploaded, that a worker keeps evaluators for: 16 with the switching keys of N = 16384."""
LEAST_BYTES = 1 << 16
"""What the smallest key counts for: with its pool, and so that evaluators are at most a thousand."""
POOL, POOLS = 256, 1024
"""Values made ahead for one key, and a worker's aim for all of its keys together: 28 s of work at 3072 bits."""

Name = tuple[str, str]
"""A model's digest and a key's file."""


class Evaluators:
    """A model and a tenant's keys each; once their keys are over ``kept_bytes``, the least recently used go."""

    def __init__(self, kept_bytes: int = KEPT_BYTES, pool: int = POOL, pools: int = POOLS) -> None:
        self._kept_bytes, self._pool, self._pools = kept_bytes, pool, pools
        self._kept: OrderedDict[Name, Server] = OrderedDict()
        self._bytes: dict[Name, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: Name) -> Server | None:
        """The evaluator, now the most recently used; None if it is not kept."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def add(self, name: Name, server: Server, key_bytes: int) -> None:
        """Keep an evaluator; it stays even where its keys alone are more than all that is to be kept."""
        self._kept[name], self._bytes[name] = server, max(key_bytes, LEAST_BYTES)
        while len(self._kept) > 1 and sum(self._bytes.values()) > self._kept_bytes:
            dropped, _ = self._kept.popitem(last=False)
            del self._bytes[dropped]

    def fill_one(self) -> bool:
        """Make one value, for the key that has fewest; False if each has its share. Price: one full power."""
        pools = [server.pool for server in self._kept.values() if server.pool is not None]
        emptiest = min(pools, key=len, default=None)
        if emptiest is None or len(emptiest) >= min(self._pool, self._pools // len(pools)):
            return False
        emptiest.fill(len(emptiest) + 1)
        return True
