"""Interaction as a decorator: an evaluator that fulfils by rounds what the scheme beneath it cannot do alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from hepipe.errors import MalformedFrame, Unsupported
from hepipe.protocol import comparison
from hepipe.protocol.link import Link
from hepipe.protocol.refresh import Refresh
from hepipe.protocol.rounds import Ask, MaskedProduct
from hepipe.schemes.base import CipherTensor, Evaluator, Exact, Feature, Plain, PublicBundle, Threshold
from hepipe.schemes.paillier import PaillierEvaluator
from hepipe.schemes.parameters import Parameters
from hepipe.schemes.wire import unpack_tensor


class Interactive:
    """``evaluator`` with products and comparisons by rounds over ``link``; where it can multiply itself, it does.

    A non-interactive evaluation is this one with zero rounds. Each round carries whole blocks.
    """

    by_rounds = frozenset({"refresh", "ask"})
    by_rounds_if_additive = frozenset({"mul", "mul_pairs", "at_most", "negative"})

    def __init__(self, evaluator: Evaluator, link: Link, bundle: PublicBundle, policy: str = "polynomial") -> None:
        self._inner, self._link, self._bundle = evaluator, link, bundle
        self.policy = policy

    @property
    def features(self) -> Feature:
        """Those of the evaluator beneath."""
        return self._inner.features

    @property
    def parameters(self) -> Parameters:
        """The parameters of the evaluator beneath."""
        return self._inner.parameters

    def mul(self, x: CipherTensor, y: CipherTensor) -> CipherTensor:
        """x * y. Price 1 / 1."""
        return self.mul_pairs([(x, y)])[0]

    def mul_pairs(self, pairs: Sequence[tuple[CipherTensor, CipherTensor]]) -> list[CipherTensor]:
        """Independent products in one round, or none where the scheme multiplies. Reveals masked values only."""
        if Feature.MUL in self.features:
            return self._inner.mul_pairs(pairs)
        products = MaskedProduct(self._inner, pairs)  # type: ignore[arg-type]
        reply = self._link.request("masked product", products.request(self._bundle))
        return products.finish(reply, self._bundle)

    def at_most(self, bits: CipherTensor, thresholds: Sequence[Threshold]) -> CipherTensor:
        """[number <= threshold] in one round on an additive scheme: see protocol.comparison. Reveals fair coins."""
        if not isinstance(self._inner, PaillierEvaluator):
            return self._inner.at_most(bits, thresholds)
        return comparison.at_most(self._inner, bits, thresholds, self._link, self._bundle)

    def negative(self, x: CipherTensor, gap: Plain) -> CipherTensor:
        """[x < 0] in two rounds on an additive scheme: see protocol.comparison. Reveals what at_most does."""
        if not isinstance(self._inner, PaillierEvaluator):
            return self._inner.negative(x, gap)
        return comparison.negative(self._inner, x, gap, self._link, self._bundle)

    def add(self, x: CipherTensor, y: CipherTensor | Plain) -> CipherTensor:
        """Passed through."""
        return self._inner.add(x, y)

    def sub(self, x: CipherTensor, y: CipherTensor | Plain) -> CipherTensor:
        """Passed through."""
        return self._inner.sub(x, y)

    def mul_plain(self, x: CipherTensor, p: Plain, log_scale: float | None = None) -> CipherTensor:
        """Passed through."""
        return self._inner.mul_plain(x, p, log_scale)

    def matmul_plain(self, x: CipherTensor, w: npt.ArrayLike, log_scale: float | None = None) -> CipherTensor:
        """Passed through."""
        return self._inner.matmul_plain(x, w, log_scale)

    def sum_samples(self, x: CipherTensor, weights: npt.ArrayLike | None = None) -> CipherTensor:
        """Passed through."""
        return self._inner.sum_samples(x, weights)

    def rotate(self, x: CipherTensor, k: int) -> CipherTensor:
        """Passed through."""
        return self._inner.rotate(x, k)

    def rerandomize(self, x: CipherTensor) -> CipherTensor:
        """Passed through."""
        return self._inner.rerandomize(x)

    def refresh(self, x: CipherTensor) -> CipherTensor:
        """x at the full level and the base scale, by one round. Reveals masked values only. Price - / 1."""
        if self.parameters.name == "clear":
            return self._inner.refresh(x)
        exchange = Refresh(self._inner, x, self.policy)  # type: ignore[arg-type]
        return exchange.finish(self._link.request("refresh", exchange.request(self._bundle)), self._bundle)

    def take(self, x: CipherTensor, columns: Sequence[int]) -> CipherTensor:
        """Passed through."""
        return self._inner.take(x, columns)

    def join(self, tensors: Sequence[CipherTensor]) -> CipherTensor:
        """Passed through."""
        return self._inner.join(tensors)

    def select(self, costs: CipherTensor, values: npt.ArrayLike, groups: int = 1) -> CipherTensor:
        """Passed through."""
        return self._inner.select(costs, values, groups)

    def ask(self, fn: Exact, x: CipherTensor) -> CipherTensor:
        """fn(x) by the key holder, to whom x is REVEALED; under policy "client" only. Price - / 1."""
        if self.policy != "client":
            raise Unsupported(f"{fn.name} by the key holder reveals its argument: allow it with policy='client'")
        reply = self._link.request("ask", Ask.request(fn.name, x, self._inner, self._bundle))
        answer = unpack_tensor(reply, self._bundle)
        if answer.shape != x.shape or answer.level != self.parameters.depth:
            raise MalformedFrame(f"an answer of shape {answer.shape}, expected {x.shape} at the full level")
        return answer.with_bound(fn.bound(x.bound))
