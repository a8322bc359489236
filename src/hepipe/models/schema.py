"""The public description of a model's inputs: which columns, in which order, in which range.

A schema is published: whoever encrypts needs it. It holds no training statistics, only what the column means and
the range a value may lie in, so that nothing outside it is ever encrypted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from hepipe.errors import OutOfRange, ShapeMismatch
from hepipe.schemes.base import Samples

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_BOUND = 2.0**16
"""|x| allowed for a column about which nothing is known."""
_REAL = "biuf"
"""Kinds of dtype, numpy's or pandas' own, of booleans, integers and floats."""


@dataclass(frozen=True)
class Column:
    """One column: its name, the closed range [low, high] its values lie in, and what they mean."""

    name: str
    low: float
    high: float
    dtype: str = "float"
    unit: str = ""
    meaning: str = ""
    nullable: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise OutOfRange(f"column {self.name!r}: the range [{self.low}, {self.high}] is not a finite interval")


@dataclass(frozen=True)
class Schema:
    """Columns in the order in which they are encrypted."""

    columns: tuple[Column, ...]

    @classmethod
    def unknown(cls, features: int, bound: float = DEFAULT_BOUND, names: Sequence[str] | None = None) -> Schema:
        """A schema for ``features`` columns of which only |x| <= ``bound`` is known."""
        names = names if names is not None else [f"x{i}" for i in range(features)]
        return cls(tuple(Column(str(name), -bound, bound) for name in names))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def low(self) -> npt.NDArray[np.float64]:
        """The least value of each column."""
        return np.array([column.low for column in self.columns])

    @property
    def high(self) -> npt.NDArray[np.float64]:
        """The largest value of each column."""
        return np.array([column.high for column in self.columns])

    def to_array(self, data: Samples) -> npt.NDArray[np.float64]:
        """Return ``data`` as float64 of shape (samples, features), columns in schema order.

        A DataFrame is read by column name, an array by position. Missing values stay NaN.
        """
        if is_frame(data):
            missing = [name for name in self.names if name not in data.columns]
            if missing:
                raise ShapeMismatch(f"missing column(s) {missing}: the model takes {list(self.names)}")
            data = data[list(self.names)]
            text = [str(name) for name, dtype in data.dtypes.items() if dtype.kind not in _REAL]
            if text:
                raise ShapeMismatch(f"column(s) {text} are not numeric: pass integers, floats or booleans")
            array = data.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            array = np.asarray(data)
            if array.dtype.kind not in _REAL:
                raise ShapeMismatch(f"dtype {array.dtype} is not numeric: pass integers, floats or booleans")
            array = array.astype(np.float64)
        array = array[None, :] if array.ndim == 1 else array
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise ShapeMismatch(f"got shape {array.shape}: the model takes (samples, {len(self.columns)})")
        return array

    def check(self, array: npt.NDArray[np.float64]) -> None:
        """Raise OutOfRange naming column and row at the first value that is NaN, infinite or outside its range."""
        bad = ~((array >= self.low) & (array <= self.high))  # written so that NaN counts as bad
        if bad.any():
            row, index = (int(i) for i in np.argwhere(bad)[0])
            column = self.columns[index]
            raise OutOfRange(
                f"row {row}, column {column.name!r}: {array[row, index]} is not in [{column.low}, {column.high}]; "
                f"{int(bad.sum())} such value(s) in all: correct or impute them before encrypting"
            )


def is_frame(data: Any) -> TypeGuard[pd.DataFrame]:
    """Whether it is a DataFrame; where pandas was never loaded nothing is, and it need not be loaded to say so."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)
