"""What every public function that evaluates a model does it in."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Concatenate, ParamSpec, TypeVar

import pyro
from torch import nn

from .errors import in_words
from .lock import LOCK
from .memory import keeping_memory
from .modes import untouched
from .seeding import seeded

__all__ = ["evaluates", "evaluating"]

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
