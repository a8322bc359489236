"""What one operation on ciphertexts costs: each alone, for a single value and for as many as the slots hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from hepipe.models.profile import Profile
from hepipe.models.schema import Column, Schema
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import LocalLink
from hepipe.protocol.rounds import answer_masked_factors
from hepipe.schemes.base import CipherTensor, Evaluator, Feature, FloatArray, PublicBundle
from hepipe.schemes.paillier import PaillierEncryptor
from hepipe.schemes.wire import pack_tensor
from hepipe.study.plan import Plan, plan
from hepipe.study.progress import steps

FACTOR = 0.7371
"""The plaintext factor: no power of two, which would be cheaper under Paillier."""
CLEAR_SLOTS = 4096
"""Values that stand for a full batch where nothing is encrypted and any number fits."""
LEAST_MS = 2.0
"""A timed repeat loops until it has taken about this long, so that microseconds can be told apart."""

OPERATIONS = (
    "encrypt",
    "add two ciphertexts",
    "multiply by a plaintext",
    "multiply two ciphertexts",
    "re-randomise",
    "decrypt",
)
"""In the order of the table."""

FOOTER = (
    "ms: median of one operation on one value; ms per value: with every slot filled. KiB: what it puts on the wire "
    "(the fresh ciphertext, a round both ways, the result). 1 thread; tables exist before, no randomness is made "
    "ahead. A product of two ciphertexts has its own parameters: under Paillier one value a ciphertext, masked."
)
"""What must be known to quote the table."""


@dataclass(frozen=True, eq=False)
class _Circuit:
    """The least circuit with a sum and a product, for values in [-1, 1]: what parameters are planned for."""

    products: bool
    profile: Profile = field(default_factory=lambda: Profile.of("regression", Schema((Column("x", -1, 1),)), 1))
    name: str = "primitive"
    reveals: str = "the result"

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """A product with itself, or (x + x) times a plaintext."""
        return ev.mul(x, x) if self.products else ev.mul_plain(ev.add(x, x), FACTOR)


class _Bench:
    """Both parties in one place, with fresh keys for a plan."""

    def __init__(self, planned: Plan) -> None:
        scheme, self.parameters = planned.scheme(), planned.parameters
        keys = scheme.keygen()
        self.bundle = PublicBundle(planned.parameters, keys.public, keys.evaluation)
        self.encryptor = scheme.encryptor(keys.secret)
        if isinstance(self.encryptor, PaillierEncryptor):
            self.encryptor.prepare()
        self.decryptor = scheme.decryptor(keys.secret)
        self.link = LocalLink(self._answer)
        evaluator = scheme.evaluator(keys)
        needs_rounds = Feature.MUL not in scheme.features and planned.rounds
        self.evaluator: Evaluator = Interactive(evaluator, self.link, self.bundle) if needs_rounds else evaluator

    def _answer(self, request: bytes) -> bytes:
        return answer_masked_factors(request, self.bundle, self.encryptor, self.decryptor)  # type: ignore[arg-type]

    def encrypt(self, values: FloatArray) -> CipherTensor:
        return self.encryptor.encrypt(values, 1.0)

    def size(self, x: CipherTensor) -> int:
        return len(pack_tensor(x, self.bundle))


def measure_primitives(
    scheme_name: str,
    samples: int | None = None,
    repeats: int = 5,
    security_bits: int = 128,
    policy: str = "polynomial",
    seed: int = 0,
) -> pd.DataFrame:
    """Time each primitive on ``samples`` values in [-1, 1] right to 20 bits; None fills the slots of one ciphertext.

    A row an operation: encrypt, add, multiply by a plaintext, multiply two ciphertexts, re-randomise, decrypt. Columns:
    ms (median of ``repeats`` after a warm-up), spread ±%, ms per value, levels, rounds, KiB (of what the operation puts
    on the wire: the fresh ciphertext, the round, the result), slots, filled.

    The parameters are the cheapest that a plan finds: one plan for the linear operations and one for the product of
    ciphertexts, which under Paillier is a masked round with one value a ciphertext. The key holder encrypts, tables
    exist before, nothing else is made ahead; 1 thread.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for products in (False, True):
        planned = plan(_Circuit(products), scheme_name, 1, policy, security_bits=security_bits)
        slots = CLEAR_SLOTS if scheme_name == "clear" else planned.parameters.slots
        count = slots if samples is None else samples
        values = rng.uniform(-1, 1, (2, count, 1))
        measured = _products(planned, values, repeats) if products else _linear(planned, values, repeats)
        head = {"scheme": scheme_name, "security bits": _security(planned), "slots": slots, "samples": count}
        rows += [head | {"filled": samples is None, **row} for row in measured]
    table = pd.DataFrame(rows)
    order = {name: place for place, name in enumerate(OPERATIONS)}
    return table.sort_values("operation", key=lambda names: names.map(order), ignore_index=True)


def primitive_table(
    schemes: Sequence[str] | str = ("clear", "paillier", "ckks"),
    repeats: int = 5,
    security_bits: int = 128,
    **more: Any,
) -> pd.DataFrame:
    """``measure_primitives`` of each scheme, for one value and for a full ciphertext."""
    cases = [(name, samples) for name in _names(schemes) for samples in (1, None)]
    said = steps(cases, "primitives", name=lambda case: f"{case[0]}, {case[1] or 'all slots'}")
    tables = [measure_primitives(name, samples, repeats, security_bits, **more) for name, samples in said]
    return pd.concat(tables, ignore_index=True)


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """``primitive_table`` with a row an operation and, for each scheme, ms alone, ms per value in full slots, KiB."""
    columns: dict[str, pd.Series] = {}
    for scheme, part in table.groupby("scheme", sort=False):
        one, full = (part[part["filled"] == filled].set_index("operation") for filled in (False, True))
        columns[f"{scheme}: ms"] = one["ms"]
        columns[f"{scheme}: ms per value, {full['slots'].max()} slots"] = full["ms per value"]
        columns[f"{scheme}: KiB"] = one["KiB"]
    return pd.DataFrame(columns).loc[list(OPERATIONS)].reset_index()


def slot_curve(
    schemes: Sequence[str] | str = ("clear", "paillier", "ckks"),
    repeats: int = 5,
    security_bits: int = 128,
    policy: str = "polynomial",
    seed: int = 0,
) -> pd.DataFrame:
    """A query (encrypt, multiply by a plaintext, re-randomise, decrypt) of 1, 4, 16 … values, to 4 times the slots.

    Columns: scheme, security bits, slots, values, ms, spread ±%, ms per value.
    """
    rows = []
    for name in steps(_names(schemes), "cost by number of values"):
        planned = plan(_Circuit(False), name, 1, policy, security_bits=security_bits)
        slots = CLEAR_SLOTS if name == "clear" else planned.parameters.slots
        bench, rng = _Bench(planned), np.random.default_rng(seed)
        sizes = sorted({*(4**k for k in range(16) if 4**k < slots), slots, 4 * slots})
        for size in sizes:
            query = partial(_query, bench, rng.uniform(-1, 1, (size, 1)))
            head = {"scheme": name, "security bits": _security(planned), "slots": slots, "values": size}
            rows.append(head | _timed("query", query, repeats, size))
    return pd.DataFrame(rows).drop(columns="operation")


def _query(bench: _Bench, values: FloatArray) -> FloatArray:
    y = bench.evaluator.mul_plain(bench.encrypt(values), FACTOR)
    return bench.decryptor.decrypt(bench.evaluator.rerandomize(y))


def _linear(planned: Plan, values: FloatArray, repeats: int) -> list[dict[str, Any]]:
    bench = _Bench(planned)
    ev, count = bench.evaluator, values.shape[1]
    fresh = bench.encrypt(values[0])
    # A computed operand: a fresh one of CKKS still has its seed to expand, which is no part of an operation's price.
    x, y = ev.add(fresh, 0.0), ev.add(bench.encrypt(values[1]), 0.0)
    result = ev.rerandomize(ev.mul_plain(x, FACTOR))
    calls: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "encrypt": (lambda: bench.encrypt(values[0]), {"KiB": bench.size(fresh) / 2**10}),
        "add two ciphertexts": (lambda: ev.add(x, y), {}),
        "multiply by a plaintext": (lambda: ev.mul_plain(x, FACTOR), {"levels": 1}),
        "re-randomise": (lambda: ev.rerandomize(x), {"KiB": bench.size(result) / 2**10}),
        "decrypt": (lambda: bench.decryptor.decrypt(result), {}),
    }
    free = {"levels": 0, "rounds": 0, "KiB": 0.0}
    return [_timed(name, call, repeats, count) | free | extra for name, (call, extra) in calls.items()]


def _products(planned: Plan, values: FloatArray, repeats: int) -> list[dict[str, Any]]:
    bench = _Bench(planned)
    ev = bench.evaluator
    x, y = (ev.add(bench.encrypt(half), 0.0) for half in values)
    ev.mul(x, y)
    seen = bench.link.transcript
    extra = {"levels": 1, "rounds": seen.rounds, "KiB": (seen.bytes_up + seen.bytes_down) / 2**10}
    return [_timed("multiply two ciphertexts", lambda: ev.mul(x, y), repeats, values.shape[1]) | extra]


def _timed(name: str, call: Callable[[], Any], repeats: int, count: int) -> dict[str, Any]:
    loops = max(1, min(1000, int(LEAST_MS / max(_ms(call, 1), 1e-3))))
    times = [_ms(call, loops) for _ in range(repeats)]
    middle = median(times)
    spread = 100 * (max(times) - min(times)) / 2 / middle
    return {"operation": name, "ms": middle, "spread ±%": spread, "ms per value": middle / count}


def _ms(call: Callable[[], Any], loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return 1e3 * (time.perf_counter() - start) / loops


def _names(schemes: Sequence[str] | str) -> list[str]:
    return [name.strip() for name in schemes.split(",")] if isinstance(schemes, str) else list(schemes)


def _security(planned: Plan) -> int | str:
    if planned.parameters.name == "clear":
        return "none"
    return planned.security_bits or "insecure"
