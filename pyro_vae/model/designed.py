"""A plain array beside a condition that comes as a frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..data.tables import Table
from ..data.tables.design import Design
from ..data.tables.frames import Frame
from .blocks import Block
from .record import Record

__all__ = ["DesignedRecord", "beside_block", "framed", "set_columns"]


class DesignedRecord(Record):
    """A plain array ``x`` beside a ``condition`` that comes as a frame.

    Args:
        blocks: of both.
        design: from the frame to numbers.
    """

    def __init__(self, blocks: Sequence[Block], design: Design) -> None:
        super().__init__(blocks)
        self.design = design

    def pack(self, arrays: Mapping[str, Any]) -> Tensor:
        """Blocks by name as one tensor, ``(N, *self.shape)``; the condition may be a frame."""
        return super().pack(framed(arrays, self.design))

    def intervene(self, x: Any, do: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Observations under another condition: a frame, or some columns of the one in x.

        Args:
            x: blocks by name, or packed.
            do: ``{"condition": frame}``, or by columns of the frame that x has as its condition.
        """
        columns = {name: value for name, value in do.items() if name in self.design.sources}
        if not columns:
            return super().intervene(x, framed(do, self.design))
        if not isinstance(x, Mapping) or not hasattr(x.get("condition"), "columns"):
            raise ValueError(
                f"do={dict(do)} sets a column of a frame: give the observations with theirs, "
                "{'x': x, 'condition': frame}, or do={'condition': frame}"
            )
        if len(columns) < len(do):
            raise ValueError(f"do= sets columns of the condition, {', '.join(self.design.sources)}")
        table = set_columns(self.design.rows(x["condition"]), columns)
        return self.pack({**x, "condition": table})

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        return super().describe() | {"condition": self.design.as_dict()}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        design = Design.from_dict(about["condition"])
        return {"x_shape": DesignedRecord([Block(*row) for row in about["blocks"]], design)}


def beside_block(condition: object) -> tuple[list[Block], Design | None]:
    """The block of a condition that is a number of columns or a design, and the design.

    Raises:
        ValueError: a formula, which needs the frame that it is of.
    """
    if condition is None:
        return [], None
    if hasattr(condition, "shape"):
        width = condition.shape[-1] if len(condition.shape) > 1 else 1
        raise ValueError(
            f"of an array c the model is told how many numbers a row has, condition={width}, and "
            "each call gets it with x, {'x': x, 'condition': c}"
        )
    if isinstance(condition, float):
        raise ValueError(f"condition= is how many numbers a row of c has, got {condition!r}")
    if not isinstance(condition, int | Design):
        raise ValueError(
            "a formula needs the frame that its levels and knots are learned from: "
            f"condition=pv.Design.of({condition!r}, frame), and data {{'x': x, 'condition': frame}}"
        )
    design = condition if isinstance(condition, Design) else None
    width = len(condition.names) if isinstance(condition, Design) else condition
    return [Block("condition", width, "context")], design


def framed(arrays: Mapping[str, Any], design: Design | None) -> dict[str, Any]:
    """Blocks by name, a condition that is a frame as its numbers."""
    condition = arrays.get("condition")
    frame = hasattr(condition, "columns") or isinstance(condition, Mapping | Table)
    numbers = {"condition": design.read(condition)} if frame and design else {}
    return {**arrays, **numbers}


def set_columns(table: Table, do: Mapping[str, Any]) -> Table:
    """The rows of a table with some columns set to a value, or to one a row.

    Raises:
        ValueError: as many values as there are rows are not there, or one that cannot be.
    """
    import pandas as pd

    values = table.values.copy()
    for name, value in do.items():
        cells = list(value) if np.ndim(value) else [value]
        if np.ndim(value) and len(cells) != len(table):
            raise ValueError(
                f"do= has {len(cells)} values of {name!r} for {len(table)} rows: give one for "
                "each row, or one for all"
            )
        given = {c: [None] * len(cells) for c in table.schema.names} | {name: cells}
        at = table.schema.places[name]
        values[:, at] = table.schema.read(pd.DataFrame(given)).values[:, at]
    return Table(table.schema, Frame(table.to_frame(values)), values)
