"""Several processes training one model on parts of each batch, by ``torch.distributed``."""

import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Processes", "SharedMemory", "leads", "local_rank", "processes"]

SHARED = "/dev/shm"


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

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """Sums over the processes of tensors of one type, and :attr:`stop` after the same call.

        On one machine they go through its memory, and one small message says that they are there.
        """
        asked = tensors[0].new_full((1,), self.asked.is_set())
        sizes = [t.numel() for t in tensors]
        flat = [t.reshape(-1) for t in tensors]
        slots = self.shared and self.shared.slots(tensors[0], sum(sizes))
        if slots is None:
            whole = torch.cat([*flat, asked])
            dist.all_reduce(whole)
            *found, asked = whole.split([*sizes, 1])
        else:
            torch.cat(flat, out=slots[self.rank])
            dist.all_reduce(asked)
            found = reduce(torch.add, slots).split(sizes)  # a third of the time of slots.sum(0)
        if asked.item():
            self.stop.set()
        return [total.view_as(t) for total, t in zip(found, tensors, strict=True)]

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Sums of numbers over the processes."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if self.count > 1:
            dist.all_reduce(values)
        return tuple(values.tolist())

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
        """Within it the first process of each machine goes before its others."""
        if local_rank():
            self.total()
        yield
        if not local_rank():
            self.total()

    def diverge(self, seed: int) -> None:
        """Random numbers of its own for each process but the first."""
        if self.rank:
            seeds = torch.Generator().manual_seed(seed)
            torch.manual_seed(int(torch.randint(2**62, (self.rank,), generator=seeds)[-1]))

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every process's tensors, those of process r under ``name@r``; the first's keep theirs."""
        if self.count == 1:
            return dict(tensors)
        found: list[Mapping[str, Tensor]] = [{}] * self.count
        dist.all_gather_object(found, dict(tensors))
        return {
            _name(key, rank): value
            for rank, part in enumerate(found)
            for key, value in part.items()
        }

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its own tensors, of those that :meth:`gather` put together."""
        names = {key.partition("@")[0] for key in tensors}
        return {key: tensors[_name(key, self.rank)] for key in names}


class SharedMemory:
    """A slot for the numbers of each process, in memory that all processes of a machine see.

    There are two sets of slots, in turn: no process writes to one before all have read it, as they
    have met in between.

    Args:
        rank: of this process.
        count: of the processes.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count, self.turn = rank, count, 0
        self.memory: Tensor | None = None
        self.form: object = None

    def slots(self, like: Tensor, numbers: int) -> Tensor | None:
        """The next set, ``(count, numbers)``, of the type of ``like``; none if there is no room."""
        if self.form != (numbers, like.dtype):
            self.form, self.memory = (numbers, like.dtype), self._map(numbers, like.dtype)
        self.turn = 1 - self.turn
        return None if self.memory is None else self.memory[self.turn]

    def _map(self, numbers: int, dtype: torch.dtype) -> Tensor | None:
        """Memory by way of a file, which has no name any more once all have found it."""
        shape, path = (2, self.count, numbers), [""]
        size = math.prod(shape)
        if self.rank == 0 and os.path.isdir(SHARED):
            handle, name = tempfile.mkstemp(dir=SHARED)
            try:
                os.posix_fallocate(handle, 0, size * dtype.itemsize)
                path = [name]
            except OSError:  # too small: a write would end the process
                os.unlink(name)
            os.close(handle)
        dist.broadcast_object_list(path, 0)
        if not path[0]:
            return None
        found = torch.from_file(path[0], shared=True, size=size, dtype=dtype)
        dist.barrier()
        if self.rank == 0:
            os.unlink(path[0])
        return found.view(shape)


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
        yield _team(dist.get_rank(), dist.get_world_size()) if here else Processes()
    finally:
        if begin:
            dist.destroy_process_group()
