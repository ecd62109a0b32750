"""Several processes training one model on parts of each batch, by ``torch.distributed``."""

import os
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, _utils

__all__ = ["Processes", "leads", "local_rank", "processes"]

T = TypeVar("T")

BUCKET = 25 * 2**20  # bytes, as in DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """The processes of a run and their communication; for a single process each call is trivial.

    A loss is a sum over data points, so the gradient of a batch is the sum of those of its parts.

    Args:
        rank: of this process; the one of rank 0 writes and prints.
        count: the number of processes.
        asked: set when this process is asked to stop.
        stop: set when all processes know that one of them was asked to stop.

    >>> Processes().part(torch.arange(3)), Processes(1, 2).part(torch.arange(3))
    (tensor([0, 1, 2]), tensor([2]))
    """

    rank: int = 0
    count: int = 1
    asked: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.count == 1:
            object.__setattr__(self, "stop", self.asked)

    def part(self, batch: Tensor) -> Tensor:
        """The rows of a batch that belong to this process."""
        return batch.tensor_split(self.count)[self.rank] if self.count > 1 else batch

    def sum(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients summed over the processes; a request to stop reaches all with them.

        They travel in messages of at most ``BUCKET`` bytes, each while the next one is packed.

        References:
            Li et al. (2020), "PyTorch distributed: experiences on accelerating data parallel
            training", VLDB (arXiv:2006.15704).
        """
        given = [gradients[0].new_full((), self.asked.is_set()), *gradients]
        sent, sums = [], []
        for bucket in _utils._take_tensors(given, BUCKET):
            message = _utils._flatten_dense_tensors(bucket)
            sent.append((bucket, message, dist.all_reduce(message, async_op=True)))
        for bucket, message, work in sent:
            work.wait()
            sums += _utils._unflatten_dense_tensors(message, bucket)
        asked, *totals = _utils._reorder_tensors_as(sums, given)
        if asked.item():
            self.stop.set()
        return totals

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Sums of numbers over the processes."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if self.count > 1:
            dist.all_reduce(values)
        return tuple(values.tolist())

    def meet(self) -> None:
        """Return once every process has called it."""
        self.total(0.0)  # an empty message would not be waited for

    def first(self, tensor: Tensor) -> Tensor:
        """Copy the first process's tensor to all others, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def share(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the first process's tensors to all others, in place."""
        for tensor in tensors.values():
            self.first(tensor)

    @contextmanager
    def in_turn(self) -> Generator[None]:
        """Within it the first process of each machine goes before the others, even if it fails."""
        if local_rank():
            self.meet()
        try:
            yield
        finally:
            if not local_rank():
                self.meet()

    def diverge(self, seed: int) -> None:
        """Give each process but the first a random stream of its own."""
        if self.rank:
            seeds = torch.Generator().manual_seed(seed)
            torch.manual_seed(int(torch.randint(2**62, (self.rank,), generator=seeds)[-1]))

    def gather(self, values: Mapping[str, T]) -> dict[str, T]:
        """The values of all processes: the first's by name, those of process r by ``name@r``."""
        if self.count == 1:
            return dict(values)
        parts: list[dict[str, T]] = [{}] * self.count
        dist.all_gather_object(parts, {f"{k}{self._suffix}": v for k, v in values.items()})
        return {key: value for part in parts for key, value in part.items()}

    def own(self, values: Mapping[str, T]) -> dict[str, T]:
        """The values of this process among those that :meth:`gather` returned."""
        names = {key.partition("@")[0] for key in values}
        return {key: values[f"{key}{self._suffix}"] for key in names}

    @property
    def _suffix(self) -> str:
        return f"@{self.rank}" if self.rank else ""


def local_rank() -> int:
    """The rank of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def leads() -> bool:
    """Whether this process writes and prints."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def processes() -> Generator[Processes]:
    """The processes that ``torchrun`` or ``init_process_group`` joined; else this one alone."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ
    joined = dist.is_available() and dist.is_initialized()
    begin = launched and not joined
    if begin:
        # Imported while there is a group, its functions hold it as their default for good: its
        # threads then outlive it, and now and then one of them aborts the interpreter's end.
        import torch.distributed.nn

        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()) if begin or joined else Processes()
    finally:
        if begin:
            dist.destroy_process_group()
