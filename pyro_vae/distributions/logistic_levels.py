"""Whole numbers from 0 to an upper bound, by logistic densities cut into levels."""

from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from ..core.slight import logsumexp

__all__ = ["CoupledLogisticLevels", "LogisticLevels"]

Size = Sequence[int]
BEYOND = 1e10  # all levels, so that nothing of a logistic lies there


class LogisticLevels(dist.TorchDistribution):
    r"""Levels 0, 1, ..., L - 1 of a cell, by a mixture of logistic densities cut into levels.

    .. math:: P(x) = \sum_k \pi_k
        \left[\sigma\Big(\frac{x + \frac12 - m_k}{s_k}\Big)
            - \sigma\Big(\frac{x - \frac12 - m_k}{s_k}\Big)\right]

    where the lowest level has all mass below it too, and the highest all above it.

    Args:
        logits: of the components, ``(*batch, K)``.
        loc: m, ``(*batch, K)``, counted in levels.
        scale: s, ``(*batch, K)``, counted in levels.
        levels: L.

    References:
        Salimans, Karpathy, Chen & Kingma (2017), PixelCNN++, arXiv:1701.05517.

    >>> p = LogisticLevels(torch.zeros(1), torch.tensor([9.0]), torch.tensor([2.0]), levels=256)
    >>> p.log_prob(torch.arange(256.0)).exp().sum().round(decimals=5)
    tensor(1.)
    """

    arg_constraints = {}

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, levels: int) -> None:
        self.logits = logits - logits.logsumexp(-1, keepdim=True)
        self.loc, self.scale, self.levels = loc, scale, levels
        batch = torch.broadcast_shapes(logits.shape, loc.shape, scale.shape)[:-1]
        super().__init__(batch, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Size, _instance: object = None) -> "LogisticLevels":
        """The same, expanded."""
        shape = (*batch_shape, self.logits.shape[-1])
        logits, loc, scale = (v.expand(shape) for v in (self.logits, self.loc, self.scale))
        return LogisticLevels(logits, loc, scale, self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability."""
        log = _log_levels(value.unsqueeze(-1), self.loc, self.scale, self.levels)
        return logsumexp(self.logits + log)

    @torch.no_grad()
    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw."""
        shape = (*self._extended_shape(torch.Size(sample_shape)), self.logits.shape[-1])
        chosen = _choose(self.logits.expand(shape))
        loc, scale = ((chosen * v).sum(-1) for v in (self.loc, self.scale))
        return _draw_levels(loc, scale, self.levels)

    @property
    def mean(self) -> Tensor:
        """The mean, :math:`\\sum_j P(x \\ge j)`."""
        return sum((self._at_least(j) for j in range(1, self.levels)), self.loc.new_zeros(()))

    @property
    def variance(self) -> Tensor:
        """The variance."""
        logits, loc, scale = (v.double() for v in (self.logits, self.loc, self.scale))
        wide = LogisticLevels(logits, loc, scale, self.levels)  # single precision may go below 0
        terms = ((2 * j - 1) * wide._at_least(j) for j in range(1, self.levels))
        return (sum(terms, wide.loc.new_zeros(())) - wide.mean.square()).to(self.loc)

    def _at_least(self, level: int) -> Tensor:
        above = torch.sigmoid((self.loc - (level - 0.5)) / self.scale)
        return (self.logits.exp() * above).sum(-1)


class CoupledLogisticLevels(dist.TorchDistribution):
    r"""Levels of all channels at once: a channel's location moves with those before it.

    .. math:: P(x) = \prod_{\text{places}} \sum_k \pi_k \prod_c P(x_c \mid
        m_{kc} + \sum_{d < c} a_{kcd}\,(x_d - \bar x), s_{kc})

    where :math:`\bar x` is the middle of the levels. A place, such as a pixel, has one component
    for all its channels, so that the colours of a pixel hang together.

    Args:
        logits: of the components, ``(*batch, *places, K)``.
        loc: m, ``(*batch, C, *places, K)``, counted in levels.
        scale: s, as ``loc``.
        coefficients: a, ``(*batch, C (C - 1) / 2, *places, K)``, those of channel 1 first.
        levels: L.
        places: how many dimensions the places have.

    References:
        Salimans, Karpathy, Chen & Kingma (2017), PixelCNN++, arXiv:1701.05517.

    >>> loc, scale = torch.rand(2, 4, 1), torch.ones(2, 4, 1)
    >>> p = CoupledLogisticLevels(torch.zeros(4, 1), loc, scale, torch.ones(1, 4, 1), levels=8)
    >>> p.event_shape, p.sample().shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    arg_constraints = {}

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        coefficients: Tensor,
        levels: int,
        places: int = 1,
    ) -> None:
        self.logits = logits - logits.logsumexp(-1, keepdim=True)
        self.loc, self.scale, self.coefficients = loc, scale, coefficients
        self.levels, self.places = levels, places
        shape = torch.broadcast_shapes(loc.shape, scale.shape)[:-1]
        cut = len(shape) - places - 1
        super().__init__(shape[:cut], shape[cut:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The levels, in every channel and place."""
        cell = constraints.integer_interval(0, self.levels - 1)
        return constraints.independent(cell, self.places + 1)

    def expand(self, batch_shape: Size, _instance: object = None) -> "CoupledLogisticLevels":
        """The same, expanded."""
        own = len(self.batch_shape)
        parts = (self.logits, self.loc, self.scale, self.coefficients)
        logits, loc, scale, a = (v.expand(*batch_shape, *v.shape[own:]) for v in parts)
        return CoupledLogisticLevels(logits, loc, scale, a, self.levels, self.places)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability."""
        x, dim = value.unsqueeze(-1), -self.places - 2
        loc = self._walk(self.loc, self.coefficients, dim, lambda c, _: x.select(dim, c))
        log = _log_levels(x, loc, self.scale, self.levels).sum(dim)
        return logsumexp(self.logits + log).sum(tuple(range(-self.places, 0)))

    @torch.no_grad()
    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: a component of each place, then one channel after the other."""
        lead, dim = torch.Size(sample_shape) + self.batch_shape, -self.places - 1
        logits = self.logits.expand(*lead, *self.logits.shape[-1 - self.places :])
        chosen = _choose(logits).unsqueeze(dim - 1)
        loc, scale, a = ((chosen * v).sum(-1) for v in (self.loc, self.scale, self.coefficients))
        drawn: list[Tensor] = []

        def draw(c: int, moved: Tensor) -> Tensor:
            drawn.append(_draw_levels(moved, scale.select(dim, c), self.levels))
            return drawn[-1]

        self._walk(loc, a, dim, draw)
        return torch.stack(drawn, dim)

    @property
    def mean(self) -> Tensor:
        """The mean, with each channel's location moved by the means of those before it.

        That is exact but for what the ends of the levels cut off.
        """
        means: list[Tensor] = []

        def mean(c: int, moved: Tensor) -> Tensor:
            one = moved.unsqueeze(-1), self.scale.select(dim, c).unsqueeze(-1)
            means.append(LogisticLevels(torch.zeros_like(one[0]), *one, self.levels).mean)
            return means[-1]

        dim = -self.places - 2
        self._walk(self.loc, self.coefficients, dim, mean)
        weights = self.logits.exp().unsqueeze(dim)
        return (weights * torch.stack(means, dim)).sum(-1)

    def _walk(
        self, loc: Tensor, a: Tensor, dim: int, visit: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """The locations, each channel's moved by the values that ``visit`` gives of those before.

        Args:
            loc: with the channels along ``dim``.
            a: the coefficients, along ``dim`` too.
            dim: counted from the end.
            visit: from a channel and its location to its value.
        """
        middle, values, moved = (self.levels - 1) / 2, [], []
        coefficients = iter(a.unbind(dim))
        for c, own in enumerate(loc.unbind(dim)):
            for value in values:
                own = own + next(coefficients) * (value - middle)
            moved.append(own)
            values.append(visit(c, own))
        return torch.stack(torch.broadcast_tensors(*moved), dim)


def _log_levels(x: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    r"""The log probability of levels, with all its digits at any scale.

    :math:`\sigma(b) - \sigma(a) = \sigma(b)\,\sigma(-a)\,(1 - e^{a - b})`, whose factors are
    logarithms that neither cancel nor overflow; at an end one of them is 1, and so is the last.
    """
    low, high = x < 0.5, x > levels - 1.5
    from_below = logsigmoid((loc - torch.where(low, -BEYOND, x - 0.5)) / scale)
    from_above = logsigmoid((torch.where(high, BEYOND, x + 0.5) - loc) / scale)
    width = (-torch.expm1(-1 / scale)).log()
    return torch.where(low | high, 0.0, width) + from_below + from_above


def _choose(logits: Tensor) -> Tensor:
    """A component of each, as a one-hot vector, ``(..., K)``."""
    return one_hot(dist.Categorical(logits=logits).sample(), logits.shape[-1]).to(logits)


def _draw_levels(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """A draw of a logistic, brought to the nearest level."""
    noise = torch.rand_like(loc.expand(torch.broadcast_shapes(loc.shape, scale.shape)))
    noise = noise.clamp(torch.finfo(loc.dtype).tiny, 1 - torch.finfo(loc.dtype).eps)
    return (loc + scale * noise.logit()).round().clamp(0, levels - 1)
