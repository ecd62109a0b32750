"""A table: the rows of a frame under a schema, as numbers that a model reads, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ...core.checks import fraction, whole
from ...language.spec import nearest
from .coding import check_constant, constant, decoded, encoded, own_part
from .columns import Column, Level, described
from .deciding import Wishes, decide, revise
from .declared import declared_lines
from .files import naming, read_file
from .frames import Frame
from .native import make_frame, make_series
from .placeholders import NaValues, by_name
from .survival import detect_events, with_events

__all__ = ["Schema", "Table"]


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in the order of its first frame; plain values alone.

    Args:
        columns: all of them, those that are left out of the model too.
        library: of the frames that :meth:`to_frame` makes.
        label: the name that the row of columns' names has there, in pandas; in Arrow a table's
            metadata, as JSON.

    >>> import pandas as pd
    >>> table = Table.from_frame(pd.DataFrame({"pet": ["cat", "dog"] * 5, "kilos": [4.1, 9.7] * 5}))
    >>> Schema.from_dict(table.schema.as_dict()) == table.schema
    True
    """

    columns: tuple[Column, ...]
    library: str = "pandas"
    label: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns."""
        return tuple(column.name for column in self.columns)

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that have cells in a table's ``values``, in this order."""
        return tuple(column for column in self.columns if column.modelled)

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of the cells of a row, ``(D,)``: those of the modelled columns."""
        return tuple(column.name for column in self.modelled)

    @property
    def likelihood(self) -> dict[str, str]:
        """The likelihood line of each modelled column, as ``from_frame`` takes it."""
        return {column.name: column.line for column in self.modelled}

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"the table has no column {name!r}{nearest(str(name), self.names)}")

    def as_dict(self) -> dict[str, object]:
        """Plain values, which :meth:`from_dict` reads."""
        label = {} if self.label is None else {"label": self.label}
        columns = [column.as_dict() for column in self.columns]
        return {"library": self.library, **label, "columns": columns}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schema":
        """The schema that :meth:`as_dict` described."""
        columns = tuple(Column.from_dict(column) for column in values["columns"])
        return cls(columns, values["library"], values.get("label"))

    def read(self, frame: object) -> "Table":
        """Another frame as a table of this schema.

        Its columns may stand in any order, and be of another library. A column may have holes where
        it had none, or be missing in all rows; a model answers for them.

        Args:
            frame: of pandas, polars or pyarrow.

        Raises:
            ValueError: a column that is absent or unknown, or a cell that the schema does not
                allow, with the column and the first such row.
        """
        given = Frame(frame)
        for name in self.names:
            if name not in given.names:
                spare = [other for other in given.names if other not in self.names]
                raise ValueError(
                    f"the frame has no column {name!r}{nearest(name, spare) if spare else ''}\n"
                    "rename it, or give it with None in all rows if no condition reads it"
                )
        if unknown := [name for name in given.names if name not in self.names]:
            raise ValueError(
                f"the frame has {len(unknown)} columns that the table does not have, the first "
                f"{unknown[0]!r}{nearest(unknown[0], self.names)}\n"
                "give those of the table alone: frame[list(schema.names)]"
            )
        return Table(self, given, self.numbers(given))

    def numbers(self, given: Frame) -> np.ndarray:
        """The cells of a frame of this schema's columns as numbers, ``(N, D)``."""
        parts = []
        for column in self.columns:
            if column.kind in ("event", "identifier"):
                continue
            cells = given.cells(column.name, na_values=column.na_values)
            if column.kind == "constant":
                check_constant(column, cells)
            if not column.modelled:
                continue
            parts.append(encoded(column, cells))
            if column.event is not None:
                event = self[column.event]
                events = encoded(event, given.cells(event.name, na_values=event.na_values))
                half = np.isnan(events) != np.isnan(parts[-1])
                if half.any():
                    raise cells.error(
                        half,
                        f"of {column.name!r} and its event {column.event!r} one is missing",
                        "give both, or neither",
                    )
                parts[-1] = np.where(events == 0, -parts[-1], parts[-1])
        return np.stack(parts, 1) if parts else np.empty((len(given), 0))

    def to_frame(self, values: ArrayLike, given: "Table | None" = None) -> Any:  # noqa: ANN401
        """A frame of new rows, such as a model simulates.

        Columns, types, levels and their order are those of the table's first frame. Whole numbers
        are rounded, and not negative where none was; a constant is put back; what
        identifies rows is missing, since these are others.

        Args:
            values: ``(N, D)``, as a table's ``values``.
            given: one row, whose known times all rows have to the last nanosecond, as written.

        Raises:
            ValueError: another shape, or the code of no level.
        """
        known, series, at = np.ones(len(numbers := self.check(values)), bool), {}, self.places
        for column in self.columns:
            cells, held = np.zeros(len(numbers)), ~known
            if column.kind == "constant":
                cells, held = constant(column, known), known
            elif column.name in at:
                cells, held = decoded(column, numbers[:, at[column.name]])
                if given is not None and column.sort == "time":
                    own = given._frame.cells(column.name)
                    if own.sort == ("word" if column.format else "time"):
                        cells = own.values.repeat(len(numbers))
            series[column.name] = make_series(
                self.library, column.name, cells, held, column.dtype, column.levels
            )
        return make_frame(self.library, series, self.label)

    @property
    def places(self) -> dict[str, int]:
        """Where in a row the cells of a column are; an event's are those of its time."""
        events = {c.event: i for i, c in enumerate(self.modelled) if c.event is not None}
        return {name: i for i, name in enumerate(self.cells)} | events

    def check(self, values: ArrayLike) -> np.ndarray:
        """Values as an array of ``(N, D)``, or an error."""
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self.cells):
            raise ValueError(
                f"expected values of shape (N, {len(self.cells)}), a column each of "
                f"{', '.join(self.cells)}, got {array.shape}"
            )
        return array


class Table:
    """Rows of a frame, under a schema.

    Args:
        schema: of the columns.
        frame: that the rows came in.
        values: ``(N, D)`` float64: numbers as they are, categories as codes from 0, booleans as 0
            and 1, dates in days, a survival time with a minus where it was censored, NaN where a
            cell is missing. Column i is ``schema.cells[i]``.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"pet": ["cat", "dog", None] * 4, "kilos": [4.1, 9.7, 5.2] * 4})
    >>> table = Table.from_frame(frame)
    >>> table.values[:3].tolist()
    [[0.0, 4.1], [1.0, 9.7], [nan, 5.2]]
    >>> table.to_frame(table.values).equals(frame)
    True
    """

    def __init__(
        self, schema: Schema, frame: Frame | None = None, values: np.ndarray | None = None
    ) -> None:
        if not isinstance(schema, Schema) or frame is None or values is None:
            raise ValueError(
                f"expected a schema, its frame and values, got {type(schema).__name__}: a table is "
                "made by Table.from_frame(df), or Table.read(path) of a file"
            )
        self.schema, self.values, self._frame = schema, values, frame

    @classmethod
    def from_frame(
        cls,
        frame: object,
        *,
        kinds: Mapping[str, str | Sequence[Level]] | None = None,
        likelihood: str | Mapping[str, str] = "auto",
        dates: Mapping[str, str] | None = None,
        censored: Mapping[str, str] | None = None,
        na_values: NaValues | None = None,
    ) -> "Table":
        """A table, and its schema, from a frame of pandas, polars or pyarrow.

        Args:
            frame: the data. NaN, None, NaT and NA are missing cells.
            kinds: of some columns, by name: one of the kinds of
                :class:`~pyro_vae.data.tables.Column`, or the levels of an ordinal column in order.
            likelihood: ``"auto"``: a family for each column, from its type and its values; or the
                lines of some columns by name, and the others from their values.
            dates: of columns of words, the form of their dates, ``{"day": "%d/%m/%Y"}``. Words that
                are all dates as ISO 8601 has them are read as such without being asked.
            censored: of survival times by name, the column that says whether the event was seen
                (1) or the time was censored (0): ``{"time": "dead"}``. Where it is not given, a
                pair that its names and values tell is taken for one (``print(table)`` says so);
                ``{}`` is none.
            na_values: what stands for missing cells, in all columns or by column, ``[-999]`` or
                ``{"age": [-999, 0]}``. A value that looks like it is warned of, unless lists are
                given for its column, empty ones too.

        Returns:
            The table; ``print(table)`` says what was decided and why.

        Raises:
            ValueError: what a table cannot hold, with the column, the first row, and what to do.
        """
        given = Frame(frame)
        gone = by_name(na_values, given.names)
        wishes = Wishes(kinds or {}, declared_lines(likelihood), dates or {}, censored or {}, gone)
        wishes.check(given.names)
        wishes = with_events(wishes, given) if censored is None else wishes
        aside = [name for name, kind in wishes.kinds.items() if str(kind) == "identifier"]
        columns = tuple(
            decide(given.cells(name, any_type=name in aside, words=gone.get(name, ())), wishes)
            for name in given.names
        )
        schema = Schema(columns, given.library, given.label)
        if not schema.modelled:
            raise ValueError(f"no column is left to model\n{described(schema.columns)}")
        return Table(schema, given, schema.numbers(given))

    def with_likelihood(self, lines: Mapping[str, str]) -> "Table":
        """The same rows, some columns with another likelihood.

        Args:
            lines: by column; other columns stay as they are, and so do levels.

        Raises:
            ValueError: an unknown column, or one that cannot have this likelihood.
        """
        said = {self.schema[name].name: line for name, line in declared_lines(lines).items()}
        if not said:
            return self
        columns = self.schema.columns
        cells = {c.name: self._frame.cells(c.name, na_values=c.na_values) for c in columns}
        known = {c.name: c.event for c in columns if c.event is not None}
        events = detect_events(tuple(cells), said, known, cells.__getitem__)
        columns = tuple(revise(c, cells[c.name], said, events) for c in columns)
        schema = replace(self.schema, columns=columns)
        return Table(schema, self._frame, schema.numbers(self._frame))

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        kinds: Mapping[str, str | Sequence[Level]] | None = None,
        likelihood: str | Mapping[str, str] = "auto",
        dates: Mapping[str, str] | None = None,
        censored: Mapping[str, str] | None = None,
        na_values: NaValues | None = None,
    ) -> "Table":
        """A table from a file ``.csv``, ``.tsv`` (also compressed) or ``.parquet``.

        The arguments are those of :meth:`from_frame`, the frame is one of pandas; errors name the
        file.
        """
        frame = read_file(path)
        with naming(path):
            return cls.from_frame(
                frame,
                kinds=kinds,
                likelihood=likelihood,
                dates=dates,
                censored=censored,
                na_values=na_values,
            )

    @property
    def likelihood(self) -> dict[str, str]:
        """As that of the schema."""
        return self.schema.likelihood

    @property
    def missing(self) -> np.ndarray:
        """``(N, D)``, true where a cell is missing."""
        return np.isnan(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self.values if dtype is None else self.values.astype(dtype)

    def __repr__(self) -> str:
        shares = dict(zip(self.schema.cells, self.missing.mean(0), strict=True))
        columns, missing = self.schema.columns, self.missing.sum()
        size = f"{len(self):,} rows and {len(columns)} columns, {missing:,} cells missing"
        return f"Table of {size}\n{described(columns, shares)}"

    def __getitem__(self, rows: "int | slice | ArrayLike") -> "Table":
        """Some rows: by number, slice, list or mask."""
        chosen = np.atleast_1d(np.arange(len(self))[rows])  # pyrefly: ignore[bad-index]
        if not len(chosen):
            raise ValueError("no row is chosen: a table has one at least")
        return Table(self.schema, self._frame.take(chosen), self.values[chosen])

    def error(self, name: str, where: np.ndarray, problem: str, advice: str) -> ValueError:
        """An error that names a column and the first row of ``where``, ``(N,)``, by its index too.

        A part of a table keeps the index of the whole.
        """
        return self._frame.cells(name).error(where, problem, advice)

    def split(self, share: float, *, seed: int) -> tuple["Table", "Table"]:
        """Two tables of this schema, of rows at random in their order.

        Args:
            share: of the rows that the first one has.
            seed: of the choice.
        """
        n = round(fraction("share", share) * len(self))
        if not 0 < n < len(self):
            raise ValueError(f"a share of {share} of {len(self)} rows leaves a part without rows")
        order = np.random.default_rng(whole("seed", seed, 0)).permutation(len(self))
        return self[np.sort(order[:n])], self[np.sort(order[n:])]

    def to_frame(self, values: ArrayLike | None = None) -> Any:  # noqa: ANN401
        """A frame like the one that came in.

        Of as many rows as the table has, they are the table's own rows: index, identifiers and
        cells whose number is unchanged come back exactly as they were, and what is new has the
        frame's own types. Of another number of rows, they are new ones, as
        :meth:`Schema.to_frame` makes them.

        Args:
            values: ``(N, D)``; the frame as it came in where they are not given.
        """
        if values is None:
            return self._frame.native
        numbers = self.schema.check(values)
        if len(numbers) != len(self):
            return self.schema.to_frame(numbers)
        series: dict[str, object] = {}
        for name, at in self.schema.places.items():
            column = self.schema[name]
            new, old = (own_part(column, values[:, at]) for values in (numbers, self.values))
            same = (new == old) | (np.isnan(new) & np.isnan(old))
            if not same.all():
                series[name] = self._column(column, numbers[:, at], same)
        return self._frame.replaced(series)

    def _column(self, column: Column, numbers: np.ndarray, same: np.ndarray) -> object:
        """A column of the frame in which some cells are new."""
        old = self._frame.cells(column.name)
        if column.format and old.sort not in ("word", None):  # of words, which these are not
            column = replace(column, format=None, dtype="")
        cells, known = decoded(column, numbers)
        fits = old.sort is not None and (not old.levels or set(column.levels) <= set(old.levels))
        if old.sort == "whole" and not old.levels:  # whose type holds no other numbers
            fits, cells = column.only_whole, cells.astype(int) if column.only_whole else cells
        kinds = {old.values.dtype.kind, cells.dtype.kind}
        if old.sort is not None and (len(kinds) == 1 or kinds <= set("iuf")):
            cells, known = np.where(same, old.values, cells), np.where(same, old.known, known)
        named = self._frame.library == self.schema.library  # whose names of types column.dtype has
        kind = old if fits else column if named else replace(column, dtype="", levels=())
        new = make_series(self._frame.library, column.name, cells, known, kind.dtype, kind.levels)
        return self._frame.with_own(column.name, new, same)
