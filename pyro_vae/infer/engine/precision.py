"""In what precision networks compute while they train."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch

__all__ = ["Precision", "check_precision", "lowered", "products"]

Precision: TypeAlias = Literal["float32", "tf32", "bf16"]


def check_precision(precision: str) -> None:
    """Raise where the word is not one of those known."""
    if precision not in get_args(Precision):
        words = ", ".join(map(repr, get_args(Precision)))
        raise ValueError(f"precision is one of {words}, got {precision!r}")


def lowered(fn: Callable, precision: Precision, device: torch.device) -> Callable:
    """A model or guide whose networks compute in bfloat16.

    Only what the function itself does is: parameters, the heads' outputs, densities and gradients
    of parameters stay as they are.
    """
    if precision != "bf16":
        return fn

    def in_bf16(*args: object, **kwargs: object) -> object:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return fn(*args, **kwargs)

    return in_bf16


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Within it matrix products on a GPU take TensorFloat-32, where that is what is asked for."""
    before = torch.get_float32_matmul_precision()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if precision == "tf32":
            torch.set_float32_matmul_precision(before)
