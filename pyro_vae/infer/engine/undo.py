"""What a program changes while it runs for a look alone: put back."""

import pickle
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Watching", "generators", "left_alone", "storage_of", "tensors"]

STATISTICS = "running_mean", "running_var"  # which batch norm writes to, though no schema says so


@contextmanager
def left_alone() -> Generator[Callable[[], bool]]:
    """Within it a program may run: gradients, buffers and random numbers are then as before.

    Gives a function that says whether numbers of NumPy's or Python's were drawn.
    """
    store = pyro.get_param_store()
    before = {p: p.grad for _, p in store.named_parameters()}
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    known = pickle.dumps(numpy)

    def drawn() -> bool:
        now = pickle.dumps(np.random.get_state(legacy=False))
        return random.getstate() != python or now != known

    try:
        with torch.random.fork_rng(), _Undo():
            yield drawn
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for _, p in store.named_parameters():
            p.grad = before.get(p)


class Watching(TorchDispatchMode):
    """A mode without PyTorch's wrapper, which imports its compiler: that takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Undo(Watching):
    """Gives back, at its end, the tensors that were written to and had been there before it.

    Generators of random numbers that the program names are put back too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.new: set[int] = set()  # numbers of storages
        self.written: dict[object, tuple[Tensor, Tensor]] = {}  # the tensor and what it held
        self.drawn: dict[torch.Generator, Tensor] = {}

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs, schema = kwargs or {}, func._schema  # pyrefly: ignore[missing-attribute]
        for argument, value in zip(schema.arguments, args, strict=False):
            if argument.is_write or argument.name in STATISTICS:
                self._keep(value)
        if kwargs:
            self._keep([kwargs.get(a.name) for a in schema.arguments if a.is_out])
        for generator in generators((*args, *kwargs.values())):
            self.drawn.setdefault(generator, generator.get_state())
        given = {storage_of(tensor) for tensor in tensors((*args, *kwargs.values()))}
        result = func(*args, **kwargs)
        for tensor in tensors((result,)):
            if storage_of(tensor) not in given:
                self.new.add(storage_of(tensor))
        return result

    def _keep(self, value: object) -> None:
        """Remember what a tensor, or each of several, holds."""
        for tensor in tensors((value,)):
            part = storage_of(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()
            if part[0] not in self.new and part not in self.written:
                self.written[part] = tensor, tensor.clone()

    def __exit__(self, *problem: object) -> None:  # pyrefly: ignore[bad-override]
        super().__exit__(*problem)
        with torch.no_grad():
            for tensor, was in reversed(self.written.values()):  # parts may overlap
                tensor.copy_(was)
        for generator, state in self.drawn.items():
            generator.set_state(state)


def generators(values: Iterable[object]) -> list[torch.Generator]:
    """Those among the arguments of an operation."""
    return [value for value in values if isinstance(value, torch.Generator)]


def tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """Those among the arguments of an operation, and in their lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def storage_of(tensor: Tensor) -> int:
    """The number of the memory that a tensor, and its views, are in."""
    return tensor.untyped_storage()._cdata
