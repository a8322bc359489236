"""Interaction as a decorator: an evaluator that fulfils by rounds what the scheme beneath it cannot do alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy.typing as npt

from hepipe.protocol.link import Link
from hepipe.protocol.rounds import MaskedProduct
from hepipe.schemes.base import CipherTensor, Evaluator, Feature, FloatArray, Plain, PublicBundle
from hepipe.schemes.parameters import Parameters


class Interactive:
    """``evaluator`` with products by masked rounds over ``link``; where it can multiply itself, it does.

    A non-interactive evaluation is this one with zero rounds. Each round carries whole blocks.
    """

    by_rounds = frozenset({"mul", "mul_pairs"})

    def __init__(self, evaluator: Evaluator, features: Feature, link: Link, bundle: PublicBundle) -> None:
        self._inner, self._features, self._link, self._bundle = evaluator, features, link, bundle

    @property
    def parameters(self) -> Parameters:
        """The parameters of the evaluator beneath."""
        return self._inner.parameters

    def mul(self, x: CipherTensor, y: CipherTensor) -> CipherTensor:
        """x * y. Price 1 / 1."""
        return self.mul_pairs([(x, y)])[0]

    def mul_pairs(self, pairs: Sequence[tuple[CipherTensor, CipherTensor]]) -> list[CipherTensor]:
        """Independent products in one round, or none where the scheme multiplies. Reveals masked values only."""
        if Feature.MUL in self._features:
            return self._inner.mul_pairs(pairs)
        products = MaskedProduct(self._inner, pairs)  # type: ignore[arg-type]
        reply = self._link.request("masked product", products.request(self._bundle))
        return products.finish(reply, self._bundle)

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

    def sum_samples(self, x: CipherTensor) -> CipherTensor:
        """Passed through."""
        return self._inner.sum_samples(x)

    def rerandomize(self, x: CipherTensor) -> CipherTensor:
        """Passed through."""
        return self._inner.rerandomize(x)

    def refresh(self, x: CipherTensor) -> CipherTensor:
        """Passed through."""
        return self._inner.refresh(x)

    def ask(self, fn: Callable[[FloatArray], FloatArray], x: CipherTensor) -> CipherTensor:
        """Passed through."""
        return self._inner.ask(fn, x)
