"""Bounds on what a file or a line may ask for, checked before the memory is taken."""

import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["bounded", "memory"]

TENSOR = torch.Tensor
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.randn}
FACTORIES |= {torch.rand, torch.linspace, TENSOR.new_zeros, TENSOR.new_ones, TENSOR.new_full}
FACTORIES |= {TENSOR.new_empty}
SIZED = {TENSOR, torch.nn.Parameter}  # others, such as lazy ones, have no size yet
REPEATING = {TENSOR.repeat, TENSOR.repeat_interleave, torch.repeat_interleave, torch.tile}


def memory() -> int:
    """The bytes of this machine's memory; 2**40 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**40


@contextmanager
def bounded(numbers: int, tensors: int, what: str) -> Generator[None]:
    """Within it new tensors hold at most so many numbers together, and are at most so many.

    Args:
        numbers: how many.
        tensors: likewise.
        what: the beginning of the message: who asks for more, "the description asks for".

    Raises:
        ValueError: before a tensor is made that exceeds them.

    >>> with bounded(1000, 10, "MLP([10000]) asks for"):
    ...     torch.nn.Linear(10, 10000)
    Traceback (most recent call last):
    ValueError: MLP([10000]) asks for 100,000 numbers, and at most 1,000 are expected
    """
    try:
        with Counting(numbers, tensors, what):
            yield
    except OverflowError:
        raise ValueError(f"{what} more numbers than there are") from None


class Counting(TorchFunctionMode):
    """Counts the numbers of tensors before they are made."""

    def __init__(self, numbers: int, tensors: int, what: str) -> None:
        super().__init__()
        self.left, self.calls, self.what = numbers, tensors, what
        self.numbers = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Count what a factory is about to make."""
        kwargs = kwargs or {}
        try:
            if func in FACTORIES or func in REPEATING:
                self.calls -= 1
                self._count(self._size(func, args, kwargs))
            for tensor in args:  # one that is expanded takes its memory in what it goes into
                if type(tensor) in SIZED and (asked := tensor.numel()) > self.numbers:
                    self._count(asked)
            return func(*args, **kwargs)
        except (RuntimeError, OverflowError, TypeError) as problem:
            if "verflow" not in str(problem):
                raise
            raise ValueError(f"{self.what} more numbers than there are") from None

    def _count(self, asked: int) -> None:
        self.left -= asked
        if self.left < 0:
            raise ValueError(
                f"{self.what} {asked:,} numbers, and at most {self.numbers:,} are expected"
            )
        if self.calls < 0:
            raise ValueError(f"{self.what} more tensors than are expected")

    def _size(self, func: Any, args: Any, kwargs: Any) -> int:  # noqa: ANN401
        """How many numbers a call makes, found without memory for them."""
        options = {k: v for k, v in kwargs.items() if k not in ("generator", "out")}
        if func in REPEATING:
            args = [a.to("meta") if isinstance(a, TENSOR) else a for a in args]
        else:
            options["device"] = "meta"
        try:
            return math.prod(func(*args, **options).shape)
        except (RuntimeError, TypeError) as problem:
            if "verflow" in str(problem):
                raise
            return 0  # the call itself says what is wrong
