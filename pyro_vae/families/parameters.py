"""Parameters: what they are in a family, and where their values come from."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions.transforms import Transform

from ..language.spec import Source, Value, amortized
from .part import Role
from .support import transform

__all__ = [
    "ALTERNATIVES",
    "SIZES",
    "Amortized",
    "Fixed",
    "GlobalParameter",
    "Parameter",
    "parameters_of",
    "positive_parameter",
]

# What a prior's parameter is when it is not named, and where a learned one starts.
STANDARD = {
    **dict.fromkeys(("loc", "logits", "gate_logits", "low", "predictor"), 0.0),
    **dict.fromkeys(("scale", "rate", "high", "alpha", "asymmetry", "softness"), 1.0),
    **dict.fromkeys(("concentration", "concentration0", "concentration1"), 1.0),
    **dict.fromkeys(("scale_tril", "cov_diag", "multiplicative_noise_scale"), 1.0),
    "total_count": 1.0,
    "df": 4.0,
}
# Where what is standard is no number that training could start from.
STANDARD_OF = {("VonMisesFisher", "concentration"): 0.0}
# Among alternative parametrizations the first one is ours, unless the user names another.
ALTERNATIVES = (
    ("logits", "probs"),
    ("gate_logits", "gate"),
    ("scale_tril", "covariance_matrix", "precision_matrix"),
)
# A size that the event's shape does not tell: the argument that says it, and the sizes it gives.
SIZES: dict[tuple[str, str], tuple[str, Callable[[int, int], tuple[int, ...]]]] = {
    ("Categorical", "logits"): ("categories", lambda k, d: (k,)),
    ("Categorical", "probs"): ("categories", lambda k, d: (k,)),
    ("OrderedLogistic", "cutpoints"): ("categories", lambda k, d: (k - 1,)),
    ("LowRankMultivariateNormal", "cov_factor"): ("rank", lambda k, d: (d, k)),
}
# Of families whose parameters constrain each other those of one alone.
TABLES = {
    "Uniform": {"low": constraints.real, "high": constraints.real},
    "Wishart": {
        "scale_tril": constraints.lower_cholesky,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
    },
}


@dataclass(frozen=True)
class Parameter:
    """An argument of a distribution's constructor.

    Args:
        family: the name of the distribution.
        name: of the argument.
        required: whether the constructor asks for it.
        constraint: on its values; ``None`` where it is an option, not a parameter.
    """

    family: str
    name: str
    required: bool
    constraint: constraints.Constraint | None

    @property
    def size(self) -> str | None:
        """The argument that says its size, where the event's shape does not."""
        return SIZES.get((self.family, self.name), (None,))[0]

    @property
    def standard(self) -> float | None:
        """Its standard value: a prior's where it is not named, and where a learned one starts."""
        return STANDARD.get(self.name)

    def default(self, role: Role) -> Value:
        """What it is where the user does not name it; ``None`` leaves it to Pyro's default."""
        if self.constraint is None or self.constraint.is_discrete:
            return None
        if role != "prior":
            return amortized
        if self.name == "df" or (self.name not in STANDARD and self.required):
            return None
        return STANDARD_OF.get((self.family, self.name), self.standard)


def parameters_of(
    distribution: type[dist.TorchDistribution], given: Mapping[str, Value] | None = None
) -> list[Parameter]:
    """The arguments of a distribution's constructor, in order.

    Args:
        distribution: of Pyro, or of this package.
        given: what the user names: among alternative parametrizations that is the one in use, and
            the others are options.

    Raises:
        NotImplementedError: Pyro does not say what the parameters are.
    """
    signature = inspect.signature(distribution.__init__).parameters.values()
    required = {p.name: p.default is p.empty for p in signature}
    required = {n: r for n, r in required.items() if n not in ("self", "validate_args")}
    table: Any = distribution.arg_constraints
    if not isinstance(table, dict):  # its parameters constrain each other
        table = TABLES[distribution.__name__]
    table = {n: c for n, c in table.items() if n in required and c.is_discrete is not None}
    for group in ALTERNATIVES:
        present = [n for n in group if n in table]
        chosen = next((n for n in present if given and n in given), present[0] if present else None)
        table = {n: c for n, c in table.items() if n not in group or n == chosen}
    family = distribution.__name__
    return [Parameter(family, n, needed, table.get(n)) for n, needed in required.items()]


class Fixed(nn.Module):
    """A parameter that is a number; it is part of the description, not of the weights."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self, features: Tensor | None) -> Tensor:
        """The number, of the parameter's shape."""
        return self.value


class GlobalParameter(nn.Module):
    """A parameter with one trained value, or one per dimension: the same for all data points."""

    def __init__(self, initial: Tensor, shape: tuple[int, ...], transform: Transform) -> None:
        super().__init__()
        self.shape, self.transform = shape, transform
        start: Any = transform.inv(initial)
        self.unconstrained = nn.Parameter(start.clone())

    @torch.no_grad()
    def move(self, raw: Tensor) -> None:
        """Add to the unconstrained value, ``(*shape)``; shared, it takes the mean over cells."""
        own = self.unconstrained
        own += raw if own.shape == raw.shape else raw.reshape(-1, *own.shape).mean(0)

    @torch.no_grad()
    def put(self, value: Tensor) -> None:
        """Take a value, ``(*shape)``, in place of the one that it has; shared, its mean."""
        self.unconstrained.zero_()
        raw: Any = self.transform.inv(value)
        self.move(raw.to(self.unconstrained))

    def forward(self, features: Tensor | None) -> Tensor:
        """The value, expanded to the parameter's shape."""
        value: Any = self.transform(self.unconstrained)
        return value.expand(self.shape)

    def raw(self, features: Tensor | None) -> Tensor:
        """What the constraint's transform is given: logits, of probabilities."""
        return self.unconstrained.expand(self.shape)


def positive_parameter(name: str, value: Value, shape: tuple[int, ...]) -> nn.Module:
    """A parameter greater than 0 that is a number, a list or learned.

    Raises:
        ValueError: another value.
    """
    if isinstance(value, Source):
        if value.kind != "learned":
            raise ValueError(f"{name} is a number, a list of them or learned, got {value}")
        small, start = () if value.shared else shape, 1.0 if value.init is None else value.init
    else:
        small, start = shape, value
    try:
        tensor: Any = torch.as_tensor(start, dtype=torch.get_default_dtype()).expand(small)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name} is a number, {shape[0] if shape else 'or'} of them in a list (one for each "
            f"process) or learned, got {value}"
        ) from None
    if not ((tensor > 0) & tensor.isfinite()).all():
        raise ValueError(f"{name} is greater than 0, got {value}")
    if isinstance(value, Source):
        return GlobalParameter(tensor, shape, transform(constraints.positive))
    return Fixed(tensor.clone())


class Amortized(nn.Module):
    """A parameter that is an output of the network: one linear head on the features.

    Features that have the places of the data have a head at each place, the same everywhere: those
    of a network over steps, ``(T, F)``, for data ``(T, ...)``, and those of convolutions over one,
    two or three dimensions, ``(F, H, W)``, for data ``(..., H, W)``. All others are read whole.

    Args:
        feature_shape: of the features of one data point.
        shape: of the parameter.
        transform: into its constraint.
        data: where the dimensions of the data lie in ``shape``; all of it by default.
        writer: the network, where its features are the unconstrained values already.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        shape: tuple[int, ...],
        transform: Transform,
        data: slice = slice(None),
        *,
        writer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.feature_shape, self.shape, self.transform = feature_shape, shape, transform
        raw = tuple(transform.inverse_shape(shape))
        self.kind, self.at = _places(feature_shape, raw, data)
        n = 0 if self.kind == "whole" else len(feature_shape) - 1
        self.places = raw[self.at : self.at + n]
        self.rest = raw[: self.at] + raw[self.at + n :]
        self.rest_width = width = math.prod(self.rest)
        self.writer: Any = (writer,)  # whose parameters are not those of this part
        if writer is not None:
            self.kind, self.head = "whole", nn.Identity()
        elif self.kind == "pixels":
            convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1]
            self.head = convolution(feature_shape[0], width, 1)
        else:
            self.head = nn.Linear(math.prod(feature_shape[n:]), width)

    @torch.no_grad()
    def move(self, raw: Tensor) -> None:
        """Add to the unconstrained value at all features, ``(*shape)``; places take the mean."""
        n = len(self.places)
        rest = raw.movedim(tuple(range(self.at, self.at + n)), tuple(range(n)))
        if self.writer[0] is not None:
            self.writer[0].move(raw)
            return
        bias: Any = self.head.bias
        bias += rest.reshape(-1, self.rest_width).mean(0)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(..., *feature_shape)`` to the parameter ``(..., *shape)``."""
        value: Any = self.transform(self.raw(features))
        return value

    def raw(self, features: Tensor) -> Tensor:
        """What the constraint's transform is given: logits, of probabilities."""
        lead = features.shape[: features.ndim - len(self.feature_shape)]
        flat = features if len(lead) == 1 else features.reshape(-1, *self.feature_shape)
        flat = flat.flatten(1) if self.kind == "whole" else flat
        raw = self.head(flat)
        if self.writer[0] is None:
            raw = raw.to(self.head.bias)  # under autocast it has less precision
        n, m, rest = len(lead), len(self.places), len(self.rest)
        if self.kind == "pixels":  # the places come last, and belong at `at`
            raw = raw.reshape((*lead, *self.rest, *self.places))
            moved = range(n + rest, n + rest + m)
        else:
            raw = raw.reshape((*lead, *self.places, *self.rest))
            moved = range(n, n + m)
        return raw.movedim(tuple(moved), tuple(range(n + self.at, n + self.at + m)))


def _places(
    feature_shape: tuple[int, ...], raw: tuple[int, ...], data: slice
) -> tuple[Literal["steps", "pixels", "whole"], int]:
    """How features are read, and the first dimension of the parameter that has their places."""
    n = len(feature_shape) - 1
    start, stop, _ = data.indices(len(raw))
    steps: Any = "steps", start, feature_shape[:-1]
    pixels: Any = "pixels", stop - n, feature_shape[1:]
    for kind, at, places in (steps, pixels) if n == 1 else (pixels, steps):
        if 1 <= n <= min(3, stop - start) and raw[at : at + n] == places:
            return kind, at
    return "whole", 0
