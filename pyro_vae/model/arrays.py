"""Numbers of any library as a tensor: arrays and data frames, in any layout and byte order."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = ["numbers"]


def numbers(x: Tensor | ArrayLike) -> tuple[Tensor, tuple[str, ...] | None]:
    """A tensor of what a library calls an array of numbers, and the names of its columns.

    NumPy (masked, flipped, of either byte order, records), pandas, polars, PyArrow, xarray, SciPy's
    and PyTorch's sparse arrays, and lists are read. What is missing there is NaN here.

    Args:
        x: ``(N, ...)``.

    Returns:
        The tensor, in a type that holds all its numbers, and the names of the columns of a frame;
        ``None`` where they are numbered or have none.

    Raises:
        ValueError: what is no number, with its column and the first such value.
    """
    if isinstance(x, Tensor):
        return _real(x.to_dense() if x.layout is not torch.strided else x), None
    columns = _columns(x)
    if columns is None:
        return torch.from_numpy(_plain(x, "")), None
    if not columns:
        raise ValueError("x is empty: it has no column")
    values = [_plain(column, f" in column {name!r}") for name, column in columns.items()]
    named = all(isinstance(name, str) for name in columns)
    array = torch.from_numpy(np.stack(values, 1))
    return array, tuple(columns) if named else None


def _columns(x: object) -> dict[str, object] | None:
    """The columns of a data frame by name; ``None`` for another array."""
    frame: Any = x
    if hasattr(x, "column_names") and hasattr(x, "column"):  # PyArrow
        return dict(zip(frame.column_names, frame.columns, strict=True))
    if hasattr(x, "columns") and hasattr(x, "iloc"):  # pandas
        if all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in frame.dtypes):
            values = frame.to_numpy()
            return {name: values[:, i] for i, name in enumerate(frame.columns)}
        return {name: frame.iloc[:, i] for i, name in enumerate(frame.columns)}
    if hasattr(x, "get_columns"):  # polars
        return {column.name: column for column in frame.get_columns()}
    names = getattr(getattr(x, "dtype", None), "names", None)  # NumPy's records
    return None if names is None else {name: frame[name] for name in names}


def _plain(x: object, where: str) -> np.ndarray:
    """Numbers as an array that PyTorch can take: contiguous, of the machine's byte order."""
    source: Any = x
    if isinstance(x, Mapping):
        raise ValueError(f"x must be an array of numbers, got a mapping{where}")
    if hasattr(x, "toarray"):  # SciPy's sparse arrays
        source = source.toarray()
    elif isinstance(x, np.ma.MaskedArray):
        values = source.astype(np.float64) if source.mask.any() else source
        source = values.filled(math.nan) if source.mask.any() else values.data
    elif hasattr(kind := getattr(x, "dtype", None), "na_value") and hasattr(kind, "numpy_dtype"):
        source = source.to_numpy(np.float64, na_value=math.nan)  # a nullable type of pandas
    try:
        array = np.asarray(source)
    except Exception as problem:  # whatever an array of another library raises
        raise ValueError(
            f"x must be an array of numbers, got {type(x).__name__}{where}"
        ) from problem
    if array.dtype.kind == "O":
        array = _unboxed(array, where)
    if array.dtype.kind not in "biuf":
        first = f", first {array.ravel()[0].item()!r}" if array.size else ""
        raise ValueError(f"x must be an array of numbers, got {array.dtype}{first}{where}")
    wide = {"u": np.int64, "f": np.float64}.get(array.dtype.kind)
    if wide is not None and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 1):
        array = array.astype(np.float64 if array.dtype == np.uint64 else wide)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return array if array.flags.writeable else array.copy()


def _unboxed(array: np.ndarray, where: str) -> np.ndarray:
    """An array of Python's objects as numbers; ``None`` and ``NA`` are missing."""
    values = np.empty(array.shape)
    for index, value in np.ndenumerate(array):
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            values[index] = math.nan
        elif isinstance(value, Real) or hasattr(value, "is_nan"):  # decimals
            values[index] = float(value)  # pyright: ignore[reportArgumentType]
        else:
            shown = repr(value) if isinstance(value, str) else type(value).__name__
            raise ValueError(f"x must be an array of numbers, got {shown}{where}")
    return values


def _real(x: Tensor) -> Tensor:
    if x.is_complex():
        raise ValueError("x must be an array of numbers, got complex ones: give real and imaginary")
    return x
