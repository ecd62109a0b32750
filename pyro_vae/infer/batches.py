"""Batches: rows of a tensor, of an array on disk or of a ``Dataset``, or a ``DataLoader``'s own."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..rows import Rows
from .distributed import Processes

__all__ = ["Batches", "Binarize", "binarize"]

Binarize: TypeAlias = Literal["dynamic", "static"] | None

AHEAD = 2  # batches read from disk while a step is taken


def binarize(x: Tensor) -> Tensor:
    r"""Bits with the grey values in [0, 1] as their probabilities.

    A bit is :math:`[u < x]` for a uniform u. The first 16 binary digits of u decide all but one
    bit in 65,536, and only those that they leave open are drawn further: the bits are exact to the
    last digit of x, for half the time of ``torch.rand_like(x) < x``.

    Args:
        x: of any shape.

    References:
        Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks", for
        grey values as probabilities; von Neumann (1951), "Various techniques used in connection
        with random digits", for digits drawn as they are needed.

    >>> binarize(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return torch.rand(x.shape, device=x.device).lt(x).to(x.dtype)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    digits = words.view(torch.uint16)[: x.numel()].view(x.shape).to(x.dtype)
    p = digits.sub_(x, alpha=2.0**16).clamp_(-1, 0).abs_()  # 0, 1, or the chance that is left
    left = p.frac()
    if left.sum() > 0:
        open_ = left.nonzero(as_tuple=True)
        p[open_] = torch.bernoulli(left[open_])
    return p


class Batches:
    """An epoch's batches, in an order drawn from the global generator.

    Of several processes each has its part of every batch.

    Args:
        x: ``(N, ...)``, a ``Dataset`` or a ``DataLoader`` (of tensors, or of tuples whose first
            entry is x).
        batch_size: of all processes together; not used for a ``DataLoader``.
        processes: that share the batches.

    Raises:
        ValueError: no data, or fewer than there are processes.
    """

    def __init__(
        self,
        x: "Tensor | Dataset | DataLoader",
        batch_size: int,
        processes: Processes | None = None,
    ) -> None:
        self.x, self.batch_size = x, batch_size
        self.processes = processes or Processes()
        count = self.processes.count
        if isinstance(x, IterableDataset):
            raise ValueError("a stream of data has no length: give a DataLoader of it")
        if isinstance(x, DataLoader) and count > 1:
            raise ValueError("a DataLoader is of one process: give its Dataset, which fit shares")
        if len(self) == 0:
            raise ValueError("the data are empty: give at least one datum")
        if not isinstance(x, DataLoader) and min(batch_size, self._number()) < count:
            raise ValueError(
                f"{count} processes share batches of {batch_size} of {self._number()} data: "
                "each needs at least one datum"
            )

    def __len__(self) -> int:
        if isinstance(self.x, DataLoader):
            return len(self.x)
        return -(-self._number() // self.batch_size)

    @property
    def rows(self) -> int:
        """Data of a whole batch that are this process's."""
        return len(self.processes.part(torch.arange(self.batch_size)))

    def __iter__(self) -> Iterator[Tensor]:
        """One epoch."""
        return self.epoch()

    def epoch(self, skip: int = 0) -> Iterator[Tensor]:
        """One epoch; its order is drawn at the call.

        Args:
            skip: how many of its batches are left out, at its start.
        """
        if isinstance(self.x, DataLoader):
            items = iter(self.x)
            for _ in islice(items, skip):
                pass
            return (_data(item) for item in items)
        order = self.processes.first(torch.randperm(self._number()))
        if isinstance(self.x, Tensor):
            order = order.to(self.x.device)
        rows = (self.processes.part(batch) for batch in order.split(self.batch_size)[skip:])
        return _read_ahead(self.x, rows) if isinstance(self.x, Rows) else map(self._take, rows)

    def _number(self) -> int:
        return len(cast(Tensor, self.x))

    def _take(self, rows: Tensor) -> Tensor:
        if isinstance(self.x, Tensor):
            return self.x.index_select(0, rows)
        data = cast(Dataset, self.x)
        return _data(default_collate([data[i] for i in rows.tolist()]))


def _data(item: "Tensor | tuple[Tensor, ...] | list[Tensor]") -> Tensor:
    return item[0] if isinstance(item, tuple | list) else item


def _read_ahead(x: Rows, rows: Iterator[Tensor]) -> Iterator[Tensor]:
    """Batches, the next ones being read by another thread in the meantime."""
    with ThreadPoolExecutor(1) as reader:
        waiting = deque(reader.submit(x.__getitem__, batch) for batch in islice(rows, AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(reader.submit(x.__getitem__, more) for more in islice(rows, 1))
            yield batch
