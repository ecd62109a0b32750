"""Batches: rows of a tensor, of an array on disk or of a ``Dataset``, or a ``DataLoader``'s own."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..rows import Rows
from .distributed import Processes

__all__ = ["Batches", "Binarize", "binarize"]

Binarize: TypeAlias = Literal["dynamic", "static"] | None

AT_ONCE = 2**20  # numbers that are taken from a tensor together: a call costs what thousands do
AHEAD = 2  # batches read from disk while a step is taken


def binarize(x: Tensor, seed: int | None = None) -> Tensor:
    r"""Bits with the grey values in [0, 1] as their probabilities.

    A bit is :math:`[u < x]` for a uniform u. The first 16 binary digits of u decide all but one
    bit in 65,536, and only those that they leave open are drawn further: the bits are exact to the
    last digit of x, for a third of the time of ``torch.rand_like(x) < x`` where numbers are many.

    Args:
        x: of any shape.
        seed: of the bits; drawn from torch's generator if it is not given.

    References:
        Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks", for
        grey values as probabilities; von Neumann (1951), "Various techniques used in connection
        with random digits", for digits drawn as they are needed.

    >>> binarize(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    seed = _seeds(1)[0] if seed is None else seed
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        own = torch.Generator(x.device).manual_seed(seed)
        return torch.rand(x.shape, device=x.device, generator=own).lt(x).to(x.dtype)
    noise = np.random.SFC64(seed)  # twice as fast as torch's
    digits = noise.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
    p = torch.from_numpy(digits).view(x.shape).to(x.dtype)
    p = p.sub_(x, alpha=2.0**16).clamp_(-1, 0).abs_()  # 0, 1, or the chance that is left
    lines = p.view(-1, x.shape[-1]) if x.ndim > 1 and x.numel() else p.view(1, -1)
    left = lines.frac()
    some = left.sum(1).nonzero()[:, 0]
    if len(some):
        left = left[some]
        drawn = torch.from_numpy(np.random.Generator(noise).random(left.shape)).lt(left)
        lines[some] = torch.where(left > 0, drawn.to(x.dtype), lines[some])
    return p


class Batches:
    """An epoch's batches, in an order drawn from the global generator.

    Of several processes each has its part of every batch.

    Args:
        x: ``(N, ...)``, a ``Dataset`` or a ``DataLoader`` (of tensors, or of tuples whose first
            entry is x).
        batch_size: of all processes together; not used for a ``DataLoader``.
        processes: that share the batches.
        fresh: each epoch's batches are bits, drawn anew, of a tensor of grey values.

    Raises:
        ValueError: no data, or fewer than there are processes.
    """

    def __init__(
        self,
        x: "Tensor | Dataset | DataLoader",
        batch_size: int,
        processes: Processes | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        self.x, self.batch_size, self.fresh = x, batch_size, fresh
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
        rows = [self.processes.part(batch) for batch in order.split(self.batch_size)]
        if isinstance(self.x, Tensor):
            return self._several(self.x, rows, skip)
        later = iter(rows[skip:])
        return _read_ahead(self.x, later) if isinstance(self.x, Rows) else map(self._take, later)

    def _several(self, x: Tensor, rows: list[Tensor], skip: int) -> Iterator[Tensor]:
        """Batches of a tensor, as many at a time as make ``AT_ONCE`` numbers."""
        n = max(1, AT_ONCE // max(1, self.rows * x[0].numel()))
        groups = [rows[start : start + n] for start in range(0, len(rows), n)]
        seeds = _seeds(len(groups)) if self.fresh else []

        def taken(i: int) -> Iterator[Tensor]:
            some = groups[i]
            data = x.index_select(0, torch.cat(some).to(x.device))
            data = binarize(data, seeds[i]) if self.fresh else data
            return iter(data.split([len(part) for part in some]))

        found = chain.from_iterable(map(taken, range(skip // n, len(groups))))
        return islice(found, skip % n, None)

    def _number(self) -> int:
        return len(cast(Tensor, self.x))

    def _take(self, rows: Tensor) -> Tensor:
        data = cast(Dataset, self.x)
        return _data(default_collate([data[i] for i in rows.tolist()]))


def _seeds(n: int) -> list[int]:
    """From torch's generator."""
    return torch.randint(2**63 - 1, (n,)).tolist()


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
