"""Times as days since an origin, and back; dates that are written as words."""

import re
from dataclasses import replace
from datetime import datetime

import numpy as np

from .cells import Cells, check_years

__all__ = ["as_days", "as_times", "iso_format", "midnight", "read_words", "write_words"]

DAY = np.timedelta64(1, "D")
ISO = {
    r"\d{4}-\d\d-\d\d": "%Y-%m-%d",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "%Y-%m-%d %H:%M:%S",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d": "%Y-%m-%dT%H:%M:%S",
}
LAST = ("1678-01-01", "2262-01-01")  # days that nanoseconds can hold
ALL_LAST = ("0002-01-01", "9998-12-31")


def iso_format(words: np.ndarray) -> str | None:
    """The form of ISO 8601 that all of the words have."""
    for pattern, form in ISO.items():
        matches = re.compile(pattern).fullmatch
        if all(matches(word) for word in words):
            return form
    return None


def read_words(cells: Cells, form: str) -> Cells:
    """Words as times.

    Raises:
        ValueError: the first that is not written like this, or no date.
    """
    places: dict[str, int] = {}
    for i in np.flatnonzero(cells.known):
        places.setdefault(cells.values[i], int(i))
    read: dict[str, np.datetime64] = {}
    for word, row in places.items():
        try:
            read[word] = np.datetime64(datetime.strptime(word, form), "us")
        except ValueError as problem:
            raise cells.error(
                row,
                f"{word!r} is not a date of the form {form}: {problem}",
                f"mend it, put None there, or say the form: dates={{{cells.name!r}: '%d/%m/%Y'}}",
            ) from None
    values = np.full(len(cells), np.datetime64("NaT"), "datetime64[us]")
    values[cells.known] = [read[word] for word in cells.seen]
    return check_years(replace(cells, sort="time", values=values))


def write_words(times: np.ndarray, form: str) -> np.ndarray:
    """Times as words."""
    moments = times.astype("datetime64[us]").tolist()
    return np.array([m.strftime(form) if m else None for m in moments], dtype=object)


def midnight(times: np.ndarray) -> bool:
    """Whether all times are midnights."""
    return bool((times.astype("datetime64[D]") == times).all())


def as_days(cells: Cells, origin: str) -> np.ndarray:
    """Days since the origin, ``(N,)``, NaN where a cell is missing."""
    days = np.full(len(cells), np.nan)
    midnights = cells.seen.astype("datetime64[D]")  # apart: nanoseconds span 292 years alone
    hours = (cells.seen - midnights) / DAY
    days[cells.known] = (midnights - np.datetime64(origin, "D")) / DAY + hours
    return days


def as_times(days: np.ndarray, origin: str, whole: bool, dtype: str) -> np.ndarray:
    """Times of days since the origin, rounded to what the type can hold, and within it."""
    match = re.search(r"[\['](ns|us|ms|s)\b", dtype)
    unit = "D" if whole else match[1].replace("ns", "us") if match else "us"
    last = LAST if match and match[1] == "ns" else ALL_LAST
    start = np.datetime64(origin, "D")
    low, high = ((np.datetime64(year, "D") - start) / DAY for year in last)
    ticks = np.round(np.clip(days, low, high) * (DAY / np.timedelta64(1, unit)))
    return start.astype(f"datetime64[{unit}]") + ticks.astype(f"timedelta64[{unit}]")
