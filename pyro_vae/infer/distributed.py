"""Several processes training one model on parts of each batch, by ``torch.distributed``."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Processes", "leads", "local_rank", "processes"]


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and what they tell each other; alone, each call is the identity.

    A loss here is a sum over data, so the gradient of a batch is the sum of those of its parts.

    Args:
        rank: which one this is; 0 writes and prints.
        count: how many they are.
        asked: set where this one is asked to stop.
        stop: set once all know that one of them was asked.

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
        """The rows of a batch that are this process's."""
        return batch.tensor_split(self.count)[self.rank] if self.count > 1 else batch

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Sum tensors of one type over the processes, in place and all in one message."""
        if self.count == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        sums = flat.split([t.numel() for t in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view_as(tensor))

    def sum_and_agree(self, tensors: list[Tensor]) -> None:
        """:meth:`sum`, and :attr:`stop` after the same step everywhere, in the same message."""
        asked = tensors[0].new_full((1,), self.asked.is_set())
        self.sum([*tensors, asked])
        if asked.item():
            self.stop.set()

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Sums of numbers over the processes."""
        values = torch.tensor(numbers, dtype=torch.float64)
        self.sum([values])
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


def _name(key: str, rank: int) -> str:
    return f"{key}@{rank}" if rank else key


def local_rank() -> int:
    """Which of its machine's processes this one is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def leads() -> bool:
    """Whether this process writes and prints."""
    return os.environ.get("RANK", "0") == "0"


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
        yield Processes(dist.get_rank(), dist.get_world_size()) if here else Processes()
    finally:
        if begin:
            dist.destroy_process_group()
