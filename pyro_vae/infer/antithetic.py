"""Gradients for Bernoulli latents from antithetic pairs of configurations: ARM and DisARM."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .handlers import latent
from .multisample import MultiSampleELBO, log_weight, own, samples, total

__all__ = ["ARM", "Antithetic", "DisARM", "bernoulli_logits"]


class Antithetic(MultiSampleELBO):
    """The ELBO for guides of Bernoulli sites, every particle an antithetic pair of configurations.

    One uniform per bit gives both configurations of all bits, and both are evaluated in one
    vectorized pass, in a plate of size 2 outside all others. The model's gradient is the mean over
    the pair. Two evaluations a particle.
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        nesting = self.max_plate_nesting + 1
        pair = {"name": "antithetic_pair", "size": 2, "dim": -int(nesting)}
        guide = Pair()(pyro.plate(**pair)(guide))
        return self._traced(pyro.plate(**pair)(model), guide, args, kwargs, nesting)

    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        cost = log_weight(model_trace, guide_trace)
        surrogate: Any = sum(site["log_prob"].sum() for site in samples(model_trace)) / 2
        for site in samples(guide_trace):
            if latent(site):
                f = own(cost, site)
                difference = (f[0] - f[1]).reshape(f.shape[1:] + (1,) * site["fn"].event_dim)
                logits = site["infer"]["logits"]
                surrogate = surrogate + (difference * self._slope(site, logits) * logits).sum()
        return total(cost) / (2 * self.num_particles), surrogate / self.num_particles

    @abstractmethod
    def _slope(self, site: Any, logits: Tensor) -> Tensor:  # noqa: ANN401
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

    def _slope(self, site: Any, logits: Tensor) -> Tensor:  # noqa: ANN401
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

    def _slope(self, site: Any, logits: Tensor) -> Tensor:  # noqa: ANN401
        first, second = site["value"]
        return (first - second) * logits.detach().abs().sigmoid() / 2


class Pair(Messenger):
    """Draw both configurations of a Bernoulli site from one uniform per bit.

    It stands outside all plates, so that the site has its full shape, the pair's 2 in front.
    """

    def _pyro_sample(self, msg: dict) -> None:
        if not latent(msg) or msg["value"] is not None:
            return
        logits = bernoulli_logits(msg["fn"])
        if logits is None:
            raise ValueError(
                f"antithetic pairs of bits need Bernoulli sites, which {msg['name']!r} is not: "
                "use RLOO"
            )
        if is_validation_enabled() and not torch.equal(logits[0], logits[1]):
            raise ValueError(
                f"the logits of site {msg['name']!r} depend on an earlier site's draw, and the "
                "pair needs the same for both configurations: use RLOO"
            )
        u = torch.rand_like(logits[0])
        bits = torch.stack([u > (-logits[0]).sigmoid(), u < logits[0].sigmoid()])
        msg["value"] = bits.to(logits.dtype)
        msg["infer"] = {**msg["infer"], "uniform": u, "logits": logits[0]}


def bernoulli_logits(distribution: torch.distributions.Distribution) -> Tensor | None:
    """The logits of a Bernoulli under ``Independent``; ``None`` for any other distribution."""
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    return distribution.logits if isinstance(distribution, torch.distributions.Bernoulli) else None
