"""Batches: rows of a tensor, of an array on disk or of a ``Dataset``, or a ``DataLoader``'s own."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.loaders import Form, length
from ...data.rows import Rows
from ..engine.distributed import Processes
from .binarize import bits, compiled_bits, random_keys

__all__ = ["Batches"]

AT_ONCE = 2**20  # numbers that are taken from a tensor together: a call costs what thousands do
AHEAD = 2  # batches read from disk while a step is taken


class Batches:
    """An epoch's batches, in an order drawn from the global generator.

    Of several processes each has its part of every batch.

    Args:
        x: ``(N, ...)``, a ``Dataset``, or a loader with a length, such as a ``DataLoader``.
        batch_size: of all processes together; not used for a loader.
        processes: that share the batches.
        fresh: each epoch's batches are bits, drawn anew, of a tensor of grey values.
        prepare: what a batch goes through that is not of a tensor, when it is asked for.
        form: how rows make a batch, and a loader's batch is understood.

    Attributes:
        rows: data of a whole batch that are this process's.
        loader: whether x gives batches of its own, of any shapes.

    Raises:
        ValueError: no data, or fewer than there are processes.
    """

    def __init__(
        self,
        x: Any,  # noqa: ANN401
        batch_size: int,
        processes: Processes | None = None,
        *,
        fresh: bool = False,
        prepare: Callable[[Any], Tensor] = lambda batch: batch,
        form: Form | None = None,
    ) -> None:
        self.form = form or Form()
        self.x, self.batch_size, self.fresh, self.prepare = x, batch_size, fresh, prepare
        self.processes = processes or Processes()
        self.rows = len(self.processes.part(torch.arange(batch_size)))
        self._bits: Callable[[Tensor, Tensor, Tensor], Tensor] = bits
        count = self.processes.count
        self.loader = not isinstance(x, Tensor | Dataset)
        if self.loader and count > 1:
            raise ValueError("a loader is of one process: give its Dataset, which fit shares")
        if len(self) == 0:
            raise ValueError("the data are empty: give at least one observation")
        if not self.loader and min(batch_size, self._number()) < count:
            raise ValueError(
                f"{count} processes share batches of {batch_size} of {self._number()} data: "
                "each needs at least one observation"
            )

    def __len__(self) -> int:
        if self.loader:
            return len(self.x)
        return -(-self._number() // self.batch_size)

    @property
    def smallest(self) -> int:
        """Data of this process's smallest batch; 0 where a loader does not say."""
        if not self.loader:
            return min(map(len, self._places()))
        size, data = getattr(self.x, "batch_size", None), getattr(self.x, "dataset", None)
        n = length(data)
        if not (isinstance(size, int) and n) or self.x.drop_last:
            return size if isinstance(size, int) else 0
        return n % size or size

    def __iter__(self) -> Iterator[Tensor]:
        """One epoch."""
        return self.epoch()

    def epoch(self, skip: int = 0) -> Iterator[Tensor]:
        """One epoch; its order is drawn at the call.

        Args:
            skip: how many of its batches are left out, at its start.
        """
        if self.loader:
            items = self.form.batches(self.x)
            for _ in islice(items, skip):  # now, with the state of the generators at the call
                pass
            return self._loaded(items, skip)
        order = self.processes.first(torch.randperm(self._number()))
        places = self._places()
        if isinstance(self.x, Tensor):
            keys = self.processes.first(random_keys(len(order))) if self.fresh else None
            return self._several(self.x, places, order, keys, skip)
        later = (order[some] for some in places[skip:])
        if not isinstance(self.x, Rows):
            return map(self._take, later)
        read = _read_ahead(self.x, later)
        return (self.prepare(batch) if len(batch) else batch for batch in read)

    def compile(self) -> None:
        """From now on draw bits in one pass over the data, where a compiler makes that faster.

        Raises:
            CaptureError: there is no C++ compiler.
        """
        if self.fresh and isinstance(self.x, Tensor) and self.x.device.type == "cpu":
            n = sum(map(len, self._places()[: self._together]))
            self._bits = compiled_bits(self.x.flatten(1), n)

    def _loaded(self, items: Iterator[object], skip: int) -> Iterator[Tensor]:
        """A loader's batches, as many as it says."""
        count = skip
        for item in islice(items, len(self) - skip):
            count += 1
            yield self.prepare(item)
        if count < len(self):
            raise ValueError(
                f"the loader says that it has {len(self)} batches and gave {count}: mend its "
                f"length, or take fewer, fit(..., steps_per_epoch={count})"
            )

    def _places(self) -> list[Tensor]:
        """Where in an epoch this process's data are, by batches."""
        return [self.processes.part(p) for p in torch.arange(self._number()).split(self.batch_size)]

    def _several(
        self, x: Tensor, places: list[Tensor], order: Tensor, keys: Tensor | None, skip: int
    ) -> Iterator[Tensor]:
        """Batches of a tensor, several at a time."""
        n = self._together

        def taken(start: int) -> Iterator[Tensor]:
            some = places[start : start + n]
            at = torch.cat(some)
            if keys is None:
                data = x.index_select(0, order[at].to(x.device))
            else:
                data = self._bits(x.flatten(1), order[at], keys[at]).view(-1, *x.shape[1:])
            return iter(data.split([len(part) for part in some]))

        batches = chain.from_iterable(map(taken, range(skip // n * n, len(places), n)))
        return islice(batches, skip % n, None)

    @property
    def _together(self) -> int:
        """How many batches of a tensor are taken together: ``AT_ONCE`` numbers."""
        return max(1, AT_ONCE // max(1, self.rows * self.x[0].numel()))

    def _number(self) -> int:
        return len(self.x)

    def _take(self, rows: Tensor) -> Tensor:
        """Rows of a ``Dataset``; of one row none, for a process that has no part of a batch."""
        found = self.prepare(self.form.collate([self.x[i] for i in rows.tolist() or [0]]))
        return found[: len(rows)]


def _read_ahead(x: Rows, rows: Iterator[Tensor]) -> Iterator[Tensor]:
    """Batches, the next ones being read by another thread in the meantime."""
    with ThreadPoolExecutor(1) as reader:
        waiting = deque(reader.submit(x.__getitem__, batch) for batch in islice(rows, AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(reader.submit(x.__getitem__, more) for more in islice(rows, 1))
            yield batch
