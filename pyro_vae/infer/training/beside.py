"""What a step changes beside parameters: buffers, and numbers of the modules."""

from typing import Any, TypeAlias

import torch
from torch import Tensor

from .run import Trainable

__all__ = ["Beside"]

Numbers: TypeAlias = list[tuple[dict[str, Any], str, object]]  # attributes of a module, and one


class Beside:
    """Buffers and numbers of a model, as they were before a step.

    Args:
        model: what is trained.

    Attributes:
        fault: what a step does to them that a graph of it would not do; empty if nothing.
    """

    def __init__(self, model: Trainable) -> None:
        self.model: Any = model
        self.first, self.fault = True, ""
        self.moving: list[Tensor] = []  # buffers that a step writes to: batch statistics
        self.numbers: Numbers = []  # as they were after the first step

    def remember(self) -> None:
        """Hold what the next step may change."""
        self.whole = self.first
        if self.whole:
            self.moving, self.before = list(self.model.buffers()), self._numbers()
        self.was = [b.clone() for b in self.moving]
        self.places = [b.untyped_storage() for b in self.moving]  # held, so that none is reused

    def look(self) -> None:
        """See, after the first step, what it changed."""
        if not self.first:
            return
        now, before = list(self.model.buffers()), [place.data_ptr() for place in self.places]
        if [b.untyped_storage().data_ptr() for b in now] != before:
            self.fault = (
                "a module puts a new tensor in the place of a buffer: write to it, as by copy_"
            )
            return
        self.fault, self.numbers = _changed(self.before), self._numbers()
        self.moving = [b for b, was in zip(now, self.was, strict=True) if not torch.equal(b, was)]
        self.first = False

    def why_not(self) -> str:
        """Why the next step is not by a graph; empty if nothing is against it."""
        return self.fault or _changed(self.numbers)

    def put_back(self) -> None:
        """Undo the step."""
        buffers = list(self.model.buffers()) if self.whole else self.moving
        for buffer, was in zip(buffers, self.was, strict=True):
            buffer.data.copy_(was)
        for place, name, was in self.before if self.whole else ():
            place[name] = was

    def _numbers(self) -> Numbers:
        """All but the mode, which a module may set itself at each of its runs."""
        kinds = bool | int | float | str
        named = ((m, *pair) for m in map(vars, self.model.modules()) for pair in m.items())
        return [entry for entry in named if isinstance(entry[2], kinds) and entry[1] != "training"]


def _changed(numbers: Numbers) -> str:
    """Which number of a module is another one now, if any is."""
    for place, name, was in numbers:
        if (now := place.get(name)) is not was and now != was:
            return (
                f"the number {name!r} of a module changes from {was} to {now}, which a graph would "
                "not see: keep it in a tensor, as by register_buffer"
            )
    return ""
