"""What is known of a table's columns: plain values, which a TOML file can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

__all__ = ["KINDS", "Column", "Kind", "Level", "Sort", "described"]

Kind: TypeAlias = Literal[
    "real",
    "heavy-tailed",
    "positive",
    "bounded",
    "integer",
    "count",
    "hurdle",
    "binary",
    "categorical",
    "ordinal",
    "time",
    "survival",
    "event",
    "constant",
    "identifier",
]
Sort: TypeAlias = Literal["boolean", "whole", "number", "word", "time", "duration"]
Level: TypeAlias = str | int | float | bool
KINDS: tuple[Kind, ...] = get_args(Kind)
HEAD = ("column", "kind", "levels or range", "missing", "line", "why")
WIDTH = 40  # of levels or a range


@dataclass(frozen=True)
class Column:
    """A column of a table: how it is modelled, and how its cells come back.

    Args:
        name: of the column.
        kind: what its values are:

            - ``real``, ``heavy-tailed``, ``positive``, ``bounded`` (within (0, 1)): numbers;
            - ``integer``: whole numbers that are no counts, such as an age;
            - ``count``: whole numbers from 0;
            - ``hurdle``: one value that occurs often (``spike``) and numbers beside it;
            - ``binary``, ``categorical``, ``ordinal``: one of the ``levels``, which lie in order;
            - ``time``: a date, in days since the ``origin``;
            - ``survival``: a time until an event or until it was censored; its cell is the time,
              with a minus where the column ``event`` says that the event was not seen;
            - ``event``: that second column, which has no cells of its own;
            - ``constant``, ``identifier``: left out of the model.
        line: the likelihood of the column in the package's language; empty where it has none.
        why: why it is of this kind, in words.
        sort: what its cells are.
        dtype: the type of the frame's column, by its library's name.
        levels: of a category, from the first code to the last.
        ordered: whether the frame's type says that the levels are in order.
        whole: whether the numbers are whole, so that new ones are rounded, and not negative where
            none was; of a time, whether all are midnights, in its zone.
        step: by which values lie apart, as those do that are rounded to cents or to thousands; new
            ones are brought to the nearest such value.
        low: the least value, in the column's unit; of a time in days.
        high: the greatest.
        spike: the value that occurs often.
        origin: of a time, the day that is 0.
        format: of a time, number or boolean that was written as words, how.
        na_values: values that stand for missing cells.
        event: of a survival time, the column that says whether the event was seen.
        value: of a constant; a duration in days, a time as ISO 8601 has it.
    """

    name: str
    kind: Kind
    line: str
    why: str
    sort: Sort
    dtype: str
    levels: tuple[Level, ...] = ()
    ordered: bool = False
    whole: bool = False
    step: float | None = None
    low: float | None = None
    high: float | None = None
    spike: float | None = None
    origin: str | None = None
    format: str | None = None
    event: str | None = None
    value: Level | None = None
    na_values: tuple[Level, ...] = ()

    @property
    def modelled(self) -> bool:
        """Whether a number of each row is its cell."""
        return self.kind not in ("constant", "identifier", "event")

    @property
    def has_codes(self) -> bool:
        """Whether its cells are codes of its levels, from 0."""
        return self.kind in ("binary", "categorical", "ordinal")

    @property
    def only_whole(self) -> bool:
        """Whether its cells are whole numbers alone."""
        numbers = [v for v in self.levels if not isinstance(v, str) and float(v).is_integer()]
        return self.whole or 0 < len(numbers) == len(self.levels)

    @property
    def extent(self) -> str:
        """Its levels or its range, in words."""
        if self.kind == "constant":
            return str(self.value)
        if self.levels:
            shown = [str(level) for level in self.levels[:4]]
            more = len(self.levels) - len(shown)
            return ", ".join(shown) + (f" and {more} more" if more else "")
        if self.low is None or self.high is None:
            return ""
        if self.kind == "time":
            return f"{self.high - self.low:.6g} days from {self.origin}"
        by = "" if self.step is None else f" by {self.step:.6g}"
        return f"{self.low + 0.0:.6g} to {self.high + 0.0:.6g}{by}"  # of -0.0 as 0

    def as_dict(self) -> dict[str, object]:
        """Plain values by name, without those that say nothing."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"levels": list(self.levels), "na_values": list(self.na_values)}
        return {
            k: v
            for k, v in values.items()
            if v is not None and v != [] and (v is not False or k == "value")
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Column":
        """The column that :meth:`as_dict` described.

        Raises:
            ValueError: a field that columns do not have, or a kind that there is not.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"a column has no field {', '.join(sorted(unknown))}")
        if values.get("kind") not in KINDS:
            raise ValueError(f"a column is of one of the kinds {', '.join(KINDS)}")
        given = dict(values)
        for name in ("levels", "na_values"):
            given[name] = tuple(values.get(name, ()))
        return cls(**given)


def described(columns: Sequence[Column], missing: Mapping[str, float] | None = None) -> str:
    """A line for each column: its kind, its extent, what is missing, its likelihood, and why."""
    rows: list[tuple[str, ...]] = [HEAD]
    for column in columns:
        share, extent = (missing or {}).get(column.name), column.extent
        extent = extent if len(extent) <= WIDTH else f"{extent[: WIDTH - 3]}..."
        shown = f"{share:.1%}" if share else ""
        rows.append((column.name, column.kind, extent, shown, column.line, column.why))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD) - 1)]
    padded = [[f"{word:<{w}}" for word, w in zip(row, widths, strict=False)] for row in rows]
    return "\n".join(
        "  ".join([*line, row[-1]]).rstrip() for line, row in zip(padded, rows, strict=True)
    )
