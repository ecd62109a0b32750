"""Evaluation mode: what evaluates a module leaves it as it was."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn

from .lock import LOCK

__all__ = ["untouched"]


@contextmanager
def untouched(module: nn.Module) -> Generator[None]:
    """Within it a module is in evaluation mode; afterwards its mode, ``.grad`` and buffers return.

    Dropout and batch statistics would add noise that is not the estimator's. Other threads that
    come here wait.
    """
    with LOCK:
        modes = {m: m.training for m in module.modules()}
        gradients = {p: p.grad for p in module.parameters()}
        buffers = {b: b.clone() for b in module.buffers()}
        module.eval()
        try:
            yield
        finally:
            for m, mode in modes.items():
                m.training = mode
            for p, gradient in gradients.items():
                p.grad = gradient
            for b, was in buffers.items():
                b.data.copy_(was)
