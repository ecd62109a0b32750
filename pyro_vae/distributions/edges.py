"""Families whose draws float32 would round to 0, 1 or infinity, where they have no density.

Each is Pyro's, under Pyro's name, but its draws are made in logarithms and stay inside the support,
and its log density has its digits wherever such a draw lies.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from .supports import bound, support_of_cell

__all__ = [
    "Beta",
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
    "remembered",
]

Size = Sequence[int]
Bound = float | Tensor | None


class TransformedDistribution(dist.TransformedDistribution):
    """A distribution through transformations, whose draws stay inside the bounds of its support.

    Near a bound such as 1 numbers are so coarse that a rounded draw would lie where a narrow
    density has hardly any, and an ELBO would rise without limit. So the density of the last draw is
    that of the numbers behind it.
    """

    _behind: list[Tensor] | None = None  # the last draw, after the numbers that were transformed

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw."""
        return self._through(self.base_dist.rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw without a path, for which the base need not have one."""
        with torch.no_grad():
            return self._through(self.base_dist.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density: none where the base has none, if the support does not say it."""
        if self._validate_args:
            self._validate_sample(value)
        steps = remembered(value, self._behind, self._back, len(self.event_shape))
        log, event_dim = self.base_dist.log_prob(steps[0]), len(self.base_dist.event_shape)
        for transform, x, y in zip(self.transforms, steps, steps[1:], strict=False):
            inner, outer = transform.domain.event_dim, transform.codomain.event_dim
            log = log - sum_rightmost(transform.log_abs_det_jacobian(x, y), event_dim - inner)
            event_dim += outer - inner
        if not self._narrowed:
            return log
        return torch.where(self.base_dist.support.check(steps[0]), log, -math.inf)

    def _back(self, value: Tensor) -> list[Tensor]:
        """The numbers that became the value, first to last, and the value."""
        steps = [value]
        for transform in reversed(self.transforms):
            steps.insert(0, transform.inv(steps[0]))
        return steps

    def _through(self, x: Tensor) -> Tensor:
        steps = [x]
        for transform in self.transforms:
            steps.append(transform(steps[-1]))
        steps[-1] = self._inside(steps[-1])
        self._behind = steps if any(_is_bounded(t.codomain) for t in self.transforms) else None
        return steps[-1]

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

    _behind: list[Tensor] | None = None  # log(1 - x^a) of the last draw, and the draw

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is greater than 0 and less than 1."""
        shape = self._extended_shape(torch.Size(sample_shape))
        wait = self.concentration0.new_empty(shape).exponential_() / self.concentration0
        drawn = inside(finite_exp(log1mexp(wait) / self.concentration1), None, 1.0)
        self._behind = [-wait.clamp(max=-math.log(torch.finfo(wait.dtype).tiny)), drawn]
        return drawn

    def _log_density(self, x: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        steps = remembered(x, self._behind, lambda x: [log1mexp(-a * x.log()), x])
        return a.log() + b.log() + torch.xlogy(a - 1, x) + _power(b - 1, steps[0])


class Beta(Checked, dist.Beta):
    """Numbers from 0 to 1 whose draws know what they lack of 1."""

    _behind: list[Tensor] | None = None  # log(1 - x) of the last draw, and the draw

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is greater than 0 and less than 1."""
        x, rest = self._dirichlet.rsample(torch.Size(sample_shape)).unbind(-1)
        drawn = inside(x, 0.0, 1.0)
        self._behind = [rest.log(), drawn]
        return drawn

    def _log_density(self, x: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        steps = remembered(x, self._behind, lambda x: [(-x).log1p(), x])
        norm = (a + b).lgamma() - a.lgamma() - b.lgamma()
        return norm + torch.xlogy(a - 1, x) + _power(b - 1, steps[0])


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


def remembered(
    value: Tensor,
    behind: list[Tensor] | None,
    find: Callable[[Tensor], list[Tensor]],
    event_dim: int = 0,
) -> list[Tensor]:
    """The numbers behind a draw: as they were where a value is the draw, else as they are found.

    Args:
        value: where a density is asked for; of size 1 where it is one for several draws.
        behind: the numbers behind the last draw, and the draw; of a copy of it, the path is that of
            the copy.
        find: the same of a value, which rounding may have moved.
        event_dim: of the values.
    """
    if behind is None:
        return find(value)
    drawn = behind[-1]
    has_path = drawn.grad_fn is not None  # without one, slopes are those at a given value
    if value is drawn and (has_path or not torch.is_grad_enabled()):
        return behind
    found = find(value)
    sizes = zip(value.shape, drawn.shape, strict=False)  # a mixture asks all of its components
    if value.ndim != drawn.ndim or any(one not in (1, every) for one, every in sizes):
        return found
    same = value == drawn
    same = same.flatten(same.ndim - event_dim).all(-1) if event_dim else same
    each = []
    for x, own in zip(found, behind, strict=True):
        here = same.reshape(*same.shape, *[1] * (x.ndim - same.ndim))
        each.append(torch.where(here, x + (own - x).detach(), x))
    return each


def _is_bounded(support: Any) -> bool:  # noqa: ANN401
    """Whether numbers have an upper bound."""
    cell = support_of_cell(support)
    return cell is constraints.simplex or bound(cell, "upper") < math.inf


def _power(exponent: Tensor, log: Tensor) -> Tensor:
    """The logarithm of a power, 0 of a power 0 of 0; its slope in the exponent is there too."""
    return exponent * torch.where((exponent == 0) & log.isinf(), 0.0, log)
