"""A tree with secret thresholds for the attacks: depth 2, three inner nodes, whole-number inputs from 0 to 999."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from client_view import answered, parties, plaintexts

from hepipe.circuits.selection import Trees
from hepipe.models.schema import Column, Schema
from hepipe.models.tree import DecisionTreeModel
from hepipe.models.tree_profile import BinProfile
from hepipe.protocol.parties import Client, Server

GRID = np.arange(0.0, 1000.0, 111.0)
FEATURES = np.array([0, 1, 2])
LEAVES = np.array([3.0, 5.0, 7.0, 11.0])
SCHEMA = Schema(tuple(Column(name, 0.0, 999.0) for name in "abc"))


def tree(thresholds: list[int]) -> DecisionTreeModel:
    """Node j goes left where feature j is at most GRID[thresholds[j]]."""
    profile = BinProfile.of("regression", SCHEMA, 1, grids=(GRID,) * 3)
    columns = FEATURES * len(GRID) + thresholds
    return DecisionTreeModel(profile, Trees((columns[:1], columns[1:]), LEAVES))


@cache
def tree_parties(*thresholds: int) -> tuple[Client, Server]:
    """One key pair a tree."""
    client, server, _ = parties(tree(list(thresholds)), "paillier")
    return client, server


def entries(client: Client, server: Server, x: Any) -> list[int]:
    """All the plaintexts in the answer to one query: of which the client shows only the selected one."""
    return plaintexts(client, answered(client, server, client.encrypt([x])).data[0])
