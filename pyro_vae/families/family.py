"""A family: a distribution of Pyro's, and where each of its parameters comes from.

``getattr(pyro.distributions, name)`` is the registry, so a distribution that Pyro knows costs no
line here. A family has the face of every other distribution of the package (Zuko's lazy
distributions): ``nn.Module`` with ``forward(features | None) -> pyro distribution``.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import Distribution, transform_to
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    SoftplusTransform,
    Transform,
    identity_transform,
)

from .. import distributions
from ..language.spec import Source, Spec, SpecError, Value, amortized, as_spec, nearest

__all__ = [
    "Amortized", "Family", "Learned", "Role", "describe", "family", "innermost", "same_support",
    "support_bounds", "transform",
]  # fmt: skip

Role: TypeAlias = Literal["prior", "likelihood", "guide", "layer"]  # a layer, given another one
READERS = {"likelihood": ("decoder", "z"), "layer": ("network", "the layer before it")}

# What a prior's parameter is when it is not named, and where a learned one starts.
STANDARD = {
    "loc": 0.0, "scale": 1.0, "logits": 0.0, "concentration": 1.0, "rate": 1.0,
    "concentration0": 1.0, "concentration1": 1.0, "low": 0.0, "high": 1.0, "asymmetry": 1.0,
    "softness": 1.0, "scale_tril": 1.0, "cov_diag": 1.0, "alpha": 1.0, "gate_logits": 0.0,
    "df": 4.0, "total_count": 1.0, "predictor": 0.0, "multiplicative_noise_scale": 1.0,
}  # fmt: skip
# Where what is standard is no number that training could start from.
STANDARD_OF = {("VonMisesFisher", "concentration"): 0.0}
# Among alternative parametrizations the first one is ours, unless the user names another.
ALTERNATIVES = (
    ("logits", "probs"),
    ("gate_logits", "gate"),
    ("scale_tril", "covariance_matrix", "precision_matrix"),
)
# A size that the event's shape does not tell: the argument that says it, and the sizes it gives.
SIZES = {
    ("Categorical", "logits"): ("categories", lambda k, d: (k,)),
    ("Categorical", "probs"): ("categories", lambda k, d: (k,)),
    ("OrderedLogistic", "cutpoints"): ("categories", lambda k, d: (k - 1,)),
    ("LowRankMultivariateNormal", "cov_factor"): ("rank", lambda k, d: (d, k)),
}


class Family(nn.Module):
    r"""A lazy distribution: a spec and an event shape, waiting for features.

    .. math:: p(x \mid h) = \prod_i \mathrm{Family}(x_i; \theta_i(h))

    where each parameter :math:`\theta` is fixed (a number), learned (a value that is trained) or
    amortized (one linear head on the features :math:`h`, mapped into the parameter's constraint;
    positive parameters through softplus).

    Args:
        spec: for example ``"StudentT(df=4, scale=learned)"``; a name of ``pyro.distributions``.
        event_shape: the shape of one datum, or of one z.
        role: ``"prior"``, ``"likelihood"``, ``"guide"`` or ``"layer"`` (of z, given another layer):
            says what a parameter that is not named is (a prior's is standard, the others' are
            amortized), and what ``learned`` means (one value for all of x in a likelihood, one per
            dimension of z elsewhere).
        feature_shape: the shape of the features of one datum; ``None`` where there are none.
        components: so many of them side by side, in the last batch dimension, each with parameters
            of its own: what a mixture is made of. Learned ones start apart.

    Raises:
        SpecError: an unknown family or parameter, or a number outside the parameter's constraint.

    >>> prior = Family("Gamma(concentration=2)", (3,), "prior")
    >>> prior().event_shape, prior().mean
    (torch.Size([3]), tensor([2., 2., 2.]))
    """

    def __init__(
        self,
        spec: str | Spec,
        event_shape: tuple[int, ...],
        role: Role,
        feature_shape: tuple[int, ...] | None = None,
        *,
        components: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec = as_spec(spec)
        self.event_shape = torch.Size(event_shape)
        self.components = () if components is None else (components,)
        self.distribution = _distribution(spec)
        names = _signature(self.distribution)
        sizes = {size for (family, _), (size, _) in SIZES.items() if family == spec.name}
        given = spec.bind(*names, *sizes, what="parameter")
        try:
            domains = _domains(self.distribution, names, given)
        except NotImplementedError:
            raise spec.error(f"Pyro does not say what the parameters of {spec.name} are") from None
        self.constants: dict[str, Value] = {}
        self.sources = nn.ModuleDict()
        for name in names:
            if name in domains:
                value = given.get(name, _default(spec, name, role, domains[name]))
                if value is None:
                    continue
                shape = self._shape(name, domains[name], given)
                self.sources[name] = self._source(
                    name, value, domains[name], shape, role, feature_shape
                )
            elif name in given:
                self.constants[name] = self._constant(name, given[name])
        self._check_constants(names)
        self._check_shape(feature_shape)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution, of event shape ``event_shape`` and batch shape that of the features.

        Args:
            features: ``(..., *feature_shape)``, or ``None`` where nothing is amortized.
        """
        parameters = {name: source(features) for name, source in self.sources.items()}
        found = self.distribution(**parameters, **self.constants)  # pyright: ignore[reportArgumentType]
        return found.to_event(len(self.event_shape) - found.event_dim)

    def extra_repr(self) -> str:
        """The spec and the event shape, for ``repr``."""
        return f"{self.spec}, event_shape={tuple(self.event_shape)}"

    def _shape(
        self, name: str, domain: constraints.Constraint, given: dict[str, Value]
    ) -> tuple[int, ...]:
        """The parameter's shape for one event."""
        event_dim = _event_dim(self.distribution)
        batch = (*self.components, *self.event_shape[: len(self.event_shape) - event_dim])
        if len(self.event_shape) < event_dim:
            raise self.spec.error(
                f"{self.spec.name} draws arrays of {event_dim} dimension(s) at once; "
                f"the event shape {tuple(self.event_shape)} has {len(self.event_shape)}"
            )
        width = self.event_shape[-1] if event_dim else 0
        if (self.spec.name, name) in SIZES:
            argument, sizes = SIZES[self.spec.name, name]
            size = given.get(argument)
            if not isinstance(size, int) or size < 1:
                raise self.spec.error(
                    f"{self.spec.name} needs {argument}=, a positive whole number "
                    f"(for example {argument}=3), got {size!r}",
                    at=argument,
                )
            return batch + sizes(size, width)
        return batch + (width,) * domain.event_dim

    def _source(
        self,
        name: str,
        value: Value,
        domain: constraints.Constraint,
        shape: tuple[int, ...],
        role: Role,
        feature_shape: tuple[int, ...] | None,
    ) -> nn.Module:
        if not isinstance(value, Source):
            return Fixed(self._fixed(name, value, domain, shape))
        if domain.is_discrete:
            raise self.spec.error(
                f"{name} of {self.spec.name} is discrete, so it has no gradient: give a number",
                at=name,
            )
        if value == amortized:
            if feature_shape is None:
                raise self.spec.error(f"a {role} has no network to amortize {name} over", at=name)
            return Amortized(feature_shape, shape, transform(domain))
        to_domain = transform(domain)
        start = STANDARD.get(name) if value.init is None else value.init
        shared = role == "likelihood" if value.shared is None else value.shared
        small = shape[len(shape) - domain.event_dim :] if shared else shape
        initial: Any
        if start is None:  # no standard value: near the middle, and no two entries alike
            initial = to_domain(torch.randn(to_domain.inverse_shape(small)) * 0.1)
        else:
            initial = self._fixed(name, start, domain, small)
        if self.components and value.init is None:  # components that start as one stay one
            raw: Any = to_domain.inv(initial)
            initial = to_domain(raw + torch.randn_like(raw))
        return Learned(initial, shape, to_domain)

    def _fixed(
        self, name: str, value: Value, domain: constraints.Constraint, shape: tuple[int, ...]
    ) -> Tensor:
        """A number or list as a tensor of the parameter's shape, checked against its constraint."""
        try:
            tensor = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError):
            raise self.spec.error(
                f"{name} of {self.spec.name} takes a number, a list of numbers, learned or "
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
            raise self.spec.error(
                f"{name} of {self.spec.name} has shape {shape} here, got {tuple(tensor.shape)}",
                at=name,
            ) from None
        if not domain.check(tensor).all():
            raise self.spec.error(
                f"{name} of {self.spec.name} must be {describe(domain)}, got {value}", at=name
            )
        return tensor

    def _constant(self, name: str, value: Value) -> Value:
        if isinstance(value, Source | Spec):
            raise self.spec.error(
                f"{name} of {self.spec.name} is not a parameter that can be {value}: give a number",
                at=name,
            )
        return torch.as_tensor(value) if name == "temperature" else value  # pyright: ignore

    def _check_constants(self, names: dict[str, bool]) -> None:
        needed = [
            n for n, required in names.items()
            if required and n not in self.sources and n not in self.constants
        ]  # fmt: skip
        if needed:
            trainable = isinstance(self.distribution.arg_constraints, dict) and (
                needed[0] in self.distribution.arg_constraints
            )
            raise self.spec.error(
                f"{self.spec.name} needs {' and '.join(f'{n}=' for n in needed)}: "
                f"for example {needed[0]}={'learned' if trainable else '1'}"
            )

    def _check_shape(self, feature_shape: tuple[int, ...] | None) -> None:
        """Build the distribution once: what Pyro would broadcast silently is an error here."""
        features = None if feature_shape is None else torch.zeros(1, *feature_shape)
        with torch.no_grad():
            try:
                event_shape = self(features).event_shape
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as problem:
                message = str(problem).split("\n")[0]
                raise self.spec.error(f"Pyro cannot build {self.spec}: {message}") from problem
        if event_shape != self.event_shape:
            raise self.spec.error(
                f"{self.spec} has events of shape {tuple(event_shape)}, "
                f"expected {tuple(self.event_shape)}"
            )


class Fixed(nn.Module):
    """A parameter that is a number; it is part of the description, not of the weights."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self, features: Tensor | None) -> Tensor:
        """The number, of the parameter's shape."""
        return self.value


class Learned(nn.Module):
    """A parameter with one trained value, or one per dimension."""

    def __init__(self, initial: Tensor, shape: tuple[int, ...], transform: Transform) -> None:
        super().__init__()
        self.shape, self.transform = shape, transform
        start: Any = transform.inv(initial)
        self.unconstrained = nn.Parameter(start.clone())

    def forward(self, features: Tensor | None) -> Tensor:
        """The value, expanded to the parameter's shape."""
        value: Any = self.transform(self.unconstrained)
        return value.expand(self.shape)


class Amortized(nn.Module):
    """A parameter that is an output of the network: one linear head on the features.

    Features with the spatial shape of the parameter, ``(C, H, W)``, are read by a 1x1
    convolution, all others by a linear layer.
    """

    def __init__(
        self, feature_shape: tuple[int, ...], shape: tuple[int, ...], transform: Transform
    ) -> None:
        super().__init__()
        self.feature_shape, self.shape, self.transform = feature_shape, shape, transform
        self.raw = raw = tuple(transform.inverse_shape(shape))
        if len(feature_shape) == 3 and len(raw) >= 2 and feature_shape[1:] == raw[-2:]:
            self.head = nn.Conv2d(feature_shape[0], math.prod(raw[:-2]), 1)
        elif len(feature_shape) == 1:
            self.head = nn.Linear(feature_shape[0], math.prod(raw))
        else:
            linear = nn.Linear(math.prod(feature_shape), math.prod(raw))
            self.head = nn.Sequential(nn.Flatten(), linear)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(..., *feature_shape)`` to the parameter ``(..., *shape)``."""
        lead = features.shape[: features.ndim - len(self.feature_shape)]
        flat = features if len(lead) == 1 else features.reshape(-1, *self.feature_shape)
        raw = self.head(flat).to(self.head.weight)  # under autocast it has less precision
        value: Any = self.transform(raw.reshape(*lead, *self.raw))
        return value


def family(
    value: str | Spec | nn.Module,
    shape: tuple[int, ...],
    role: Role,
    feature_shape: tuple[int, ...] | None = None,
    *,
    structures: Mapping[str, type[nn.Module]],
) -> nn.Module:
    """A module ``forward(features | None) -> distribution``, from a line or as it is.

    Args:
        value: a line, a spec, or a module.
        shape: the event shape.
        role: as in :class:`Family`.
        feature_shape: as in :class:`Family`.
        structures: the names that are no family of parameters, and their classes. One that has
            ``build(shape, role, feature_shape)`` learns its ends here, as networks do.

    Raises:
        SpecError: a line that cannot be read or served.
    """
    if isinstance(value, nn.Module):
        module, spec = value, None
    else:
        spec = as_spec(value)
        if spec.name not in structures:
            known = _known() | set(structures)
            if spec.name not in known:
                raise spec.error(f"unknown family {spec.name!r}{nearest(spec.name, known)}")
            module = Family(spec, shape, role, feature_shape)
            check_amortized(module, role)
            return module
        module = construct(structures[spec.name], spec)
    build = getattr(module, "build", None)
    if build is not None:
        try:
            build(shape, role, feature_shape)
        except SpecError:
            raise
        except ValueError as problem:
            raise (spec.error(str(problem)) if spec else problem) from problem
    return module


def construct(cls: type[nn.Module], spec: Spec) -> nn.Module:
    """A structure from its line: the constructor's arguments, by its names."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    names = [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]
    free = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = spec.bind(*names, *(n for n in spec.kwargs if free and n not in names))
    needed = [p.name for p in parameters if p.default is p.empty and p.name in names]
    missing = [name for name in needed if name not in given]
    if missing:
        raise spec.error(f"{spec.name} needs {' and '.join(f'{n}=' for n in missing)}")
    try:
        made = cls(**given)
        made.__dict__["spec"] = spec  # as it was said, and with the columns for later errors
        return made
    except SpecError:
        raise
    except ValueError as problem:
        raise spec.error(str(problem)) from problem


def check_amortized(module: nn.Module, role: Role) -> None:
    """Raise where a likelihood or guide does not depend on its features."""
    if role != "prior" and not any(isinstance(m, Amortized) for m in module.modules()):
        reader, variable = READERS.get(role, ("encoder", "x"))
        spec: Any = module.spec
        raise spec.error(
            f"a {role} without an amortized parameter does not depend on {variable}: "
            f"leave one parameter to the {reader}"
        )


def innermost(distribution: dist.TorchDistribution) -> dist.TorchDistribution:
    """The distribution of one cell, under ``Independent``."""
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution


def support_bounds(support: constraints.Constraint) -> tuple[str, float, float]:
    """What a support is, up to closedness: its kind, and its lower and upper bound."""
    support = getattr(support, "base_constraint", support)  # of a mixture
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    kind = "discrete" if support.is_discrete else "continuous"
    lower = getattr(support, "lower_bound", -math.inf)
    upper = getattr(support, "upper_bound", math.inf)
    name = type(support).__name__.strip("_").lower()
    if name in ("boolean", "onehot", "simplex", "sphere", "positivedefinite", "lowercholesky",
                "corrcholesky", "corrmatrix"):  # fmt: skip
        kind = name
    return kind, float(torch.as_tensor(lower).min()), float(torch.as_tensor(upper).max())


def same_support(first: Distribution, second: Distribution) -> bool | None:
    """Whether two distributions live on the same set; ``None`` where one does not say."""
    try:
        return support_bounds(first.support) == support_bounds(second.support)  # pyright: ignore
    except (NotImplementedError, AttributeError):
        return None


def describe(domain: constraints.Constraint) -> str:
    """A constraint in words: ``a number greater than 0``."""
    while isinstance(domain, constraints.independent):
        domain = domain.base_constraint
    whole = "a whole number" if domain.is_discrete else "a number"
    lower, upper = (getattr(domain, k, None) for k in ("lower_bound", "upper_bound"))
    lower, upper = (
        (f"{float(b.min() if isinstance(b, Tensor) else b):g}" if b is not None else None)
        for b in (lower, upper)
    )
    if lower is not None and upper is not None:
        return f"{whole} from {lower} to {upper}"
    if lower is not None:
        strict = isinstance(domain, constraints.greater_than)
        return f"{whole} {'greater than' if strict else 'of at least'} {lower}"
    words = {"boolean": "0 or 1", "real": "a finite number", "onehot": "a one-hot vector",
             "simplex": "a vector of positive numbers that sum to 1",
             "sphere": "a vector of length 1"}  # fmt: skip
    name = type(domain).__name__.strip("_").lower()
    return words.get(name, name)


def _distribution(spec: Spec) -> type[dist.TorchDistribution]:
    found = getattr(distributions, spec.name, None) or getattr(dist, spec.name, None)
    if isinstance(found, type) and issubclass(found, Distribution):
        of_distributions = {"base_dist", "base_distribution", "component_distribution", "propose"}
        if of_distributions & set(_signature(found)):
            raise spec.error(f"{spec.name} is made of distributions, not of parameters")
        return found  # pyright: ignore[reportReturnType]
    raise spec.error(f"unknown family {spec.name!r}{nearest(spec.name, _known())}")


def _known() -> set[str]:
    rooms = {**vars(dist), **vars(distributions)}
    return {n for n, c in rooms.items() if isinstance(c, type) and issubclass(c, Distribution)}


def _signature(distribution: type) -> dict[str, bool]:
    """The constructor's parameters in order, and whether each is required."""
    signature = inspect.signature(distribution.__init__).parameters.values()
    skip = ("self", "validate_args")
    return {p.name: p.default is p.empty for p in signature if p.name not in skip}


def _domains(
    distribution: type[dist.TorchDistribution], names: dict[str, bool], given: dict[str, Value]
) -> dict[str, constraints.Constraint]:
    """The constraint of each parameter in use: one of each group of alternatives."""
    table: Any = distribution.arg_constraints
    if not isinstance(table, dict):  # Uniform: its bounds constrain each other
        table = {n: constraints.real for n in names if n in ("low", "high")}
    table = {n: c for n, c in table.items() if n in names and c.is_discrete is not None}
    for group in ALTERNATIVES:
        present = [n for n in group if n in table]
        chosen = next((n for n in present if n in given), present[0] if present else None)
        table = {n: c for n, c in table.items() if n not in group or n == chosen}
    return table


def _default(spec: Spec, name: str, role: Role, domain: constraints.Constraint) -> Value:
    """What a parameter is that the user did not name; ``None`` leaves it to Pyro's default."""
    if domain.is_discrete:
        return None
    if role != "prior":
        return amortized
    required = _signature(_distribution(spec)).get(name, False)
    if name == "df" or (name not in STANDARD and required):
        return None
    return STANDARD_OF.get((spec.name, name), STANDARD.get(name))


def _event_dim(distribution: type[dist.TorchDistribution]) -> int:
    try:
        return distribution.support.event_dim  # pyright: ignore
    except (AttributeError, NotImplementedError):
        return 0


def transform(domain: constraints.Constraint) -> Transform:
    """From the real line into the constraint; softplus, not exp, for positive parameters."""
    base = domain
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    if base is constraints.real:
        return identity_transform
    if isinstance(base, constraints.greater_than | constraints.greater_than_eq):
        if base.lower_bound == 0:
            return SoftplusTransform()
        return ComposeTransform([SoftplusTransform(), AffineTransform(base.lower_bound, 1.0)])
    if base is constraints.lower_cholesky:
        return transform_to(constraints.softplus_lower_cholesky)
    try:
        return transform_to(domain)
    except NotImplementedError:
        raise SpecError(f"no parameter can be learned under the constraint {domain}") from None
