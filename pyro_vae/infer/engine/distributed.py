"""Several processes training one model on parts of each batch, by ``torch.distributed``."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .shared_memory import SharedMemory

__all__ = ["Processes", "leads", "local_rank", "processes"]

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run and their communication; for a single process each call is trivial.

    A loss is a sum over data points, so the gradient of a batch is the sum of those of its parts.

    Args:
        rank: of this process; the one of rank 0 writes and prints.
        count: the number of processes.
        shared: the memory that they share, if all are on one machine.
        asked: set when this process is asked to stop.
        stop: set when all processes know that one of them was asked to stop.

    >>> Processes().part(torch.arange(3)), Processes(1, 2).part(torch.arange(3))
    (tensor([0, 1, 2]), tensor([2]))
    """

    rank: int = 0
    count: int = 1
    shared: SharedMemory | None = field(default=None, compare=False, repr=False)
    asked: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.count == 1:
            object.__setattr__(self, "stop", self.asked)

    def part(self, batch: Tensor) -> Tensor:
        """The rows of a batch that belong to this process."""
        return batch.tensor_split(self.count)[self.rank] if self.count > 1 else batch

    def adopt(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Share parameters, in the same order in each process; returns those this one updates.

        Raises:
            MemoryError: the machine's shared memory has no room for parameters that come later.
        """
        mine = None if self.shared is None else self.shared.adopt(parameters)
        if mine is None and self.divided:
            raise MemoryError("no shared memory is left for parameters that came after the first")
        return list(parameters) if mine is None else mine

    @contextmanager
    def summed(self, parameters: Sequence[Tensor]) -> Iterator[None]:
        """Within it gradients are summed over the processes; a request to stop reaches all.

        With shared memory each process has the gradients of its own parameters only, and updates
        these; at the end all parameters are updated.
        """
        if self.count == 1:
            yield
        elif self.shared is not None and self.divided:
            if self.shared.sum(asked=self.asked.is_set()):
                self.stop.set()
            yield
            self.shared.meet()
        else:
            self._sum(parameters)
            yield

    @property
    def divided(self) -> bool:
        """Whether each process updates parameters of its own."""
        return self.shared is not None and bool(self.shared.owners)

    def _sum(self, parameters: Sequence[Tensor]) -> None:
        # A process without rows in a last batch has no gradients.
        mine = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        asked = mine[0].new_full((1,), self.asked.is_set())
        message = torch.cat([*(gradient.flatten() for gradient in mine), asked])
        dist.all_reduce(message)
        *totals, asked = message.split([*(p.numel() for p in parameters), 1])
        for p, total in zip(parameters, totals, strict=True):
            p.grad = total.view_as(p)
        if asked.item():
            self.stop.set()

    def whole(self, parts: dict[str, T]) -> dict[str, T]:
        """The union of what each process holds of its own parameters, by name."""
        if not self.divided:
            return parts
        return {name: value for part in self._from_each(parts) for name, value in part.items()}

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
    def in_turn(self) -> Iterator[None]:
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

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all processes: the first's by name, those of process r by ``name@r``."""
        if self.count == 1:
            return dict(tensors)
        named = {f"{key}{self._suffix}": value for key, value in tensors.items()}
        return {key: value for part in self._from_each(named) for key, value in part.items()}

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of this process among those that :meth:`gather` returned."""
        names = {key.partition("@")[0] for key in tensors}
        return {key: tensors[f"{key}{self._suffix}"] for key in names}

    @property
    def _suffix(self) -> str:
        return f"@{self.rank}" if self.rank else ""

    def _from_each(self, mine: dict[str, T]) -> list[dict[str, T]]:
        parts: list[dict[str, T]] = [{}] * self.count
        dist.all_gather_object(parts, mine)
        return parts


def local_rank() -> int:
    """The rank of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def leads() -> bool:
    """Whether this process writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def _team() -> Processes:
    rank, count = dist.get_rank(), dist.get_world_size()
    here = os.environ.get("LOCAL_WORLD_SIZE") == str(count) and not torch.cuda.is_available()
    return Processes(rank, count, SharedMemory(rank, count) if here and count > 1 else None)


@contextmanager
def processes() -> Iterator[Processes]:
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
        team = _team() if begin or joined else Processes()
        try:
            yield team
        finally:
            if team.shared is not None:
                team.shared.leave()
    finally:
        if begin:
            dist.destroy_process_group()
