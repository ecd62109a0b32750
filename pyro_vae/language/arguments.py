"""Calls with a mistaken argument name: the answer says which one is meant."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from .words import nearest

__all__ = ["suggests"]

P = ParamSpec("P")
R = TypeVar("R")


def suggests(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which answers an argument name that it does not have with the nearest ones.

    >>> @suggests
    ... def fit(x, epochs=1): ...
    >>> fit(0, epoch=3)
    Traceback (most recent call last):
    TypeError: fit() has no argument 'epoch'; did you mean epochs?
    """
    parameters = inspect.signature(function).parameters.values()
    known = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function  # what takes any name checks them itself
    name = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for key in kwargs.keys() - known:
            raise TypeError(f"{name}() has no argument {key!r}{nearest(key, known - {'self'})}")
        return function(*args, **kwargs)

    return call
