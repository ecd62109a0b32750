"""Subjects as observations: the rows of a table by subject, each row a visit."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..data.tables import Schema, Table
from ..data.tables.columns import Column
from ..data.tables.design import Design
from ..data.tables.formulas import sources_of
from ..data.tables.frames import Frame
from ..distributions import Layout
from ..families.part import Line
from ..families.registry import REGISTRY
from ..families.visits import VisitPart
from ..language.spec import nearest
from .blocks import Role
from .record import Record
from .tables import TableRecord

__all__ = ["VisitsRecord", "read_by_visit", "visits_of", "without_subject"]


class VisitsRecord(Record):
    """Subjects, whose rows in a table are their visits, packed as ``(N, T, W)``.

    T is the most visits of a subject; those with fewer have rows that hold nothing, which no term
    of any objective sees. A row's numbers are the cells, the condition and other roles of its
    visit, then what the prior reads, and last 1, where there is a visit.

    Args:
        rows: the record of a row.
        by: the column that says whose visit a row is.
        designs: what the prior reads of each visit, by name; ``None`` has no columns.
        constants: names of designs before whose columns there is a constant one.
        visits: T.

    Attributes:
        labels: of the subjects that were read last, for messages.
    """

    in_units = own = True

    def __init__(
        self,
        rows: TableRecord,
        by: str,
        designs: Mapping[str, Design | None],
        constants: Sequence[str],
        visits: int,
    ) -> None:
        super().__init__(rows.blocks)
        rows.subject = by
        self.row_record, self.by, self.designs, self.visits = rows, by, dict(designs), visits
        self.constants = tuple(constants)
        self.prior_columns = {
            name: (*(("1",) if name in constants else ()), *(design.names if design else ()))
            for name, design in designs.items()
        }
        self.width = sum(map(len, self.prior_columns.values()))
        self.x_shape = (visits, *rows.x_shape)
        self.row_shape = rows.x_shape
        self.shape = (visits, rows.shape[0] + self.width + 1)
        self.scored = [(line, (visits, *shape)) for line, shape in rows.scored]
        self.layout: Layout = rows.layout
        self.missing = True
        names = rows.columns or ()
        self.columns = tuple(f"{name}[{t}]" for t in range(visits) for name in names)
        self.labels: Sequence[object] = ()

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        schema = self.row_record.schema
        designs = {k: d.as_dict(schema) if d else "" for k, d in self.designs.items()}
        own = {"by": self.by, "constants": list(self.constants), "number": self.visits}
        return {**self.row_record.describe(), "visits": {**own, "designs": designs}}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        own = about["visits"]
        schema = Schema.from_dict(about["table"])
        designs = {k: Design.from_dict(d, schema) if d else None for k, d in own["designs"].items()}
        rows = cast(TableRecord, TableRecord.arguments(about, _sources(designs))["x_shape"])
        record = VisitsRecord(rows, own["by"], designs, own["constants"], own["number"])
        return {"x_shape": record}

    # The layout.

    def cells(self, x: Tensor) -> Tensor:
        """The part of x that the likelihood models, ``(N, T, D)``."""
        return x[..., : self.row_shape[0]]

    def there(self, x: Tensor) -> Tensor:
        """At which visits a subject was seen, ``(N, T, 1)``."""
        return x[..., -1:] > 0

    def with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The subjects x with other cells, at the visits that there are."""
        cells = torch.where(self.there(x), cells, torch.nan)
        return torch.cat([cells, x[..., self.row_shape[0] :]], -1)

    def part(self, x: Tensor | None, role: Role) -> Tensor | None:
        """All blocks of a role, ``(N, T, D)``; weights are of subjects, ``(N, 1)``."""
        if x is None or not self.has(role):
            return self.row_record.part(None, role)
        found = self.row_record.part(x[..., : self.row_record.shape[0]].flatten(0, 1), role)
        found = cast(Tensor, found).unflatten(0, x.shape[:2])
        return found[:, 0] if role == "weight" else found

    def unpack(self, x: Tensor) -> dict[str, Tensor]:
        """The blocks by name, ``(N, T, *shape)``; those of one column share the memory of x."""
        rows = x[..., : self.row_record.shape[0]].flatten(0, 1)
        blocks = self.row_record.unpack(rows)
        return {name: part.unflatten(0, x.shape[:2]) for name, part in blocks.items()}

    def beside(self, x: Tensor | None) -> Tensor:
        """What prior and guide read of each visit, ``(N, T, K + 2)``.

        The last columns are 1 where there is a visit, and where a cell of it is seen.
        """
        if x is None:
            raise ValueError(
                f"this model draws subjects at their visits: say them, sample(10, given=frame) of "
                f"rows with {', '.join(self.needed)}"
            )
        seen = ~self.cells(x).isnan().all(-1, keepdim=True)
        return torch.cat([x[..., self.row_record.shape[0] :], seen.to(x.dtype)], -1)

    def offset_of(self, x: Tensor | None) -> Tensor | None:
        """The offset as it is added, visit by visit."""
        return self.part(x, "offset")

    def place(self, row: int, *cell: int) -> str:
        """Where a cell lies, in words: the subject, its visit, and the column."""
        label = f" ({self.by} {self.labels[row]})" if row < len(self.labels) else ""
        if not cell:
            return f"subject {row}{label}"
        name = (self.row_record.columns or ())[cell[1]]
        return f"subject {row}{label}, visit {cell[0]}, column {name!r}"

    # The boundary.

    @property
    def time(self) -> str | None:
        """The column of numbers along which a subject's visits lie; ``None`` if not one alone."""
        for name in ("over", "random", "fixed"):
            if design := self.designs.get(name):
                columns = [self.row_record.schema[source] for source in design.sources]
                numbers = [column.name for column in columns if not column.has_codes]
                return numbers[0] if len(numbers) == 1 else None
        return None

    @property
    def words(self) -> tuple[str, ...]:
        """The columns that hold words."""
        return self.row_record.words

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns without which nothing is drawn of a visit: not its weight."""
        return tuple(dict.fromkeys([self.by, *_sources(self.designs), *self.row_record.needed]))

    def take(self, x: object, like: Tensor) -> Tensor:
        """A frame or a table as packed subjects, in the order in which they come first."""
        if isinstance(x, Tensor):
            if x.shape[1:] != self.shape or not len(x):
                expected = ", ".join(map(str, ("N", *self.shape)))
                raise ValueError(
                    f"expected subjects of shape ({expected}), as record.take gives them, got "
                    f"{tuple(x.shape)}: give the rows as a frame"
                )
            return x.to(like)
        table = self.read(x)
        return self.pack_rows(table, like, self.visits)

    def read(self, x: object) -> Table:
        """A frame, or another table, under this record's schema."""
        return self.row_record.read(x)

    def pack_rows(self, table: Table, like: Tensor, visits: int) -> Tensor:
        """The rows of a table as subjects of at most so many visits.

        Raises:
            ValueError: a subject with more visits, a visit that is there twice, or a cell of the
                prior's columns that is missing.
        """
        subject, visit, labels = self.grouped(table)
        most = int(visit.max()) + 1
        if most > visits:
            label = labels[subject[int(np.argmax(visit))]]
            raise ValueError(
                f"{self.by} {label} has {most} visits, and this model reads {visits} of a subject: "
                f"say how many there can be where it is made, prior='...(..., visits={most})'"
            )
        flat = self.row_record.take(table, like)
        parts = [flat, *self._read_designs(table, like), flat.new_ones(len(flat), 1)]
        packed = flat.new_zeros(len(labels), visits, self.shape[1])
        packed[..., : self.row_shape[0]] = torch.nan
        self.labels = labels
        packed[torch.from_numpy(subject), torch.from_numpy(visit)] = torch.cat(parts, 1)
        self._check_weights(packed, labels)
        return packed

    def grouped(self, table: Table) -> tuple[np.ndarray, np.ndarray, list[object]]:
        """Of each row its subject and its visit, by number, and the labels of the subjects.

        Raises:
            ValueError: a row of nobody, or a visit that is there twice.
        """
        frame = Frame(table.to_frame())
        cells, labels = frame.cells(self.by), frame.frame.get_column(self.by).to_list()
        if not cells.known.all():
            problem = "it is missing, so this is nobody's visit"
            raise cells.error(~cells.known, problem, "leave the row out, or give its subject")
        numbers: dict[object, int] = {}
        counts: list[int] = []
        subject, visit = np.empty(len(labels), int), np.empty(len(labels), int)
        for row, label in enumerate(labels):
            number = numbers.setdefault(label, len(numbers))
            if number == len(counts):
                counts.append(0)
            subject[row], visit[row] = number, counts[number]
            counts[number] += 1
        self._check_twice(table, labels)
        return subject, visit, list(numbers)

    def _check_twice(self, table: Table, labels: Sequence[object]) -> None:
        """Raise where a subject has two rows at one time: equal numbers in all of a design."""
        for name in ("over", "random"):
            if (design := self.designs.get(name)) is None:
                continue
            columns = [table.schema[source] for source in design.sources]
            if all(column.has_codes for column in columns):
                continue
            if twice := _twice(self.by, table, labels, [column.name for column in columns]):
                raise ValueError(f"{twice}\nleave one out, or give their mean")

    def warn_of_twice(self, table: Table, labels: Sequence[object]) -> None:
        """Warn of a subject, the label of its rows, with two at one time, if no slope is of it."""
        time = self.time
        if time is None or any(self.designs.get(name) for name in ("over", "random")):
            return
        pairs = {*zip(labels, table.values[:, table.schema.places[time]], strict=True)}
        moves = len(pairs) > len({*labels})  # else it is of subjects, not of visits
        if moves and (twice := _twice(self.by, table, labels, [time])):
            warnings.warn(
                f"{twice}; both count: leave one out, if it is there by mistake", stacklevel=5
            )

    def _read_designs(self, table: Table, like: Tensor) -> list[Tensor]:
        """What the prior reads of each row."""
        parts = []
        for name, design in self.designs.items():
            if name in self.constants:
                parts.append(like.new_ones(len(table), 1))
            if design:
                parts.append(torch.tensor(design.read(table)).to(like))
        return parts

    def _check_weights(self, packed: Tensor, labels: Sequence[object]) -> None:
        if not self.has("weight"):
            return
        flat = self.row_record.part(packed[..., : self.row_record.shape[0]].flatten(0, 1), "weight")
        each = cast(Tensor, flat).reshape(packed.shape[:2])
        uneven = ((each != each[:, :1]) & (packed[..., -1] > 0)).any(1)
        if uneven.any():
            label = labels[int(uneven.nonzero()[0])]
            raise ValueError(
                f"column {self.row_record.numbers['weight']!r}: {self.by} {label} has visits of "
                "several weights, and a weight is a subject's\ngive all its rows one"
            )

    def check_complete(self, x: Tensor) -> None:
        """A visit may lack any cell."""

    def name_columns(self, x: object) -> None:
        """The columns are the table's."""

    def given(self, cells: object) -> Any:  # noqa: ANN401
        """Rows of which some cells are known."""
        return self.row_record.given(cells)

    def intervene(self, x: object, do: Mapping[str, Any]) -> Table:
        """The rows of x with some columns of the condition set to a value, or to one a row."""
        return self.row_record.intervene(x, do)

    def by_row(self, cells: Tensor, table: Table) -> Tensor:
        """Cells ``(..., N, T, D)`` of the rows of a table, ``(..., rows, D)``."""
        subject, visit, _ = self.grouped(table)
        return cells[..., torch.from_numpy(subject), torch.from_numpy(visit), :]

    def answer_given(self, cells: Tensor, rows: object) -> Any:  # noqa: ANN401
        """Draws ``(draws, N, T, D)`` as frames of the rows, whose known cells are as they came."""
        return self.row_record.answer_given(self.by_row(cells, self.read(rows)), rows)

    def answer(
        self, cells: Tensor, x: object = None, *, keep: bool = False, mean: bool = False
    ) -> Any:  # noqa: ANN401
        """Cells ``(N, T, D)`` as a frame of the rows of x; several draws as a list of frames."""
        if x is None or isinstance(x, Tensor):
            return cells
        return self.row_record.answer(self.by_row(cells, self.read(x)), x, keep=keep, mean=mean)


def _twice(by: str, table: Table, labels: Sequence[object], names: Sequence[str]) -> str:
    """The first two rows of a subject with equal numbers in some columns, in words; or nothing."""
    seen: dict[object, int] = {}
    places = [table.schema.places[name] for name in names]
    for row, (label, *key) in enumerate(zip(labels, *table.values[:, places].T, strict=True)):
        first = seen.setdefault((label, *key), row)
        if first != row:
            pairs = zip(names, key, strict=True)
            where = ", ".join(f"{name} {value:g}" for name, value in pairs)
            return f"{by} {label} has two visits at {where}: rows {first} and {row}"
    return ""


def visits_of(prior: Line) -> VisitPart | None:
    """The prior of a line, where it is of visits by subject."""
    part = prior if isinstance(prior, nn.Module) else REGISTRY.construct(prior, "prior")
    return part if isinstance(part, VisitPart) and part.by is not None else None


def without_subject(table: Table, prior: VisitPart) -> Table:
    """The table whose column of subjects identifies rows, and is not modelled.

    Numbers that the prior reads, as times, are not scored: whatever those of the table are, later
    ones may be between them and before them.
    """
    by, columns = cast(str, prior.by), table.schema.columns
    if by not in table.schema.names:
        raise ValueError(
            f"{prior.spec} names {by!r}, and the table has no such column"
            f"{nearest(by, table.schema.names)}"
        )
    own = replace(table.schema[by], kind="identifier", line="", levels=(), ordered=False)
    read = {name for f in prior.formulas.values() if f for name in sources_of(f"~ {f}")}
    columns = [_of_times(c) if c.name in read else c for c in columns]
    columns = tuple(own if c.name == by else c for c in columns)
    schema = replace(table.schema, columns=columns)
    frame = Frame(table.to_frame())
    return Table(schema, frame, schema.numbers(frame))


def _of_times(column: Column) -> Column:
    """A column of numbers that are no counts, nor whole where the frame's type is not."""
    if column.kind not in ("count", "integer"):
        return column
    whole = column.sort == "whole"
    return replace(column, kind="integer" if whole else "real", line="Normal", whole=whole)


def read_by_visit(
    table: Table, prior: VisitPart, condition: Design | None, numbers: Mapping[str, str | None]
) -> VisitsRecord:
    """The record of a table's subjects."""
    designs = {k: Design.of(f"~ {f}", table) if f else None for k, f in prior.formulas.items()}
    rows = TableRecord(table.schema, condition, numbers, (), _sources(designs))
    record = VisitsRecord(rows, cast(str, prior.by), designs, sorted(prior.constants), 1)
    subject, visit, labels = record.grouped(table)
    once = np.bincount(subject) == 1
    if len(labels) == 1:
        warnings.warn(
            f"all {len(subject)} rows are of one subject, {labels[0]}: they tell nothing of how "
            "subjects differ, so forecasts of others rest on where the prior starts",
            stacklevel=4,
        )
    elif once.any():
        warnings.warn(
            f"{int(once.sum())} of {len(labels)} subjects are seen once, the first "
            f"{labels[int(np.argmax(once))]}: they tell nothing of change within a subject",
            stacklevel=4,
        )
    record.warn_of_twice(table, [labels[number] for number in subject])
    visits = prior.visits or int(visit.max()) + 1
    return VisitsRecord(rows, record.by, designs, record.constants, visits)


def _sources(designs: Mapping[str, Design | None]) -> list[str]:
    """The columns that designs read."""
    return [name for design in designs.values() if design for name in design.sources]
