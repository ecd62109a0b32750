"""The data's own units: where the parameters of a likelihood start, and what they count in."""

import inspect
import math
from collections.abc import Mapping
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .support import support_bounds

__all__ = [
    "BELOW",
    "Unit",
    "centre_and_spread",
    "component_starts",
    "far_cell",
    "moments",
    "or_one",
    "read_without",
    "starts",
    "units",
]

# Families whose parameter grows with the mean of the data, or falls with it.
BY_MEAN = {
    "rate": ("Poisson", "ZeroInflatedPoisson", "InverseGamma"),
    "scale": ("HalfNormal", "HalfCauchy", "Weibull"),
}
BY_INVERSE = ("Gamma", "Exponential", "GammaPoisson")
COUNTS = ("NegativeBinomial", "ZeroInflatedNegativeBinomial")
BELOW = {"Pareto": {"scale": "factor"}, "GeneralizedPareto": {"loc": "shift"}}
CODES = ("Categorical", "OneHotCategorical", "Multinomial")
MATRICES = ("scale_tril", "covariance_matrix", "precision_matrix")
FAR = 30.0  # from unit scale, in which training that starts near 0 and 1 gets lost
NUMBERS = 2**22  # of x, of which quantiles are taken
NARROW = 0.02  # the least width of a component, in the spread of the data
SMOOTHING = 0.5  # added to the count of each category, and of ones


class Unit(nn.Module):
    """A parameter in the data's units: ``shift + factor * value``; as it is until they are known.

    Args:
        shape: what shift and factor have, to be broadcast with the parameter.
        below: whether a positive value goes through v / (1 + v), to stay below shift + factor, or
            any value v through -log(1 + exp(-v)), to stay below shift.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, shape: tuple[int, ...], below: str = "") -> None:
        super().__init__()
        self.below = below
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("factor", torch.ones(shape))

    def forward(self, value: Tensor) -> Tensor:
        """The parameter in the data's units."""
        if self.below == "factor":
            value = value / (1 + value)
        elif self.below == "shift":
            value = logsigmoid(value)
        return self.shift + self.factor * value


def read_without(part: nn.Module, plain: Mapping[str, float]) -> None:
    """Let a part read weights of before it had some buffers, which are plain numbers then.

    Args:
        part: which has the buffers.
        plain: by the name of a buffer its value in those weights: 0 of a centre, 1 of a unit.
    """
    part.register_load_state_dict_pre_hook(partial(_fill, plain))


def _fill(
    plain: Mapping[str, float], part: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    for name, value in plain.items():
        state.setdefault(f"{prefix}{name}", torch.full_like(part.get_buffer(name), value))


def centre_and_spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """The median of each column, and the mean distance from it in standard deviations.

    Args:
        x: ``(N, ...)``; NaN is skipped. A column without a number has centre 0, and one without
            spread has spread 1.
    """
    centre = x.nanmedian(0).values.nan_to_num(0.0)
    return centre, or_one((x - centre).abs().nanmean(0) * math.sqrt(math.pi / 2))


def far_cell(x: Tensor) -> int | None:
    """The cell whose numbers are farthest from unit scale, if training would get lost in them.

    Args:
        x: ``(N, ...)``; NaN is skipped.
    """
    centre, spread = centre_and_spread(x.flatten(1).double())
    size = torch.maximum(centre.abs(), spread)
    return int(size.argmax()) if size.max() > FAR or spread.max() < 1 / FAR else None


def or_one(x: Tensor) -> Tensor:
    """x where it is positive and finite, else 1."""
    return torch.where((x > 0) & x.isfinite(), x, 1.0)


def units(family: type[dist.TorchDistribution], x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Shift and factor of each parameter that counts in the data's units, by its name.

    Args:
        family: of the likelihood.
        x: training data, ``(N, ...)``; NaN is skipped.
    """
    name, log = family.__name__, issubclass(family, dist.LogNormal)
    x = x.double()
    if name == "GeneralizedPareto":  # whose support begins at its loc
        centre, spread = centre_and_spread(x)
        least = x.nan_to_num(math.inf).amin(0)
        least = torch.where(least.isfinite(), least, centre)
        return {"loc": (least, spread), "scale": (torch.zeros_like(spread), spread)}
    has_loc = "loc" in inspect.signature(family.__init__).parameters
    if log or (has_loc and _real(family)):
        centre, spread = centre_and_spread(x.log() if log else x)
        zero, column = torch.zeros_like(spread), spread.unsqueeze(-1)
        both = column * spread.unsqueeze(-2)
        return {
            "loc": (centre, spread),
            "scale": (zero, spread),
            "scale_tril": (0 * column, column),
            "covariance_matrix": (0 * both, both),
            "precision_matrix": (0 * both, 1 / both),
            "cov_factor": (0 * column, column),
            "cov_diag": (zero, spread**2),
        }
    if name == "Pareto":  # whose support begins at its scale
        least = or_one(x.nan_to_num(math.inf).amin(0))
        return {"scale": (torch.zeros_like(least), least)}
    mean = or_one(x.nanmean(0))
    units = {p: (0 * mean, mean) for p, names in BY_MEAN.items() if name in names}
    return units | ({"rate": (0 * mean, 1 / mean)} if name in BY_INVERSE else {})


def moments(family: type[dist.TorchDistribution], x: Tensor) -> dict[str, Tensor]:
    """Parameters at centre and spread of x, ``(N, ...)``, by their names; coordinates independent.

    Args:
        family: a distribution of x.
        x: numbers without holes.
    """
    both = units(family, x)
    found = {name: shift if name == "loc" else factor for name, (shift, factor) in both.items()}
    found.pop("cov_factor", None)
    return found | {n: found[n] * torch.eye(x.shape[-1]).to(x) for n in MATRICES if n in found}


def component_starts(
    x: Tensor, centre: Tensor, spread: Tensor, components: int
) -> tuple[Tensor, Tensor]:
    """Where components start that all data share: at quantiles, as wide as they lie apart.

    Args:
        x: training data, ``(N, ...)``; NaN is skipped.
        centre: of each cell, ``(...)``.
        spread: of each cell, ``(...)``.
        components: K, two or more.

    Returns:
        The places and widths in units of centre and spread, ``(..., K)``.
    """
    some = (x[:: max(1, x.numel() // NUMBERS)].double() - centre) / spread
    at = (torch.arange(components, dtype=torch.float64, device=x.device) + 0.5) / components
    places = some.nanquantile(at, 0).nan_to_num(0.0).movedim(0, -1)
    apart = (places[..., -1:] - places[..., :1]) / (components - 1)
    return places, apart.clamp(min=NARROW).expand(places.shape)


def starts(p: dist.TorchDistribution, x: Tensor) -> dict[str, Tensor]:
    """Where parameters that have no unit start: at what the data's frequencies say.

    Args:
        p: a likelihood of the family, without batch shape of its own, for its sizes.
        x: training data, ``(N, ...)``; NaN is skipped.
    """
    name, x = type(p).__name__, x.double()
    n = (~x.isnan()).sum(0)
    if name in COUNTS:
        return {"logits": or_one(x.nanmean(0)).log()}
    if name == "Geometric":
        return {"logits": -or_one(x.nanmean(0)).log()}
    if name in ("Bernoulli", "Binomial"):
        total = p.total_count if isinstance(p, dist.Binomial) else torch.ones(())
        ones = x.nansum(0) / total.max()
        return {"logits": ((ones + SMOOTHING) / (n - ones + SMOOTHING)).log()}
    if name in CODES:
        if p.event_dim:
            return {"logits": (x.nansum(0) + SMOOTHING).log()}
        return {"logits": (_frequencies(x, p.logits.shape[-1]) + SMOOTHING).log()}  # pyrefly: ignore[missing-attribute]
    if isinstance(p, dist.OrderedLogistic):
        share = (_frequencies(x, p.cutpoints.shape[-1] + 1) + SMOOTHING).cumsum(-1)
        below, above = share[..., :-1], share[..., -1:] - share[..., :-1]
        return {"cutpoints": (below / above).log()}
    return {}


def _frequencies(x: Tensor, categories: int) -> Tensor:
    """How often each code occurs in each cell, ``(..., categories)``."""
    cells = x.flatten(1) if x.ndim > 1 else x[:, None]
    first = categories * torch.arange(cells.shape[1], device=x.device)
    codes = (cells + first)[~cells.isnan()].long()
    counts = torch.bincount(codes, minlength=categories * cells.shape[1])
    return counts.reshape(*x.shape[1:], categories).double()


def _real(family: type[dist.TorchDistribution]) -> bool:
    """Whether the family lives on the whole real line."""
    try:
        kind, lower, upper = support_bounds(family.support)  # pyrefly: ignore[bad-argument-type]
    except (AttributeError, NotImplementedError, TypeError):
        return True  # it hangs on the parameters, among which is loc
    return kind == "continuous" and math.isinf(lower) and math.isinf(upper)
