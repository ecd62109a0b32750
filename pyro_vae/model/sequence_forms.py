"""The forms in which sequences come: lists, padded arrays, by name, and what loaders give."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Vocabulary
from ..data.ragged import padded, with_lengths
from ..data.tables.design import Design
from .arrays import is_named, numbers
from .blocks import Block, one_hot
from .designed import framed
from .record import Record

__all__ = ["SequenceForms", "lengths_of", "steps_there"]


class SequenceForms(Record):
    """What users have, and what loaders give, as sequences padded with NaN.

    Attributes:
        step: the shape of a step.
        longest: of the sequences, where it is known.
        vocabulary: of texts.
        beside: blocks of a whole sequence.
        design: from a frame to the numbers of the block ``condition``.
    """

    step: tuple[int, ...]
    longest: int | None
    vocabulary: Vocabulary | None
    beside: tuple[Block, ...]
    design: Design | None

    def collate(self, rows: list[Any]) -> object:
        """Rows of a ``Dataset``: sequences, or each with what belongs to it."""
        if isinstance(rows[0], Mapping):
            return {name: _column([row[name] for row in rows]) for name in rows[0]}
        if self._are_apart(rows):
            return self._by_name([_column([*column]) for column in zip(*rows, strict=True)])
        return _column(rows)

    def entries(self, batch: Any, stacked: bool = True) -> object:  # noqa: ANN401
        """A batch: padded sequences, arrays by name, several, or a list of sequences."""
        found = super().entries(batch, stacked)
        if not isinstance(batch, tuple | list) or isinstance(found, Mapping):
            return found
        arrays = len(batch) and all(hasattr(part, "shape") for part in batch)
        if arrays and (stacked or np.ndim(batch[0]) == 2 + len(self.step)):
            if np.ndim(batch[0]) != 2 + len(self.step):
                raise ValueError(
                    "the DataLoader has put sequences side by side, step by step: let it give them "
                    "as a list, DataLoader(..., collate_fn=list)"
                )
            return batch[0] if len(batch) == 1 else self._by_name(batch)
        return list(batch)

    def even(self, batch: Tensor) -> Tensor:
        """A batch with as many steps as the longest sequence there is."""
        more = (self.longest or 0) - batch.shape[1]
        if more <= 0:
            return batch
        return torch.cat([batch, batch.new_full((len(batch), more, *batch.shape[2:]), math.nan)], 1)

    def _are_apart(self, rows: list[Any]) -> bool:
        """Whether a row is a sequence and what belongs to it, by the dimensions of the former."""
        row = rows[0]
        if not (isinstance(row, tuple | list) and len(row)):
            return False
        return isinstance(row[0], str) or _dimensions(row[0]) == 1 + len(self.step)

    def _by_name(self, parts: Sequence[Any]) -> dict[str, Any]:
        """What comes side by side, by name: x, its lengths if they are given, and other blocks."""
        names = [b.name for b in self.blocks]
        if len(parts) == len(names) + 1:
            names.insert(1, "lengths")
        if len(parts) != len(names):
            raise ValueError(
                f"a batch has {len(parts)} entries, and this model reads {', '.join(names)}: leave "
                "the others out, or say them, VAE(Sequences(12, beside=[Block('y', 3, 'context')]))"
            )
        return dict(zip(names, parts, strict=True))

    def pack(self, arrays: Any) -> Tensor:  # noqa: ANN401
        """Sequences in any form, padded, with what lies beside them, ``(N, T, C + D)``."""
        rows = None if is_named(arrays) else _rows(arrays)
        if rows and self._are_apart(rows):
            arrays = self._by_name([[*column] for column in zip(*rows, strict=True)])
        given = dict(arrays) if is_named(arrays) else {"x": arrays}
        names = [b.name for b in self.blocks]
        labels = {b.name for b in self.beside if b.role == "label"}  # known nowhere, if not given
        if not {*names} - labels <= {*given} <= {*names, "lengths"}:
            known = " and ".join(map(repr, [*names, "lengths"]))
            got = ", ".join(map(str, given))
            raise ValueError(f"sequences by name are {known}, got {got}")
        cells = self._padded(given["x"])
        if "lengths" in given:
            cells = with_lengths(cells, numbers(given["lengths"])[0])
        if not self.beside:
            return cells
        given = framed(given, self.design)
        parts = [cells.reshape(*cells.shape[:2], -1)]
        there = steps_there(cells)
        for block in self.beside:
            value = numbers(given.get(block.name, torch.full((len(cells),), -1)))[0]
            if block.role == "label":
                value = one_hot(value, block.width, len(cells))
            if value.shape != (len(cells), *block.shape):
                expected, got = (len(cells), *block.shape), tuple(value.shape)
                raise ValueError(f"expected block {block.name!r} of shape {expected}, got {got}")
            each = value.to(cells.device).reshape(len(cells), 1, -1).double()
            parts.append(torch.where(there[..., None], each, math.nan))
        return torch.cat([part.double() for part in parts], 2)

    def _padded(self, x: Any) -> Tensor:  # noqa: ANN401
        """The steps of what users have, as one tensor."""
        if isinstance(x, str):
            raise ValueError(f"expected a list of texts, got one, {x!r:.40}: one alone is [x]")
        if isinstance(x, Tensor) and x.is_nested:
            x = list(x.unbind())
        rows = _rows(x)
        if rows == []:
            raise ValueError("x is empty: give a sequence")
        if rows is None:
            cells = numbers(x)[0]
            cells = cells if cells.is_floating_point() else cells.double()
            if cells.ndim != 2 + len(self.step) or cells.shape[2:] != self.step:
                shape, got = ", ".join(map(str, ("N", "T", *self.step))), tuple(cells.shape)
                raise ValueError(
                    f"expected a list of sequences, or x of shape ({shape}), got {got}"
                )
            return cells
        return padded([self._row(i, row) for i, row in enumerate(rows)], None)

    def _row(self, i: int, row: object) -> Tensor:
        """A sequence of a list, checked."""
        if isinstance(row, str) and self.vocabulary is None:
            raise ValueError(
                f"row {i} is text, {row!r:.40}: of texts make VAE(Vocabulary.of(texts), ...)"
            )
        if isinstance(row, Real) or (isinstance(row, Tensor) and not row.ndim):
            raise ValueError(f"row {i} is a number, {row}, and no sequence: one alone is [x]")
        try:
            coded = self.vocabulary and isinstance(row, str)
            found = numbers(self.vocabulary.encode(row) if coded else row)[0]  # pyrefly: ignore[missing-attribute]
        except ValueError as problem:
            raise ValueError(f"{problem} (in row {i})") from problem
        found = found if found.is_floating_point() else found.double()
        if found.numel() == 0:
            raise ValueError(f"row {i} is an empty sequence: leave it out")
        if found.ndim != 1 + len(self.step) or found.shape[1:] != self.step:
            shape = ", ".join(map(str, ("steps", *self.step)))
            raise ValueError(f"row {i} has shape {tuple(found.shape)}, expected ({shape})")
        gone = found.isnan().reshape(len(found), -1)
        if gone[-1].all():
            raise ValueError(
                f"row {i} ends with a step of NaN, which is padding here: leave that step out"
            )
        return found


def steps_there(x: Tensor) -> Tensor:
    """At which steps padded sequences, ``(N, T, ...)``, have not ended: ``(N, T)``."""
    return torch.arange(x.shape[1], device=x.device) < lengths_of(x)[:, None]


def lengths_of(x: Tensor) -> Tensor:
    """The numbers of steps of padded sequences, ``(N, T, ...)``: up to the last that is there."""
    there = ~x.isnan().reshape(*x.shape[:2], -1).all(-1)
    at = torch.arange(1, x.shape[1] + 1, device=x.device)
    return (there * at).amax(1)


def _rows(x: Any) -> list[object] | None:  # noqa: ANN401
    """The sequences of a list, an array of objects or a column of lists; ``None`` of an array."""
    if isinstance(x, list | tuple):
        return list(x)
    if isinstance(x, np.ndarray) and x.dtype.kind in "OUT" and x.ndim == 1:
        return list(x)
    for name in ("to_pylist", "to_list"):  # PyArrow; pandas and polars
        if hasattr(x, name) and not hasattr(x, "columns"):
            return list(getattr(x, name)())
    return None


def _column(values: list[Any]) -> Any:  # noqa: ANN401
    """Values of one block, of rows: an array where they are of one shape, else a list of them."""
    if isinstance(values[0], str) or len({np.shape(v) for v in values if hasattr(v, "shape")}) > 1:
        return values
    if all(hasattr(v, "shape") for v in values):
        return torch.stack([torch.as_tensor(v) for v in values])
    return values


def _dimensions(value: Any) -> int:  # noqa: ANN401
    """How many dimensions an array, or a list of lists, has."""
    if hasattr(value, "ndim"):
        return value.ndim
    return 1 + _dimensions(value[0]) if isinstance(value, list | tuple) and len(value) else 0
