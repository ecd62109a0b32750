"""Random numbers: every random act takes a seed, and leaves the global generator as it was."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import torch

from .checks import whole

__all__ = ["LOCK", "seeded"]

LOCK = threading.RLock()  # that acts take: PyTorch's generators, Pyro's stack and store are global


@contextmanager
def seeded(seed: int | None) -> Generator[None]:
    """Within it torch's generators start from ``seed``; afterwards they are as they were.

    With ``None`` the global generators are used, and advance. Threads that ask for a seed wait for
    one another.

    Raises:
        ValueError: a seed that is no whole number from 0 to 2**64 - 1.
    """
    if seed is not None:
        seed = whole("seed", seed, 0, 2**64 - 1)
    chosen = seed is not None
    with LOCK if chosen else nullcontext(), torch.random.fork_rng(enabled=chosen):
        if chosen:
            # Without an accelerator torch.manual_seed keeps the formatted stack for one, in ms.
            some = torch.accelerator.is_available()
            (torch.manual_seed if some else torch.default_generator.manual_seed)(seed)
        yield
