"""Mixtures; those of normals are made for many components."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..core.slight import in_doubles, logsumexp
from .joined import OfParts
from .multivariate_mixture import MultivariateNormalMixture, follow, solve_by, weights_before
from .same_family import MixtureSameFamily
from .sphere import VonMisesMixture

__all__ = ["NormalMixture", "SideBySide", "mixture"]

LOG_2PI = math.log(2 * math.pi)
BLOCK = 32  # coordinates whose slopes are one matrix

Size = Sequence[int]


class NormalMixture(dist.TorchDistribution):
    r"""A mixture of normals of independent coordinates, made for many components.

    .. math:: p(z) = \sum_k \pi_k \prod_d N(z_d; m_{kd}, s_{kd}^2)

    Components without a batch dimension stay so when the distribution is expanded, and then the
    log densities are two matrix products: :math:`(z - m)^2 / s^2` multiplied out, in doubles,
    since the squares of narrow components far from 0 cancel. Draws are reparameterized.

    Args:
        logits: of the components, ``(*batch, K)``.
        loc: ``(*batch, K, *event)``.
        scale: as ``loc``.
        event_dim: how many dimensions one draw has.

    >>> p = NormalMixture(torch.zeros(500), torch.randn(500, 40), torch.ones(500, 40))
    >>> p.expand([100]).log_prob(torch.zeros(100, 40)).shape
    torch.Size([100])
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, *, event_dim: int = 1) -> None:
        self.logits = logits.log_softmax(-1)
        self.loc, self.scale = _flatten(loc, event_dim), _flatten(scale, event_dim)
        batch = torch.broadcast_shapes(logits.shape[:-1], self.loc.shape[:-2])
        super().__init__(batch, loc.shape[loc.ndim - event_dim :], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All arrays of the event's shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> "NormalMixture":
        """The same for a larger batch; the components are shared, not copied."""
        new = object.__new__(type(self))
        new.logits, new.loc, new.scale = self.logits, self.loc, self.scale
        dist.TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    @property
    def mean(self) -> Tensor:
        """The components' means, weighted."""
        mean = (self.logits.exp().unsqueeze(-1) * self.loc).sum(-2)
        return mean.reshape(mean.shape[:-1] + self.event_shape).expand(self._extended_shape())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, by logsumexp over the components."""
        z = _flatten(value, len(self.event_shape))
        log = self.logits - self.scale.log().sum(-1)
        if self.loc.ndim == 2:
            log = log - _squares(z, self.loc, self.scale).to(log) / 2
        else:
            log = log - ((z.unsqueeze(-2) - self.loc) / self.scale).square().sum(-1) / 2
        log_prob = logsumexp(log) - z.shape[-1] * LOG_2PI / 2
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, with a path to all parameters: that of :class:`MultivariateNormalMixture`."""
        z = self.sample(torch.Size(sample_shape))
        logits, loc, scale = map(in_doubles, (self.logits, self.loc, self.scale))
        e = (_flatten(z, len(self.event_shape)).double().unsqueeze(-2) - loc) / scale
        weights = weights_before(logits, e, scale)
        with torch.no_grad():
            pulls, shares = -e / scale, weights * torch.special.ndtr(e)
            own = shares - shares.sum(-2, keepdim=True) * weights
            density = (weights * (-e.square() / 2).exp() / scale).sum(-2) / (2 * math.pi) ** 0.5

        def solve(moved: Tensor) -> Tensor:
            """By blocks, since the slopes of F below its diagonal are a product of rank K."""
            before, steps = moved.new_zeros(pulls.shape[-2]), []
            for start in range(0, moved.shape[-1], BLOCK):
                at = (..., slice(start, start + BLOCK))
                slopes = (own[at].mT @ pulls[at]).tril(-1) + torch.diag_embed(density[at])
                rest = moved[at] - (own[at] * before[..., None]).sum(-2)
                steps.append(solve_by(slopes, rest))
                before = before + (pulls[at] * steps[-1][..., None, :]).sum(-1)
            return torch.cat(steps, -1)

        return follow(z, weights, e, solve)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: a component, then a point of it."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            lead = shape[: len(shape) - len(self.event_shape)]
            logits = self.logits.expand(*lead, self.logits.shape[-1])
            which = dist.Categorical(logits=logits).sample()
            if self.loc.ndim == 2:
                loc, scale = self.loc[which], self.scale[which]
            else:
                index = which[..., None, None]
                loc, scale = (
                    v.expand(*lead, *v.shape[-2:]).take_along_dim(index, -2).squeeze(-2)
                    for v in (self.loc, self.scale)
                )
            return (loc + scale * torch.randn_like(loc)).reshape(shape)


class SideBySide(OfParts):
    """Distributions of one event shape, whatever they are, in the last batch dimension.

    Args:
        parts: of the batch shape that is left.
    """

    def __init__(self, parts: Sequence[dist.TorchDistribution]) -> None:
        batch = torch.broadcast_shapes(*(p.batch_shape for p in parts))
        self.dim = -1 - len(parts[0].event_shape)
        super().__init__(parts, (*batch, len(parts)), parts[0].event_shape)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the first."""
        return self.parts[0].support

    def expand(self, batch_shape: Size, _instance: object = None) -> "SideBySide":
        """Each for a larger batch."""
        return SideBySide([p.expand(torch.Size(batch_shape)[:-1]) for p in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each, at its own value or at one for all."""
        values = value.expand(*value.shape[: self.dim], len(self.parts), *self.event_shape)
        values = values.unbind(self.dim)
        return torch.stack([p.log_prob(v) for p, v in zip(self.parts, values, strict=True)], -1)

    def gather(self, of: Callable[[dist.TorchDistribution], Tensor]) -> Tensor:
        """What holds of each, in the last batch dimension."""
        return torch.stack([of(p) for p in self.parts], self.dim)


def _flatten(value: Tensor, event_dim: int) -> Tensor:
    """The event's dimensions as one, of length 1 where there are none."""
    return value.flatten(-event_dim) if event_dim else value.unsqueeze(-1)


def _squares(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """The sum over D of ((z - loc) / scale)^2, ``(..., K)`` of ``(..., D)`` and ``(K, D)``."""
    centre = loc.detach().double().mean(0)
    z, loc, precision = z.double() - centre, loc.double() - centre, scale.double() ** -2
    weighted = loc * precision
    products = z.square() @ precision.T - 2 * z @ weighted.T
    return products + (loc * weighted).sum(-1)


def mixture(
    weights: dist.TorchDistribution, components: dist.TorchDistribution
) -> dist.TorchDistribution:
    """The mixture of the last batch dimension of ``components``.

    Args:
        weights: a ``Categorical``, of batch shape ``(*batch,)``.
        components: of batch shape ``(*batch, K)``; one of the two may be the same for all of it.
    """
    batch = torch.broadcast_shapes(weights.batch_shape, components.batch_shape[:-1])
    if weights.batch_shape != batch:
        weights = weights.expand(batch)
    if components.batch_shape[:-1] != batch:
        components = components.expand(torch.Size((*batch, *components.batch_shape[-1:])))
    base: Any = components
    while isinstance(base, dist.Independent):
        base = base.base_dist
    logits = weights.logits  # pyrefly: ignore[missing-attribute]
    if isinstance(base, dist.Normal):
        return NormalMixture(logits, base.loc, base.scale, event_dim=components.event_dim)
    joint = isinstance(base, dist.MultivariateNormal | dist.LowRankMultivariateNormal)
    angles = VonMisesMixture if isinstance(base, dist.VonMises) else MixtureSameFamily
    kind = MultivariateNormalMixture if joint else angles
    return kind(dist.Categorical(logits=logits), components)
