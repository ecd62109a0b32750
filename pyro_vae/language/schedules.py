"""A schedule: a number, or a line that says how it changes over the epochs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..core.checks import number, positive, whole
from .spec import Spec, as_spec, nearest

__all__ = ["Schedule", "schedule"]

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """From one value to another, after a climb from 0 to the first."""

    start: float
    end: float
    epochs: float
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs <= self.warmup:
            raise ValueError(f"epochs={self.epochs:g} must exceed warmup={self.warmup:g}")

    def __call__(self, t: float) -> float:
        if t < self.warmup:
            return self.start * t / self.warmup
        return self._between(min((t - self.warmup) / (self.epochs - self.warmup), 1.0))

    def _between(self, s: float) -> float:
        """The value where a part s of the way is behind."""
        return self.start + (self.end - self.start) * s


@dataclass(frozen=True)
class Cosine(Linear):
    """Half a wave from one value to another."""

    def _between(self, s: float) -> float:
        return super()._between((1 - math.cos(math.pi * s)) / 2)


@dataclass(frozen=True)
class Exponential(Linear):
    """The same factor in each epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.start > 0 and self.end > 0):
            raise ValueError("an exponential schedule needs positive ends: exponential(1e-3, 1e-5)")

    def _between(self, s: float) -> float:
        return self.start * (self.end / self.start) ** s


@dataclass(frozen=True)
class Cyclical:
    """Several times from one value to another, each time with a rest there."""

    start: float
    end: float
    epochs: float
    cycles: float = 4.0
    rise: float = 0.5

    def __post_init__(self) -> None:
        positive("epochs", self.epochs)
        if not (self.cycles >= 1 and self.cycles.is_integer()):
            raise ValueError(f"cycles is a whole number of at least 1, got {self.cycles:g}")
        if not 0 < self.rise <= 1:
            raise ValueError(f"rise is a part of a cycle, in (0, 1], got {self.rise:g}")

    def __call__(self, t: float) -> float:
        if t < self.epochs:
            rising = self.epochs * self.rise
            t = self.epochs * min(t * self.cycles % self.epochs / rising, 1.0)
        return self.start + (self.end - self.start) * min(t / self.epochs, 1.0)


SHAPES: dict[str, type[Linear | Cyclical]] = {
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "cyclical": Cyclical,
}


def schedule(value: float | str | Spec, epochs: int, name: str = "value") -> Schedule:
    """A function from the time in epochs, ``0 <= t <= epochs``, to the value.

    ``"cosine(1e-3)"`` falls from 1e-3 to 0 over all epochs, ``"linear(0, 1, epochs=10)"`` rises in
    the first 10 and stays; ``warmup=2`` climbs linearly from 0 to the first value in 2 epochs.
    ``"cyclical(0, 1, cycles=4)"`` begins anew four times: in the first half of a cycle
    (``rise=0.5``) it goes linearly from 0 to 1, where it stays for the second.

    Args:
        value: a number (constant), or ``linear``, ``cosine`` or ``exponential`` with
            ``(start, end=0, epochs=all, warmup=0)``, or ``cyclical`` with
            ``(start, end=0, epochs=all, cycles=4, rise=0.5)``.
        epochs: how many there are in all.
        name: of what is scheduled, for messages.

    Raises:
        ValueError: an unknown shape, or a value that is not a number of at least 0.

    References:
        Fu et al. (2019), arXiv:1903.10145, for cyclical annealing of the KL's weight.

    >>> schedule("linear(0, 1, epochs=10)", 100)(5.0)
    0.5
    """
    epochs = whole("epochs", epochs, 0)
    if not isinstance(value, str | Spec):
        constant = number(name, value, 0)
        return lambda t: constant
    spec = as_spec(value)
    if spec.name not in SHAPES:
        raise spec.error(f"unknown schedule {spec.name!r}{nearest(spec.name, SHAPES)}")
    shape = SHAPES[spec.name]
    given = spec.bind(*shape.__dataclass_fields__)
    if "start" not in given:
        raise spec.error(f"a schedule needs its first value: {spec.name}(1e-3)")
    try:
        numbers = {key: number(key, value, 0) for key, value in given.items()}
        return shape(**{"end": 0.0, "epochs": float(epochs)} | numbers)
    except ValueError as problem:
        word = str(problem).split()[0].partition("=")[0]
        raise spec.error(str(problem), word if word in given else None) from None
