"""Families whose draws float32 would round to 0, 1 or infinity, where they have no density.

Each is Pyro's, under Pyro's name, but its draws are made in logarithms and stay inside the support,
and its log density has its digits wherever such a draw lies.
"""

import math
from collections.abc import Sequence
from typing import Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .supports import support_of_cell

__all__ = [
    "Checked",
    "Expanding",
    "InLogarithms",
    "InverseGamma",
    "Kumaraswamy",
    "LogNormal",
    "Pareto",
    "TransformedDistribution",
    "Weibull",
    "finite_exp",
    "inside",
    "log1mexp",
]

Size = Sequence[int]
Bound = float | Tensor | None


class TransformedDistribution(dist.TransformedDistribution):
    """A distribution through transformations, whose draws stay inside the bounds of its support."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw."""
        return self._inside(super().rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw without a path, for which the base need not have one."""
        return self._inside(super().sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density: none where the base has none, if the support does not say it."""
        log = super().log_prob(value)
        if not self._narrowed:
            return log
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return torch.where(self.base_dist.support.check(value), log, -math.inf)

    @property
    def _narrowed(self) -> bool:
        """Whether a transformation is given less than it maps, so that its codomain is too much."""
        try:
            steps = [self.base_dist.support, *(t.codomain for t in self.transforms)]
        except NotImplementedError:  # of a flow
            return False
        pairs = zip(steps, (t.domain for t in self.transforms), strict=False)
        return any(support_of_cell(a) is not support_of_cell(b) for a, b in pairs)

    def _inside(self, value: Tensor) -> Tensor:
        support = support_of_cell(self.support)
        if support is constraints.simplex:
            return inside(value, 0.0, None)
        low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
        return inside(value, low, high)


class Checked:
    """A log density whose values are looked at where arguments are validated."""

    _validate_args: bool

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        if self._validate_args:
            self._validate_sample(value)  # pyrefly: ignore[missing-attribute]
        return self._log_density(value)

    def _log_density(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Expanding:
    """Parameters of one number each, which are expanded as the batch is."""

    arg_constraints: dict
    _validate_args: bool

    def expand(self, batch_shape: Size, _instance: object = None) -> Self:
        """The same, expanded."""
        shape = torch.Size(batch_shape)
        each = {name: getattr(self, name).expand(shape) for name in self.arg_constraints}
        return type(self)(**each, validate_args=self._validate_args)  # pyrefly: ignore[unexpected-keyword]


class InLogarithms(Checked):
    """Draws whose logarithm is made first."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is greater than 0 and finite."""
        return finite_exp(self._log_draw(torch.Size(sample_shape)))

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw without a path."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        raise NotImplementedError


class LogNormal(InLogarithms, dist.LogNormal):
    """Numbers whose logarithm is normal."""

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def _log_density(self, x: Tensor) -> Tensor:
        log = x.log()
        return self.base_dist.log_prob(log) - log


class Weibull(InLogarithms, dist.Weibull):
    r"""Times to failure, :math:`\lambda E^{1/k}` where E is exponential."""

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        wait = self.base_dist.rsample(sample_shape)
        return self.scale.log() + wait.log() / self.concentration

    def _log_density(self, x: Tensor) -> Tensor:
        log = self.concentration * (x.log() - self.scale.log())
        return self.concentration.log() - x.log() + log - log.exp()


class Pareto(InLogarithms, dist.Pareto):
    r"""Numbers from a scale upward, :math:`s\,e^{E/\alpha}` where E is exponential."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is no smaller than the scale, and finite."""
        return torch.maximum(super().rsample(sample_shape), self.scale)

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        return self.scale.log() + self.base_dist.rsample(sample_shape)

    def _log_density(self, x: Tensor) -> Tensor:
        log = self.alpha.log() + self.alpha * (self.scale.log() - x.log()) - x.log()
        return torch.where(x >= self.scale, log, -math.inf)


class InverseGamma(InLogarithms, dist.InverseGamma):
    """Numbers whose reciprocal is gamma distributed."""

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        return -self.base_dist.rsample(sample_shape).log()

    def _log_density(self, x: Tensor) -> Tensor:
        a, rate, log = self.concentration, self.rate, x.log()
        return a * (rate.log() - log) - a.lgamma() - log - rate / x


class Kumaraswamy(InLogarithms, dist.Kumaraswamy):
    r"""Numbers from 0 to 1, :math:`(1 - e^{-E/b})^{1/a}` where E is exponential."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is greater than 0 and less than 1."""
        return inside(super().rsample(sample_shape), None, 1.0)

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        shape = self._extended_shape(sample_shape)
        wait = self.concentration0.new_empty(shape).exponential_()
        return log1mexp(wait / self.concentration0) / self.concentration1

    def _log_density(self, x: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        other = _power(b - 1, log1mexp(-a * x.log()))  # log(1 - x^a)
        return a.log() + b.log() + torch.xlogy(a - 1, x) + other


def inside(value: Tensor, low: Bound, high: Bound) -> Tensor:
    """The closest number of the value's type between two bounds, which are none themselves."""
    of = torch.finfo(value.dtype)
    least, most = (
        torch.as_tensor(end if bound is None else bound).to(value)
        for bound, end in ((low, -of.max), (high, of.max))
    )
    if low is not None:
        least = least + (of.eps * least.abs()).clamp(min=of.tiny)
    if high is not None:
        most = most - (of.eps * most.abs()).clamp(min=of.tiny)
    return torch.minimum(torch.maximum(value, least), most)


def finite_exp(log: Tensor) -> Tensor:
    """The exponential, or the closest number that is greater than 0 and finite, with its digits."""
    of = torch.finfo(log.dtype)
    room = 2 * of.eps * math.log(of.max)
    return log.clamp(math.log(of.tiny) + room, math.log(of.max) - room).exp()


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)), with the digits of either end."""
    small = x < math.log(2)
    first = (-torch.expm1(-x.clamp(max=math.log(2)))).log()
    return torch.where(small, first, torch.log1p(-(-x.clamp(min=math.log(2))).exp()))


def _power(exponent: Tensor, log: Tensor) -> Tensor:
    """The logarithm of a power, 0 of a power 0 of 0; its slope in the exponent is there too."""
    return exponent * torch.where((exponent == 0) & log.isinf(), 0.0, log)
