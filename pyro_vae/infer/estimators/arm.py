"""Gradients for Bernoulli latents from antithetic pairs of configurations: ARM and DisARM.

One uniform variable per bit gives both configurations of all bits. The model's gradient is the mean
over the pair.
"""

from typing import Any, Unpack

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor

from ...core.slight import not_slight
from .bounds import Bound, renyi
from .logits import LogitELBO, Scored, spread
from .multisample import Plates, Run
from .relaxed import Bits, Kind
from .weights import log_weights, replace_each, widen

__all__ = ["ARM", "DisARM", "DisARMIWAE", "antithetic_pair", "difference", "odd_part"]


def antithetic_pair(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Both configurations of all bits, and the uniform variable of each bit that gives them."""
    u = torch.rand_like(logits)
    pair = u > (-logits).sigmoid(), u < logits.sigmoid()
    return torch.stack([bits.to(logits.dtype) for bits in pair]), u


class OfPairs(LogitELBO):
    """What is estimated from an antithetic pair of configurations."""

    kinds = (Bits,)
    draws = 2

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
        return antithetic_pair(logits)


class ARM(OfPairs):
    r"""The ELBO by Augment-REINFORCE-Merge (ARM), for Bernoulli latents.

    .. math:: \nabla_{\phi_i} L = E_{u}\left[\left(f(b) - f(b')\right)
        \left(u_i - \tfrac{1}{2}\right)\right],
        \quad b_i = 1[u_i > \sigma(-\phi_i)],\; b'_i = 1[u_i < \sigma(\phi_i)]

    with logits :math:`\phi`, uniform u and :math:`f = \log p(x, z) - \log q(z)`. Unbiased, for
    guides whose sites are all Bernoulli and do not depend on each other; two evaluations a
    particle.

    Args:
        num_particles: the number of antithetic pairs.

    Raises:
        ValueError: in a step, a site that is not Bernoulli.

    References:
        Yin & Zhou (2019), arXiv:1807.11143.
    """

    note = "unbiased; two evaluations a particle, an antithetic pair"

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        return [difference(cost, one.site) * (one.about - 0.5) for one in sites]


class DisARM(OfPairs):
    r"""The ELBO by DisARM, which is ARM with the uniforms integrated out, for Bernoulli latents.

    .. math:: \nabla_{\phi_i} L = E_{b, b'}\left[\tfrac{1}{2} \left(f(b) - f(b')\right)
        (b_i - b'_i)\, \sigma(|\phi_i|)\right]

    with logits :math:`\phi`, an antithetic pair :math:`b, b'` as in :class:`ARM`, and
    :math:`f = \log p(x, z) - \log q(z)`. Also found as the unbiased uniform gradient (U2G).
    Unbiased, its variance never above ARM's, for guides whose sites are all Bernoulli and do not
    depend on each other; two evaluations a particle.

    Args:
        num_particles: the number of antithetic pairs.

    Raises:
        ValueError: in a step, a site that is not Bernoulli.

    References:
        Dong, Mnih & Tucker (2020), arXiv:2006.10680; Yin et al. (2020), arXiv:2006.06448.
    """

    note = "unbiased; two evaluations a particle, an antithetic pair; never worse than ARM"

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        return [difference(cost, one.site) * odd_part(one) for one in sites]


class DisARMIWAE(OfPairs):
    r"""The importance-weighted bound by DisARM: one antithetic pair for each of K particles.

    .. math:: \nabla_{\phi_i} L_K \approx \sum_{k=1}^K \left[\tfrac{1}{2}
        \left(\hat L(b_1, \dots, b_k, \dots, b_K) - \hat L(b_1, \dots, b'_k, \dots, b_K)\right)
        (b_{ki} - b'_{ki})\, \sigma(|\phi_i|)
        - \left(\tilde w_k - \tfrac{1}{K}\right) \nabla_{\phi_i} \log q_\phi(b_k)\right]

    with :math:`\hat L = \log \frac{1}{K} \sum_k w_k`, its normalized weights :math:`\tilde w`, and
    pairs as in :class:`DisARM`, the estimate's mean over both roles of b and b', which costs no
    evaluation more and is not in the paper, nor is 1/K, which stands for a mean of zero. With one
    particle it is :class:`DisARM`. Unbiased for the bound, for guides whose sites are all Bernoulli
    and do not depend on each other; two evaluations a particle.

    Args:
        num_particles: K.

    Raises:
        ValueError: in a step, a site that is not Bernoulli, or sites of different scale.

    References:
        Dong, Mnih & Tucker (2020), arXiv:2006.10680, section 5.
    """

    note = (
        "importance-weighted bound, unbiased for it; two evaluations a particle, an antithetic pair"
    )
    weighted = False

    def __init__(self, num_particles: int = 2, **plates: Unpack[Plates]) -> None:
        super().__init__(num_particles, **plates)

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return renyi(0.0, self.num_particles)

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        log_p, log_q, scale, _, lead = log_weights(self, run)
        k = self.num_particles
        lead = lead if k == 1 else lead.movedim(1, 0)
        bound = self.bound(lead)  # of b and of b'
        other = self.bound(replace_each(lead, lead.flip(1)))
        gained = bound - other  # by each particle's own configuration
        signal = scale * (gained[:, 0] - gained[:, 1]) / 2
        weights = not_slight(lead.softmax(0))
        weights = weights[0] if k == 1 else weights.movedim(0, 1)
        sites = self._scored(run)
        gradients = [widen(signal, one.site) * odd_part(one) for one in sites]
        explicit = (scale * (weights * log_p - (weights - 1 / k) * log_q)).sum() / 2
        return (scale * bound).sum() / 2, explicit + self._surrogate(gradients, sites)


def difference(cost: MultiFrameTensor, site: Any, other: int = 1) -> Tensor:  # noqa: ANN401
    """The cost of the first configuration less that of another, for a site's draws."""
    costs = spread(cost, site).detach()
    return costs[0] - costs[other]


def odd_part(one: Scored) -> Tensor:
    """What times f(b) - f(b') is DisARM's gradient in the logits, for every bit."""
    first, second = one.site["value"][:2]
    return (first - second) * one.logits.detach().abs().sigmoid() / 2
