"""Batches: whole tensors indexed in memory, or a ``Dataset`` or ``DataLoader`` of the user's."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["Batches", "Binarize", "binarize"]

Binarize: TypeAlias = Literal["dynamic", "static"] | None


def binarize(x: Tensor) -> Tensor:
    """Bits with the grey values in [0, 1] as their probabilities (Salakhutdinov & Murray, 2008)."""
    return torch.rand_like(x).lt(x).to(x.dtype)


class Batches:
    """An epoch's batches, in an order drawn from the global generator.

    Args:
        x: ``(N, ...)``, a ``Dataset`` or a ``DataLoader`` (of tensors, or of tuples whose first
            entry is x).
        batch_size: not used for a ``DataLoader``.

    Raises:
        ValueError: no data.
    """

    def __init__(self, x: "Tensor | Dataset | DataLoader", batch_size: int) -> None:
        if isinstance(x, Dataset) and not isinstance(x, Tensor):
            x = DataLoader(x, batch_size=batch_size, shuffle=True)
        self.x, self.batch_size = x, batch_size
        if len(self) == 0:
            raise ValueError("the data are empty: give at least one datum")

    def __len__(self) -> int:
        if isinstance(self.x, Tensor):
            return -(-len(self.x) // self.batch_size)
        return len(self.x)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[Tensor]:
        """One epoch."""
        if isinstance(self.x, Tensor):
            order = torch.randperm(len(self.x))
            yield from (self.x[rows.to(self.x.device)] for rows in order.split(self.batch_size))
        else:
            for item in self.x:
                yield item[0] if isinstance(item, tuple | list) else item
