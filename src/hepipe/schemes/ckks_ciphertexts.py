"""What a CKKS tensor holds: ciphertexts as SEAL has them, as bytes not yet loaded, or as products not yet finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi

from hepipe.schemes import seal
from hepipe.schemes.base import FloatArray
from hepipe.schemes.parameters import CkksParameters


@dataclass(eq=False)
class Stream:
    """A ciphertext as the body of SEAL's stream, loaded when first computed with; a fresh one has a seed for c1."""

    body: bytes
    loaded: Any = field(default=None, repr=False)

    def ciphertext(self, context: seal.Context) -> Any:
        """SEAL's object, made once."""
        if self.loaded is None:
            self.loaded = seal.load(sealapi.Ciphertext(), context.seal, self.body)
        return self.loaded


@dataclass(eq=False)
class Product:
    """A product of two ciphertexts as it comes out: three polynomials, not yet relinearized and rescaled.

    Switching keys costs most of a product. A sum of products, weighted or not, needs it once, after the sum, so it
    waits until something else than such a sum uses the product. The rescaling waits as well: before relinearization it
    would multiply the rounding of the third polynomial by s**2.
    """

    raw: Any
    finish: Callable[[Any], Any]
    scale: float = 0.0
    finished: Any = field(default=None, repr=False)

    def ciphertext(self, context: seal.Context) -> Any:
        """Two polynomials at the level and the scale that the tensor states, made once, in place of the three."""
        if self.finished is None:
            self.finished, self.raw = self.finish(self.raw), None
            self.finished.scale = self.scale
        return self.finished


def waits(item: Any) -> bool:
    """Whether an item is a product that nothing has used yet."""
    return isinstance(item, Product) and item.finished is None


def expand(item: Any, context: seal.Context) -> Any:
    """SEAL's ciphertext of a stored item; a stream is loaded, a product finished."""
    return item.ciphertext(context) if isinstance(item, (Stream, Product)) else item


def to_slots(column: FloatArray, parameters: CkksParameters) -> list[float] | list[complex]:
    """A column as SEAL takes it; with complex slots the first N/2 samples are real parts, the rest imaginary."""
    half = parameters.poly_modulus_degree // 2
    if not parameters.complex_slots or len(column) <= half:
        return column.tolist()  # type: ignore[no-any-return]
    slots = column[:half].astype(np.complex128)
    slots.imag[: len(column) - half] = column[half:]
    return slots.tolist()  # type: ignore[no-any-return]
