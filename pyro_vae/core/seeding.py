"""Random numbers: every random act takes a seed, and leaves the global generator as it was."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import torch

from .checks import whole
from .lock import LOCK

__all__ = ["seeded"]


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
