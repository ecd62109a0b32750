"""Checks of numbers at the boundary: one wording each, and Python's own type back."""

import math
from numbers import Integral, Real
from typing import TypeGuard

__all__ = ["boolean", "fraction", "number", "positive", "share", "whole"]


def whole(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most``, of any library; ``True`` and 1.5 are none.

    >>> whole("epochs", 1.5)
    Traceback (most recent call last):
    ValueError: epochs is a whole number of at least 1, got 1.5
    """
    integral = isinstance(value, Integral) and not isinstance(value, bool)
    number = int(value) if integral else least - 1
    if number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is a whole number {bounds}, got {value!r}")
    return number


def number(name: str, value: object, least: float = -math.inf) -> float:
    """A finite number, of at least ``least``."""
    if not _is_finite(value) or value < least:
        bound = f" of at least {least:g}" if least > -math.inf else ""
        raise ValueError(f"{name} is a number{bound}, got {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """A finite number greater than 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} is a number greater than 0, got {value!r}")
    return float(value)


def fraction(name: str, value: object) -> float:
    """A number between 0 and 1, neither of them."""
    if not _is_finite(value) or not 0 < value < 1:
        raise ValueError(f"{name} is a fraction between 0 and 1, got {value!r}")
    return float(value)


def share(name: str, value: object) -> float:
    """A number from 0 on, below 1."""
    if not _is_finite(value) or not 0 <= value < 1:
        raise ValueError(f"{name} is a fraction of at least 0 and below 1, got {value!r}")
    return float(value)


def boolean(name: str, value: object) -> bool:
    """``True`` or ``False``, and no word for them."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is True or False, got {value!r}")
    return value


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
