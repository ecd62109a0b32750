"""Cells as the numbers that a model reads, and back, with a check of each cell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np

from ...language.spec import Spec, as_spec, nearest
from .cells import AS_WORDS, Cells
from .columns import Column, Kind, Level
from .declared import kind_of_line
from .moments import DAY, ZONE, as_days, as_times, check_zones, in_zone, read_words, write_words
from .native import DECIMAL
from .written import read_booleans, read_numbers, write_booleans, write_numbers

__all__ = [
    "EXACT",
    "check_constant",
    "check_support",
    "codes",
    "constant",
    "decoded",
    "drawn",
    "encoded",
    "own_part",
    "quantities",
    "written_places",
]

EXACT = 2**53  # whole numbers beyond it have no float64 of their own
LARGEST = 1e18  # of numbers: densities square them, and single precision ends at 3e38
PLACES = re.compile(r"[.,](\d+)f\}")  # in the form of numbers that are written as words
AS_NUMBERS = "pandas.to_numeric(frame[name])"
# What may come in place of what: whole numbers that have holes are floats in pandas.
ALIKE = ({"whole", "number"}, {"boolean"}, {"word"}, {"time"}, {"duration"})


def quantities(cells: Cells) -> np.ndarray:
    """Numbers, booleans and durations (in days) as float64, NaN where a cell is missing.

    Raises:
        ValueError: the first that is infinite, or whole and too large for a float64.
    """
    values = np.full(len(cells), np.nan)
    seen = cells.seen
    if cells.sort == "duration":
        seen = seen / DAY
    elif cells.sort == "whole":
        large = cells.known.copy()
        large[large] = np.abs(seen.astype(np.float64)) > EXACT
        if large.any():
            raise cells.error(
                large,
                f"{cells.first(large)} is too large for a number that is modelled",
                f"if it identifies something: kinds={{{cells.name!r}: 'identifier'}}; otherwise "
                "give the column in a larger unit",
            )
    values[cells.known] = seen
    if (infinite := np.isinf(values)).any():
        raise cells.error(
            infinite,
            f"{values[infinite][0]} is no number that can be modelled",
            "put a number there, or None where it is missing",
        )
    _check_size(cells, values)
    return values


def _check_size(cells: Cells, values: np.ndarray) -> None:
    """Raise for numbers that single precision cannot hold, or cannot tell from 0."""
    size = np.abs(values)
    if (large := size > LARGEST).any():
        problem, advice = f"{values[large][0]:g} is too large to be modelled", "a larger unit"
        raise cells.error(large, problem, f"give the column in {advice}")
    if cells.known.any() and 0 < np.nanmax(size) < 1 / LARGEST:
        raise cells.error(
            size > 0,
            f"its numbers are at most {np.nanmax(size):g}, too small to be modelled",
            "give the column in a smaller unit",
        )


def codes(cells: Cells, levels: tuple[Level, ...]) -> np.ndarray:
    """The place of each cell among the levels, NaN where a cell is missing.

    Raises:
        ValueError: the first that is not among them.
    """
    places: Mapping[object, int] = {level: i for i, level in enumerate(levels)}
    codes = np.full(len(cells), np.nan)
    codes[cells.known] = [places.get(value, -1) for value in cells.seen.tolist()]
    if (unseen := codes == -1).any():
        value, words = cells.first(unseen), [str(level) for level in levels]
        raise cells.error(
            unseen,
            f"{value!r} is not among its levels{nearest(str(value), words)}",
            f"the levels are {', '.join(words[:12])}{' ...' if len(words) > 12 else ''}: put one "
            "of them there, or None if no condition reads it, or make the table from a frame that "
            "has this level",
        )
    return codes


def encoded(column: Column, cells: Cells) -> np.ndarray:
    """The numbers of a column's own cells, ``(N,)``.

    Raises:
        ValueError: the first cell that is of another sort, or outside of what the column can hold.
    """
    if not cells.known.any():
        return np.full(len(cells), np.nan)
    _check_sort(column, cells)
    if column.sort == "boolean" and cells.sort == "word":
        cells = read_booleans(cells)
    if column.has_codes:
        return codes(cells, column.levels)
    if column.sort == "time":
        if column.format is not None and cells.sort == "word":
            cells = read_words(cells, column.format)
        elif column.format is not None:
            check_zones(cells, column.format)
        elif column.whole:
            cells = replace(cells, values=in_zone(cells.values, column.dtype))
        days = as_days(cells, str(column.origin))
        _check_times(column, cells, days)
        return days
    if column.format is not None and cells.sort == "word":
        cells = read_numbers(cells, column.format)
    values = quantities(cells)
    check_support(column, cells, values)
    return values


def check_support(column: Column, cells: Cells, values: np.ndarray) -> None:
    """Raise for the first number that a column of this kind cannot have."""
    name, spec = column.name, as_spec(column.line) if column.line else Spec("Normal")
    inner = spec.args[0] if spec.args and isinstance(spec.args[0], Spec) else spec
    of_numbers = column.kind in ("hurdle", "survival")
    kind = kind_of_line(inner) if of_numbers else column.kind
    kind = "positive" if column.kind == "survival" else kind
    beside = values if column.spike is None else np.where(values == column.spike, np.nan, values)
    rules = {
        "positive": (beside <= 0, f"{inner} has positive numbers alone"),
        "bounded": ((beside <= 0) | (beside >= 1), f"{inner} has numbers within (0, 1) alone"),
        "count": (beside < 0, "a count is not negative"),
        "event": ((values != 0) & (values != 1), "an event is 0 (censored) or 1 (seen)"),
    }
    wrong, problem = rules.get(kind or "", (np.zeros(len(values), bool), ""))
    wrong = wrong & cells.known
    if wrong.any():
        advice = {
            "positive": f"if it is right: likelihood={{{name!r}: 'Normal'}}, or 'Hurdle({inner})' "
            "where 0 occurs often",
            "bounded": f"if it is right: likelihood={{{name!r}: 'Normal'}}",
            "count": f"if it is right: likelihood={{{name!r}: 'Normal'}}; where it stands for a "
            "missing cell, put None there",
            "event": f"make it so: frame[{name!r}] == 2, where 2 stands for the event",
            "survival": "count from an earlier start, or in a smaller unit: half a day for a day 0",
        }
        which = "survival" if column.kind == "survival" else kind or ""
        raise cells.error(wrong, f"{cells.first(wrong)!r}: {problem}", advice[which])
    parts = values != np.round(values)
    if (column.whole or kind == "count") and (parts & cells.known).any():
        raise cells.error(
            parts & cells.known,
            f"{cells.first(parts & cells.known)!r} in a column of whole numbers",
            "round it, or make the table from a frame that has such numbers",
        )


def _check_times(column: Column, cells: Cells, days: np.ndarray) -> None:
    """Raise for the first time that the column would have to change: its hour, or its zone."""
    typed = "object" not in column.dtype + cells.dtype  # which then says whether there is a zone
    zone, other = (ZONE.search(dtype) for dtype in (column.dtype, cells.dtype))
    if column.format is None and typed and (zone is None) != (other is None):
        raise cells.error(
            cells.known,
            f"expected times as {column.dtype}, got {cells.dtype}",
            f"give their zone, if it is this: frame[name].dt.tz_localize({zone[1]!r})"
            if zone
            else "give the times of one zone without it, frame[name].dt.tz_localize(None)",
        )
    hours = cells.known & (days != np.round(days))
    if column.whole and hours.any():
        raise cells.error(
            hours,
            f"{cells.first(hours)} in a column of days",
            "give the day, frame[name].dt.normalize(), or make the table from a frame that has "
            "such times",
        )


def _check_sort(column: Column, cells: Cells) -> None:
    expected = column.sort
    if column.format is not None and cells.sort == "word":
        return
    if not any({expected, cells.sort} <= alike for alike in ALIKE):
        words = {"whole": "whole numbers", "number": "numbers", "boolean": "booleans"}
        words |= {"word": "words", "time": "times", "duration": "durations"}
        numeric = cells.sort in ("whole", "number")
        days = ", unit='D'" if numeric else ""
        number = "frame[name].astype(float)" if cells.sort == "boolean" else AS_NUMBERS
        advice = {
            "whole": number,
            "number": number,
            "time": f"pandas.to_datetime(frame[name]{days})",
            "word": AS_WORDS,
            "boolean": "frame[name].astype('boolean')"
            if numeric
            else "frame[name].str.lower().map({'true': True, 'false': False})",
            "duration": f"pandas.to_timedelta(frame[name]{days})",
        }
        raise cells.error(
            cells.known,
            f"expected {words[expected]}, got {words[str(cells.sort)]}, first "
            f"{cells.first(cells.known)!r}",
            f"give the type of the table's first frame, as by {advice[expected]}",
        )


def decoded(column: Column, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells of a column's numbers, ``(N,)``, and which of them are known.

    Raises:
        ValueError: the code of no level.
    """
    numbers = own_part(column, numbers)
    known = ~np.isnan(numbers)
    if column.has_codes:
        places = np.where(known, numbers, 0)
        wrong = (places != np.round(places)) | (places < 0) | (places >= len(column.levels))
        if wrong.any():
            raise ValueError(
                f"column {column.name!r}, row {int(np.argmax(wrong))}: {places[wrong][0]:g} is no "
                f"code of its levels\ngive whole numbers from 0 to {len(column.levels) - 1}"
            )
        cells = _array(column.levels)[places.astype(int)]
        written = column.sort == "boolean" and column.format
        return (write_booleans(cells, written) if written else cells), known
    values = np.where(known, numbers, 0.0)
    if column.sort == "time":
        times = as_times(values, str(column.origin), column.whole, column.dtype)
        return (write_words(times, column.format) if column.format else times), known
    if column.whole:
        values = rounded(column, values)
    if column.sort == "duration":
        return _durations(column, values), known
    write = write_booleans if column.sort == "boolean" else write_numbers
    return (write(values, column.format) if column.format else values), known


def own_part(column: Column, numbers: np.ndarray) -> np.ndarray:
    """Of a survival time and its event, which share a number with a sign, what is the column's."""
    if column.kind == "survival":
        return np.abs(numbers)
    if column.kind == "event":
        return np.where(np.isnan(numbers), np.nan, numbers > 0)
    return numbers


def rounded(column: Column, values: np.ndarray) -> np.ndarray:
    """Numbers as a column of codes, whole numbers or midnights can hold them."""
    values = np.round(values)
    return values if column.has_codes or column.sort == "time" else np.clip(values, *_room(column))


def drawn(column: Column, values: np.ndarray, *, mean: bool = False) -> np.ndarray:
    """Numbers of a model as the column's own are: codes, whole, in its steps, within its range.

    A draw that is no spike is rounded to another value than the spike's, so that the spike keeps
    its probability; a mean, which is no draw, to the nearest.
    """
    kind = column.kind if mean else _kind_beside(column)
    own = _in_steps(column, values, kind)
    if column.spike is None or mean or not (unit := _unit(column)):
        return own
    side = np.where(values > column.spike, unit, -unit)
    for sign in (1, -1):  # where the range ends at the spike the other side has room
        onto = (own == column.spike) & (values != column.spike)
        own = np.where(onto, _in_steps(column, column.spike + sign * side, kind), own)
    return own


def _in_steps(column: Column, values: np.ndarray, kind: Kind | None) -> np.ndarray:
    """The nearest values that a column can hold, within the support of their kind."""
    if column.kind == "survival":  # whose sign says whether it is censored
        own = _in_steps(replace(column, kind="positive"), np.abs(values), "positive")
        return np.sign(values) * own
    if not column.has_codes and (step := _unit(column)):
        low = 0.0 if column.step is None else column.low or 0.0
        places = max(-int(Decimal(repr(v)).as_tuple().exponent) for v in (step, low))
        steps = np.round((values - low) / step)
        if kind in ("positive", "bounded"):
            steps = np.where(low + steps * step < step / 2, steps + 1, steps)
        if kind == "bounded":
            steps = np.where(low + steps * step > 1 - step / 2, steps - 1, steps)
        values = np.round(low + steps * step, places)
    return rounded(column, values) if column.has_codes or column.whole else values


def _unit(column: Column) -> float:
    """By which a column's numbers lie apart; 0 where they may be any."""
    if column.step is not None or column.whole:
        return column.step or 1.0
    places = written_places(column)
    return 0.0 if places is None else 10.0**-places


def written_places(column: Column) -> int | None:
    """The decimals of a column's form or type, where it has so many."""
    places = PLACES.search(column.format or "") or DECIMAL.match(column.dtype)
    return None if places is None else int(places[1])


def _kind_beside(column: Column) -> Kind | None:
    """The kind of the numbers: of a hurdle of those beside its spike."""
    if column.kind != "hurdle":
        return column.kind
    inner = as_spec(column.line).args[0]
    return kind_of_line(inner) if isinstance(inner, Spec | str) else None


def _room(column: Column) -> tuple[float, float]:
    """What new whole numbers may be: what type and family hold, and not negative if none was."""
    try:
        kind = np.dtype(column.dtype.removesuffix("[pyarrow]").lower())
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
    except (TypeError, ValueError):  # of another library, or no whole type
        low, high = -EXACT, EXACT
    least = 0 if column.low is not None and column.low >= 0 else -EXACT
    least = 1 if column.kind in ("positive", "survival") else least
    return max(low, least), min(high, EXACT)


def _durations(column: Column, days: np.ndarray) -> np.ndarray:
    """Durations in microseconds, or, of less than a day in such a column, in nanoseconds."""
    unit: Any = "ns" if "ns" in column.dtype and np.abs(days).max(initial=0) < 1 else "us"
    return np.round(days * (DAY / np.timedelta64(1, unit))).astype(f"timedelta64[{unit}]")


def constant(column: Column, known: np.ndarray) -> np.ndarray:
    """The value of a constant column, ``(N,)``."""
    if column.sort == "time":
        return np.full(len(known), np.datetime64(str(column.value)))
    if column.sort == "duration":
        return _durations(column, np.full(len(known), float(column.value or 0)))
    return _array([column.value]).repeat(len(known))


def check_constant(column: Column, cells: Cells) -> None:
    """Raise for the first cell that is not the value of a constant column."""
    value = constant(column, np.ones(1, bool))[0]
    if column.format is not None:
        return
    other = cells.known & (cells.values != value)
    if other.any():
        raise cells.error(
            other,
            f"{cells.first(other)!r} in a column that held {column.value!r} alone",
            "the model knows nothing of other values: make the table from a frame that has them",
        )


def _array(levels: Sequence[object]) -> np.ndarray:
    """Words as objects, numbers and booleans in NumPy's types."""
    return np.array(levels, dtype=object if isinstance(levels[0], str) else None)
