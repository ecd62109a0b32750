"""A plain array beside a condition that comes as a frame."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..data.tables import Table
from ..data.tables.design import Design
from .blocks import Block
from .record import Record

__all__ = ["DesignedRecord"]


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
        return super().pack(self._read(arrays))

    def intervene(self, x: Any, do: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Observations under another condition, which may be a frame."""
        return super().intervene(x, self._read(do))

    def _read(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The blocks, a condition that is a frame as its numbers."""
        condition = arrays.get("condition")
        framed = hasattr(condition, "columns") or isinstance(condition, Mapping | Table)
        return {**arrays, **({"condition": self.design.read(condition)} if framed else {})}

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        return super().describe() | {"condition": self.design.as_dict()}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        design = Design.from_dict(about["condition"])
        return {"x_shape": DesignedRecord([Block(*row) for row in about["blocks"]], design)}
