"""Supports and constraints: what they are in words, whether two agree, how to map onto them."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution, transform_to
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    Transform,
    identity_transform,
)

from ..distributions import Ordered, Positive, PositiveCholesky, SpikeOr, support_of_cell

__all__ = [
    "REAL",
    "convex",
    "describe_constraint",
    "extremes",
    "innermost",
    "same_support",
    "spike_of",
    "support_bounds",
    "support_of",
    "transform",
]

REAL = ("continuous", -math.inf, math.inf)  # the bounds of all real numbers
WORDS = {
    "boolean": "0 or 1",
    "real": "a finite number",
    "onehot": "a one-hot vector",
    "simplex": "a vector of positive numbers that sum to 1",
    "sphere": "a vector of length 1",
    "orderedvector": "increasing numbers",
    "censoredtime": "a time greater than 0, or minus a time at which it was censored",
}
# Constraints that no bounds tell apart.
KINDS = {"boolean", "onehot", "simplex", "sphere", "positivedefinite", "lowercholesky"}
KINDS |= {"corrcholesky", "corrmatrix"}


def innermost(distribution: dist.TorchDistribution) -> dist.TorchDistribution:
    """The distribution of one cell, under ``Independent``."""
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution


def support_bounds(support: constraints.Constraint) -> tuple[str, float, float]:
    """What a support is, up to closedness: its kind, and its lower and upper bound."""
    support = support_of_cell(support)
    kind = "discrete" if support.is_discrete else "continuous"
    lower = getattr(support, "lower_bound", -math.inf)
    upper = getattr(support, "upper_bound", math.inf)
    if (name := _name(support)) in KINDS:
        kind = name
    return kind, float(torch.as_tensor(lower).min()), float(torch.as_tensor(upper).max())


def support_of(distribution: Distribution) -> constraints.Constraint | None:
    """The support; ``None`` where the distribution does not say it."""
    try:
        return distribution.support
    except (NotImplementedError, AttributeError):
        return None


def same_support(first: Distribution, second: Distribution) -> bool | None:
    """Whether two distributions have the same support, and a mass at the same number, if any.

    ``None`` where one does not say it.
    """
    one, other = support_of(first), support_of(second)
    if one is None or other is None:
        return None
    return (spike_of(one), support_bounds(one)) == (spike_of(other), support_bounds(other))


def spike_of(support: constraints.Constraint) -> float | None:
    """The number that has a mass of its own among others."""
    cell = support_of_cell(support)
    return cell.member if isinstance(cell, SpikeOr) else None


def convex(support: constraints.Constraint) -> constraints.Constraint:
    """The range of a support, without gaps: [0, 1] for bits, the simplex for one-hot vectors."""
    kind, lower, upper = support_bounds(support)
    if kind in ("simplex", "onehot"):
        return constraints.simplex
    if kind == "boolean":
        return constraints.unit_interval
    if math.isfinite(lower) and math.isfinite(upper):
        return constraints.interval(lower, upper)
    return constraints.greater_than_eq(lower) if math.isfinite(lower) else constraints.real


def extremes(x: Tensor) -> tuple[Tensor, ...]:
    """The least and the largest number of a tensor, NaN apart; nothing where there is none."""
    if not x.numel():
        return ()
    ends = x.aminmax()
    if not ends.min.isnan():
        return tuple(ends)
    return extremes(x[~x.isnan()])


def describe_constraint(constraint: constraints.Constraint | None) -> str:
    """A constraint in words: ``a number greater than 0``."""
    if constraint is None:
        return "values of a support that it does not say"
    cell = support_of_cell(constraint)
    if isinstance(cell, SpikeOr):
        return f"{cell.member:g}, as a mass of its own, or {describe_constraint(cell.support)}"
    whole = "a whole number" if cell.is_discrete else "a number"
    bounds = (getattr(cell, name, None) for name in ("lower_bound", "upper_bound"))
    lower, upper = (
        None if b is None else f"{float(b.min() if isinstance(b, Tensor) else b):g}" for b in bounds
    )
    if lower is not None and upper is not None:
        return f"{whole} from {lower} to {upper}"
    if lower is not None:
        strict = isinstance(cell, constraints.greater_than)
        return f"{whole} {'greater than' if strict else 'of at least'} {lower}"
    return WORDS.get(_name(cell), _name(cell))


def transform(constraint: constraints.Constraint) -> Transform:
    """From the real line into the constraint; softplus, not exp, for positive parameters."""
    base = support_of_cell(constraint)
    if base is constraints.real:
        return identity_transform
    if isinstance(base, constraints.greater_than | constraints.greater_than_eq):
        if base.lower_bound == 0:
            return Positive()
        return ComposeTransform([Positive(), AffineTransform(base.lower_bound, 1.0)])
    if base is constraints.lower_cholesky:
        return PositiveCholesky()
    if base is constraints.ordered_vector:
        return Ordered()
    try:
        return transform_to(constraint)
    except NotImplementedError:
        message = f"no parameter can be learned under the constraint {constraint}"
        raise ValueError(message) from None


def _name(constraint: constraints.Constraint) -> str:
    return type(constraint).__name__.strip("_").lower()
