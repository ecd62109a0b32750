"""The precision in which networks compute while they train."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch

__all__ = ["Precision", "check_precision", "lowered", "products"]

Precision: TypeAlias = Literal["float32", "tf32", "bf16"]


def check_precision(precision: str) -> None:
    """Raise if the precision is not one of :data:`Precision`."""
    if precision not in get_args(Precision):
        words = ", ".join(map(repr, get_args(Precision)))
        raise ValueError(f"precision is one of {words}, got {precision!r}")


def lowered(fn: Callable, precision: Precision, device: torch.device) -> Callable:
    """A model or guide whose networks compute in bfloat16, if ``precision`` is ``"bf16"``.

    Parameters and their gradients, the outputs of the heads and densities keep their precision.
    """
    if precision != "bf16":
        return fn
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)(fn)


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Within it matrix products on a GPU use TensorFloat-32, if ``precision`` is ``"tf32"``."""
    before = torch.get_float32_matmul_precision()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if precision == "tf32":
            torch.set_float32_matmul_precision(before)
