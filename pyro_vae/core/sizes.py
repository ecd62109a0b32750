"""Bounds on what a file or a line may ask for, checked before the memory is taken."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["bounded", "memory"]

FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.randn}
FACTORIES |= {torch.rand, torch.linspace, torch.Tensor.new_zeros, torch.Tensor.new_ones}
FACTORIES |= {torch.Tensor.new_full, torch.Tensor.new_empty}


def memory() -> int:
    """The bytes of this machine's memory; 2**40 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**40


@contextmanager
def bounded(numbers: int, tensors: int, what: str) -> Iterator[None]:
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
    with Counting(numbers, tensors, what):
        yield


class Counting(TorchFunctionMode):
    """Counts the numbers of tensors before they are made."""

    def __init__(self, numbers: int, tensors: int, what: str) -> None:
        super().__init__()
        self.left, self.calls, self.what = numbers, tensors, what
        self.numbers = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Count what a factory is about to make."""
        kwargs = kwargs or {}
        if func in FACTORIES:
            self.calls -= 1
            self._count(self._size(func, args, kwargs))
            if self.calls < 0:
                raise ValueError(f"{self.what} more tensors than are expected")
        elif func is not torch.Tensor.numel:
            for tensor in args:  # one that is expanded takes its memory in what it goes into
                if isinstance(tensor, torch.Tensor) and tensor.numel() > self.numbers:
                    self._count(tensor.numel())
        return func(*args, **kwargs)

    def _count(self, asked: int) -> None:
        self.left -= asked
        if self.left < 0:
            raise ValueError(
                f"{self.what} {asked:,} numbers, and at most {self.numbers:,} are expected"
            )

    def _size(self, func: Any, args: Any, kwargs: Any) -> int:  # noqa: ANN401
        """How many numbers a factory makes, found without memory for them."""
        options = {k: v for k, v in kwargs.items() if k not in ("generator", "out", "pin_memory")}
        try:
            return func(*args, **options | {"device": "meta"}).numel()
        except (RuntimeError, OverflowError, TypeError) as problem:
            if "verflow" not in str(problem):
                return 0  # the factory itself says what is wrong
            raise ValueError(f"{self.what} more numbers than there are: {problem}") from None
