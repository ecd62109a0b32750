"""A family: a distribution of Pyro's, and where each of its parameters comes from.

``getattr(pyro.distributions, name)`` is the registry, so a distribution that Pyro knows costs no
line here. A family has the face of every other distribution of the package (Zuko's lazy
distributions): ``nn.Module`` with ``forward(features | None) -> pyro distribution``.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..core.checks import positive
from ..language.spec import Source, Spec, Value, amortized, as_spec
from .names import find_distribution
from .parameters import SIZES, Amortized, Fixed, GlobalParameter, Parameter, parameters_of
from .part import Ends, Part
from .support import describe_constraint, innermost, transform
from .units import BELOW, Unit, component_starts, moments, starts, units

__all__ = ["Family", "is_amortized"]

# Probabilities that a sigmoid or softmax makes, and what it makes them of.
LOGITS = {"probs": "logits", "gate": "gate_logits"}


class Family(Part):
    r"""A lazy distribution: a spec, waiting for its shapes, and then for features.

    .. math:: p(x \mid h) = \prod_i \mathrm{Family}(x_i; \theta_i(h))

    where each parameter :math:`\theta` is fixed (a number), learned (a value that is trained) or
    amortized (one linear head on the features :math:`h`, mapped into the parameter's constraint;
    positive parameters through softplus). The role says what a parameter that is not named is (a
    prior's is standard, the others' are amortized), and what ``learned`` means (one value for all
    of x in a likelihood, one per dimension of z elsewhere).

    Args:
        spec: for example ``"StudentT(df=4, scale=learned)"``; a name of ``pyro.distributions``.

    Raises:
        SpecError: an unknown family or parameter, or a number outside the parameter's constraint.

    >>> prior = Family("Gamma(concentration=2)")
    >>> prior.build(Ends((3,), "prior"))
    >>> prior().event_shape, prior().mean
    (torch.Size([3]), tensor([2., 2., 2.]))
    """

    batches = in_units = True
    started: Tensor
    ends: Ends

    def __init__(self, spec: str | Spec) -> None:
        super().__init__()
        self.spec = spec = as_spec(spec)
        self.name, self.distribution = spec.name, find_distribution(spec)
        try:
            names = [p.name for p in parameters_of(self.distribution)]
        except NotImplementedError:
            message = f"Pyro does not say what the parameters of {spec.name} are"
            raise self.error(message) from None
        sizes = {size for (family, _), (size, _) in SIZES.items() if family == spec.name}
        self.given = spec.bind(*names, *sizes, what="parameter")

    def build(self, ends: Ends) -> None:
        """Make the parameters for events of this shape."""
        self.ends, self.event_shape = ends, torch.Size(ends.shape)
        parameters = parameters_of(self.distribution, self.given)
        self.sources, self.constants = nn.ModuleDict(), {}
        for parameter in parameters:
            name = parameter.name
            if parameter.constraint is None:
                if name == "dim" and parameter.required:  # of a square matrix, as its event is
                    self.constants[name] = ends.shape[-1]
                if name in self.given:
                    self.constants[name] = self._constant(name, self.given[name])
            elif (value := self.given.get(name, parameter.default(ends.role))) is not None:
                self.sources[name] = self._source(parameter, parameter.constraint, value)
        self.units = nn.ModuleDict()
        if ends.in_units:
            self.register_buffer("started", torch.tensor(False))
            example = units(self.distribution, torch.ones(1, *ends.cells, *ends.shape))
            free = {n for n in self.sources if n in example and self._is_free(n)}
            shapes = {n: self._beside(example[n][1]).shape for n in sorted(free)}
            below = BELOW.get(self.name, {})
            self.units.update({n: Unit(shapes[n], below.get(n, "")) for n in shapes})
        self._check_required(parameters)
        written = getattr(ends.writer, "writes", None)
        if written and not isinstance(dict(self.sources.items()).get(written), Amortized):
            raise self.error(
                f"the decoder writes {written}, which {self.name} does not take from it: use "
                "Multinomial, NegativeBinomial(total_count=learned), or another decoder"
            )
        self._check_shape()

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Let parameters of a likelihood count in the units of x, and start at its frequencies."""
        if not self.ends.in_units or self.started:
            return
        learned = units(self.distribution, x)
        for name, unit in self.units.items():
            parts: Any = unit.shift, unit.factor
            for part, value in zip(parts, learned[name], strict=True):
                part.copy_(self._beside(value))
        self._part_components(x, learned)
        features = self.ends.example
        p = innermost(self(None if features is None else features.to(x)))
        for name, value in starts(p, x).items():
            if name in self.sources and self._is_free(name):
                source: Any = self.sources[name]
                target = self._beside(value).expand(source.shape)
                source.move(source.transform.inv(target).to(x))
        self.started.fill_(True)

    @torch.no_grad()
    def start_at(self, draws: Sequence[Tensor]) -> None:
        """Start what is learned in a prior at centre, spread and frequencies of draws of z."""
        if self.depends():
            return
        p = innermost(self())
        found = [moments(self.distribution, z) | starts(p, z) for z in draws]
        for name, source in self.sources.items():
            if isinstance(source, GlobalParameter) and self._is_free(name) and name in found[0]:
                values = torch.stack([one[name] for one in found]).reshape(source.shape)
                source.put(values)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution, of event shape ``shape`` and batch shape that of the features.

        Args:
            features: ``(..., *feature_shape)``, or ``None`` where nothing is amortized.
        """
        parameters: dict[str, Any] = dict(self._values(features))
        parameters |= {name: unit(parameters[name]) for name, unit in self.units.items()}
        d = self.distribution(**parameters, **self.constants)
        return d.to_event(len(self.event_shape) - d.event_dim)

    def _values(self, features: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """The parameters; probabilities that are trained as logits, which keep their digits."""
        for name, source in self.sources.items():
            logits, table = LOGITS.get(name), self.distribution.arg_constraints
            if isinstance(source, Amortized | GlobalParameter) and logits and logits in table:  # pyrefly: ignore[not-iterable]
                yield logits, source.raw(features)  # pyrefly: ignore[bad-argument-type]
            else:
                yield name, source(features)

    def event_dim(self, ends: Ends) -> int:
        """How many dimensions the distribution draws at once."""
        return _event_dim(self.distribution)

    def depends(self) -> bool:
        """Whether a parameter is amortized."""
        return is_amortized(self)

    def is_fixed(self, name: str) -> bool:
        """Whether a parameter is a number."""
        return name in self.sources and isinstance(self.sources[name], Fixed)

    def extra_repr(self) -> str:
        """The spec, for ``repr``."""
        return str(self.spec)

    def _is_free(self, name: str) -> bool:
        """Whether a parameter is trained from where we say, and no number of the user's."""
        value = self.given.get(name)
        chosen = isinstance(value, Source) and value.init is not None
        return not self.is_fixed(name) and not chosen

    def _part_components(self, x: Tensor, units: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Let components whose places and widths are learned start as the margins of x."""
        own: list[Any] = [self.sources[n] for n in ("loc", "scale") if n in self.units]
        shared = len(own) == 2 and all(isinstance(source, GlobalParameter) for source in own)
        several = len(self.ends.components) == 1 and self.ends.components[0] > 1
        if not (shared and several) or self.event_shape:
            return
        values = x.log() if issubclass(self.distribution, dist.LogNormal) else x
        starts = component_starts(values, *units["loc"], *self.ends.components)
        for source, value in zip(own, starts, strict=True):
            source.put(value)

    def _beside(self, value: Tensor) -> Tensor:
        """A value for each cell, of the parameter's dimensions: components are in between."""
        n = len(self.ends.cells)
        ones = [1] * len(self.ends.components)
        return value.reshape(*value.shape[:n], *ones, *value.shape[n:])

    def _shape(self, parameter: Parameter, domain: constraints.Constraint) -> tuple[int, ...]:
        """The parameter's shape for one event."""
        ends, event_dim = self.ends, _event_dim(self.distribution)
        if len(ends.shape) < event_dim:
            raise self.error(
                f"{self.name} draws arrays of {event_dim} dimension(s) at once; "
                f"the event shape {ends.shape} has {len(ends.shape)}"
            )
        batch = (*ends.cells, *ends.components, *ends.shape[: len(ends.shape) - event_dim])
        width = ends.shape[-1] if event_dim else 0
        if parameter.size is None:
            return batch + (width,) * domain.event_dim
        size = self.given.get(parameter.size)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise self.error(
                f"{self.name} needs {parameter.size}=, a positive whole number "
                f"(for example {parameter.size}=3), got {size!r}",
                at=parameter.size,
            )
        return batch + SIZES[self.name, parameter.name][1](size, width)

    def _source(
        self, parameter: Parameter, domain: constraints.Constraint, value: Value
    ) -> nn.Module:
        name, role, ends = parameter.name, self.ends.role, self.ends
        shape = self._shape(parameter, domain)
        if not isinstance(value, Source):
            return Fixed(self._fixed(name, value, domain, shape))
        if domain.is_discrete:
            raise self.error(
                f"{name} of {self.name} is discrete, so it has no gradient: give a number",
                at=name,
            )
        if self.name == "Uniform":
            raise self.error(
                f"{name} of Uniform is an end of its support, which no gradient moves: give both "
                "ends, Uniform(low=0, high=1)"
            )
        if value != amortized:
            return self._learned(parameter, value, domain, shape)
        if ends.feature_shape is None:
            raise self.error(f"a {role} has no network to amortize {name} over", at=name)
        first, data = len(ends.components), len(ends.shape)
        if ends.cells:
            first, data = 0, len(ends.cells)
        elif data == 1 and role != "likelihood":
            data = 0  # coordinates of z are no places, even if there are as many
        places = slice(first, first + data)
        written = getattr(ends.writer, "writes", name)
        if name != written:
            raise self.error(
                f"the decoder writes {written} alone: give {name} of {self.name} a number, or "
                f"{name}=learned",
                at=name,
            )
        return Amortized(ends.feature_shape, shape, transform(domain), places, writer=ends.writer)

    def _learned(
        self,
        parameter: Parameter,
        value: Source,
        domain: constraints.Constraint,
        shape: tuple[int, ...],
    ) -> GlobalParameter:
        """One trained value, or one per dimension; those of components start apart."""
        components, to_domain = self.ends.components, transform(domain)
        start = parameter.standard if value.init is None else value.init
        own = self.ends.own and math.prod((*self.ends.cells, *self.ends.shape)) > 1
        if value.shared or (value.shared is None and self.ends.role == "likelihood" and not own):
            event = shape[len(shape) - domain.event_dim :]
            small = (components if self.ends.cells else ()) + event
        else:
            small = shape
        if start is None:  # no standard value: near the middle, and no two entries alike
            initial = to_domain(torch.randn(to_domain.inverse_shape(small)) * 0.1)
        else:
            initial = self._fixed(parameter.name, start, domain, small)
        if components and value.init is None:  # components that start as one stay one
            raw: Any = to_domain.inv(initial)
            initial = to_domain(raw + torch.randn_like(raw))
        return GlobalParameter(initial, shape, to_domain)

    def _fixed(
        self, name: str, value: Value, domain: constraints.Constraint, shape: tuple[int, ...]
    ) -> Tensor:
        """A number or list as a tensor of the parameter's shape, checked against its constraint."""
        try:
            tensor = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError):
            raise self.error(
                f"{name} of {self.name} takes a number, a list of numbers, learned or "
                f"amortized, got {value}",
                at=name,
            ) from None
        if domain.event_dim == 2 and tensor.ndim == 0:  # a number stands for a multiple of I
            tensor = tensor * torch.eye(shape[-1])
        if domain is constraints.sphere and tensor.ndim == 0:  # and for the first direction
            tensor = torch.eye(shape[-1])[0]
        try:
            tensor = tensor.expand(shape).clone()
        except RuntimeError:
            raise self.error(
                f"{name} of {self.name} has shape {shape} here, got {tuple(tensor.shape)}",
                at=name,
            ) from None
        inside = domain.check(tensor).all()
        if not (inside and tensor.isfinite().all()):
            needs = "finite" if inside else describe_constraint(domain)
            raise self.error(
                f"{name} of {self.name} must be {needs}, got {value}",
                at=name,
            )
        return tensor

    def _constant(self, name: str, value: Value) -> "Value | Tensor":
        if isinstance(value, Source | Spec):
            raise self.error(
                f"{name} of {self.name} is not a parameter that can be {value}: give a number",
                at=name,
            )
        if name == "temperature":
            return torch.as_tensor(positive(name, value))
        return value

    def _check_required(self, parameters: list[Parameter]) -> None:
        have = {*self.sources, *self.constants}
        needed = [p for p in parameters if p.required and p.name not in have]
        if needed:
            domain, square = needed[0].constraint, _event_dim(self.distribution) > 1
            number = self.event_shape[-1] if square else 1  # of a square matrix, as df is
            trainable = domain is not None and not domain.is_discrete
            raise self.error(
                f"{self.name} needs {' and '.join(f'{p.name}=' for p in needed)}: "
                f"for example {needed[0].name}={'learned' if trainable else number}"
            )

    def _check_shape(self) -> None:
        """Build the distribution once: what Pyro would broadcast silently is an error here."""
        with torch.no_grad():
            try:
                event_shape = self(self.ends.example).event_shape
            except Exception as problem:  # whatever a constructor raises at what it was given
                message = str(problem).split("\n")[0] or type(problem).__name__
                if found := re.match(r"Expected parameter (\w+) .* constraint (\w+)", message):
                    message = f"its {found[1]} is not {found[2]}, as where parameters constrain "
                    message += f"each other: give {found[1]} a number that it may have beside them"
                raise self.error(f"Pyro cannot build {self.spec}: {message}") from problem
        if event_shape != self.event_shape:
            raise self.error(
                f"{self.spec} has events of shape {tuple(event_shape)}, "
                f"expected {tuple(self.event_shape)}"
            )


def is_amortized(module: nn.Module) -> bool:
    """Whether a parameter within a module is an output of a network."""
    return any(isinstance(m, Amortized) for m in module.modules())


def _event_dim(distribution: type[dist.TorchDistribution]) -> int:
    try:
        return distribution.support.event_dim  # pyrefly: ignore[missing-attribute]
    except (AttributeError, NotImplementedError):
        return 0
