"""Observations a few at a time, so that a loader is never held whole."""

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..data.loaders import Form, is_loader, read
from ..data.ragged import joined
from ..data.tables import Table
from .arrays import is_named
from .face import Face
from .record import Record
from .sequences import Sequences
from .tables import TableRecord

__all__ = ["alone", "beside", "line", "line_of", "pair", "pieces"]


def pieces(vae: Face, x: Tensor | ArrayLike, rows: int) -> Iterator[Tensor]:
    """Checked observations, so many rows at a time, whatever the batches of a loader.

    Args:
        vae: whose observations they are.
        x: ``(N, *x_shape)``, a sparse matrix, or a loader.
        rows: of all pieces but the last.

    Raises:
        ValueError: data that the model refuses.
    """
    record: Any = getattr(vae, "record", None)
    rows_of_x = record.rows(x) if record else None
    if rows_of_x is not None:
        yield from rows_of_x.checked(vae.check, rows)
        return
    if not is_loader(x):
        yield from vae.check(x).split(rows)
        return
    held: list[Tensor] = []
    start = 0
    for batch in _apart(x, record):
        held.append(vae.as_data(batch))
        while sum(map(len, held)) >= rows:
            whole = joined(held)
            held = [whole[rows:]] if len(whole) > rows else []
            yield _check(vae, whole[:rows], start)
            start += rows
    if held:
        yield _check(vae, joined(held), start)


def alone(vae: Any, x: Any) -> Tensor:  # noqa: ANN401
    """One observation as a packed row, ``(1, ...)``.

    Args:
        vae: whose observation it is.
        x: one, or an array, a frame or blocks of one.

    Raises:
        ValueError: it is none, or several.
    """
    one = (vae.record.shape, vae.record.x_shape)
    if isinstance(vae.record, Sequences):
        rows = vae.as_data(x if is_named(x) else [x])
    else:
        single = not hasattr(x, "columns") and getattr(x, "shape", None) in one
        rows = vae.as_data(x[None] if single else x)
    if len(rows) > 1:
        raise ValueError(
            f"expected one observation, got {len(rows)}: x[0] of an array, x[0:1] of a frame, a "
            "table or each block"
        )
    return rows


def pair(vae: Any, start: Any, end: Any) -> Tensor:  # noqa: ANN401
    """Two observations as packed rows, each as :func:`alone` takes it."""
    return joined([alone(vae, x) for x in (start, end)])


def line(ends: Tensor, weight: Tensor) -> Tensor:
    """The points between two, ``(2, ...)``, at weights of the second."""
    weight = weight.to(ends).reshape(-1, *[1] * (ends.ndim - 1))
    return ends[0] + weight * (ends[1] - ends[0])


def line_of(record: Record, ends: Tensor, weight: Tensor) -> Tensor:
    """Packed rows between two; what is beside x stays that of the first one."""
    x = line(ends, weight)
    if record.there(x) is not None:  # steps or visits, whose numbers may differ
        return x
    return record.with_cells(ends[:1].expand_as(x), record.cells(x))


def beside(vae: Any, x: Any, n: int) -> Table | None:  # noqa: ANN401
    """The row x of a table so many times, where columns of it are beside those of the model."""
    record = vae.record
    if not isinstance(record, TableRecord) or isinstance(x, Tensor):
        return None
    return record.read(x)[[0] * n] if record.design or record.numbers else None


def _check(vae: Face, piece: Tensor, start: int) -> Tensor:
    try:
        return vae.check(piece)
    except ValueError as problem:
        after = f"; rows are counted from row {start} of the loader" if start else ""
        raise ValueError(f"{problem}{after}") from None


def _apart(x: ArrayLike, form: Form | None) -> Iterator[object]:
    """The batches of a loader, which draws from a copy of the global generator."""
    state, last, items = torch.get_rng_state(), object(), None
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            items = read(x, form) if items is None else items
            item = next(items, last)
            state = torch.get_rng_state()
        if item is last:
            return
        yield item
