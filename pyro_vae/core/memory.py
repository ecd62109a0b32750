"""Freed memory that stays the process's, so that each step need not ask for it anew."""

import ctypes
import os
import platform
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache

from .seeding import LOCK

__all__ = ["keeping_memory"]

TRIM, MAP_FROM, MAPS = -1, -3, -4  # of mallopt(3)
KEPT = ((TRIM, -1), (MAPS, 0))  # nothing goes back, and nothing is mapped apart
USUAL = ((TRIM, 2**26), (MAP_FROM, 2**25), (MAPS, 2**16))  # glibc's own, for large arrays
_within: list[None] = []  # acts, the outermost one first


@contextmanager
def keeping_memory() -> Generator[None]:
    """Within it arrays take the place of those that were freed before.

    glibc gives large arrays back to the system when they are freed, and the system fills the next
    ones with zeros page by page: half the time of large activations. What is free at the end is
    there for the next act, and goes back when more is freed. Elsewhere, and where ``MALLOC_...``
    or ``GLIBC_TUNABLES`` of the environment say how it should be, nothing is changed.
    """
    with LOCK:
        if not _within:
            _tell(KEPT)
        _within.append(None)
        try:
            yield
        finally:
            _within.pop()
            if not _within:
                _tell(USUAL)


def _tell(options: tuple[tuple[int, int], ...]) -> None:
    """Set options of C's allocator, if it is the one that knows them."""
    if (tell := _mallopt()) is not None:
        for name, value in options:
            tell(name, value)


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    told = [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]
    if told or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None).mallopt
