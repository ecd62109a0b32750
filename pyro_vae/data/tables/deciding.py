"""What kind of column a frame's cells are, from their type and their values, and why."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...language.spec import Spec, as_spec, nearest
from .cells import Cells, OddWord
from .coding import EXACT, check_support, codes, quantities, written_places
from .columns import KINDS, Column, Kind, Level
from .declared import WORDS, declared_levels, kind_of_line, with_categories
from .doubts import likely, with_doubts
from .moments import as_days, in_zone, iso_format, midnight, read_words
from .numbers import HEAVY, are_counts, by_values, count_line, positive_line, step_and_low, step_of
from .placeholders import as_booleans, as_numbers, known_cells, notes

__all__ = ["Wishes", "decide", "revise"]

LEVELS = 200  # more of them are no category, unless a user says so
CODES = ((10, 5), (20, 30))  # so many whole numbers, each in so many rows on average, are codes
ROWS = 20  # fewer words or numbers that differ in each row are no identifier
LEVELLED = ("binary", "categorical", "ordinal")
ID = re.compile(r"(^|[_.\s])(id|uuid|guid|index)$|^unnamed: 0$|^(row|rownames)$", re.IGNORECASE)


@dataclass(frozen=True)
class Wishes:
    """What a user said of columns, by name.

    Args:
        kinds: a kind, or the levels of an ordinal column in their order.
        lines: a likelihood in the package's language.
        dates: the form of words that are dates.
        censored: of a survival time, the column of its event.
        na_values: of each column, what stands for missing cells.
        detected: whether ``censored`` was told by names and values, not by the user.
    """

    kinds: Mapping[str, str | Sequence[Level]] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    dates: Mapping[str, str] = field(default_factory=dict)
    censored: Mapping[str, str] = field(default_factory=dict)
    na_values: Mapping[str, tuple[Level, ...]] = field(default_factory=dict)
    detected: bool = False

    def of(self, name: str) -> list[str]:
        """What is said of a column: the names of the wishes."""
        every = ("kinds", "lines", "dates", "censored", "na_values")
        return [wish for wish in every if name in getattr(self, wish)]

    def check(self, names: Sequence[str]) -> None:
        """Raise where something is said of a column that there is not."""
        wishes = {"kinds": self.kinds, "likelihood": self.lines, "dates": self.dates}
        wishes |= {"na_values": self.na_values, "censored": self.censored}
        for what, of in wishes.items():
            if not isinstance(of, Mapping):
                raise ValueError(f"{what} is a dict by column, {{'column': ...}}, got {of!r}")
            for name in (*of, *(map(str, of.values()) if what == "censored" else ())):
                if name not in names:
                    raise ValueError(
                        f"{what} names the column {name!r}, which the frame does not have"
                        f"{nearest(str(name), names)}"
                    )


def decide(cells: Cells, wishes: Wishes) -> Column:
    """A column from its cells: what a user said, and the rest from type and values.

    Raises:
        ValueError: nothing is known of it, or it cannot be what the user said.
    """
    name, all_cells = cells.name, cells
    wish, line = wishes.kinds.get(name), wishes.lines.get(name)
    cells = known_cells(cells, wishes.na_values)
    if str(wish) == "identifier" and line is None:
        why = "declared an identifier: left out"
        return Column(name, "identifier", "", why, cells.sort or "word", cells.dtype)
    if not cells.known.any():
        raise cells.error(
            None,
            "all its cells are missing, so nothing can be learned of it",
            f"leave the column out of the frame, or of the model: kinds={{{name!r}: 'identifier'}}",
        )
    levels = declared_levels(name, wish)
    if levels is None and wish is not None and wish not in KINDS:
        known = ", ".join(KINDS)
        raise ValueError(f"the kind of column {name!r} is one of {known}, got {wish!r}")
    kind: Kind | None = "ordinal" if levels else wish  # pyrefly: ignore[bad-assignment]
    try:
        if kind is None and line is not None:
            of_numbers = cells.sort not in ("word", "boolean") and not cells.levels
            kind = kind_of_line(line) or ("real" if of_numbers else None)
        if name in wishes.censored.values():
            kind = "event"
        elif name in wishes.censored:
            kind = "survival"
        elif kind in ("survival", "event"):
            raise ValueError(
                "say which column tells the event (1) from censoring (0): "
                f"Table.from_frame(df, censored={{{name!r}: 'status'}})"
            )
        if kind == "survival" and line is not None and kind_of_line(line) != "survival":
            raise ValueError(
                f"it is a time that may be censored: 'Censored({line})', or leave its event out, "
                "Table.from_frame(df, censored={})"
            )
        column = _decide(cells, kind, levels, wishes, line)
        column = replace(column, event=wishes.censored.get(name))
        doubts = with_doubts(column, cells.without(column.na_values), wishes.of(name))
        why = "; ".join([column.why, *notes(column, all_cells), *doubts])
        column = replace(column, why=why)
        if wishes.detected and column.event is not None:
            why = f"{column.why}, by {column.event!r}, as the names say; if not: censored={{}}"
            column = replace(column, why=why)
        if line is not None and not column.modelled:
            raise ValueError(f"it is left out of the model ({column.why}): leave the line out too")
        if line is not None:
            line = with_categories(line, len(column.levels))
            column = replace(column, line=line, why=f"declared; {column.why}")
    except OddWord as odd:
        raise cells.error(cells.values == odd.word, odd.problem, odd.advice) from None
    except ValueError as problem:
        if str(problem).startswith("column "):
            raise
        raise ValueError(f"column {name!r}: {problem}") from None
    return column


def revise(
    column: Column, cells: Cells, lines: Mapping[str, str], censored: Mapping[str, str]
) -> Column:
    """The column with another likelihood, its levels as they were.

    Args:
        column: as it was decided, maybe of more rows than these.
        cells: of these rows.
        lines: the likelihoods by column.
        censored: the events of times that were not censored before.

    Raises:
        ValueError: it cannot have this likelihood.
    """
    name, of_cells = column.name, {*cells.alike(column.na_values), *cells.gone}
    gone = {name: tuple(value for value in column.na_values if value in of_cells)}
    if name in censored.values():
        return decide(cells, Wishes(censored=censored, na_values=gone))
    if name not in lines:
        return column
    line = lines[name]
    kind = kind_of_line(line)
    words = column.sort in ("word", "boolean") or bool(cells.levels)
    if not (column.has_codes and (kind in LEVELLED or (kind is None and words))):
        kept = {name: column.kind} if column.kind == "time" and kind is None else {}
        dates = {name: column.format} if column.format and column.sort == "time" else {}
        events = censored if column.event is None else {name: column.event}
        new = decide(cells, Wishes(kept, {name: line}, dates, events, gone))
        return replace(new, format=column.format)
    try:
        if kind == "ordinal" != column.kind and not (column.ordered or _numbers(column.levels)):
            raise _unordered(name, column.levels)
        if kind == "binary" and len(column.levels) != 2:
            raise ValueError(f"it has {len(column.levels)} levels; a binary column has 2")
        line = with_categories(line, len(column.levels))
    except ValueError as problem:
        raise ValueError(f"column {name!r}: {problem}") from None
    return replace(column, kind=kind or column.kind, line=line, why=f"declared; {column.why}")


def _decide(
    cells: Cells,
    kind: Kind | None,
    levels: tuple[Level, ...] | None,
    wishes: Wishes,
    line: str | None,
) -> Column:
    base = Column(cells.name, "real", "", "", cells.sort or "word", cells.dtype)
    said = wishes.na_values.get(cells.name, ())
    gone = (*cells.alike(said), *(value for value in said if value in cells.gone))
    base = replace(base, levels=cells.levels, ordered=cells.ordered, na_values=gone)
    words, form = cells, wishes.dates.get(cells.name)
    if not any(isinstance(level, str) for level in levels or ()):
        cells, base = as_booleans(cells, base, kind == "event")
    if kind == "event" and cells.sort not in ("boolean", "whole", "number"):
        raise ValueError(
            f"it holds {cells.dtype}, first {cells.seen[0]!r}, and an event is 0 (censored) or 1 "
            f"(seen): make it so, frame[{cells.name!r}] == {cells.seen[0]!r} if that is the event"
        )
    if cells.sort == "word" and not cells.levels and kind not in ("categorical", "ordinal"):
        form = form or iso_format(cells.seen)
    if form is not None and cells.sort != "word":
        raise ValueError(f"its form as a date is given, and it holds no words but {cells.dtype}")
    if form is not None:
        cells, base = read_words(cells, form, first=True), replace(base, sort="time", format=form)
    elif cells.sort == "word" and not cells.levels and kind not in (*LEVELLED, "constant"):
        guess = cells.name not in wishes.na_values
        cells, base = as_numbers(cells, base, guess, declared=kind is not None)
    seen = cells.seen + 0.0 if cells.sort == "number" else cells.seen  # -0.0 is 0.0
    distinct = sorted(set(seen.tolist())) if seen.dtype.kind == "O" else np.unique(seen).tolist()
    named = bool(levels or cells.levels) and kind in LEVELLED
    if len(distinct) == 1 and kind not in ("event", "survival") and not named:
        return _constant(base, cells)
    if kind == "constant":
        raise ValueError(f"it is no constant: it holds {distinct[0]!r} and {distinct[1]!r}")
    if kind is None and _identifies(cells, distinct):
        why = "another value in each row, as an identifier has: left out"
        return replace(base, kind="identifier", why=why, levels=())
    if cells.sort == "time" and kind not in LEVELLED:
        return _time(base, cells, line)
    if kind in LEVELLED or (kind is None and (cells.sort in ("word", "boolean") or cells.levels)):
        return _levelled(base, cells, kind, levels or cells.levels, distinct)
    if (cells.sort in ("word", "boolean") and kind != "event") or cells.levels or kind == "time":
        raise ValueError(
            f"a column of {cells.dtype} is not {kind}: convert it, or let it be categorical"
        )
    column = _number(base, cells, kind, line, distinct)
    if column.has_codes and words.sort == "word":  # few numbers in words: their levels are words
        words = words.without(base.na_values)
        base = replace(base, sort="word", format=None)
        return _levelled(base, words, None, (), sorted(set(words.seen.tolist())))
    return column


def _constant(base: Column, cells: Cells) -> Column:
    """The one value that occurs, kept as a level."""
    holes = (
        "" if cells.known.all() else ", and holes that stay (give them a value if they mean one)"
    )
    value = cells.seen.tolist()[0]
    why = f"one value alone{holes}: left out, put back"
    if base.sort == "time":
        value = str(cells.seen[0])
    elif base.sort == "duration":
        value = float(quantities(cells)[cells.known][0])
    return replace(base, kind="constant", why=why, value=value)


def _identifies(cells: Cells, distinct: list) -> bool:
    """Whether each row has another word, or another number as rows are numbered."""
    n = len(cells.seen)
    if len(distinct) < n or n < ROWS or cells.sort not in ("word", "whole"):
        return False
    if cells.sort == "word" or ID.search(cells.name) or max(distinct) > EXACT:
        return True
    return distinct[0] in (0, 1) and distinct[-1] - distinct[0] == n - 1


def _time(base: Column, cells: Cells, line: str | None) -> Column:
    here = replace(cells, values=in_zone(cells.values, base.dtype))
    whole = midnight(here.seen)
    cells = here if whole else cells
    origin = str(cells.seen.min().astype("datetime64[D]"))
    days = as_days(cells, origin)
    words = f" written {base.format}" if base.format else ""
    words += ", new ones in UTC" * ("%z" in (base.format or ""))
    return replace(
        base,
        kind="time",
        line=line or "Normal",
        why=f"dates{words}, in days since the first",
        origin=origin,
        whole=whole,
        step=step_of(days[cells.known], "time"),
        low=float(np.nanmin(days)),
        high=float(np.nanmax(days)),
    )


def _levelled(
    base: Column, cells: Cells, kind: Kind | None, levels: tuple[Level, ...], distinct: list
) -> Column:
    """A column of categories."""
    if cells.sort in ("time", "duration"):
        raise ValueError(f"a column of {cells.dtype} is not {kind}")
    numeric = cells.sort != "word" or _numbers(distinct) is not None
    ordered = bool(levels) and (cells.ordered or kind == "ordinal")
    if not levels:
        distinct = _numbers(distinct) or distinct
        if kind is None and len(distinct) > LEVELS:
            raise ValueError(
                f"it has {len(distinct):,} levels, the first {distinct[0]!r}\n"
                f"{likely([*map(str, distinct)], cells)}join the rare ones, "
                f"or say kinds={{{cells.name!r}: 'identifier'}} to leave it out, or 'categorical' "
                "to model all of them"
            )
        levels = tuple(distinct)
    if len(set(levels)) < len(levels):
        raise ValueError(f"its levels are given twice: {levels}")
    codes(cells, levels)
    if len(levels) < 2 or (kind == "binary" and len(levels) != 2):
        raise ValueError(f"it has {len(levels)} levels; a {kind} column has 2 or more, binary 2")
    if kind == "ordinal" and not (ordered or numeric):
        raise _unordered(cells.name, distinct)
    if kind is None:
        kind = "ordinal" if cells.ordered else "categorical"
        kind = "binary" if len(levels) == 2 else kind
    line = {"binary": "Bernoulli", "ordinal": "OrderedLogistic", "categorical": "Categorical"}[kind]
    why = f"{len(levels)} " + ("levels in order" if kind == "ordinal" else "levels")
    if cells.sort == "word" and numeric:
        why += ", words that look like numbers"
    line = with_categories(line, len(levels))
    return replace(base, kind=kind, levels=levels, line=line, why=why)


def _unordered(name: str, levels: Sequence[Level]) -> ValueError:
    return ValueError(
        "the order of its levels is not known\nsay it, from the least to the greatest: "
        f"kinds={{{name!r}: {list(levels)!r}}}"
    )


def _numbers(words: Sequence[Level]) -> list | None:
    """Levels in the order of the numbers that they are, or look like."""
    try:
        return sorted(words, key=float)
    except (ValueError, TypeError):
        return None


def _number(
    base: Column, cells: Cells, kind: Kind | None, line: str | None, distinct: list
) -> Column:
    """A column of numbers: codes of something, or a quantity."""
    values = quantities(cells)
    x = values[cells.known]
    whole = bool((x == np.round(x)).all())
    if kind is None and cells.sort != "duration" and (column := _codes(base, x, distinct, whole)):
        return column
    step, low = step_and_low(x, cells.sort or "number", written_places(base) or 0)
    step = None if kind == "event" else step
    base = replace(base, whole=whole, step=step, low=low, high=float(x.max()))
    if kind is None:
        kind, chosen, spike, why = by_values(x, whole, cells.sort != "duration", step)
        if whole and cells.sort != "duration":
            few = len(distinct) <= LEVELS
            other = "'Categorical' if codes" if few else "'identifier' if they name rows"
            why += f"; {len(distinct):,} different ones, read as a quantity; {other}"
        return replace(base, kind=kind, line=chosen, spike=spike, why=why)
    if kind == "real" and whole:
        kind = "integer"
    spike = _spike(line, x) if kind == "hurdle" else None
    chosen = line or DEFAULTS[kind](x)
    column = replace(base, kind=kind, line=chosen, spike=spike, why=WORDS[kind])
    check_support(column, cells, values)
    return column


def _codes(base: Column, x: np.ndarray, distinct: list, whole: bool) -> Column | None:
    """Few numbers, each in many rows: codes of categories, and said so."""
    k = len(distinct)
    levels = tuple(distinct)
    shown = f"{k} {'whole ' if whole else ''}numbers from {distinct[0]:g} to {distinct[-1]:g}"
    if k == 2 and (whole or len(x) >= CODES[0][1] * k):
        return replace(base, kind="binary", levels=levels, line="Bernoulli", why="two numbers")
    if not any(k <= most and len(x) >= rows * k for most, rows in CODES):
        return None
    if (not whole and k > CODES[0][0] // 2) or (whole and are_counts(x)):
        return None
    return replace(
        base,
        kind="categorical",
        levels=levels,
        line=f"Categorical(categories={k})",
        why=f"{shown} read as codes; 'OrderedLogistic' if in order, 'Normal' or 'Poisson' if "
        "quantities",
    )


def _spike(line: str | None, x: np.ndarray) -> float:
    """Where a hurdle stands: as its line says, or the value that occurs most."""
    if line is not None and isinstance(at := as_spec(line).kwargs.get("at", 0), int | float):
        return float(at)
    values, counts = np.unique(x, return_counts=True)
    return float(values[np.argmax(counts)])


def _hurdle(x: np.ndarray) -> str:
    spike = _spike(None, x)
    rest = x[x != spike]
    _, name, _, _ = by_values(rest, whole=False) if len(set(rest)) > 1 else ("", "Normal", 0, "")
    inner = as_spec(name)
    inner = inner.args[0] if inner.name == "Hurdle" else inner
    return str(Spec("Hurdle", inner)) if spike == 0 else str(Spec("Hurdle", inner, at=spike))


DEFAULTS: dict[str, Callable[[np.ndarray], str]] = {
    "real": lambda x: "Normal",
    "integer": lambda x: "Normal",
    "heavy-tailed": lambda x: HEAVY,
    "positive": positive_line,
    "bounded": lambda x: "Beta",
    "count": count_line,
    "hurdle": _hurdle,
    "time": lambda x: "Normal",
    "survival": lambda x: "Censored(Weibull)",
    "event": lambda x: "",
}
