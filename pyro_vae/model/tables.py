"""Tables as records: a block for each likelihood, whose columns lie side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.tables import Schema, Table
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
        """A frame or a table as a packed tensor of the type and device of ``like``; NaN stays."""
        if isinstance(x, Tensor):
            return super().take(x, like)
        return torch.from_numpy(self.read(x).values[:, self.order]).to(like)

    def given(self, cells: object) -> Any:  # noqa: ANN401
        """Rows of which some cells are known: a frame, or one row as a dict of its cells."""
        if not isinstance(cells, Mapping):
            return None if isinstance(cells, Tensor) else cells
        import pandas as pd

        names = self.schema.names
        if unknown := [str(name) for name in cells if name not in names]:
            self.schema[unknown[0]]  # raises, with the nearest name
        if empty := [name for name, value in cells.items() if pd.isna(value)]:
            raise ValueError(f"the given column {empty[0]!r} has no value: leave it out")
        return pd.DataFrame({name: [cells.get(name)] for name in names})

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
        values = np.empty(cells.shape)
        values[:, self.order] = cells.double().cpu().numpy()
        coded = [c.has_codes for c in self.schema.modelled for _ in range(c.width)]
        values[:, coded] = values[:, coded].round()
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
        return TableRecord(x.with_likelihood(lines).schema), "Bernoulli"
    if isinstance(likelihood, Mapping) or likelihood == "auto":
        raise ValueError(
            "lines by column, and 'auto', are of a table: VAE(Table.from_frame(df), 8)"
        )
    return Record.of(x, missing), "Bernoulli" if likelihood is None else likelihood
