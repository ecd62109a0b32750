"""Antithetic draws of more than two: ARMS for Bernoulli latents, CARMS for categorical ones too."""

from typing import Unpack

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor
from torch.nn.functional import one_hot

from .logits import LogitELBO, Scored, spread
from .multisample import Plates
from .relaxed import Bits, Kind, OneHots

__all__ = ["ARMS", "CARMS"]


class ARMS(LogitELBO):
    r"""The ELBO by ARMS: the leave-one-out score function of K draws that avoid each other.

    .. math:: \nabla_{\phi_i} L \approx \frac{1}{K - 1} \sum_{k=1}^K
        \left(f(b_k) - \frac{1}{K} \sum_{j=1}^K f(b_j)\right)
        \frac{b_{ki} - \sigma(\phi_i)}{1 - \rho_i}, \quad f = \log p(x, z) - \log q(z)

    The uniforms that give the K values of a bit have a Dirichlet copula: each is uniform, and any
    two have the correlation :math:`\rho_i \le 0` in the bit, which takes off the mean of the
    others' costs what it knows of this one's. :class:`RLOO` is that of independent draws, and with
    two this is :class:`DisARM`. Unbiased, for guides whose sites are all Bernoulli and do not
    depend on each other; one evaluation a particle.

    Args:
        num_particles: K, at least 2.

    Raises:
        ValueError: fewer than 2 particles; in a step, a site that is not Bernoulli.

    References:
        Dimitriev & Zhou (2021), arXiv:2105.14141.
    """

    least = 2
    values = 0
    draws = None
    kinds: tuple[Kind, ...] = (Bits,)
    note = "unbiased; leave-one-out baseline, antithetic particles; one evaluation a particle"

    def __init__(self, num_particles: int = 4, **plates: Unpack[Plates]) -> None:
        super().__init__(num_particles, **plates)

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor | None]:
        rare = uniforms(logits) < (-logits.abs()).sigmoid()
        return (rare ^ (logits > 0)).to(logits.dtype), None

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        gradients, k = [], self.num_particles
        for one in sites:
            f = spread(cost, one.site).detach()
            pulls = self._pulls(one) * (f - f.mean(0))
            gradients.append(pulls.sum(0) / (k - 1))
        return gradients

    def _pulls(self, one: Scored) -> Tensor:
        """What times each particle's cost, less their mean, is K - 1 gradients, ``(K, ...)``."""
        rare = (-one.logits.detach().abs()).sigmoid()
        return (one.site["value"] - one.mean) * ratio(rare, self.num_particles)


class CARMS(ARMS):
    r"""The ELBO by CARMS: ARMS for categorical latents, without a relaxation.

    .. math:: \nabla_{\phi} L \approx \frac{1}{K (K - 1)} \sum_{k \ne j} f(b_k)\,
        \frac{q(b_k)\, q(b_j)}{q(b_k, b_j)} \left(b_k - b_j\right),
        \quad f = \log p(x, z) - \log q(z)

    for each one-hot variable, with the mass :math:`q(b_k, b_j)` of a pair of the K draws. A draw
    breaks a stick, the smallest piece first, as in the authors' code, with uniforms as in
    :class:`ARMS` for each break; that mass is then known in closed form. Two categories are
    :class:`ARMS`. Unbiased, for guides whose sites are Bernoulli or one-hot and do not depend on
    each other; one evaluation a particle.

    Args:
        num_particles: K, at least 2.

    Raises:
        ValueError: fewer than 2 particles; in a step, a site that is neither Bernoulli nor one-hot.

    References:
        Dimitriev & Zhou (2021), arXiv:2110.14002; Dong, Mnih & Tucker (2021), arXiv:2106.08056, for
        the broken stick.
    """

    kinds = (Bits, OneHots)

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor | None]:
        if kind is Bits:
            return super()._values(logits, kind)
        order, breaks = stick(logits[0])
        rank = (uniforms(logits) < breaks).to(torch.uint8).argmax(-1)
        category = order.expand(logits.shape).gather(-1, rank[..., None]).squeeze(-1)
        return one_hot(category, logits.shape[-1]).to(logits.dtype), rank

    def _pulls(self, one: Scored) -> Tensor:
        if one.kind is Bits:
            return super()._pulls(one)
        k, rank, b = self.num_particles, one.about, one.site["value"]
        ratios = of_pairs(stick(one.logits.detach())[1], k)
        last = ratios.shape[-1] - 1  # where neither broke before, both are the last: no pair
        first = torch.minimum(rank[:, None], rank[None]).clamp(max=last)[..., None]
        weights = ratios.expand(*first.shape[:-1], -1).gather(-1, first)
        return (weights * (b[:, None] - b[None])).sum(1) / k


def uniforms(like: Tensor) -> Tensor:
    """Uniform variables ``(K, ...)``, any K of them with a Dirichlet copula.

    Their shares of a stick broken at random, one taken off each, to the power of K - 1.
    """
    e = -torch.log1p(-torch.rand_like(like))
    return (1 - e / e.sum(0)).pow(len(like) - 1)


def both(p: Tensor, k: int) -> Tensor:
    """The probability that two of K such uniforms are below p."""
    return (2 * p.pow(1 / (k - 1)) - 1).clamp(min=0).pow(k - 1)


def ratio(p: Tensor, k: int) -> Tensor:
    """How much likelier one below p beside another above it is with independent uniforms, <= 1."""
    return (1 - p) / (1 - both(p, k) / p.clamp(min=torch.finfo(p.dtype).tiny))


def stick(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The categories from the rarest on, and the share that each breaks off what is left."""
    log_p, order = logits.sort(-1)
    rest = log_p.flip(-1).logcumsumexp(-1).flip(-1)
    shares = (log_p - rest).exp()
    return order, torch.cat([shares[..., :-1], torch.full_like(shares[..., :1], 2.0)], -1)


def of_pairs(breaks: Tensor, k: int) -> Tensor:
    """q(a) q(b) / q(a, b) of different categories, by the rank of the rarer, ``(..., C - 1)``."""
    p = breaks[..., :-1]
    neither = (1 - p).square() / (1 - 2 * p + both(p, k))
    before = torch.cat([torch.ones_like(p[..., :1]), neither[..., :-1].cumprod(-1)], -1)
    return before * ratio(p, k)
