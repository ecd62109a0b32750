"""Times as days since an origin, and back; dates that are written as words."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from .cells import Cells, OddWord, check_years

__all__ = [
    "DAY",
    "ZONE",
    "as_days",
    "as_times",
    "check_zones",
    "in_zone",
    "iso_format",
    "midnight",
    "read_words",
    "reading",
    "write_words",
]

DAY = np.timedelta64(1, "D")
ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:(?P<between>[ T])\d\d:\d\d(?P<seconds>:\d\d(?P<parts>\.\d{1,6})?)?"
    r"(?P<zone>Z|[-+]\d\d:?\d\d)?)?"
)
OFFSET = re.compile(r"((?<!%)Z|[-+]\d\d:?\d\d)$")  # at the end of a form
DATE = re.compile(r"(\d{4}|\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{1,2})(\D.*)?")
NAMED = [f"{day}{year}" for day in ("%d-%b-", "%d %b ", "%d %B ", "%b-") for year in ("%Y", "%y")]
NAMED += ["%b %d, %Y", "%B %d, %Y", "%d%b%Y", "%b %Y", "%B %Y"]  # months are words
NAMED += ["%Y-%m", "%Y/%m", "%m-%Y", "%m/%Y"]  # months without a day
COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
TIMES = "pandas.to_datetime({0}, format='mixed')"
NUMBER = re.compile(r"[\d.]+")  # no duration without a colon or a unit
FORMS = [  # of words, what they are, and how a column of them is read
    # hours and minutes
    (re.compile(r"\d{1,2}:\d\d"), "durations", "pandas.to_timedelta({0} + ':00')"),
    (
        re.compile(r"-?(\d+ days?,? ?)?[-+]?\d+:\d\d:\d\d(\.\d+)?|-?\d+ days?"),
        "durations",
        "pandas.to_timedelta({0})",
    ),
    # minutes and seconds, of a race
    (
        re.compile(r"((\d+:)?\d{1,2}:[0-5]\d|\d{1,2})(\.\d+)?"),
        "durations",
        r"pandas.to_timedelta(('0:0:' + {0}).str.extract(r'(\d+:\d+:[\d.]+)$')[0])",
    ),
    (re.compile(r"\d+ ?h( ?\d+ ?m(in)?)?( ?\d+ ?s)?"), "durations", "pandas.to_timedelta({0})"),
    # the time of a day in halves
    (
        re.compile(r"(1[0-2]|0?[1-9]):[0-5]\d ?[AP]M", re.IGNORECASE),
        "durations",
        f"{TIMES} - {TIMES}.dt.normalize()",
    ),
    (re.compile(r"\d{4}-W\d\d"), "dates", "pandas.to_datetime({0} + '-1', format='%G-W%V-%u')"),
    (re.compile(r"\d{4}[- ]?Q[1-4]"), "dates", "pandas.PeriodIndex({0}, freq='Q').to_timestamp()"),
]
FEW = 10  # numbers from 19000101 to 20991231 that may be dates
ZONE = re.compile(r"(?:, |tz=|time_zone=)'?(?!None)([A-Z+-][^\])']*)")  # in a type of times
LAST = ("1678-01-01", "2262-01-01")  # days that nanoseconds can hold
ALL_LAST = ("0002-01-01", "9998-12-31")


def iso_format(words: np.ndarray) -> str | None:
    """The form of ISO 8601 that all of the words have; their time zone is a part of it.

    Of several zones, as an hour that daylight saving moves has them, the form has ``%z``: its times
    are in UTC. Where some have parts of a second, it has them.

    Raises:
        OddWord: times with and without a zone.
    """
    forms: dict[str, str] = {}
    zones: dict[str, str] = {}
    for word in words:
        if (match := ISO.fullmatch(word)) is None:
            return None
        time = f"{match['between']}%H:%M" if match["between"] else ""
        time += ":%S" * bool(match["seconds"]) + ".%f" * bool(match["parts"])
        forms.setdefault("%Y-%m-%d" + time, word)
        zones.setdefault(match["zone"] or "", word)
    if len(zones) > 1 and "" in zones:
        other = next(word for zone, word in zones.items() if zone)
        problem = f"times with a time zone, {other!r}, and without, {zones['']!r}"
        raise OddWord(zones[""], problem, "write the zone of each, or none")
    if len({form.removesuffix(".%f") for form in forms}) > 1:
        return None
    return max(forms, key=len) + (next(iter(zones)) if len(zones) == 1 else "%z")


def reading(words: Sequence[str], name: str) -> tuple[str, str] | None:
    """What words are that look like dates or durations, and how ``Table.from_frame`` reads them.

    Args:
        words: all that a column holds; whole numbers as words too.
        name: of the column.

    Returns:
        ``"dates"``, ``"times"`` or ``"durations"``, and the argument; ``None`` of other words.
    """
    if not words:
        return None
    column = f"df[{name!r}]"
    if all(matches := [DATE.fullmatch(word) for word in words]):
        first, sign, _, last, _ = matches[0].groups()  # pyrefly: ignore[missing-attribute]
        american = any(int(m[3]) > 12 for m in matches if m)
        year_first = len(first) == 4
        times = any(m[5] for m in matches if m)
        if times or len({(m[2], len(m[1]) == 4, len(m[4]) == 4) for m in matches if m}) > 1:
            day_first = "" if american or year_first else ", dayfirst=True"
            what = "times" if times else "dates"
            call = f"pandas.to_datetime({column}, format='mixed'{day_first})"
        else:
            year = "%Y" if len(last) == 4 else "%y"
            form = f"%m{sign}%d{sign}{year}" if american else f"%d{sign}%m{sign}{year}"
            form = f"%Y{sign}%m{sign}%d" if year_first else form
            return "dates", f"dates={{{name!r}: {form!r}}}"
    elif form := _named_form(words):
        return "dates", f"dates={{{name!r}: {form!r}}}"
    elif len(words) >= FEW and all(map(COMPACT.fullmatch, words)):
        as_words = f"{column}.astype('Int64').astype('string')"
        what, call = "dates", f"pandas.to_datetime({as_words}, format='%Y%m%d')"
    elif all(map(NUMBER.fullmatch, words)):
        return None
    else:
        found = (form for form in FORMS if all(map(form[0].fullmatch, words)))
        _, what, call = next(found, (None, "", ""))
        if not what:
            return None
        call = call.format(column)
    return what, f"df.assign(**{{{name!r}: {call}}})"


def _named_form(words: Sequence[str]) -> str | None:
    """The form that all words have, if it is that of dates whose months are words."""
    return next((form for form in NAMED if all(_is_date(word, form) for word in words)), None)


def _is_date(word: str, form: str) -> bool:
    try:
        return bool(datetime.strptime(word, form))
    except ValueError:
        return False


def read_words(cells: Cells, form: str, *, first: bool = False) -> Cells:
    """Words as times.

    Args:
        cells: words.
        form: of the dates.
        first: whether they are of a table's first frame, whose user may say another form.

    Raises:
        ValueError: the first that is not written like this, or no date.
    """
    places: dict[str, int] = {}
    for i in np.flatnonzero(cells.known):
        places.setdefault(cells.values[i], int(i))
    read: dict[str, np.datetime64] = {}
    other = "%m/%d/%Y" if form == "%d/%m/%Y" else "%d/%m/%Y"
    say = f"; or say the form: dates={{{cells.name!r}: {other!r}}}"
    for word, row in places.items():
        try:
            read[word] = np.datetime64(_moment(word, form), "us")
        except ValueError as problem:
            raise cells.error(
                row,
                f"{word!r} is not a date of the form {form}: {problem}",
                "mend it, or put None there"
                + (", or leave dates= out" if ISO.fullmatch(word) else say) * first,
            ) from None
    values = np.full(len(cells), np.datetime64("NaT"), "datetime64[us]")
    values[cells.known] = [read[word] for word in cells.seen]
    return check_years(replace(cells, sort="time", values=values))


def _moment(word: str, form: str) -> datetime:
    """A word as a time of the form's zone, which is UTC where it has many; parts may be absent."""
    form = form if "." in word else form.replace(".%f", "")
    if zone := OFFSET.search(form):
        time = datetime.strptime(word, form[: zone.start()] + "%z")
        return time.astimezone(datetime.strptime(zone[0], "%z").tzinfo).replace(tzinfo=None)
    time = datetime.strptime(word, form)
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def check_zones(cells: Cells, form: str) -> None:
    """Raise for times that come in the place of words, where either have a time zone."""
    if "%z" in form or OFFSET.search(form) or ZONE.search(cells.dtype):
        raise cells.error(
            cells.known,
            f"expected words of the form {form}, got {cells.dtype}",
            "write them so, in the zone of the form",
        )


def write_words(times: np.ndarray, form: str) -> np.ndarray:
    """Times as words; those of many zones in UTC."""
    form = form.replace("%z", "+00:00")
    moments = times.astype("datetime64[us]").tolist()
    return np.array([m.strftime(form) if m else None for m in moments], dtype=object)


def midnight(times: np.ndarray) -> bool:
    """Whether all times are midnights."""
    return bool((times.astype("datetime64[D]") == times).all())


def in_zone(times: np.ndarray, dtype: str, *, back: bool = False) -> np.ndarray:
    """Times of UTC as clocks of a type's zone show them, or back; without a zone as they are."""
    zone = None if dtype.startswith("object") else ZONE.search(dtype)
    if zone is None:
        return times
    import pandas as pd

    first, last = (zone[1], "UTC") if back else ("UTC", zone[1])
    coarse = np.datetime_data(times.dtype)[0] == "D"
    index = pd.DatetimeIndex(times.astype("datetime64[s]") if coarse else times)
    once = np.ones(len(index), bool)  # an hour that is there twice is the first of both
    index = index.tz_localize(first, ambiguous=once, nonexistent="shift_forward")
    return index.tz_convert(last).tz_localize(None).to_numpy()


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
    unit: Any = "D" if whole else match[1].replace("ns", "us") if match else "us"
    last = LAST if match and match[1] == "ns" else ALL_LAST
    start = np.datetime64(origin, "D")
    low, high = ((np.datetime64(year, "D") - start) / DAY for year in last)
    ticks = np.round(np.clip(days, low, high) * (DAY / np.timedelta64(1, unit)))
    times = start.astype(f"datetime64[{unit}]") + ticks.astype(f"timedelta64[{unit}]")
    return in_zone(times, dtype, back=True) if whole else times
