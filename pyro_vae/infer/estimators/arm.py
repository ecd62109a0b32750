"""Gradients for Bernoulli latents from antithetic pairs of configurations: ARM and DisARM."""

from abc import abstractmethod
from typing import Any

import torch
from pyro.infer.util import MultiFrameTensor
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..sites import latent, unwrapped
from .importance import ImportanceWeighted, replace_each, widen
from .multisample import samples
from .points import Paired, spread
from .relaxed import Kind

__all__ = ["ARM", "Antithetic", "DisARM", "DisARMIWAE", "bernoulli_logits"]


class Antithetic(Paired):
    """The ELBO for guides of Bernoulli sites, every particle an antithetic pair of configurations.

    One uniform per bit gives both configurations of all bits. The model's gradient is the mean over
    the pair.
    """

    draws = 2

    def _pair(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        u = torch.rand_like(logits)
        bits = torch.stack([u > (-logits).sigmoid(), u < logits.sigmoid()])
        return bits.to(logits.dtype), {"uniform": u}

    def _slopes(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        costs = [spread(cost, site).detach() for site in sites]
        return [(f[0] - f[1]) * self._slope(s) for f, s in zip(costs, sites, strict=True)]

    @abstractmethod
    def _slope(self, site: Any) -> Tensor:  # noqa: ANN401
        """What times f(b) - f(b') estimates the gradient in the logits, for every bit."""


class ARM(Antithetic):
    r"""The ELBO by Augment-REINFORCE-Merge (ARM), for Bernoulli latents.

    .. math:: \nabla_{\phi_i} L = E_{u}\left[\left(f(b) - f(b')\right)
        \left(u_i - \tfrac{1}{2}\right)\right],
        \quad b_i = 1[u_i > \sigma(-\phi_i)],\; b'_i = 1[u_i < \sigma(\phi_i)]

    with logits :math:`\phi`, uniform u and :math:`f = \log p(x, z) - \log q(z)`. Unbiased, for
    guides whose sites are all Bernoulli and do not depend on each other; two evaluations a
    particle.

    Args:
        num_particles: the number of antithetic pairs.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: in a step, a site that is not Bernoulli.

    References:
        Yin & Zhou (2019), arXiv:1807.11143.

    >>> ARM(num_particles=1).num_particles
    1
    """

    def _slope(self, site: Any) -> Tensor:  # noqa: ANN401
        return site["infer"]["uniform"] - 0.5


class DisARM(Antithetic):
    r"""The ELBO by DisARM, which is ARM with the uniforms integrated out, for Bernoulli latents.

    .. math:: \nabla_{\phi_i} L = E_{b, b'}\left[\tfrac{1}{2} \left(f(b) - f(b')\right)
        (b_i - b'_i)\, \sigma(|\phi_i|)\right]

    with logits :math:`\phi`, an antithetic pair :math:`b, b'` as in :class:`ARM`, and
    :math:`f = \log p(x, z) - \log q(z)`. Also found as the unbiased uniform gradient (U2G).
    Unbiased, its variance never above ARM's, for guides whose sites are all Bernoulli and do not
    depend on each other; two evaluations a particle.

    Args:
        num_particles: the number of antithetic pairs.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: in a step, a site that is not Bernoulli.

    References:
        Dong, Mnih & Tucker (2020), arXiv:2006.10680; Yin et al. (2020), arXiv:2006.06448.

    >>> DisARM(num_particles=1).num_particles
    1
    """

    def _slope(self, site: Any) -> Tensor:  # noqa: ANN401
        first, second = site["value"]
        return (first - second) * site["infer"]["logits"].detach().abs().sigmoid() / 2


class DisARMIWAE(DisARM, ImportanceWeighted):
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
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: in a step, a site that is not Bernoulli, or sites of different scale.

    References:
        Dong, Mnih & Tucker (2020), arXiv:2006.10680, section 5.

    >>> DisARMIWAE(num_particles=5).num_particles
    5
    """

    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        log_p, log_q, scale, _ = self._log_weights(model_trace, guide_trace)
        k, log_w = self.num_particles, log_p - log_q
        lead = self._lead(log_w) if k == 1 else log_w.detach().movedim(1, 0)
        bound = self.bound(lead)  # of b and of b'
        other = self.bound(replace_each(lead, lead.flip(1)))
        gained = bound - other  # by each particle's own configuration
        signal = scale * (gained[:, 0] - gained[:, 1]) / 2
        weights = lead.softmax(0)
        weights = weights[0] if k == 1 else weights.movedim(0, 1)
        sites = [site for site in samples(guide_trace) if latent(site)]
        gradients = [widen(signal, site) * self._slope(site) for site in sites]
        explicit = (scale * (weights * log_p - (weights - 1 / k) * log_q)).sum() / 2
        surrogate = explicit + self._surrogate(gradients, sites)
        return (scale * bound).sum() / 2, surrogate


def bernoulli_logits(distribution: torch.distributions.Distribution) -> Tensor | None:
    """The logits of a Bernoulli, one a bit; ``None`` for any other distribution."""
    base = unwrapped(distribution)
    if not isinstance(base, torch.distributions.Bernoulli):
        return None
    return base.logits.expand(distribution.batch_shape + distribution.event_shape)
