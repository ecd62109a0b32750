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
    """The processes of a run, and what they tell each other; alone, each call is the identity.

    A loss here is a sum over data, so the gradient of a batch is the sum of those of its parts.

    Args:
        rank: which one this is; 0 writes and prints.
        count: how many they are.
        shared: memory of the machine, where all are on one.
        asked: set where this one is asked to stop.
        stop: set once all know that one of them was asked.

    >>> Processes().part(torch.arange(3)), Processes(1, 2).part(torch.arange(3))
    (tensor([0, 1, 2]), tensor([2]))
    """

    rank: int = 0
    count: int = 1
    shared: "SharedMemory | None" = field(default=None, compare=False, repr=False)
    asked: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.count == 1:
            object.__setattr__(self, "stop", self.asked)

    def part(self, batch: Tensor) -> Tensor:
        """The rows of a batch that are this process's."""
        return batch.tensor_split(self.count)[self.rank] if self.count > 1 else batch

    def adopt(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Take on parameters, in the same order in each process; those that this one is to step.

        Raises:
            MemoryError: on one machine, no room for what came after the first.
        """
        mine = None if self.shared is None else self.shared.adopt(parameters)
        if mine is None and self.divided:
            raise MemoryError("no shared memory is left for parameters that came after the first")
        return list(parameters) if mine is None else mine

    @contextmanager
    def summed(self, parameters: Sequence[Tensor]) -> Iterator[None]:
        """Within it the gradients are sums over the processes; :attr:`stop` is set if it is asked.

        On one machine each process has those of its part of the parameters alone, steps these, and
        finds the others stepped at the end.
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
        """Whether each process steps parameters of its own."""
        return self.shared is not None and bool(self.shared.carers)

    def _sum(self, parameters: Sequence[Tensor]) -> None:
        mine = [  # a process without data in a last batch has none
            torch.zeros_like(p) if p.grad is None else p.grad for p in parameters
        ]
        asked = mine[0].new_full((1,), self.asked.is_set())
        whole = torch.cat([*(gradient.flatten() for gradient in mine), asked])
        dist.all_reduce(whole)
        *found, asked = whole.split([*(p.numel() for p in parameters), 1])
        for p, total in zip(parameters, found, strict=True):
            p.grad = total.view_as(p)
        if asked.item():
            self.stop.set()

    def whole(self, parts: dict[str, T]) -> dict[str, T]:
        """What each has of its parameters, by name, put together."""
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
        """Go on once all are here."""
        self.total(0.0)  # of no number they would not wait

    def first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, everywhere, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def share(self, tensors: Mapping[str, Tensor]) -> None:
        """The first process's tensors, everywhere, in place."""
        for tensor in tensors.values():
            self.first(tensor)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Within it the first process of each machine goes before its others, even if it fails."""
        if local_rank():
            self.meet()
        try:
            yield
        finally:
            if not local_rank():
                self.meet()

    def diverge(self, seed: int) -> None:
        """Random numbers of its own for each process but the first."""
        if self.rank:
            seeds = torch.Generator().manual_seed(seed)
            torch.manual_seed(int(torch.randint(2**62, (self.rank,), generator=seeds)[-1]))

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every process's tensors, those of process r under ``name@r``; the first's keep theirs."""
        if self.count == 1:
            return dict(tensors)
        return {
            _name(key, rank): value
            for rank, part in enumerate(self._from_each(dict(tensors)))
            for key, value in part.items()
        }

    def _from_each(self, mine: dict[str, T]) -> list[dict[str, T]]:
        found: list[dict[str, T]] = [{}] * self.count
        dist.all_gather_object(found, mine)
        return found

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its own tensors, of those that :meth:`gather` put together."""
        names = {key.partition("@")[0] for key in tensors}
        return {key: tensors[_name(key, self.rank)] for key in names}


def _name(key: str, rank: int) -> str:
    return f"{key}@{rank}" if rank else key


def local_rank() -> int:
    """Which of its machine's processes this one is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def leads() -> bool:
    """Whether this process writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def _team(rank: int, count: int) -> Processes:
    here = os.environ.get("LOCAL_WORLD_SIZE") == str(count) and not torch.cuda.is_available()
    return Processes(rank, count, SharedMemory(rank, count) if here and count > 1 else None)


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes that ``torchrun`` started or ``init_process_group`` joined; else one alone."""
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
        here = begin or joined
        team = _team(dist.get_rank(), dist.get_world_size()) if here else Processes()
        try:
            yield team
        finally:
            if team.shared is not None:
                team.shared.leave()
    finally:
        if begin:
            dist.destroy_process_group()
