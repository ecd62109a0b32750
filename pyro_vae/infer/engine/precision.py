"""The precision in which networks compute while they train."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

__all__ = ["lowered", "products"]


def lowered(fn: Callable, precision: str, device: torch.device) -> Callable:
    """A model or guide whose networks compute in bfloat16, if ``precision`` is ``"bf16"``.

    Parameters and their gradients, the outputs of the heads and densities keep their precision.
    """
    if precision != "bf16":
        return fn
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)(fn)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Within it matrix products on a GPU use TensorFloat-32, if ``precision`` is ``"tf32"``."""
    before = torch.get_float32_matmul_precision()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if precision == "tf32":
            torch.set_float32_matmul_precision(before)
