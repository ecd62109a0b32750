"""A spike at one value and another distribution elsewhere."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

from .supports import bound, number_within

__all__ = ["SpikeOr", "WithSpike"]

Size = Sequence[int]


class SpikeOr(constraints.Constraint):
    """One value, or those of a support."""

    def __init__(self, at: float, support: constraints.Constraint) -> None:
        self.member, self.support = at, support  # a value that is in it, and the others
        self.is_discrete = support.is_discrete
        self.lower_bound = min(at, float(torch.as_tensor(bound(support, "lower")).min()))
        self.upper_bound = max(at, float(torch.as_tensor(bound(support, "upper")).max()))

    def check(self, value: Tensor) -> Tensor:
        """Whether each number is one of them."""
        return (value == self.member) | self.support.check(value)


class WithSpike(dist.TorchDistribution):
    r"""A number that is ``at`` with a probability, and else drawn from a distribution.

    .. math:: p(x) = \pi\,\delta_{at}(x) + (1 - \pi)\, f(x)

    The density is with respect to the distribution's own measure plus a unit mass at the spike,
    where f is not looked at: zeros of a hurdle model come from the spike alone.

    Args:
        logits: of the spike, ``(...)``.
        base: f, of event shape ``()``.
        at: where the spike is.

    References:
        Cragg (1971), Econometrica 39; Mullahy (1986), Journal of Econometrics 33.

    >>> p = WithSpike(torch.tensor(0.0), dist.LogNormal(0.0, 1.0))
    >>> p.log_prob(torch.tensor([0.0, 1.0]))
    tensor([-0.6931, -1.6121])
    """

    arg_constraints = {}

    def __init__(self, logits: Tensor, base: dist.TorchDistribution, at: float = 0.0) -> None:
        self.base, self.at = base, at
        batch = torch.broadcast_shapes(logits.shape, base.batch_shape)
        self.logits = logits.expand(batch)
        super().__init__(batch, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """The spike, or the support of the distribution."""
        base: Any = self.base.support
        return SpikeOr(self.at, base)

    @property
    def mean(self) -> Tensor:
        """Of the spike and the distribution together."""
        share = self.logits.sigmoid()
        return share * self.at + (1 - share) * self.base.mean

    @property
    def variance(self) -> Tensor:
        """Of the spike and the distribution together."""
        share, mean = self.logits.sigmoid(), self.base.mean
        apart = (mean - self.at).square()
        return (1 - share) * (self.base.variance + share * apart)

    def expand(self, batch_shape: Size, _instance: object = None) -> "WithSpike":
        """The same, expanded."""
        shape = torch.Size(batch_shape)
        return WithSpike(self.logits.expand(shape), self.base.expand(shape), self.at)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: the spike exactly, among others."""
        with torch.no_grad():
            draw = self.base.expand(self.batch_shape).sample(torch.Size(sample_shape))
            spike = torch.rand(draw.shape, device=draw.device) < self.logits.sigmoid()
            return torch.where(spike, torch.as_tensor(self.at).to(draw), draw)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability of the spike, the log density elsewhere."""
        spike = value == self.at
        # so that no infinite density reaches a gradient
        inside = torch.where(spike, number_within(self.base.support).to(value), value)
        rest = logsigmoid(-self.logits) + self.base.log_prob(inside)
        return torch.where(spike, logsigmoid(self.logits), rest)
