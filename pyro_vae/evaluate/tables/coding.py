"""Several tables of one layout in one coding, so that they can be compared cell by cell."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ...data.tables import Column, Table
from ...data.tables.cells import Cells, OddWord, is_placeholder
from ...data.tables.frames import Frame
from ...data.tables.placeholders import as_numbers
from ...data.tables.written import read_numbers

__all__ = [
    "MISSING",
    "Coded",
    "alike",
    "as_frame",
    "encode_tables",
    "is_quantity",
    "quantities",
]

MISSING = -1  # the code of a missing cell
DECILES = np.arange(0.1, 0.95, 0.1)
DAY = 86_400e6  # microseconds
NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")  # of objects


@dataclass(frozen=True)
class Coded:
    """A table as whole numbers; the codes of a column mean the same in all tables compared.

    Attributes:
        names: of the D columns.
        numeric: ``(D,)``, whether a column holds quantities (dates and durations, in days, among
            them), not categories.
        values: ``(N, D)``, quantities as they are and categories by code; NaN is missing.
        codes: ``(N, D)``, distinct values in their order, from 0; ``MISSING`` where there is none.
        bins: ``(N, D)``, quantities by decile of the reference table, categories by code; the
            missing ones are a bin of their own, 0.
        beside: ``(N,)``, rows of the table that it is compared with, whose condition each has.
    """

    names: tuple[str, ...]
    numeric: np.ndarray
    values: np.ndarray
    codes: np.ndarray
    bins: np.ndarray
    beside: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def draw(self, number: int, generator: np.random.Generator) -> "Coded":
        """So many of the rows, in their order."""
        if number == len(self):
            return self
        rows = np.sort(generator.choice(len(self), number, replace=False))
        parts = {k: getattr(self, k) for k in ("values", "codes", "bins", "beside")}
        return replace(self, **{k: v if v is None else v[rows] for k, v in parts.items()})

    def given_by(self, other: "Coded") -> tuple[np.ndarray, np.ndarray | None]:
        """Which columns rows of another table gave it, in turn, and those rows; none where none.

        Such columns are the other's row by row, as a condition is. Rows that are so altogether are
        copies.
        """
        rows = np.arange(len(self)) % len(other)
        same = (self.codes == other.codes[rows]).all(0)
        given = same & (self.codes != self.codes[0]).any(0) & (not same.all())
        return given, rows if given.any() else None


def encode_tables(tables: Mapping[str, object], reference: str) -> dict[str, Coded]:
    """Code tables in common.

    Args:
        tables: frames by what they are called in messages.
        reference: whose columns, types and deciles are those of all.

    Raises:
        ValueError: a table is empty, lacks a column or has another, or a column of quantities
            holds something else.
    """
    frames: dict[str, Any] = {name: as_frame(table, name) for name, table in tables.items()}
    names = tuple(frames[reference])
    for name, frame in frames.items():
        if different := sorted(set(frame) ^ set(names)):
            lacks = different[0] in names
            raise ValueError(
                f"{name} {'lacks' if lacks else 'has'} column {different[0]!r}, which {reference} "
                f"{'has' if lacks else 'lacks'}: expected the columns {', '.join(names)}"
            )
    columns = [_column({k: f.loc[:, c] for k, f in frames.items()}, reference) for c in names]
    numeric, *pooled = (np.stack(parts, -1) for parts in zip(*columns, strict=True))
    ends = np.cumsum([len(frame) for frame in frames.values()])[:-1]
    split = zip(*(np.split(array, ends) for array in pooled), strict=True)
    return {k: Coded(names, numeric, *arrays) for k, arrays in zip(frames, split, strict=True)}


def as_frame(table: object, name: str = "the table") -> pd.DataFrame:
    """A table, a frame of pandas, polars or PyArrow, or what ``pandas.DataFrame`` reads.

    Raises:
        ValueError: it has no rows or columns, or two columns of one name.
    """
    missing = table.missing if isinstance(table, Table) else np.empty((0, 0), bool)
    cells = table.schema.cells if isinstance(table, Table) else ()
    table = table.to_frame() if isinstance(table, Table) else table
    frame = table if isinstance(table, pd.DataFrame) else None
    if frame is None:
        convert = getattr(table, "to_pandas", None)
        try:
            frame = convert() if convert is not None else pd.DataFrame(table)  # pyrefly: ignore[bad-argument-type]
        except (ValueError, TypeError):
            frame = pd.DataFrame()
        if not all(map(pd.api.types.is_scalar, frame.head(1).to_numpy().flat)) or frame.empty:
            raise ValueError(
                f"{name} is a frame of rows, got {type(table).__name__}: give a pandas.DataFrame, "
                "whose cells are numbers and words"
            )
    if not len(frame) or not len(frame.columns):
        raise ValueError(f"{name} is empty: expected rows and columns, got {frame.shape}")
    if not (names := frame.columns.map(str)).is_unique:
        twice = names[names.duplicated()][0]
        raise ValueError(f"{name} has two columns named {twice!r}: rename one of them")
    holes = {c: frame[c].mask(gone) for c, gone in zip(cells, missing.T, strict=True) if gone.any()}
    return frame.assign(**holes).set_axis(names, axis=1)


def _column(parts: dict[str, pd.Series], reference: str) -> tuple[np.ndarray, ...]:
    """Whether a column is of quantities, and its values, codes and bins in all tables, joined."""
    parts = alike(parts, reference)
    numeric = is_quantity(parts[reference])
    read = quantities if numeric else _categories
    series = {k: read(part, k) for k, part in parts.items()}
    pooled = np.concatenate(list(series.values()))
    codes = pd.factorize(pooled, sort=numeric)[0]
    values = pooled if numeric else np.where(codes == MISSING, np.nan, codes)
    bins = codes + 1
    if numeric:
        known = series[reference][~np.isnan(series[reference])]
        edges = np.unique(np.quantile(known, DECILES)) if len(known) else np.empty(0)
        bins = np.where(codes == MISSING, 0, np.searchsorted(edges, pooled, "right") + 1)
    return np.array(numeric), values, codes, bins


def _plain(column: pd.Series) -> pd.Series:
    """A column whose times and durations are neither objects nor Arrow's, nor dates in words."""
    kind = pd.api.types
    if isinstance(column.dtype, pd.ArrowDtype) and column.dtype.kind not in "biuf":
        column = column.astype(object)
    if not (kind.is_object_dtype(column) or isinstance(column.dtype, pd.StringDtype)):
        return column
    inferred = kind.infer_dtype(column, skipna=True)
    if inferred == "timedelta":
        return pd.to_timedelta(column)
    if inferred in ("date", "datetime"):
        return pd.to_datetime(column, utc=True)
    if inferred == "string" and column.dropna().str.match(r"\d{4}-\d\d-\d\d").all():
        with suppress(ValueError):  # a date that is none
            return pd.to_datetime(column, format="ISO8601", utc=True)
    return column


def alike(parts: Mapping[str, pd.Series], reference: str) -> dict[str, pd.Series]:
    """One column of several tables, its words that are numbers, dates or durations as such.

    Words such as "$1,200" and "12%" are numbers as a table reads them, those beside "?" too.

    Args:
        parts: the column by table.
        reference: the table whose way of writing numbers is that of all.

    Raises:
        ValueError: a word of another table that is no number.
    """
    parts = {k: _plain(part) for k, part in parts.items()}
    words = {k: _cells(part) for k, part in parts.items() if _has_words(part)}
    numbers = {k: _filled(c) for k, c in words.items() if c.sort in ("whole", "number")}
    words = {k: c for k, c in words.items() if k not in numbers}
    if (first := words.get(reference)) is not None:
        base = Column(first.name, "real", "", "", first.sort or "word", first.dtype)
        form = None
        with suppress(OddWord):
            form = as_numbers(first, base, guess=True, declared=False)[1].format
        if form is not None:
            numbers |= {k: _amounts(cells, form, k) for k, cells in words.items()}
    return parts | numbers


def _has_words(column: pd.Series) -> bool:
    kind = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype) or column.isna().all():
        return False
    return kind.infer_dtype(column, skipna=True) in ("string", "mixed", "mixed-integer")


def _cells(column: pd.Series) -> Cells:
    name = str(column.name)
    return Frame({name: column.reset_index(drop=True)}).cells(name, any_type=True)


def _amounts(cells: Cells, form: str, table: str) -> pd.Series:
    """Words as the numbers that they are, NaN where there is none."""
    gone = [word for word in {*cells.seen.tolist()} if is_placeholder(word)]
    try:
        return _filled(read_numbers(cells.without(gone), form))
    except ValueError as problem:
        first = str(problem).split("\n")[0]
        raise ValueError(f"{table}: {first}: write the column alike in all tables") from problem


def _filled(cells: Cells) -> pd.Series:
    values = np.full(len(cells), np.nan)
    values[cells.known] = cells.seen
    return pd.Series(values, name=cells.name)


def is_quantity(column: pd.Series) -> bool:
    """Whether a column, as :func:`alike` gives it, is of numbers, times or durations."""
    kind = pd.api.types
    if kind.is_bool_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype):
        return False
    if kind.is_object_dtype(column):
        return kind.infer_dtype(column, skipna=True) in NUMBERS
    return kind.is_numeric_dtype(column) or _in_time(column)


def _in_time(column: pd.Series) -> bool:
    kind = pd.api.types
    return kind.is_datetime64_any_dtype(column) or kind.is_timedelta64_dtype(column)


def quantities(column: pd.Series, table: str) -> np.ndarray:
    """A column as float64; times, of any zone, and durations in days.

    Args:
        column: as :func:`alike` gives it.
        table: what it is of, for messages.

    Raises:
        ValueError: what is no number, or an infinite one.
    """
    if _in_time(column):
        if pd.api.types.is_timedelta64_dtype(column):
            return (column / pd.Timedelta(days=1)).to_numpy(np.float64)
        moments = column if column.dt.tz is None else column.dt.tz_convert(None)
        found = moments.to_numpy("datetime64[us]")
        return np.where(column.isna(), np.nan, found.astype(np.int64) / DAY)
    try:
        numbers: Any = pd.to_numeric(column)
        found = numbers.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as problem:
        raise ValueError(
            f"{table}: column {str(column.name)!r} holds quantities elsewhere, and here "
            f"{column.dtype}: make it a category in all tables, or numbers ({problem})"
        ) from problem
    if (wrong := np.flatnonzero(np.isinf(found))).size:
        raise ValueError(
            f"{table}: column {str(column.name)!r} is infinite in row {wrong[0]}: "
            "expected finite numbers, or NaN for a missing cell"
        )
    return found


def _categories(column: pd.Series, table: str) -> np.ndarray:
    """As objects, ``None`` where missing."""
    found = column.astype(object).to_numpy(copy=True)
    found[column.isna()] = None
    return found
