"""The parameters of a model and a guide, wherever they are kept, and the modules that hold them."""

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.poutine as poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

__all__ = ["Weights", "modules_of"]

DEPTH = 4  # functions within functions that are looked into for modules


@dataclass
class Weights:
    """The parameters that a run of model and guide asks for: Pyro's own and those of modules.

    Attributes:
        values: the unconstrained tensors, which an optimizer changes, by name.
        keys: their names in Pyro's store.
        constraints: of their values.
        of_model: the names of those that the model asks for.
        of_guide: the names of those that the guide asks for.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    constraints: dict[str, Any] = field(default_factory=dict)
    of_model: frozenset[str] = frozenset()
    of_guide: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: Trace, guide: Trace) -> "Weights":
        """The parameters in the traces of a model and a guide."""
        values: dict[str, Tensor] = {}
        keys: dict[str, str] = {}
        sides: list[frozenset[str]] = []
        for trace in (model, guide):
            sites: dict[str, Any] = {k: s for k, s in trace.nodes.items() if s["type"] == "param"}
            own = {key.replace("$$$", "."): key for key in sites}
            values |= {name: sites[key]["value"].unconstrained() for name, key in own.items()}
            keys |= own
            sides.append(frozenset(own))
        state: Any = pyro.get_param_store().get_state()
        constraints = {name: state["constraints"][key] for name, key in keys.items()}
        return cls(values, keys, constraints, *sides)

    def lend(self) -> None:
        """Put the parameters into Pyro's store, where it has none of their names."""
        store = pyro.get_param_store()
        if missing := [name for name, key in self.keys.items() if key not in store]:
            params = {self.keys[name]: self.values[name] for name in missing}
            constraints = {self.keys[name]: self.constraints[name] for name in missing}
            store.set_state({"params": params, "constraints": constraints})


def modules_of(*values: object) -> Iterator[nn.Module]:
    """The modules that functions, methods, partial calls and arguments hold, each once."""
    seen: set[int] = set()
    yield from _modules(list(values), seen, DEPTH)


def _modules(values: list[object], seen: set[int], depth: int) -> Iterator[nn.Module]:
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield value
        elif depth:
            yield from _modules(_held(value), seen, depth - 1)


def _held(value: object) -> list[object]:
    """What a function or a container holds."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.isfunction(value):
        known = inspect.getclosurevars(value)
        return [*known.nonlocals.values(), *known.globals.values()]
    if callable(value) or isinstance(value, poutine.messenger.Messenger):
        return list(getattr(value, "__dict__", {}).values())
    return []
