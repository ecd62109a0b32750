"""Levels by the density of the numbers between them: dequantization."""

import math
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..core.slight import logsumexp

__all__ = ["DequantizedLevels"]


class DequantizedLevels(dist.TorchDistribution):
    r"""Levels 0, 1, ..., L - 1, each the integral of a density over its part of [0, 1].

    .. math:: P(x) = \int_0^1 \frac1L\, p\Big(\frac{x + u}{L}\Big)\, du \approx
        \frac1K \sum_{k=1}^K \frac{p((x + u_k) / L)}{L\, q(u_k \mid x)}, \quad
        u_k \sim q(u \mid x)

    The estimate is unbiased, so its logarithm is on average a lower bound of log P(x), which K
    draws make tighter. What the density has outside of [0, 1] is lost: the P(x) sum to at most 1.

    Args:
        base: p, of single numbers.
        levels: L.
        samples: K.
        noise: from levels to q(u|x), of their shape and differentiable in its draws; by default u
            is uniform on [0, 1].

    References:
        Theis, van den Oord & Bethge (2016), arXiv:1511.01844; Ho et al. (2019), arXiv:1902.00275,
        for q; Hoogeboom, Cohen & Tomczak (2020), arXiv:2001.11235, for more draws.

    >>> p = DequantizedLevels(dist.Beta(1.0, 1.0), levels=256)
    >>> p.log_prob(torch.tensor(3.0)).exp() * 256
    tensor(1.)
    """

    arg_constraints = {}

    def __init__(
        self,
        base: dist.TorchDistribution,
        levels: int,
        samples: int = 1,
        noise: Callable[[Tensor], dist.TorchDistribution] | None = None,
    ) -> None:
        self.base, self.levels, self.samples, self.noise = base, levels, samples, noise
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The mean, as if the density were even between two levels."""
        return (self.levels * self.base.mean - 0.5).clamp(0, self.levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "DequantizedLevels":
        """The same, expanded."""
        base = self.base.expand(torch.Size(batch_shape))
        return DequantizedLevels(base, self.levels, self.samples, self.noise)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of the density, brought to the level beneath it."""
        draws = self.base.sample(torch.Size(sample_shape)) * self.levels
        return draws.floor().clamp(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the estimate of P(x), with noise of its own at every call."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        if self.noise is None:
            u, log_q = torch.rand_like(value.expand(self.samples, *shape)), 0.0
        else:
            q = self.noise(value).expand(shape)
            u = q.rsample(torch.Size([self.samples]))
            log_q = q.log_prob(u)
        eps = torch.finfo(u.dtype).eps
        y = ((value + u) / self.levels).clamp(eps, 1 - eps)
        log = logsumexp(self.base.log_prob(y) - log_q, 0)
        return log - math.log(self.samples * self.levels)
