"""Tables as records: a block for each likelihood, whose columns lie side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.tables import Schema, Table
from ..data.tables.coding import rounded
from ..families.part import Line
from .blocks import Block
from .record import Record

__all__ = ["TableRecord", "as_record"]


class TableRecord(Record):
    """The rows of a table, packed as ``(N, D)`` in single or double precision.

    Columns of one likelihood line are one block, so that a wide table is a few sites. Any cell may
    be missing, and what comes in and goes out are frames, like the one that the table was made of.

    Args:
        schema: of the table.

    Attributes:
        order: of each packed cell its place among ``schema.cells``.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        lines = [column.line for column in schema.modelled for _ in range(column.width)]
        groups = {line: [i for i, own in enumerate(lines) if own == line] for line in lines}
        self.order = [i for places in groups.values() for i in places]
        super().__init__(
            [Block(line, len(places), "observed", line, True) for line, places in groups.items()]
        )
        self.columns = tuple(schema.cells[i] for i in self.order)

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        return {"table": self.schema.as_dict()}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        return {"x_shape": TableRecord(Schema.from_dict(about["table"]))}

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

        A tensor is packed already: its columns are in the order of :attr:`columns`, which is not
        that of ``Table.values``.
        """
        if isinstance(x, Tensor):
            return super().take(x, like)
        table = self.read(x)
        self._check_digits(like.dtype)
        return torch.from_numpy(table.values[:, self.order]).to(like)

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

    def given(self, cells: object) -> Any:  # noqa: ANN401
        """Rows of which some cells are known: a frame, or one row as a dict of its cells."""
        if not isinstance(cells, Mapping):
            return None if isinstance(cells, Tensor) else cells
        import pandas as pd

        several = [name for name, value in cells.items() if np.ndim(value)]
        if several:
            raise ValueError(
                f"the given column {several[0]!r} has several values: a dict is one row, and "
                "several rows are a frame"
            )
        names = self.schema.names
        if unknown := [str(name) for name in cells if name not in names]:
            self.schema[unknown[0]]  # raises, with the nearest name
        if empty := [name for name, value in cells.items() if pd.isna(value)]:
            raise ValueError(f"the given column {empty[0]!r} has no value: leave it out")
        return pd.DataFrame({name: [cells.get(name)] for name in names})

    def answer_given(self, cells: Tensor, row: object) -> Any:  # noqa: ANN401
        """Draws of one row, ``(N, D)``, as a frame in which the known cells are as they came."""
        known = self.read(row).values[0]
        there = ~np.isnan(known)
        values = self.values(cells)
        values[:, there] = known[there]
        return self.schema.to_frame(values)

    def values(self, cells: Tensor) -> np.ndarray:
        """Packed cells ``(..., D)`` as a table's values: codes and whole numbers are rounded."""
        values = np.empty(cells.shape)
        values[..., self.order] = cells.double().cpu().numpy()
        for name, at in self.schema.places.items():
            column = self.schema[name]
            if column.has_codes or column.whole:
                values[..., at] = rounded(column, values[..., at])
        return values

    def answer(self, cells: Tensor, x: object = None, *, keep: bool = False) -> Any:  # noqa: ANN401
        """Cells as a frame; several draws as a list of frames.

        Args:
            cells: ``(N, D)`` or ``(draws, N, D)``.
            x: the rows that they belong to, whose index and types they get; of packed rows they
                stay packed.
            keep: whether the cells that x has stay as they are.
        """
        if isinstance(x, Tensor):
            return cells
        if cells.ndim == 3:
            return [self.answer(one, x, keep=keep) for one in cells]
        values = self.values(cells)
        if x is None:
            return self.schema.to_frame(values)
        table = self.read(x)
        return table.to_frame(np.where(table.missing, values, table.values) if keep else values)


def as_record(
    x: int | tuple[int, ...] | Record | Table,
    missing: bool,
    likelihood: Line | Mapping[str, str] | None,
) -> tuple[Record, Line]:
    """The record of a model's first argument, and the likelihood of what says none itself.

    Args:
        x: a shape, a record, or a table.
        missing: whether cells of a plain array may be missing.
        likelihood: a line or module; of a table, the lines of some columns by name.

    Raises:
        ValueError: lines by column for what has no columns, or one line for a table.
    """
    by_column = likelihood is None or likelihood == "auto" or isinstance(likelihood, Mapping)
    if isinstance(x, Table):
        if not by_column:
            raise ValueError(
                f"the likelihood of a table is 'auto' or a line for each column, got {likelihood!r}"
                "\nsay the column: likelihood={'Income': 'LogNormal'}"
            )
        lines = likelihood if isinstance(likelihood, Mapping) else {}
        schema = x.with_likelihood(lines).schema
        if survival := [c.name for c in schema.columns if c.kind == "survival"]:
            raise ValueError(
                f"column {survival[0]!r} is a censored survival time, for which there is no "
                "likelihood yet: leave it out, or model the times alone, without censored="
            )
        return TableRecord(schema), "Bernoulli"
    if hasattr(x, "columns") and not isinstance(x, Record):
        raise ValueError("a frame is made a table first: VAE(Table.from_frame(df), latent_dim=8)")
    if isinstance(likelihood, Mapping) or likelihood == "auto":
        raise ValueError(
            "lines by column, and 'auto', are of a table: VAE(Table.from_frame(df), 8)"
        )
    return Record.of(x, missing), "Bernoulli" if likelihood is None else likelihood
