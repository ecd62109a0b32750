"""What a part of a model may ask for when it is built, and how one is made from a line."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from ..distributions import SideBySide
from ..language.spec import Spec, SpecError, as_spec, nearest

__all__ = [
    "Copies",
    "Ends",
    "Line",
    "Part",
    "Registry",
    "Role",
    "connect",
    "construct",
    "looks_at_joint",
    "read_line",
    "start_from",
]

Role: TypeAlias = Literal["prior", "likelihood", "guide", "layer"]  # a layer, given another one
Line: TypeAlias = str | Spec | nn.Module
Module = TypeVar("Module", bound=nn.Module)
EXAMPLES = {
    "likelihood": "Normal(scale=learned)",
    **dict.fromkeys(("network", "encoder", "decoder", "merge"), "MLP([200, 200])"),
}
# From the role to the network that the part reads, and what that network reads.
READERS = {"likelihood": ("decoder", "z"), "layer": ("network", "the layer before it")}


@dataclass(frozen=True)
class Ends:
    """The ends of a part: what it may ask for when it is built, and when all parts are there.

    Args:
        shape: the event shape: of one z, or of one data point.
        role: what the part is in the model.
        feature_shape: the shape of the features of one data point that the part reads; ``None`` in
            a prior.
        sizes: widths of the stochastic layers, from x upward; empty where there is one layer.
        network: the network that those between stochastic layers are like.
        partner: of a prior the guide, and of a guide the prior.
        encode: from x, ``(K, *x_shape)``, to q(z|x), once all parts are there.
        x_shape: the shape of one data point, once all parts are there.
        x_support: the support of the likelihood, once all parts are there.
        cells: the shape of independent cells outside of the event, each with parameters of its own
            (what is shared in a likelihood is shared by the cells).
        components: the last batch dimensions: so many parts side by side, each with parameters of
            its own. Learned ones start apart.
        whole: whether the part is all of the prior, likelihood or guide, not a part of one.
        in_units: whether the parameters of a likelihood count in the data's units.
        own: whether each cell of a likelihood learns parameters of its own where a line does not
            say, as the columns of a table do.
        writer: the network that the part reads, if its features are one of the part's parameters
            already: that which ``writer.writes`` names; ``writer.move`` adds to them at the start.
        registry: what makes parts from lines.
    """

    shape: tuple[int, ...]
    role: Role
    feature_shape: tuple[int, ...] | None = None
    sizes: tuple[int, ...] = ()
    network: nn.Module | None = None
    partner: nn.Module | None = None
    encode: Callable[[Tensor], dist.TorchDistribution] | None = None
    x_shape: tuple[int, ...] | None = None
    x_support: constraints.Constraint | None = None
    cells: tuple[int, ...] = ()
    components: tuple[int, ...] = ()
    whole: bool = True
    in_units: bool = False
    own: bool = False
    writer: nn.Module | None = None
    registry: "Registry | None" = None

    @property
    def example(self) -> Tensor | None:
        """Features of one observation, all 0; ``None`` where there are none."""
        return None if self.feature_shape is None else torch.zeros(1, *self.feature_shape)

    def make(self, value: Line, *, depends: bool = True, **changes: Any) -> nn.Module:  # noqa: ANN401
        """A part of this part, from a line.

        Args:
            value: a line, a spec, or a module.
            depends: whether it must depend on its features.
            changes: the ends that differ from those of this part.
        """
        ends = replace(self, **({"sizes": (), "whole": False} | changes))
        return self._registry.make(value, ends, depends=depends)

    def event_dim(self, value: Line) -> int:
        """How many dimensions of an event of this shape a part draws at once."""
        part = self._registry.construct(value, self.role)
        return part.event_dim(self) if isinstance(part, Part) else len(self.shape)

    @property
    def _registry(self) -> "Registry":
        if self.registry is None:
            raise ValueError("a part with parts of its own is built by make_part(part, ends)")
        return self.registry


class Part(nn.Module):
    """A prior, likelihood or guide, or a part of one, that asks the model for its shapes.

    A class of one's own needs ``build`` and ``forward(features | None) -> distribution``.
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior", "likelihood", "guide", "layer"})
    batches: ClassVar[bool] = False  # whether it can be built with cells and components
    in_units: ClassVar[bool] = False  # whether its parameters can count in the data's units
    spec: Spec | None = None

    def build(self, ends: Ends) -> None:
        """Make the parameters.

        Args:
            ends: what surrounds the part. ``encode``, ``x_shape`` and ``x_support`` are not known
                yet, and ``partner`` only where there are stochastic layers.
        """

    def connect(self, ends: Ends) -> None:
        """Take notice of the other parts, once all are built; by default its own parts do so."""
        for child in self.children():
            connect(child, ends)

    def start_from(self, x: Tensor) -> None:
        """Start from training data, ``(N, *x_shape)``, once; by default its own parts do so."""
        for child in self.children():
            start_from(child, x)

    def start_at(self, draws: Sequence[Tensor]) -> None:
        """Start a prior at draws of z, ``(S, *shape)``; by default it stays where it is.

        Args:
            draws: those of each component, where the part was built as several side by side.
        """

    own_draws_alone: ClassVar[bool] = False  # whether a guide's density is known nowhere else

    def approximate(
        self, features: Tensor, log_joint: Callable[[Tensor], Tensor]
    ) -> dist.TorchDistribution:
        """A guide's q(z|x), which may look at p(x, z); by default it does not.

        Args:
            features: of the encoder, ``(B, *feature_shape)``.
            log_joint: from z, ``(K, B, *z_shape)``, to log p(x, z), ``(K, B)``.
        """
        return self(features)

    def event_dim(self, ends: Ends) -> int:
        """How many dimensions of the event are drawn at once; cells before them are independent."""
        return len(ends.shape)

    def depends(self) -> bool:
        """Whether the distribution depends on the features."""
        return True

    def error(self, message: str, at: str | int | None = None) -> ValueError:
        """An error that points into the line of the part, where there is one."""
        return self.spec.error(message, at) if self.spec else ValueError(message)


def connect(module: nn.Module, ends: Ends) -> None:
    """Let the parts within a module take notice of the others, once all are built."""
    for part in _outermost(module):
        part.connect(ends)


def start_from(module: nn.Module, x: Tensor) -> None:
    """Let the parts within a module start from training data, ``(N, *x_shape)``."""
    for part in _outermost(module):
        part.start_from(x)


def _outermost(module: nn.Module) -> Iterator[Part]:
    """The module, if it is a part, else the parts within it that are in no other."""
    if isinstance(module, Part):
        yield module
    else:
        for child in module.children():
            yield from _outermost(child)


class Copies(Part):
    """Several parts of one kind side by side, where one module cannot hold all their parameters.

    Args:
        part: one of them, not built.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = [part]

    def build(self, ends: Ends) -> None:
        """Build a copy for each component."""
        if not ends.components:
            raise ValueError(
                "no part of a mixture in a likelihood, whose cells have parameters of their own: "
                "mix families, or put the mixture inside"
            )
        n, *inner = ends.components
        copies = [deepcopy(self.part[0]) for _ in range(n)]
        ends = replace(ends, components=tuple(inner))
        self.parts = nn.ModuleList(ends.make(c, depends=False) for c in copies)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The distributions, in the last batch dimension."""
        return SideBySide([part(features) for part in self.parts])


def looks_at_joint(guide: nn.Module) -> bool:
    """Whether a guide's q(z|x) is made of p(x, z) too, not of the encoder's features alone."""
    return isinstance(guide, Part) and type(guide).approximate is not Part.approximate


class Registry:
    """The structures that lines may name, beside the families of Pyro.

    Args:
        family: the class that makes a family of parameters from a spec.
        names: the names of all families.
        structures: the classes of the structures.
    """

    def __init__(
        self,
        family: Callable[[Spec], Part],
        names: Callable[[], set[str]],
        structures: Iterable[type[Part]],
    ) -> None:
        self.family, self.names = family, names
        self.structures = {c.__name__: c for c in structures}

    def construct(self, value: Line, role: Role) -> nn.Module:
        """A part that is not built yet, from a line; a module as it is.

        Raises:
            SpecError: an unknown name, a structure that cannot play the role, or an argument that
                its class does not take.
        """
        value = read_line(value, role)
        if isinstance(value, nn.Module):
            return value
        spec = as_spec(value)
        if spec.name in self.structures:
            cls = self.structures[spec.name]
            if role not in cls.roles:
                can = " or ".join(f"a {r}" for r in sorted(cls.roles))
                raise spec.error(
                    f"{spec.name} can be {can}, not a {role}: for example Normal as a {role}"
                )
            part = construct(cls, spec)
            part.spec = spec  # as the user wrote it, with the columns for later errors
            return part
        if not hasattr(dist, spec.name) and spec.name not in (known := self.names()):
            known |= {name for name, cls in self.structures.items() if role in cls.roles}
            meant = nearest(spec.name, known) or "; pyro_vae.families() lists them"
            raise spec.error(f"unknown family {spec.name!r}{meant}")
        return self.family(spec)

    def make(self, value: Line, ends: Ends, *, depends: bool = True) -> nn.Module:
        """A module ``forward(features | None) -> distribution``, built.

        Args:
            value: a line, a spec, or a module; one that is no :class:`Part` is taken as it is.
            ends: what surrounds it.
            depends: whether it must depend on its features, in a likelihood or guide.

        Raises:
            SpecError: a line that cannot be read or served.
        """
        part = self.construct(value, ends.role)
        if not isinstance(part, Part):
            return part
        if ends.in_units and not part.in_units:
            raise part.error(
                "units='data' serves families and mixtures of them, whose parameters have units: "
                "standardize x for this likelihood"
            )
        if (ends.components or ends.cells) and not part.batches:
            part = Copies(part)
        try:
            part.build(replace(ends, registry=self))
        except SpecError:
            raise
        except ValueError as problem:
            raise part.error(str(problem)) from problem
        except Exception as problem:  # whatever a distribution raises at a shape that it lacks
            said = str(problem).split("\n")[0] or type(problem).__name__
            raise part.error(f"it cannot be built for draws of shape {ends.shape}: {said}") from (
                problem
            )
        if depends and ends.role != "prior" and not part.depends():
            reader, variable = READERS.get(ends.role, ("encoder", "x"))
            raise part.error(
                f"a {ends.role} without an amortized parameter does not depend on {variable}: "
                f"leave one parameter to the {reader}"
            )
        return part


def construct(cls: Callable[..., Module], spec: Spec) -> Module:
    """An instance of a class from its line: the constructor's arguments, by its names.

    Raises:
        SpecError: arguments that the class does not take, whatever its constructor raises at them.
    """
    parameters = inspect.signature(cls).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    free = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = spec.bind(*names, *(n for n in spec.kwargs if free and n not in names))
    needed = [p.name for p in parameters if p.default is p.empty and p.name in names]
    missing = [name for name in needed if name not in given]
    if missing:
        raise spec.error(f"{spec.name} needs {' and '.join(f'{n}=' for n in missing)}")
    try:
        return cls(**given)
    except SpecError as problem:
        if "^ column" in str(problem):
            raise
        raise spec.error(str(problem)) from problem
    except Exception as problem:
        raise spec.error(str(problem) or f"{spec.name} cannot be built so") from problem


def read_line(value: object, what: str) -> Line:
    """What is meant by a value that is no line, where that is clear.

    Args:
        value: a line, a module, a distribution of Pyro or PyTorch, whose line is made, or the class
            of a distribution, or of a module that needs no arguments.
        what: of the model, for the message.

    Raises:
        ValueError: another class or a function, or a distribution that no line says.
    """
    if isinstance(value, Distribution):
        return _line_of(value)
    if isinstance(value, type):
        if issubclass(value, Distribution):
            return Spec(value.__name__)
        needed = [p for p in inspect.signature(value).parameters.values() if p.default is p.empty]
        if issubclass(value, nn.Module) and all(p.kind is p.VAR_KEYWORD for p in needed):
            return value()
        name = value.__name__
        raise ValueError(
            f"the {what} is the class {name}: give an instance, {name}(...), or a line"
        )
    if callable(value) and not isinstance(value, nn.Module):
        raise ValueError(
            f"the {what} is a function: give a line, or a torch.nn.Module whose forward calls it"
        )
    if not isinstance(value, nn.Module):
        return as_spec(value, f"the {what}", EXAMPLES.get(what, "Normal"))  # pyrefly: ignore[bad-argument-type]
    return value


def _line_of(distribution: Distribution) -> Spec:
    """The line of a distribution: its name, and its parameters as numbers."""
    while isinstance(distribution, dist.Independent | Independent):
        distribution = distribution.base_dist
    name, values = type(distribution).__name__, {}
    for p in inspect.signature(type(distribution)).parameters.values():
        if p.name == "validate_args":
            continue
        if p.default is p.empty or p.name in vars(distribution):
            value = getattr(distribution, p.name, None)
            if not isinstance(value, Tensor | int | float):
                raise ValueError(
                    f"{name} is made of more than numbers: say it in a line, such as "
                    "'Mixture(Normal(loc=learned), components=3)', or give a torch.nn.Module whose "
                    "forward returns it"
                )
            values[p.name] = value.tolist() if isinstance(value, Tensor) else value
    return Spec(name, **values)
