"""Tables as records: a block for each likelihood, whose columns lie side by side."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.tables import Schema, Table
from ..data.tables.coding import constant, drawn
from ..data.tables.design import Design
from ..data.tables.frames import Frame
from ..data.tables.native import make_series
from ..data.tables.written import has_commas
from ..distributions import Layout
from .blocks import Block, Role
from .designed import set_columns
from .record import Record

__all__ = ["NUMBERS", "TableRecord", "needed_columns"]

NUMBERS = ("offset", "weight")


def needed_columns(design: Design | None, numbers: Mapping[str, str]) -> tuple[str, ...]:
    """The columns without which nothing is drawn of a row: the design's and the offset."""
    offset = [name for role, name in numbers.items() if role == "offset"]
    return (*(design.sources if design else ()), *offset)


class TableRecord(Record):
    """The rows of a table, packed as ``(N, D)`` in single or double precision.

    Columns of one likelihood line are one block, so that a wide table is a few sites; their cells
    stay where the table has them. Any cell may be missing, and what comes in and goes out are
    frames, like the one that the table was made of.

    Args:
        schema: of the table.
        design: of the columns that are conditions, which are not scored.
        numbers: the columns of single numbers, by their roles: ``offset``, of exposures, whose
            logarithm is packed, and ``weight``.
        holes: columns beside which there is a bit, 1 where the cell is missing. It is scored as any
            cell is, so that rows are simulated with their holes.
        aside: further columns that are not scored.
        covariates: columns of a condition that may have holes, with their families: they are scored
            where they are known, and latent elsewhere.

    Attributes:
        columns: the names of the packed observed cells; all of ``schema.cells``, without a
            condition, so that a tensor of ``Table.values`` is packed; the bits come after.

    Raises:
        ValueError: an unknown column, one of words as a number, or no column left to model.
    """

    in_units = own = True

    def __init__(
        self,
        schema: Schema,
        design: Design | None = None,
        numbers: Mapping[str, str | None] = MappingProxyType({}),
        holes: Sequence[str] = (),
        aside: Sequence[str] = (),
        covariates: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.schema, self.design = schema, design
        self.numbers = {role: name for role, name in numbers.items() if name is not None}
        for role, name in self.numbers.items():
            column = schema[name]
            if column.has_codes or column.kind == "survival" or not column.modelled:
                one = column.kind == "constant"
                what = f"one value alone: leave {role}= out" if one else "no numbers"
                raise ValueError(f"{role}={name!r}: the column holds {what}")
        apart = {*(design.sources if design else ()), *self.numbers.values(), *aside}
        modelled = [column for column in schema.modelled if column.name not in apart]
        if not modelled:
            raise ValueError("no column is left to model: take one out of the condition")
        lines = [column.line for column in modelled]
        groups = {line: [i for i, own in enumerate(lines) if own == line] for line in lines}
        blocks = [Block(line, len(i), "observed", line, True) for line, i in groups.items()]
        self.holes = tuple(name for name in holes if name not in apart)
        if self.holes:
            blocks.append(Block("missing", len(self.holes), "observed", "Bernoulli", True))
        if design:
            blocks.append(Block("condition", len(design.names), "context"))
        blocks += [Block(role, (), role) for role in self.numbers]  # pyrefly: ignore[bad-argument-type]
        if len(modelled) < sum(block.width for block in blocks) == len(schema.cells):
            blocks.append(Block("packed", (), "index"))  # none takes Table.values for packed rows
        super().__init__(blocks)
        self.subject: str | None = None  # whose visits the rows are
        self._cells = [schema.places[column.name] for column in modelled]  # among the schema's
        n, bits = len(self._cells), [f"{name} is missing" for name in self.holes]
        places = [*groups.values(), *([list(range(n, n + len(bits)))] if bits else [])]
        self.layout = Layout(places)
        self._places |= groups
        self.columns = (*(column.name for column in modelled), *bits)
        self.largest = {i: c.high or 0.0 for i, c in enumerate(modelled) if c.kind == "count"}
        kinds = {name: line.split("(")[0] for name, line in covariates.items()}
        self.bits = tuple(name for name, kind in kinds.items() if kind == "Bernoulli")
        self.covariates = (*(name for name in kinds if name not in self.bits), *self.bits)

    @property
    def words(self) -> tuple[str, ...]:
        """The columns that hold words in a file, whatever these look like."""
        formed = [c for c in self.schema.columns if c.format and c.sort in ("boolean", "number")]
        looks = {c.name for c in formed if c.sort == "boolean" or has_commas(str(c.format))}
        return tuple(c.name for c in self.schema.columns if c.sort == "word" or c.name in looks)

    @property
    def levels(self) -> dict[int, int]:
        """How many levels a column has, by the place of its cell, where it is one of codes."""
        named = {column.name: column for column in self.schema.modelled if column.has_codes}
        return {i: len(named[n].levels) for i, n in enumerate(self.columns or ()) if n in named}

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        about: dict[str, object] = {"table": self.schema.as_dict()}
        if self.design:
            about["condition"] = self.design.as_dict(self.schema)
        if self.covariates:
            kinds = {
                name: "Bernoulli" if name in self.bits else "Normal" for name in self.covariates
            }
            about["covariates"] = kinds
        return about | self.numbers | ({"holes": list(self.holes)} if self.holes else {})

    @staticmethod
    def arguments(about: Mapping[str, Any], aside: Sequence[str] = ()) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        schema, design = Schema.from_dict(about["table"]), None
        if "condition" in about:
            design = Design.from_dict(about["condition"], schema)
        numbers = {role: about.get(role) for role in NUMBERS}
        holes = about.get("holes", ())
        covariates = about.get("covariates", {})
        record = TableRecord(schema, design, numbers, holes, aside, covariates)
        return {"x_shape": record}

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns without which nothing is drawn of a row: not its weight."""
        return needed_columns(self.design, self.numbers)

    def part(self, x: Tensor | None, role: Role) -> Tensor | None:
        """All blocks of a role side by side, ``(N, D)``; ``None`` where the record has none."""
        if x is None and self.has(role):
            context = self.design.sources if self.design and role == "context" else ()
            names = ", ".join(context or (self.numbers[role],))
            raise ValueError(
                f"this model is conditional on {names}: say it, given=table, whose rows are taken "
                "in turn, or sample(10, given={name: value})"
            )
        return super().part(x, role)

    @property
    def covariate_cells(self) -> list[int]:
        """Where among the packed cells the covariates are."""
        return [(self.columns or ()).index(name) for name in self.covariates]

    def beside(self, x: Tensor | None) -> Tensor | None:
        """The covariates of x and which of them are known, ``(N, 2 m)``; ``None`` without x."""
        if x is None:
            return None
        value = x[:, self.covariate_cells]
        return torch.cat([value.nan_to_num(0.0), (~value.isnan()).to(x.dtype)], 1)

    def read(self, x: object) -> Table:
        """A frame, or another table, under this record's schema.

        Raises:
            ValueError: columns or cells that the schema does not have.
        """
        if isinstance(x, Table):
            return x if x.schema == self.schema else self.schema.read(x.to_frame())
        return self.schema.read(x)

    def take(self, x: object, like: Tensor) -> Tensor:
        """A frame or a table as a packed tensor of the type and device of ``like``; NaN stays.

        A tensor is packed already, as ``Table.values`` are where every column is modelled.
        """
        if isinstance(x, Tensor):
            if x.shape[1:] != self.shape:
                expected = ", ".join(map(str, ("N", *self.shape)))
                raise ValueError(
                    f"a tensor holds packed rows, ({expected}), as vae.as_data(frame) gives them, "
                    f"got {tuple(x.shape)}: give the rows as a frame or a table"
                )
            return super().take(x, like)
        table = self.read(x)
        self._check_digits(like.dtype)
        self._check_whole(table, like.dtype)
        parts = [table.values[:, self._cells], np.isnan(table.values[:, self._holed])]
        if self.design:
            parts.append(self.design.read(table))
        parts += [self._numbers(table, role, name) for role, name in self.numbers.items()]
        if self.has("index"):
            parts.append(np.zeros((len(table), 1)))
        return super().take(torch.from_numpy(np.concatenate(parts, 1)).to(like), like)

    @property
    def _holed(self) -> list[int]:
        """The places among ``schema.cells`` of the columns that have a bit beside them."""
        return [self.schema.places[name] for name in self.holes]

    def _numbers(self, table: Table, role: str, name: str) -> np.ndarray:
        """A column of numbers greater than 0, ``(N, 1)``; of exposures the logarithms."""
        values = table.values[:, self.schema.places[name]]
        wrong = ~(values > 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            got = "none" if np.isnan(values[row]) else f"{values[row]:g}"
            problem = f"expected a number greater than 0 ({role}), got {got}"
            raise table.error(name, wrong, problem, "leave the row out, or give its number")
        return (np.log(values) if role == "offset" else values)[:, None]

    def _check_digits(self, dtype: torch.dtype) -> None:
        """Raise if a column's numbers are too far from 0 for a type to tell them apart."""
        for c in self.schema.modelled:
            if c.low is None or c.high is None or c.has_codes:
                continue
            size = max(abs(c.low), abs(c.high))
            if torch.finfo(dtype).eps * size > (c.high - c.low) / 1000 > 0:
                raise ValueError(
                    f"column {c.name!r} lies within {c.low:.12g} to {c.high:.12g}, numbers that "
                    f"{str(dtype).removeprefix('torch.')} does not tell apart: use vae.double(), "
                    "or subtract its least value"
                )

    def _check_whole(self, table: Table, dtype: torch.dtype) -> None:
        """Raise for the first count that a type would change, whose probability is another's."""
        whole = torch.tensor([column.kind == "count" for column in self.schema.modelled])
        values = torch.from_numpy(table.values).where(whole, 0.0)
        lost = (values.abs() > 2 / torch.finfo(dtype).eps) & (values == values.round())
        lost &= values.to(dtype).double() != values
        if lost.any():
            row, place = lost.nonzero()[0].tolist()
            name = self.schema.cells[place]
            raise table.error(
                name,
                lost[:, place].numpy(),
                f"{values[row, place].item():.15g} is a count that "
                f"{str(dtype).removeprefix('torch.')} cannot hold",
                f"use vae.double(), or a density, likelihood={{{name!r}: 'Normal'}}, or put None "
                f"there; if it names rows, leave it out: kinds={{{name!r}: 'identifier'}}",
            )

    def given(self, cells: object) -> Any:  # noqa: ANN401
        """Rows of which some cells are known: a frame, or one row as a dict of its cells."""
        if isinstance(cells, Tensor):
            return None
        names, roles = self.schema.names, self.numbers
        if not isinstance(cells, Mapping):
            if isinstance(cells, Table):
                return cells
            if isinstance(cells, str | list):
                raise ValueError(
                    f"given is a dict of cells, {{{names[0]!r}: value}}, or a frame, got {cells!r}"
                )
            weights = {roles["weight"]: 1.0} if "weight" in roles else {}
            frame = Frame(cells)
            return Frame(frame.with_others(names, weights)).replaced(self._aside(frame))
        import pandas as pd

        several = [name for name, value in cells.items() if np.ndim(value)]
        if several:
            raise ValueError(
                f"the given column {several[0]!r} has several values: a dict is one row, and "
                "several rows are a frame"
            )
        if unknown := [str(name) for name in cells if name not in names]:
            self.schema[unknown[0]]  # raises, with the nearest name
        idle = [n for n in cells if self.schema[n].kind == "identifier" and n != self.subject]
        if idle:
            raise ValueError(
                f"the given column {idle[0]!r} identifies rows, so no draw depends on it: leave it "
                "out"
            )
        if empty := [name for name, value in cells.items() if pd.isna(value)]:
            say = "say its value" if empty[0] in self.needed else "leave it out"
            raise ValueError(f"the given column {empty[0]!r} has no value: {say}")
        if "weight" in roles:  # of which no draw depends
            cells = {roles["weight"]: 1.0, **cells}
        if absent := [name for name in self.needed if name not in cells]:
            raise ValueError(f"this model is conditional on {absent[0]!r}: say its value too")
        return pd.DataFrame({name: [cells.get(name)] for name in names})

    def _aside(self, frame: Frame) -> dict[str, object]:
        """The constants and identifiers that a frame lacks, in their types; the latter missing."""
        series, schema = {}, self.schema
        for c in schema.columns:
            if c.kind in ("constant", "identifier") and c.name not in frame.names:
                held = np.full(len(frame), c.kind == "constant")
                cells = constant(c, held) if c.kind == "constant" else np.zeros(len(frame))
                said = (c.dtype, c.levels) if frame.library == schema.library else ("", ())
                series[c.name] = make_series(frame.library, c.name, cells, held, *said)
        return series

    def intervene(self, x: object, do: Mapping[str, Any]) -> Table:
        """The rows of x with some columns of the condition set to a value, or to one a row."""
        if isinstance(x, Tensor):
            raise ValueError("do= sets columns of a frame: give the rows as one, not as a tensor")
        table, names = self.read(x), self.design.sources if self.design else ()
        if wrong := [str(name) for name in do if name not in names]:
            self.schema[wrong[0]]  # raises, with the nearest name
            have = ", ".join(names) or "none"
            raise ValueError(f"do= sets columns of the condition ({have}), got {wrong[0]!r}")
        return set_columns(table, do)

    def take_known(self, rows: object, like: Tensor) -> Tensor:
        """Rows of which some cells are known: of the others nothing is, so they may be holes."""
        packed = self.take(rows, like)
        first = len(self._cells)
        bits = packed[:, first : first + len(self.holes)]  # a view
        bits[bits == 1] = math.nan
        return packed

    def answer_given(self, cells: Tensor, rows: object) -> Any:  # noqa: ANN401
        """Draws of rows, ``(draws, N, D)``, whose known cells are as they came.

        Returns:
            A frame of the draws of one row; a list of frames, one a draw, of several.
        """
        table = self.read(rows)
        draws = np.where(table.missing, self.values(self.with_holes(cells)), table.values)
        if len(table) == 1:
            return self.schema.to_frame(draws[:, 0], table)
        return [table.to_frame(values) for values in draws]

    def with_holes(self, cells: Tensor) -> Tensor:
        """Packed cells ``(..., D)``, NaN where the bit beside a cell says that it is missing."""
        if not self.holes:
            return cells
        cells, first = cells.clone(), len(self._cells)
        own = [self._cells.index(place) for place in self._holed]
        holes = cells[..., first : first + len(own)] > 0.5
        cells[..., own] = cells[..., own].masked_fill(holes, math.nan)
        return cells

    def with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The rows x with other cells, NaN where the bit beside a cell says that it is missing."""
        return super().with_cells(x, self.with_holes(cells))

    def values(self, cells: Tensor, *, mean: bool = False) -> np.ndarray:
        """Packed cells ``(..., D)`` as a table's values: codes and numbers are rounded as its own.

        Columns of the condition, which have no packed cells, are missing. A spike has the value
        that the table's own cells have, to the last digit.
        """
        values = np.full((*cells.shape[:-1], len(self.schema.cells)), np.nan)
        values[..., self._cells] = cells[..., : len(self._cells)].double().cpu().numpy()
        for at, column in enumerate(self.schema.modelled):
            own = drawn(column, values[..., at], mean=mean)
            if column.spike is not None:
                spike = torch.tensor(column.spike, dtype=cells.dtype).item()
                own = np.where(values[..., at] == spike, column.spike, own)
            values[..., at] = own
        return values

    def answer(
        self, cells: Tensor, x: object = None, *, keep: bool = False, mean: bool = False
    ) -> Any:  # noqa: ANN401
        """Cells as a frame; several draws as a list of frames.

        Args:
            cells: ``(N, D)`` or ``(draws, N, D)``.
            x: the rows that they belong to, whose index and types they get; of packed rows they
                stay packed.
            keep: whether the cells that x has stay as they are.
            mean: whether the cells are means, which may be near a spike, and not draws.
        """
        if isinstance(x, Tensor):
            return cells
        if cells.ndim == 3:
            return [self.answer(one, x, keep=keep, mean=mean) for one in cells]
        if x is None:
            values = self.values(self.with_holes(cells), mean=mean)
            if weight := self.numbers.get("weight"):  # a row that is drawn counts once
                values[..., self.schema.places[weight]] = 1.0
            return self.schema.to_frame(values)
        table, values = self.read(x), self.values(cells, mean=mean)
        held = ~table.missing if keep else np.isnan(values)
        return table.to_frame(np.where(held, table.values, values))
