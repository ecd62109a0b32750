"""What every public function that evaluates a model does it in: all is afterwards as it was."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Concatenate, ParamSpec, TypeVar

import pyro
import torch
from torch import nn

from .errors import NO_GRADIENTS, in_words
from .memory import keeping_memory
from .seeding import LOCK, seeded

__all__ = ["differentiates", "evaluates", "evaluating", "untouched"]

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)


@contextmanager
def evaluating(module: nn.Module, seed: int | None = None) -> Generator[None]:
    """Within it a model is evaluated by one thread at a time; afterwards all is as it was.

    The module is in evaluation mode, random numbers start from ``seed``, and Pyro's parameter store
    is empty. Then the module's modes, gradients and buffers, the generators and the store return.

    Args:
        module: what is evaluated.
        seed: of the draws; with ``None`` the global generators are used, and advance.
    """
    store = pyro.get_param_store().scope()
    with in_words(), LOCK, keeping_memory(), store, untouched(module), seeded(seed):
        yield


def evaluates(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method of a module that is called within :func:`evaluating` it.

    One that takes no seed draws, where a guide's steps do, from the same seed each time.
    """
    seed = None if "seed" in signature(method).parameters else 0

    @wraps(method)
    def call(self: M, *args: P.args, **kwargs: P.kwargs) -> R:
        with evaluating(self, seed):
            return method(self, *args, **kwargs)

    return call


def differentiates(function: Callable[P, R]) -> Callable[P, R]:
    """A function that takes gradients, under ``torch.no_grad`` too, with errors in words.

    Raises:
        ValueError: it is called under ``torch.inference_mode``, which allows none.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.is_inference_mode_enabled():
            raise ValueError(f"{function.__name__} {NO_GRADIENTS}")
        with in_words(), torch.enable_grad():
            return function(*args, **kwargs)

    return call


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
