"""What a column may be that it was not read as: said in a warning, with what to do."""

import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from .cells import Cells, is_placeholder
from .columns import Column, Level
from .moments import reading
from .placeholders import counted
from .written import number_form, pairs_in, read_numbers, units_in

__all__ = ["likely", "with_doubts"]

FEW = 10  # values beside -1, with which it is a code among codes
UP = 5  # calls from the warning to the caller of Table.from_frame
MOST = 3  # values that may stand for missing cells, in a column
RUN, APART = 4, 5  # codes of several reasons for a missing cell, and how far from others they lie
SPELLED = re.compile(r"\W*\d[\d.,\s]*(e[-+]?\d+)?\s*\W*", re.IGNORECASE)  # numbers in words
PLAIN = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)  # a number


def with_doubts(column: Column, cells: Cells, said: Sequence[str]) -> list[str]:
    """What is doubtful in a column; each is warned of.

    Args:
        column: as it was decided.
        cells: of it, without those that are taken as missing.
        said: what a user said of it: ``na_values``, ``kinds``, ``lines``.
    """
    texts = []
    for text, argument, does, denial in _doubts(column, cells, said):
        texts.append(f"{text}: {argument}")
        call = argument if argument.startswith("df.") else f"df, {argument}"
        advice = f"Table.from_frame({call}) {does}, {denial} says that it is right"
        warnings.warn(f"column {column.name!r}: {text}\n{advice}", stacklevel=UP)
    return texts


def _doubts(
    column: Column, cells: Cells, said: Sequence[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Each in words, the argument that settles it, what that does, and the one that denies it."""
    name = column.name
    if "na_values" not in said:
        looks = _suspects(column, cells)
        if looks := [v for v in looks if "lines" not in said or v != column.spike]:
            text = f"{counted(looks, cells)} may stand for missing cells, and is read as it is"
            argument = f"na_values={{{name!r}: {looks!r}}}"
            yield text, argument, "takes it as missing", f"na_values={{{name!r}: []}}"
    if "kinds" in said or cells.levels:
        return
    denial = f"kinds={{{name!r}: {column.kind!r}}}"
    words = _as_words(column, cells)
    if may_be := _may_be(words, name):
        what, argument = may_be
        text = f"its cells, first {words[0]!r}, may be {what}, and are read as {column.kind}"
        yield text, argument, f"reads them as {what}", denial
        return
    if cells.sort != "word":
        return
    if odd := _strays(words):
        some = ", ".join(map(repr, odd[:MOST]))
        text = f"{len(words) - len(odd)} of its {len(words)} words are numbers, others are {some}"
        text += f", and they are read as {column.kind}"
        yield text, _without(name, words, odd), "takes the others as missing", denial
        return
    if column.kind == "categorical" and FEW < len(words) > len(cells.seen) / 2:
        text = f"it has {len(words)} levels in {len(cells.seen)} rows, the first {words[0]!r}"
        yield text, f"kinds={{{name!r}: 'identifier'}}", "leaves it out", denial
        return
    alike: dict[str, str] = {}
    for word in words if column.has_codes else ():
        other = alike.setdefault(" ".join(word.casefold().split()), word)
        if other != word:
            text = f"{other!r} and {word!r} differ in spaces or capitals alone, and are two levels"
            frame = f"df.assign(**{{{name!r}: df[{name!r}].str.strip().str.lower()}})"
            yield text, frame, "makes them one", denial
            return


def _as_words(column: Column, cells: Cells) -> list[str]:
    """Words that were read as such, and whole numbers among which dates such as 20210331 are."""
    if cells.sort == column.sort == "word":
        return sorted(set(cells.seen.tolist()))
    if cells.sort not in ("whole", "number") or not (19e6 < cells.seen.min() < 21e6):
        return []
    return [f"{value:.15g}" for value in np.unique(cells.seen).tolist()]


def likely(words: Sequence[str], cells: Cells) -> str:
    """What a column with too many levels most likely is, in words; empty where nothing is likely.

    Args:
        words: its levels.
        cells: of the column.
    """
    name = cells.name
    if may_be := _may_be(words, name):
        return f"if they are {may_be[0]}, {may_be[1]}; or "
    if odd := _strays(words):
        return f"if they are numbers beside {odd[0]!r}, {_without(name, words, odd)}; or "
    if cells.sort != "word" or not all(map(SPELLED.fullmatch, words)):
        return ""
    if number_form(words):
        return f"if they are numbers, kinds={{{name!r}: 'real'}}; otherwise "
    return "they look like numbers: strip their signs, and pandas.to_numeric; otherwise "


def _may_be(words: Sequence[str], name: str) -> tuple[str, str] | None:
    """What words are that look like dates, durations or numbers, and how they are read as such."""
    return reading(words, name) or units_in(words, name) or pairs_in(words, name)


def _strays(words: Sequence[str]) -> list[str]:
    """The words that are no numbers, where they are few among many numbers."""
    odd = [word for word in words if not PLAIN.fullmatch(word.strip())]
    numbers = len(words) - len(odd)
    return odd if numbers > FEW and numbers > 3 * len(odd) else []


def _without(name: str, words: Sequence[str], odd: list[str]) -> str:
    """The argument by which words among a column's numbers are missing cells."""
    form = number_form([word for word in words if word not in odd])
    if len(odd) <= MOST and form is not None:
        kinds = f", kinds={{{name!r}: 'integer'}}" if form == "{:.0f}" else ""
        return f"na_values={{{name!r}: {odd!r}}}{kinds}"
    numbers = f"pandas.to_numeric(df[{name!r}], errors='coerce')"
    return f"df.assign(**{{{name!r}: {numbers}}})"


def _suspects(column: Column, cells: Cells) -> list[Level]:
    """Values that occur like others but look as if they stood for missing cells.

    Of numbers: nines alone (99, -999) that lie farther from all others than these reach, and -1 or
    such nines below others that are not negative; several that end at nines, as 97, 98 and 99 or
    -9 and -8, which lie apart from the others; each occurs more than once. Of words: ``?``,
    ``None`` and the like.

    Args:
        column: as it was decided.
        cells: of it, without those that are taken as missing.
    """
    if not column.modelled or column.sort == "time":
        return []
    if column.format is not None and column.sort == "number":
        cells = read_numbers(cells.without(column.na_values), column.format)
    if cells.sort == "word":
        words = dict.fromkeys(cells.seen.tolist())
        return [word for word in words if is_placeholder(word) or word == "None"]
    if cells.sort not in ("whole", "number") or cells.levels:
        return []
    values, counts = np.unique(cells.seen.astype(np.float64), return_counts=True)
    found: list[Level] = []
    for end in (slice(None, None, -1), slice(None)):
        some = _codes(values[end], counts[end])
        found += [int(value) for value in sorted(some)]
        values, counts = (x[~np.isin(values, some)] for x in (values, counts))
    while len(found) < MOST and len(values) > 2:
        for end, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
            if counts[end] > 1 and _stands_out(float(values[end]), values[rest]):
                found.append(int(values[end]))
                values, counts = values[rest], counts[rest]
                break
        else:
            break
    return found


def _codes(values: np.ndarray, counts: np.ndarray) -> list[float]:
    """Several codes for missing cells at the end where values start: 99, 98 and 97, or -9 and -8.

    They go inward from nines, or from one less, and the others begin farther from them than twice
    the largest distance between two others.
    """
    first = values[0]
    nines = np.sign(first) * (10.0 ** len(f"{abs(first):.0f}") - 1)
    run = int(np.argmin([*(np.abs(values - first) == np.arange(len(values))), False]))
    rest = values[run:]
    if not 1 < run <= RUN or len(rest) < 3 or counts[:run].min() == 1 or abs(nines - first) > 1:
        return []
    apart = abs(values[run - 1] - rest[0]) > max(2 * np.abs(np.diff(rest)).max(), APART)
    return values[:run].tolist() if apart and (abs(nines) > 9 or rest.min() >= -1) else []


def _stands_out(value: float, others: np.ndarray) -> bool:
    low, high = float(others[0]), float(others[-1])
    if value == -1:
        return low >= 0 and len(others) > FEW
    if not value.is_integer() or set(str(abs(int(value)))) != {"9"}:
        return False
    if value < 0 <= low and len(others) > FEW:
        return True
    far = min(abs(value - low), abs(value - high)) > high - low
    return far and abs(value) > 9
