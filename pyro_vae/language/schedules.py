"""A schedule: a number, or a line that says how it changes over the epochs."""

import math
from collections.abc import Callable

from .spec import Spec, as_spec, nearest

__all__ = ["Schedule", "schedule"]

Schedule = Callable[[float], float]

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "cosine": lambda t: (1 - math.cos(math.pi * t)) / 2,
    "exponential": lambda t: t,
    "cyclical": lambda t: t,
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
        SpecError: an unknown shape, or a value that is not a number of at least 0.

    References:
        Fu et al. (2019), arXiv:1903.10145, for cyclical annealing of the KL's weight.

    >>> schedule("linear(0, 1, epochs=10)", 100)(5.0)
    0.5
    """
    if isinstance(value, int | float):
        constant = float(value)
        if not (constant >= 0 and math.isfinite(constant)):
            raise ValueError(f"{name} must be a number of at least 0, got {value}")
        return lambda t: constant
    spec = as_spec(value)
    if spec.name not in SHAPES:
        raise spec.error(f"unknown schedule {spec.name!r}{nearest(spec.name, SHAPES)}")
    own = ("cycles", "rise") if spec.name == "cyclical" else ("warmup",)
    given = {
        "end": 0.0, "epochs": epochs, "warmup": 0, "cycles": 4, "rise": 0.5,
        **spec.bind("start", "end", "epochs", *own),
    }  # fmt: skip
    if "start" not in given:
        raise spec.error(f"a schedule needs its first value: {spec.name}(1e-3)")
    for key, number in given.items():
        ok = isinstance(number, int | float) and not isinstance(number, bool) and number >= 0
        if not ok or not math.isfinite(number):  # pyright: ignore[reportArgumentType]
            raise spec.error(f"{key} is a number of at least 0, got {number}", at=key)
    start, end, length, warmup, cycles, rise = (
        float(given[k])
        for k in ("start", "end", "epochs", "warmup", "cycles", "rise")  # pyright: ignore
    )
    if spec.name == "exponential" and not (start > 0 and end > 0):
        raise spec.error("an exponential schedule needs positive ends: exponential(1e-3, 1e-5)")
    if length <= warmup:
        raise spec.error(f"epochs={length:g} must exceed warmup={warmup:g}", at="epochs")
    if not (cycles >= 1 and cycles.is_integer()):
        raise spec.error(f"cycles is a whole number of at least 1, got {cycles:g}", at="cycles")
    if not 0 < rise <= 1:
        raise spec.error(f"rise is a part of a cycle, in (0, 1], got {rise:g}", at="rise")

    def at(t: float) -> float:
        if t < warmup:
            return start * t / warmup
        if spec.name == "cyclical" and t < length:
            t = length * min(t * cycles % length / (length * rise), 1.0)
        s = SHAPES[spec.name](min((t - warmup) / (length - warmup), 1.0))
        if spec.name == "exponential":
            return start * (end / start) ** s
        return start + (end - start) * s

    return at
