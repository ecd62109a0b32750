"""Numbers of any library as a tensor: arrays and data frames, in any layout and byte order."""

import math
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..data import Data
from ..data.pictures import are_pictures, as_pixels
from ..data.sparse import SparseRows, is_sparse

__all__ = [
    "column_names",
    "convert",
    "how_many",
    "in_order",
    "is_named",
    "numbers",
    "numbers_of",
]

EXACT = 2**53  # whole numbers beyond it are not all float64's
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # types that PyTorch hardly computes with


def numbers(x: object) -> tuple[Tensor, tuple[str, ...] | None]:
    """A tensor of what a library calls an array of numbers, and the names of its columns.

    NumPy (masked, flipped, of either byte order, records), pandas, polars, PyArrow, xarray, SciPy's
    and PyTorch's sparse, quantized and masked arrays, lists, and PIL's pictures are read. What is
    missing there is NaN here.

    Args:
        x: ``(N, ...)``.

    Returns:
        The tensor, in a type that holds all its numbers, and the names of the columns of a frame;
        ``None`` where they are numbered or have none.

    Raises:
        ValueError: what is no number, with its column and the first such value.
    """
    if is_sparse(x):
        return SparseRows(x).dense(), None
    if isinstance(x, Tensor):
        return _strided(x), None
    if isinstance(x, Data):
        raise ValueError(
            f"x is the data set {x.name!r}, of two parts: give data.train or data.test"
        )
    if x is None:
        raise ValueError("x is None: give observations, an array of shape (N, ...)")
    if are_pictures(x):
        return as_pixels(x), None
    columns = _columns(x)
    if columns is None:
        return torch.from_numpy(_plain(x, "")), None
    if not columns:
        raise ValueError("x is empty: it has no column")
    values = [_plain(column, f" in column {name!r}") for name, column in columns]
    for (name, _), value in zip(columns, values, strict=True):
        if value.ndim > 1:
            shape = value.shape[1:]
            raise ValueError(
                f"column {name!r} has entries of shape {shape}: give each number its own column"
            )
    kind = np.result_type(*values)
    found = torch.from_numpy(np.stack([_exact(value, kind) for value in values], 1))
    return found, _names([name for name, _ in columns])


def numbers_of(name: str, x: object) -> Tensor:
    """The numbers of a named block.

    Raises:
        ValueError: what is no number, with the block.
    """
    try:
        return numbers(x)[0]
    except ValueError as problem:
        raise ValueError(f"block {name!r}: {problem}") from None


def how_many(arrays: Mapping[str, Any]) -> int:
    """How many observations arrays by name hold, by the first of them; one, if that is a number."""
    first = next(iter(arrays.values()), ())
    return how_many(first) if is_named(first) else (*np.shape(first), 1)[0]


def is_named(x: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether x is arrays by name, and no array or frame itself."""
    return isinstance(x, Mapping) and not hasattr(x, "toarray") and not hasattr(x, "data_vars")


def column_names(x: object) -> tuple[str, ...] | None:
    """The names of the columns of a frame; ``None`` of another array."""
    columns = None if isinstance(x, Tensor) or is_named(x) else _columns(x)
    return _names([name for name, _ in columns]) if columns else None


def in_order(x: Tensor, columns: tuple[str, ...], names: tuple[str, ...]) -> Tensor:
    """The columns of x, of these names, in the order of others.

    Raises:
        ValueError: x lacks one.
    """
    if columns == names:
        return x
    if absent := [name for name in names if name not in columns]:
        raise ValueError(f"x lacks the column {absent[0]!r}; it has {', '.join(columns)}")
    places = {name: i for i, name in enumerate(columns)}
    return x[:, [places[name] for name in names]]


def _names(names: list[object]) -> tuple[str, ...] | None:
    """The names of columns as texts; ``None`` where they are numbered from 0."""
    if names == list(range(len(names))):
        return None
    texts = tuple(name if isinstance(name, str) else str(name) for name in names)
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ValueError(
            f"x has two columns {twice[0]!r}: give each a name of its own, or x.to_numpy()"
        )
    return texts


def _columns(x: object) -> list[tuple[object, object]] | None:
    """The columns of a data frame and their names; ``None`` for another array."""
    frame: Any = x
    if hasattr(x, "to_native"):  # narwhals
        frame = frame.to_native()
    if hasattr(frame, "collect") and hasattr(frame, "collect_schema"):  # polars' lazy frames
        frame = frame.collect()
    if hasattr(frame, "column_names") and hasattr(frame, "column"):  # PyArrow
        return list(zip(frame.column_names, frame.columns, strict=True))
    if hasattr(frame, "columns") and hasattr(frame, "iloc"):  # pandas
        kinds = set(frame.dtypes)
        if len(kinds) == 1 and isinstance(next(iter(kinds)), np.dtype):
            return list(zip(frame.columns, frame.to_numpy().T, strict=True))
        return [(name, frame.iloc[:, i]) for i, name in enumerate(frame.columns)]
    if hasattr(frame, "get_columns"):  # polars
        return [(column.name, column) for column in frame.get_columns()]
    if hasattr(frame, "data_vars"):  # xarray's data sets
        return list(frame.data_vars.items())
    names = getattr(getattr(frame, "dtype", None), "names", None)  # NumPy's records
    return [(name, frame[name]) for name in names] if isinstance(names, tuple) else None


def _plain(x: object, where: str) -> np.ndarray:
    """Numbers as an array that PyTorch can take: contiguous, of the machine's byte order."""
    source: Any = x
    if is_named(x):
        raise ValueError(f"x must be an array of numbers, got a mapping{where}")
    if hasattr(x, "toarray"):  # SciPy's sparse arrays
        source = source.toarray()
    elif isinstance(x, np.ma.MaskedArray):
        missing, source = np.ma.getmaskarray(x), source.data
        if missing.any():
            source = np.where(missing, None, source.astype(object))
    elif (boxed := _boxed(x)) is not None:
        source = np.array([*boxed, None], object)[:-1]
    elif hasattr(kind := getattr(x, "dtype", None), "na_value") and hasattr(kind, "numpy_dtype"):
        gone = source.isna()  # a nullable type of pandas
        source = source.to_numpy(object if gone.any() else None)
    array = _array(source, where)
    if array.dtype.kind == "O":
        array = _unboxed(_stacked(array, where), where)
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and its like
        with suppress(ValueError, TypeError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        first = f", first {array.ravel()[0]!s}" if array.size else ""
        raise ValueError(f"x must be an array of numbers, got {array.dtype}{first}{where}")
    wide = {"u": np.int64, "f": np.float64}.get(array.dtype.kind)
    if wide is not None and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 1):
        array = _exact(array, np.dtype(np.float64 if array.dtype == np.uint64 else wide))
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return array if array.flags.writeable else array.copy()


def _array(x: Any, where: str) -> np.ndarray:  # noqa: ANN401
    """What NumPy, or DLPack, takes an array of another library for."""
    exchanged = hasattr(x, "__dlpack__")
    try:
        if exchanged and not hasattr(x, "__array__"):
            return torch.from_dlpack(x).cpu().numpy()
        return np.asarray(x)
    except Exception as problem:  # whatever an array of another library raises
        if not exchanged:
            got = f"{type(x).__name__}{_ragged(x)}{where}"
            raise ValueError(f"x must be an array of numbers, got {got}") from problem
        return torch.from_dlpack(x).cpu().numpy()  # an array on a GPU


def _ragged(x: object) -> str:
    """What is to be done with a list of rows that are not of one length; empty of another."""
    rows = x if isinstance(x, list | tuple) and all(hasattr(row, "__len__") for row in x) else ()
    sizes = [*dict.fromkeys(map(len, rows))]
    if len(sizes) < 2:
        return ""
    if any(getattr(row, "ndim", 1) > 1 for row in rows):
        return ": put batches together, torch.cat(x), or give iter(x)"
    return f" of rows of {sizes[0]} and of {sizes[1]} numbers: pad them with NaN to one length"


def _stacked(array: np.ndarray, where: str) -> np.ndarray:
    """The arrays that a column of arrays holds as one, of a dimension more."""
    rows = list(array) if array.ndim == 1 else []
    if not rows or not all(np.ndim(row) for row in rows):
        return array
    if len(shapes := {np.shape(row): None for row in rows}) > 1:
        first, second = list(shapes)[:2]
        raise ValueError(
            f"x must be an array of numbers, got arrays of shapes {first} and {second}{where}: pad "
            "them with NaN to one shape"
        )
    return np.stack([np.asarray(row) for row in rows])


def _boxed(x: object) -> list[object] | None:
    """A column of PyArrow or polars as objects, if cells are missing, or NumPy has no such type."""
    column: Any = x
    if hasattr(x, "to_pylist") and hasattr(x, "type"):
        coded = hasattr(column.type, "index_type")
        return column.to_pylist() if column.null_count or coded else None
    if hasattr(x, "to_list") and callable(getattr(x, "null_count", None)):
        return column.to_list() if column.null_count() or "128" in str(column.dtype) else None
    return None


def _exact(array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """An array in a type that holds its numbers; whole numbers that it would change are refused."""
    if array.dtype.kind not in "iu" or kind.kind != "f" or not array.size:
        return array.astype(kind, copy=False)
    most = EXACT if kind.itemsize > 4 else 2**24
    large = array[(array > most) | (array < -most)]
    for value in large.ravel().tolist():
        _check_whole(value)
    return array.astype(np.float64)


def _check_whole(value: int) -> None:
    """Raise if float64 would change a whole number."""
    if not (abs(value) <= EXACT or int(float(value)) == value):
        raise ValueError(
            f"x holds the whole number {value}, which float64 cannot hold: number the categories "
            "from 0"
        )


def _unboxed(array: np.ndarray, where: str) -> np.ndarray:
    """An array of Python's objects as numbers; ``None`` and ``NA`` are missing."""
    values = np.empty(array.shape)
    for index, value in np.ndenumerate(array):
        value = value.item() if isinstance(value, Tensor) and not value.ndim else value
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            values[index] = math.nan
        elif isinstance(value, Real) or hasattr(value, "is_nan"):  # decimals
            values[index] = _float(value, where)
        else:
            shown = repr(value) if isinstance(value, str) else type(value).__name__
            raise ValueError(f"x must be an array of numbers, got {shown}{where}")
    return values


def _float(value: Any, where: str) -> float:  # noqa: ANN401
    """A number of Python's as float64 holds it."""
    if hasattr(value, "is_nan") and value.is_nan():
        return math.nan
    try:
        if isinstance(value, Integral):
            _check_whole(int(value))
        return float(value)
    except OverflowError:
        raise ValueError(f"x holds a number that is too large for float64{where}") from None


def _strided(x: Tensor) -> Tensor:
    """A plain tensor of the numbers of a tensor of any layout and type."""
    name, got = type(x).__name__, "x must be an array of numbers, got"
    if name == "MaskedTensor":
        masked: Any = x
        values = masked.get_data()
        values = values if values.is_floating_point() else values.double()
        x = torch.where(masked.get_mask(), values, math.nan)
    if is_lazy(x) or x.is_meta or hasattr(x, "fake_mode"):
        raise ValueError(f"{got} a tensor without values ({name} on {x.device})")
    if x.is_nested:
        raise ValueError(
            f"{got} a nested tensor: pad it with x.to_padded_tensor(float('nan')), and "
            "VAE(..., missing=True) takes NaN as a missing cell"
        )
    if x.is_complex():
        raise ValueError(f"{got} complex ones: give real and imaginary")
    x = x.dequantize() if x.is_quantized else x.detach()
    x = x.to_dense() if x.layout is not torch.strided else x
    if x.is_inference() and not torch.is_inference_mode_enabled():
        x = x.clone()
    if x.dtype in UNSIGNED:
        return torch.from_numpy(_plain(x.cpu().numpy(), "")).to(x.device)
    return x.as_subclass(Tensor)


def convert(x: Tensor, like: Tensor) -> Tensor:
    """x in another type; whole numbers that it cannot hold are refused."""
    x = x.to(like.device)
    converted = x.to(like.dtype)
    if x.dtype in (torch.int32, torch.int64, torch.float64) and x.dtype != like.dtype:
        large = x.abs() > int(2 / torch.finfo(like.dtype).eps)
        if large.any():
            changed = large & _whole(x) & (converted.to(x) != x)
            if changed.any():
                kind = str(like.dtype).removeprefix("torch.")
                raise ValueError(
                    f"x holds the whole number {x[changed][0].item():.15g}, which {kind} "
                    "cannot hold: use vae.double(), or number the categories from 0"
                )
    return converted


def _whole(x: Tensor) -> Tensor:
    """The cells of columns of whole numbers; floats so large that all are whole are measured."""
    if not x.is_floating_point():
        return torch.ones_like(x, dtype=torch.bool)
    fractions = (x != x.round()) & x.isfinite()
    return (x.abs() < EXACT / 2) & ~fractions.any(0)
