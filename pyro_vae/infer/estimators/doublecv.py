"""RLOO with double control variates, from the slopes at the other draws: DoubleCV."""

from typing import Any, Unpack

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor, nn

from ...core.checks import number
from .learner import Learner, learned
from .logits import LogitELBO, Scored, linear_part, pull, spread
from .multisample import Plates, total
from .relaxed import Kind

__all__ = ["DoubleCV"]


class DoubleCV(LogitELBO):
    r"""The ELBO by RLOO with double control variates, made of the slopes at the other draws.

    .. math:: \nabla_\phi L \approx \frac{1}{K} \sum_{k=1}^K \left[
        \left(h_k - \frac{1}{K - 1} \sum_{j \ne k} h_j\right) \nabla_\phi \log q_\phi(b_k)
        + \alpha\, \bar f_k'^\top \nabla_\phi \mu\right], \quad
        h_k = f(b_k) - \alpha\, \bar f_k'^\top (b_k - \mu)

    with :math:`f = \log p(x, z) - \log q(z)`, :math:`\bar f_k'` the mean of :math:`f'(b_j)` over
    the other draws and :math:`\mu = E_q[b]`. The slopes cost a backward pass and no evaluation. At
    alpha = 0, where it starts, it is :class:`RLOO`. Unbiased, for guides whose sites are Bernoulli
    or one-hot and do not depend on each other; one evaluation a particle.

    Args:
        num_particles: K, at least 2.
        alpha: learned where it is not given.

    Raises:
        ValueError: fewer than 2 particles; in a step, a site that is neither Bernoulli nor one-hot.

    References:
        Titsias & Shi (2022), arXiv:2111.05300.
    """

    least = 2
    values = 0
    draws = None
    note = (
        "unbiased; leave-one-out baseline and slopes at the other draws; one evaluation a particle"
    )

    def __init__(
        self, num_particles: int = 2, alpha: float | None = None, **plates: Unpack[Plates]
    ) -> None:
        super().__init__(num_particles, **plates)
        self.alpha = None if alpha is None else number("alpha", alpha)
        self.learner = Learner("DoubleCV", self._start)

    def _start(self, sites: list[Any], args: tuple) -> nn.Module:
        return nn.ParameterDict({"alpha": learned(self.alpha, 0.0)})

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, None]:
        return kind.hard(logits + kind.noise(logits)).requires_grad_(), None

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        k, alpha = self.num_particles, self.control["alpha"]
        draws = [one.site["value"] for one in sites]
        slopes = torch.autograd.grad(total(cost), draws, retain_graph=True)
        others = [(slope.sum(0) - slope) / (k - 1) for slope in slopes]
        scores = [draw.detach() - one.mean for draw, one in zip(draws, sites, strict=True)]
        gradients = []
        for one, other, score in zip(sites, others, scores, strict=True):
            expanded = linear_part(others, scores, sites, one.site)
            h = spread(cost, one.site).detach() - alpha * expanded
            rest = (h - h.mean(0)) * (k / (k - 1))
            gradient = rest * score + alpha * pull(other, one.mean, one.kind)
            gradients.append(gradient.mean(0))
        return gradients
