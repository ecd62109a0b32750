"""RLOO with control variates of discrete Stein operators, of functions that are learned: RODEO."""

from typing import Any, Unpack

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor, nn

from ...core.checks import whole
from .learner import Learner
from .logits import LogitELBO, Scored, linear_part, spread
from .multisample import Plates, total
from .relaxed import Bits, Kind

__all__ = ["RODEO"]


class RODEO(LogitELBO):
    r"""The ELBO by RLOO with discrete Stein operators (RODEO), for Bernoulli latents.

    .. math:: \nabla_\phi L \approx \frac{1}{K} \sum_{k=1}^K \left[
        \left(f(b_k) - \frac{1}{K - 1} \sum_{j \ne k} \left(f(b_j) + (A h_j)(b_j)\right)\right)
        s(b_k) + (A\, \tilde h_k s)(b_k) \right], \quad
        (A h)(b) = \sum_i q(\bar b_i) \left(h(b^{(i)}) - h(b)\right)

    with :math:`f = \log p(x, z) - \log q(z)`, the score s in the logits, and :math:`b^{(i)}`, which
    is b with its i-th bit turned to :math:`\bar b_i`. A is the generator of Gibbs sampling, so that
    :math:`A h` has mean zero under q for every h. Those of a particle are learned functions of the
    cost and the slope at the other draws,

    .. math:: h_k(b) = c\, t + r(t, u), \quad
        t = \frac{1}{K - 1} \sum_{j \ne k} f'(b_j)^\top (b - b_j), \quad
        u = \frac{1}{K - 1} \sum_{j \ne k} f(b_j)

    with a network r of one hidden layer that reads both on a logarithmic scale; the bits of a site
    are turned by themselves. It takes no evaluation of f more, and a backward pass. It starts at
    zero, as :class:`RLOO`. Unbiased whatever it has learned, for guides whose sites are all
    Bernoulli and do not depend on each other; one evaluation a particle.

    Args:
        num_particles: K, at least 2.
        hidden: units of the network's hidden layer.

    Raises:
        ValueError: fewer than 2 particles, or units that are no whole number; in a step, a site
            that is not Bernoulli.

    References:
        Shi, Zhou, Hwang, Titsias & Mackey (2022), arXiv:2202.09497.
    """

    least = 2
    values = 0
    draws = None
    kinds = (Bits,)
    note = (
        "unbiased; leave-one-out baseline and learned Stein control variates; one evaluation a "
        "particle"
    )

    def __init__(self, num_particles: int = 2, hidden: int = 100, **plates: Unpack[Plates]) -> None:
        super().__init__(num_particles, **plates)
        self.hidden = whole("hidden", hidden)
        self.learner = Learner("RODEO", self._start)

    def _start(self, sites: list[Any], args: tuple) -> nn.Module:
        return Surrogates(self.hidden)

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, None]:
        return kind.hard(logits + kind.noise(logits)).requires_grad_(), None

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        draws = [one.site["value"] for one in sites]
        slopes = torch.autograd.grad(total(cost), draws, retain_graph=True)
        steps = [
            loo(slope) * b.detach() - loo(slope * b.detach())
            for slope, b in zip(slopes, draws, strict=True)
        ]
        gradients = []
        for one, slope in zip(sites, slopes, strict=True):
            f = spread(cost, one.site).detach()
            t = linear_part([1.0] * len(sites), steps, sites, one.site)
            gradients.append(self._gradient(one, f, t, loo(slope)).mean(0))
        return gradients

    def _gradient(self, one: Scored, f: Tensor, t: Tensor, slope: Tensor) -> Tensor:
        b, mean, n = one.site["value"].detach(), one.mean, one.site["fn"].event_dim
        turned = b + mean - 2 * b * mean  # the probability of the other value
        u = loo(f)
        (here, here_s), (there, there_s) = (
            self.control(at, u) for at in (t, t + slope * (1 - 2 * b))
        )
        score = b - mean
        moved = turned * (there_s - here_s)
        own = turned * (there_s * (1 - b - mean) - here_s * score)
        through_score = score * (over_bits(moved, n) - moved) + own
        baseline = loo(f + over_bits(turned * (there - here), n))
        return (f - baseline) * score + through_score


class Surrogates(nn.Module):
    """The two functions h, of the baseline and of the score's weight; they start at zero."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.zeros(2))
        self.first, self.last = nn.Linear(2, hidden), nn.Linear(hidden, 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Both at the linear expansion ``t`` and the other draws' cost ``u``, which broadcast."""
        seen = torch.stack(torch.broadcast_tensors(t, u), -1).asinh()
        h = self.c * t[..., None] + self.last(self.first(seen).tanh())
        return h[..., 0], h[..., 1]


def loo(value: Tensor) -> Tensor:
    """The mean over the other particles, for each."""
    return (value.sum(0) - value) / (len(value) - 1)


def over_bits(value: Tensor, n: int) -> Tensor:
    """The sum over the bits of a site, whose last n dimensions they are."""
    return value.sum(tuple(range(-n, 0)), keepdim=True) if n else value
