"""The interface every scheme fulfils, and the ciphertext tensor that travels through it.

Column layout, on every scheme: a tensor has shape (samples, features); each feature is a ciphertext of its own and
the samples fill the slots of that ciphertext. More samples than slots make more blocks. A matrix product with public
weights is then a weighted sum of column ciphertexts: no rotations, and the same code above every scheme.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hepipe.errors import Unsupported
from hepipe.schemes.parameters import Parameters

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Plain = float | npt.ArrayLike
Samples: TypeAlias = "npt.ArrayLike | pd.DataFrame"
"""Raw rows, (samples, features) or one of them; pandas is loaded by whoever has a DataFrame."""


class Feature(enum.Flag):
    """What a scheme can do without the key holder."""

    ADD = enum.auto()
    MUL_PLAIN = enum.auto()
    MUL = enum.auto()
    SUM_SAMPLES = enum.auto()
    SELECT = enum.auto()
    ROTATE = enum.auto()


@dataclass(frozen=True, eq=False)
class CipherTensor:
    """Encrypted samples in the column layout.

    data       the scheme's ciphertexts, ``data[block][feature]``
    shape      (samples, features)
    level      products this tensor still affords
    log_scale  log2 of the fixed-point scale of its values
    bound      per feature, a bound on |value|; checked against the room in the ciphertext before any arithmetic
    key_id     digest of the public key it is encrypted under
    blinded    for the result of ``select`` its number of groups: of each a row hides one value among random ones, in
               random order; else 0
    """

    data: Any
    shape: tuple[int, int]
    level: int
    log_scale: float
    bound: FloatArray
    key_id: str
    blinded: int = 0

    def __repr__(self) -> str:
        return (
            f"<CipherTensor {self.shape[0]}x{self.shape[1]}, level {self.level}, "
            f"log_scale {self.log_scale:.1f}, key {self.key_id[:8]}>"
        )

    def with_bound(self, bound: FloatArray) -> CipherTensor:
        """The same ciphertexts under another stated bound, e.g. the published one instead of the computed one."""
        return replace(self, bound=np.broadcast_to(np.asarray(bound, dtype=np.float64), (self.shape[1],)).copy())


@dataclass(frozen=True, eq=False)
class KeySet:
    """The keys of one party: ``secret`` stays with it, ``public`` and ``evaluation`` go to the server."""

    secret: Any
    public: Any
    evaluation: Any


@dataclass(frozen=True, eq=False)
class PublicBundle:
    """What a client gives to a server: parameters, public key, evaluation keys. Holds nothing secret."""

    parameters: Any
    public: Any
    evaluation: Any

    @property
    def key_id(self) -> str:
        """The id of the public key."""
        return str(self.public.key_id)


class Threshold(NamedTuple):
    """The comparison x <= value, for the whole number x >= 0 whose bits, least first, are these columns."""

    columns: Sequence[int]
    value: int


class Exact(Protocol):
    """A function that the key holder can be asked for, by name."""

    @property
    def name(self) -> str:
        """The name that travels."""
        ...

    def exact(self, x: FloatArray) -> FloatArray:
        """Its value."""
        ...

    def bound(self, limit: FloatArray) -> FloatArray:
        """A bound on |fn(x)| where |x| <= limit."""
        ...


class Encryptor(Protocol):
    """Encodes and encrypts; knows the range a value may have."""

    def encrypt(self, values: npt.ArrayLike, bound: Plain | None = None) -> CipherTensor:
        """Encrypt an array of shape (samples, features) whose columns are bounded by ``bound``."""
        ...


class Decryptor(Protocol):
    """The only place a secret key goes."""

    def decrypt(self, x: CipherTensor) -> FloatArray:
        """Return the values, shape (samples, features)."""
        ...


class Evaluator(Protocol):
    """Arithmetic on ciphertexts. Prices are levels on a levelled scheme / rounds on an additive one."""

    @property
    def parameters(self) -> Parameters:
        """The parameters all operands share."""
        ...

    @property
    def features(self) -> Feature:
        """What it can do without the key holder."""
        ...

    @property
    def policy(self) -> str:
        """How a nonlinearity is paid: "polynomial", or "client" where the key holder agreed to compute it."""
        ...

    def add(self, x: CipherTensor, y: CipherTensor | Plain) -> CipherTensor:
        """x + y. Price 0 / 0."""
        ...

    def sub(self, x: CipherTensor, y: CipherTensor | Plain) -> CipherTensor:
        """x - y. Price 0 / 0."""
        ...

    def mul_plain(self, x: CipherTensor, p: Plain, log_scale: float | None = None) -> CipherTensor:
        """x * p for a scalar or one factor per feature. Price 1 / 0."""
        ...

    def matmul_plain(self, x: CipherTensor, w: npt.ArrayLike, log_scale: float | None = None) -> CipherTensor:
        """x @ w for w of shape (features, outputs). Price 1 / 0."""
        ...

    def sum_samples(self, x: CipherTensor, weights: npt.ArrayLike | None = None) -> CipherTensor:
        """The sum over all samples, price 0 / 0; or weighted sums with public weights, price 1 / 0."""
        ...

    def rotate(self, x: CipherTensor, k: int) -> CipherTensor:
        """Row p of the result is row (p + k) mod samples. Price 0 / 0; a key switch a ciphertext."""
        ...

    def mul(self, x: CipherTensor, y: CipherTensor) -> CipherTensor:
        """x * y, feature by feature. Price 1 / 1."""
        ...

    def mul_pairs(self, pairs: Sequence[tuple[CipherTensor, CipherTensor]]) -> list[CipherTensor]:
        """Independent products together: on an additive scheme one round for all. Price 1 / 1."""
        ...

    def take(self, x: CipherTensor, columns: Sequence[int]) -> CipherTensor:
        """The columns with these indices, in this order, repeats allowed. Price 0 / 0."""
        ...

    def join(self, tensors: Sequence[CipherTensor]) -> CipherTensor:
        """Tensors of one level and scale side by side. Price 0 / 0."""
        ...

    def select(self, costs: CipherTensor, values: npt.ArrayLike, groups: int = 1) -> CipherTensor:
        """values[k] of the one column k of each group whose cost is zero, summed over the groups. Price 0 / 0.

        Costs are whole numbers; column k belongs to group k mod ``groups``.
        """
        ...

    def at_most(self, bits: CipherTensor, thresholds: Sequence[Threshold]) -> CipherTensor:
        """[number <= threshold] in {0, 1}, a column a threshold, for numbers given by their bits. Price - / 1."""
        ...

    def negative(self, x: CipherTensor, gap: Plain) -> CipherTensor:
        """[x < 0] in {0, 1} where |x| >= gap > 0; the gap bounds the error that x may carry. Price - / 2."""
        ...

    def refresh(self, x: CipherTensor) -> CipherTensor:
        """x with its full budget again. Price - / 1."""
        ...

    def ask(self, fn: Exact, x: CipherTensor) -> CipherTensor:
        """fn(x) at the full budget, computed by the key holder, to whom x is REVEALED. Price - / 1."""
        ...

    def rerandomize(self, x: CipherTensor) -> CipherTensor:
        """x as it may leave this party: fresh randomness, lowest level."""
        ...


class Scheme(Protocol):
    """A homomorphic encryption scheme with fixed parameters."""

    name: str
    features: Feature

    @property
    def parameters(self) -> Parameters:
        """The parameters of this scheme."""
        ...

    def keygen(self) -> KeySet:
        """Fresh keys, from the operating system's randomness."""
        ...

    def encryptor(self, key: Any) -> Encryptor:
        """An encryptor for a public key, or (cheaper, smaller) for the secret key of its holder."""
        ...

    def decryptor(self, secret: Any) -> Decryptor:
        """A decryptor; the only consumer of a secret key's decrypting half."""
        ...

    def evaluator(self, keys: KeySet) -> Evaluator:
        """An evaluator; ``keys.secret`` is never read."""
        ...


def not_supported(reason: str) -> Any:
    """Declare, in a class body, that a method cannot work here; the support table is generated from these marks."""

    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise Unsupported(f"{type(self).__name__}: {reason}")

    refuse.reason = reason  # type: ignore[attr-defined]
    return refuse


def blocks(samples: int, slots: int) -> list[slice]:
    """The slices of the sample axis that share a ciphertext."""
    return [slice(start, min(start + slots, samples)) for start in range(0, samples, slots)]
