"""Rows of an array on disk, read when they are asked for."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["HELD_OUT", "Rows"]

HELD_OUT = 10_000  # at most so many rows are held out, in memory
BLOCK = 4096  # rows that are read at once where all are


class Rows(Dataset[Tensor]):
    """Rows of an array that memory need not hold.

    Args:
        array: ``(N, ...)`` numbers, such as ``numpy.load("x.npy", mmap_mode="r")``.
        rows: which of them, ``(M,)``; all where it is not given.

    Raises:
        ValueError: no numbers, or no rows.

    >>> x = Rows(np.arange(12).reshape(6, 2), torch.tensor([1, 4]))
    >>> x.shape, x[1].tolist(), x[:1].tolist()
    ((2, 2), [8, 9], [[2, 3]])
    """

    def __init__(self, array: np.ndarray, rows: Tensor | None = None) -> None:
        if array.dtype.kind not in "biuf" or array.ndim < 2:
            raise ValueError(
                f"expected numbers of shape (N, ...), got {array.dtype} of shape {array.shape}"
            )
        self.array, self.device = array, torch.device("cpu")
        self.rows = torch.arange(len(array)) if rows is None else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        return (len(self), *self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: "int | slice | Tensor") -> Tensor:
        """Rows in memory, in the array's own type."""
        values = np.asarray(self.array[self.rows[index].numpy()])
        return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))

    def __repr__(self) -> str:
        return f"Rows({self.shape}, {self.array.dtype})"

    def subset(self, rows: Tensor) -> "Rows":
        """Some of these rows, still on disk."""
        return Rows(self.array, self.rows[rows])

    def blocks(self, size: int = BLOCK) -> Iterator[Tensor]:
        """All rows, some thousand at a time."""
        return (self[rows] for rows in torch.arange(len(self)).split(size))

    def checked(self, check: Callable[[Tensor], Tensor], size: int = BLOCK) -> Iterator[Tensor]:
        """All rows, so many at a time, as a check gives them.

        Raises:
            ValueError: what the check raises; it says from where on it counts rows.
        """
        for i, rows in enumerate(self.blocks(size)):
            try:
                yield check(rows)
            except ValueError as problem:
                after = f"; rows are counted from row {i * size} of x" if i else ""
                raise ValueError(f"{problem}{after}") from None
