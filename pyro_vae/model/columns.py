"""Cells of x by the names of their columns, for what is said of each column."""

from collections.abc import Callable

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from ..data.tables import Column
from ..data.tables.coding import decoded
from ..distributions import Joined
from .record import Record
from .tables import TableRecord
from .visits import VisitsRecord

__all__ = ["by_cell", "by_column", "names_of", "own_values"]


def names_of(record: Record, cells: int | None = None) -> list[str]:
    """The names of the cells of an observation, in the order in which they are packed.

    Args:
        record: of the model.
        cells: how many, of sequences all of which are shorter than those of the training data.
    """
    width = int(np.prod(record.x_shape)) if cells is None else cells
    columns = record.columns or ()
    named = len(columns) >= width
    return [str(columns[i]) if named else f"x[{i}]" for i in range(width)]


def by_cell(
    likelihood: dist.TorchDistribution, of: Callable[[dist.TorchDistribution], bool | int]
) -> Tensor:
    """For each cell of an observation, in the order of packing, what holds of its likelihood.

    Args:
        likelihood: of all cells.
        of: from that of a block to what holds of its cells.

    Returns:
        ``(D,)``, booleans or numbers.
    """
    parts = likelihood.parts if isinstance(likelihood, Joined) else [likelihood]
    each = [torch.full(part.event_shape, of(part)) for part in parts]
    joined = likelihood.layout.join(each) if isinstance(likelihood, Joined) else each[0]
    return joined.flatten()


def by_column(record: Record, cells: Tensor) -> dict[str, np.ndarray]:
    """Cells as numbers by column, in the order of a table's columns, and rounded as its frames are.

    Args:
        record: of the model.
        cells: ``(..., *x_shape)``.

    Returns:
        ``(...)`` each; of a table the numbers of ``Table.values``.
    """
    if isinstance(record, TableRecord):
        values, own = record.values(cells), set(names_of(record))
        places = record.schema.places.items()  # those of a condition are not cells of x
        return {name: values[..., i] for name, i in places if name in own}
    if isinstance(record, VisitsRecord):
        rows = by_column(record.row_record, cells)
        visits = range(cells.shape[-2])
        return {f"{name}[{t}]": values[..., t] for t in visits for name, values in rows.items()}
    values = cells.flatten(-len(record.x_shape)).double().cpu().numpy()
    return {name: values[..., i] for i, name in enumerate(names_of(record, values.shape[-1]))}


def own_values(column: Column, numbers: np.ndarray) -> np.ndarray | None:
    """Levels, dates and durations of a table's numbers, ``(...)``; ``None`` of what is a number.

    A missing cell is NaT of times, NaN of levels that are numbers, and an empty word of others.
    """
    if not column.has_codes and column.sort not in ("time", "duration"):
        return None
    values, known = decoded(column, numbers.ravel())
    if values.dtype == object:
        values = np.where(known, values.astype(str), "")
    elif values.dtype.kind in "mM":
        values = np.where(known, values, np.array("NaT", values.dtype))
    elif not known.all():
        values = np.where(known, values.astype(float), np.nan)
    return values.reshape(numbers.shape)
