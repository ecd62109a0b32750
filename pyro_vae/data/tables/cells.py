"""A column of a frame of any library as one array, with what is missing told apart."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import narwhals as nw
import numpy as np

from .columns import Level, Sort
from .native import categories, dtype_text, in_known_zone

__all__ = ["AS_WORDS", "Cells", "OddWord", "cells_of", "check_years", "is_placeholder"]


# How to make a column of what a table can hold.
AS_WORDS = "frame[name].map(str, na_action='ignore')"
HOW = {
    "fractions.Fraction": ", frame[name].astype(float)",
    "pandas.Period": ", frame[name].dt.to_timestamp()",
    "datetime.time": ", as hours: frame[name].map(lambda t: t.hour + t.minute / 60, "
    "na_action='ignore')",
    "bytes": ", frame[name].str.decode('utf-8')",
}
PLACEHOLDERS = {"", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "<na>", "null", "missing"}
PLACEHOLDERS |= {"..", "n.a.", "./.", ".|."}  # of statistics offices and of genotypes
PLACEHOLDERS |= {"#div/0!", "#name?", "#null!", "#num!", "#ref!", "#value!"}  # of spreadsheets


class OddWord(ValueError):
    """A word that does not go with the others of its column.

    Args:
        word: as it stands there.
        problem: what is wrong.
        advice: what to do.
    """

    def __init__(self, word: str, problem: str, advice: str) -> None:
        super().__init__(f"{problem}\n{advice}")
        self.word, self.problem, self.advice = word, problem, advice


@dataclass(frozen=True)
class Cells:
    """The cells of a column.

    Attributes:
        name: of the column.
        sort: what the known cells are; ``None`` where all are missing.
        values: ``(N,)``: booleans, whole numbers, float64, words or levels (objects), times or
            durations of NumPy; what stands in missing cells means nothing.
        known: ``(N,)``, false where a cell is missing.
        dtype: the type of the frame's column, by its library's name.
        labels: of the rows, where the library has them.
        levels: where the type of the column names them.
        ordered: whether that type says that they are in order.
        gone: the words that stood for missing cells among objects that are numbers.
    """

    name: str
    sort: Sort | None
    values: np.ndarray
    known: np.ndarray
    dtype: str
    labels: Sequence[object] | None = None
    levels: tuple[Level, ...] = ()
    ordered: bool = False
    gone: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.known)

    def take(self, rows: np.ndarray) -> "Cells":
        """The cells of some rows, without the labels of the rows."""
        return replace(self, values=self.values[rows], known=self.known[rows], labels=None)

    def without(self, values: Sequence[Level]) -> "Cells":
        """The cells, those with one of the values missing."""
        if not (alike := set(self.alike(values))):
            return self
        known = self.known.copy()
        known[known] = [value not in alike for value in self.seen.tolist()]
        sort = self.sort if known.any() else None
        levels = tuple(level for level in self.levels if level not in alike)
        return replace(self, known=known, sort=sort, levels=levels)

    def alike(self, values: Sequence[Level]) -> tuple[Level, ...]:
        """Those of some values that could be cells: words of words, numbers of numbers."""
        if self.sort == "word":
            return tuple(v for v in values if isinstance(v, str))
        if self.sort not in ("whole", "number"):
            return ()
        return tuple(v for v in values if not isinstance(v, str | bool))

    @property
    def seen(self) -> np.ndarray:
        """The known cells alone."""
        return self.values[self.known]

    def error(self, where: "np.ndarray | int | None", problem: str, advice: str) -> ValueError:
        """An error that names the column and the first row of ``where``, from 0."""
        place = ""
        if where is not None:
            row = int(where) if isinstance(where, int) else int(np.flatnonzero(where)[0])
            label = row if self.labels is None else self.labels[row]
            label = label.item() if isinstance(label, np.generic) else label
            place = f", row {row}" + (f" (index {label!r})" if label != row else "")
        return ValueError(f"column {self.name!r}{place}: {problem}\n{advice}")

    def first(self, where: np.ndarray) -> object:
        """The first cell of ``where``, as Python has it."""
        value = self.values[np.flatnonzero(where)[0]]
        if isinstance(value, np.timedelta64):
            return str(value.astype("timedelta64[us]").item())
        return value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value


def is_placeholder(value: object) -> bool:
    """Whether a word stands for a missing cell, most likely."""
    return isinstance(value, str) and value.strip().lower() in PLACEHOLDERS


def cells_of(
    series: nw.Series,
    labels: Sequence[object] | None = None,
    na_values: Sequence[Level] = (),
) -> Cells:
    """The cells of a column.

    Args:
        series: the column.
        labels: of its rows, for messages.
        na_values: words that stand for missing cells; beside numbers ``?`` and the like do so too.

    Raises:
        ValueError: cells of several types, or of one that a table cannot hold.
    """
    text, series = dtype_text(series), in_known_zone(series)
    kind, name = series.dtype, series.name
    known = ~series.is_null().to_numpy().astype(bool)
    blank = Cells(name, None, np.empty(len(series), object), known, text, labels)
    if not known.any():
        levels, ordered = categories(series)
        return replace(blank, levels=levels, ordered=ordered)
    if kind in (nw.Categorical, nw.Enum):
        return _levelled(blank, series)
    seen = series.drop_nulls()
    if kind == nw.Boolean:
        return _filled(blank, "boolean", seen.to_numpy().astype(bool))
    if kind.is_integer():
        return _filled(blank, "whole", seen.to_numpy())
    if kind.is_float() or kind.is_decimal():
        values = np.full(len(series), np.nan)
        values[known] = seen.to_numpy()
        return replace(blank, sort="number", values=values, known=~np.isnan(values))
    if kind in (nw.Datetime, nw.Date):
        array = seen.to_numpy()
        return _times(blank, array if array.dtype.kind == "M" else array.astype("datetime64[D]"))
    if kind == nw.Duration:
        return _filled(blank, "duration", seen.to_numpy())
    if kind == nw.String and blank.dtype != "object":
        return _filled(blank, "word", np.array(seen.to_list(), dtype=object))
    if kind in (nw.String, nw.Object, nw.Unknown):
        return _objects(blank, seen.to_list(), na_values)
    raise blank.error(
        known, f"a table cannot hold {blank.dtype}", "give numbers, words, booleans or dates"
    )


def _filled(blank: Cells, sort: Sort, seen: np.ndarray) -> Cells:
    """The known cells among the missing ones."""
    values = np.zeros(len(blank), seen.dtype)
    values[blank.known] = seen
    return replace(blank, sort=sort, values=values)


def _levelled(blank: Cells, series: nw.Series) -> Cells:
    """A column whose type names its levels."""
    levels, ordered = categories(series)
    sorts = [_sort(level) for level in levels]
    sort = sorts[0]
    seen = series.drop_nulls().to_list()
    if sort not in ("word", "whole", "number", "boolean") or len(set(sorts)) > 1:
        odd = [_sort(value) != _sort(seen[0]) for value in seen]
        at = int(np.argmax(odd))  # 0 where all are of one sort
        others = [level for level in levels if _sort(level) != _sort(seen[at])]
        beside = f" beside {others[0]!r}" if others else ""
        raise blank.error(
            int(np.flatnonzero(blank.known)[at]),
            f"the category {seen[at]!r} ({_sort(seen[at])}){beside}",
            "give categories that are words, or numbers, or booleans, all of one type: "
            "frame[name].cat.rename_categories(str)",
        )
    values = np.empty(len(blank), object)
    values[blank.known] = seen
    return replace(blank, sort=sort, values=values, levels=levels, ordered=ordered)


def _sort(value: object) -> str:
    """The sort of a single cell, or the name of its type where there is none."""
    match value:
        case bool() | np.bool_():
            return "boolean"
        case int() | np.integer():
            return "whole"
        case float() | np.floating() | Decimal():
            return "number"
        case str():
            return "word"
        case datetime.date() | np.datetime64():
            return "time"
        case datetime.timedelta() | np.timedelta64():
            return "duration"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def _objects(blank: Cells, seen: list[Any], na_values: Sequence[Level]) -> Cells:
    """A column of Python's objects: all of one type, or whole numbers among others."""
    numeric = any(_sort(value) in ("whole", "number") for value in seen)
    words = {v for v in seen if isinstance(v, str) and (v in na_values or is_placeholder(v))}
    if numeric and words:
        known = blank.known.copy()
        known[known] = [not (isinstance(value, str) and value in words) for value in seen]
        gone = tuple(value for value in seen if isinstance(value, str) and value in words)
        blank = replace(blank, known=known, gone=gone)
        seen = [value for value in seen if not (isinstance(value, str) and value in words)]
    sorts = np.array([_sort(value) for value in seen])
    places = np.flatnonzero(blank.known)
    names = set(sorts.tolist())
    if names == {"whole", "number"}:
        sorts[:], names = "number", {"number"}
    if len(names) > 1:
        one, other = sorts[0], next(sort for sort in sorts if sort != sorts[0])
        at = int(np.argmax(sorts == other))
        raise blank.error(
            int(places[at]),
            f"cells of several types: {seen[at]!r} ({other}) beside {seen[0]!r} ({one}) in row "
            f"{places[0]}",
            f"give cells of one type: {AS_WORDS} makes words of them, "
            "pandas.to_numeric(frame[name], errors='coerce') numbers",
        )
    sort = names.pop()
    if sort not in ("boolean", "whole", "number", "word", "time", "duration"):
        raise blank.error(
            int(places[0]),
            f"a table cannot hold {sort}, got {seen[0]!r}",
            f"give numbers, words, booleans or dates{HOW.get(sort, '')}, or leave the column out: "
            f"kinds={{{blank.name!r}: 'identifier'}}",
        )
    if sort == "time":
        return _days(blank, seen)
    if sort == "number":
        values = np.full(len(blank), np.nan)
        values[blank.known] = [float(value) for value in seen]
        return replace(blank, sort=sort, values=values, dtype=_with_places(blank.dtype, seen))
    kind = {"word": object, "boolean": bool, "whole": np.int64, "duration": "timedelta64[us]"}
    try:
        return _filled(blank, sort, np.array(seen, dtype=kind[sort]))
    except OverflowError:
        large = next(i for i, v in enumerate(seen) if not -(2**63) <= v < 2**63)
        raise blank.error(
            int(places[large]),
            f"{seen[large]} is beyond 64 bits",
            f"give them as words: {AS_WORDS}",
        ) from None


def _with_places(dtype: str, seen: list[Any]) -> str:
    """The type of a column of objects, with the places after the point where they are decimals."""
    if dtype != "object" or not all(isinstance(value, Decimal) for value in seen):
        return dtype
    places = (-value.as_tuple().exponent for value in seen if value.is_finite())
    return f"object[decimal, {max([0, *places])}]"


def _days(blank: Cells, seen: list[object]) -> Cells:
    """Dates and times as Python's objects; without zones."""
    zoned = [getattr(value, "tzinfo", None) is not None for value in seen]
    if any(zoned):
        raise blank.error(
            int(np.flatnonzero(blank.known)[int(np.argmax(zoned))]),
            "objects with a time zone",
            "give a column of times: pandas.to_datetime(frame[name], utc=True)",
        )
    exact = any(isinstance(value, datetime.datetime | np.datetime64) for value in seen)
    times = _times(blank, np.array(seen, dtype=f"datetime64[{'us' if exact else 'D'}]"))
    dates = blank.dtype == "object" and not exact
    return replace(times, dtype="object[date]") if dates else times


def _times(blank: Cells, seen: np.ndarray) -> Cells:
    return check_years(_filled(blank, "time", seen))


def check_years(cells: Cells) -> Cells:
    """The times as they are.

    Raises:
        ValueError: the first whose year is beyond the calendar, or one of those that stand for
            "never".
    """
    years = cells.values.astype("datetime64[Y]").astype(int) + 1970
    wrong = cells.known & ((years <= 1) | (years >= 9999))
    if wrong.any():
        raise cells.error(
            wrong,
            f"the date {cells.first(wrong)} is out of range",
            "dates lie in the years 2 to 9998; a date that stands for 'never' or 'unknown' is "
            "missing: put None there",
        )
    return cells
