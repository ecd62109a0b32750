"""Processes of one machine train one model in shared memory."""

import os
import platform
import tempfile
import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["SharedMemory"]

FOLDER = "/dev/shm"
LINE = 64  # bytes of a cache line
PATIENCE = 5e-3  # seconds for which a process waits actively before it sleeps
ORDERED = platform.machine() in ("x86_64", "AMD64")  # cores see each other's writes in their order


class SharedMemory:
    """A model's parameters in memory that all processes of a machine read; one writes each.

    Each parameter has one process, its owner, that updates it. At a step every process passes its
    gradients to the owners, all meet, each owner sums the gradients and updates its parameters,
    and all meet again: everybody then reads the new values, without a copy or work done twice.

    Args:
        rank: of this process.
        count: the number of processes.

    References:
        Rajbhandari et al. (2020), "ZeRO: memory optimizations toward training trillion parameter
        models", SC (arXiv:1910.02054), for an optimizer's work and state divided by parameters.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count, self.meetings = rank, count, 0
        self.owners: dict[Tensor, int] = {}
        self.given: dict[tuple[Tensor, int | None], Tensor] = {}
        self.marks = np.zeros((count, 0), dtype=np.int64)

    def adopt(self, parameters: Sequence[Tensor]) -> list[Tensor] | None:
        """Move parameters to the shared memory.

        Args:
            parameters: in the same order in each process; the first process's values are taken.

        Returns:
            Those that this process owns; ``None``, with nothing moved, if there is no room.
        """
        loads, owners = [0] * self.count, {}
        for p in sorted(parameters, key=Tensor.numel, reverse=True):
            owners[p] = loads.index(min(loads))
            loads[owners[p]] += p.numel()
        places: list[tuple[Tensor, int | None]] = [(p, None) for p in parameters]
        places += [(p, r) for p in parameters for r in range(self.count) if r != owners[p]]
        sizes = [-(-p.nbytes // LINE) * LINE for p, _ in places]
        memory = self._map(sum(sizes) + LINE * self.count)
        if memory is None:
            return None
        *pieces, marks = memory.split([*sizes, LINE * self.count])
        views = {
            place: piece[: place[0].nbytes].view(place[0].dtype).view(place[0].shape)
            for place, piece in zip(places, pieces, strict=True)
        }
        for p in parameters:
            if self.rank == 0:
                views[p, None].copy_(p.data)
            p.data = views.pop((p, None))
        if not self.owners:
            self.marks = marks.view(torch.int64).view(self.count, -1).numpy()
            self.marks[self.rank, :3] = 0, 0, os.getpid()
        self.owners, self.given = self.owners | owners, self.given | views
        dist.barrier()
        return [p for p, owner in owners.items() if owner == self.rank]

    def sum(self, *, asked: bool) -> bool:
        """Sum the gradients of the parameters that this process owns, and drop the others'.

        Args:
            asked: whether this process asks to stop.

        Returns:
            Whether any process asks to stop.
        """
        for p, owner in self.owners.items():
            if owner != self.rank:
                given = self.given[p, self.rank]
                given.zero_() if p.grad is None else given.copy_(p.grad)
                p.grad = None
        self.marks[self.rank, 1] = asked
        self.meet()
        for p, owner in self.owners.items():
            if owner == self.rank:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                for other in self._others():
                    p.grad += self.given[p, other]
        return bool(self.marks[:, 1].any())

    def meet(self) -> None:
        """Return once every process has called it as often as this one."""
        self.meetings += 1
        if not ORDERED:
            dist.barrier()
            return
        self.marks[self.rank, 0] = self.meetings
        for other in self._others():
            since = time.perf_counter()
            while self.marks[other, 0] < self.meetings:
                if time.perf_counter() - since < PATIENCE:
                    os.sched_yield()
                else:
                    self._wait_for(other)

    def _wait_for(self, other: int) -> None:
        time.sleep(1e-4)
        try:
            os.kill(int(self.marks[other, 2]), 0)  # signal 0 asks whether it is there
        except ProcessLookupError:
            raise RuntimeError(f"process {other} has ended: its own error says why") from None

    def leave(self) -> None:
        """Give the parameters back to this process's own memory."""
        for p in self.owners:
            p.data = p.data.clone()
        self.owners, self.given = {}, {}

    def _others(self) -> Iterable[int]:
        return (rank for rank in range(self.count) if rank != self.rank)

    def _map(self, size: int) -> Tensor | None:
        """Shared bytes: a file that loses its name once every process has mapped it."""
        path = [""]
        if self.rank == 0 and os.path.isdir(FOLDER):
            handle, name = tempfile.mkstemp(dir=FOLDER)
            try:
                os.posix_fallocate(handle, 0, size)
                path = [name]
            except OSError:  # too small: a write would end the process
                os.unlink(name)
            os.close(handle)
        dist.broadcast_object_list(path, 0)
        if not path[0]:
            return None
        memory = torch.from_file(path[0], shared=True, size=size, dtype=torch.uint8)
        dist.barrier()
        if self.rank == 0:
            os.unlink(path[0])
        return memory
