"""log p(x) without bias, by a series of importance-weighted bounds that is cut at random: SUMO."""

import math
from dataclasses import dataclass, replace

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.vae import VAE
from ..statistics import chunks, mean

__all__ = ["UnbiasedEvidence", "sumo"]

CELLS = 2**20  # numbers of x-hat at once
FLAT, DECAY = 80, 0.9  # P(K >= k) is 1 / k to there, and falls by this factor after


@dataclass(frozen=True)
class UnbiasedEvidence:
    """Estimates of log p(x) whose expectation is log p(x): neither a lower nor an upper bound.

    Attributes:
        log_evidence: ``(N,)``, nats per observation.
        standard_error: over the repetitions, ``(N,)``; of heavy-tailed draws, so it may be low.
        num_repeats: independent estimates, whose mean this is.
        draws: the mean number of draws of z in one.
        weights: of the observations, ``(N,)``, by which ``mean`` counts them; ``None`` without.
    """

    log_evidence: Tensor
    standard_error: Tensor
    num_repeats: int
    draws: float
    weights: Tensor | None = None

    @property
    def mean(self) -> float:
        """Over the data, nats per observation."""
        return mean(self.log_evidence, self.weights).item()


@of_model
@torch.no_grad()
def sumo(
    vae: VAE,
    x: Tensor | ArrayLike,
    *,
    num_repeats: int = 100,
    least: int = 16,
    seed: int | None = None,
) -> UnbiasedEvidence:
    r"""log p(x) of each observation without bias (SUMO), for evaluation.

    .. math:: \widehat{\log p}(x) = L_m + \sum_{k=1}^{K} \frac{L_{m+k} - L_{m+k-1}}{P(K \ge k)},
        \quad L_k = \log \frac1k \sum_{i=1}^k \frac{p(x, z_i)}{q(z_i|x)}, \quad z_i \sim q(z|x)

    with a random number K of terms, :math:`P(K \ge k) = 1 / k` up to 80 and geometric from there.
    The importance-weighted bounds rise to log p(x), so the expectation is log p(x), where the
    variance of the weights is finite. That is what a comparison of models needs whose bounds are
    loose by different amounts; :func:`log_evidence` has less variance at equal draws.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        num_repeats: independent estimates of each observation, whose mean is returned.
        least: m, draws that every estimate has: more lower the variance.
        seed: of the draws.

    Returns:
        :class:`UnbiasedEvidence`.

    Raises:
        ValueError: data that the model refuses, or a number that is too small.

    References:
        Luo, Beatson, Norouzi, Zhu, Duvenaud, Adams & Chen (2020), arXiv:2004.00353.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> sumo(vae, torch.zeros(3, 2), num_repeats=4, seed=0).log_evidence.shape
    torch.Size([3])
    """
    num_repeats = whole("num_repeats", num_repeats, 2)
    least = whole("least", least)
    x = vae.check(x)
    sums, draws = [], []
    with reading(vae, seed):
        at = vae.densities()
        for some in chunks(x, (least + 10) * math.prod(vae.x_shape), CELLS):
            joint, found = at(some), []
            for _ in range(num_repeats):
                terms = cut(torch.rand(len(some), dtype=torch.float64))
                draws.append(terms.double().mean() * len(some) / len(x))
                found.append(_one(joint, least, terms.to(some.device)))
            sums.append(torch.stack(found, 1))
    estimates = torch.cat(sums)
    error = estimates.std(1) / num_repeats**0.5
    mean_draws = least + torch.stack(draws).sum().item() / num_repeats
    found = UnbiasedEvidence(estimates.mean(1), error, num_repeats, mean_draws)
    return replace(found, weights=vae.weights_of(x))


def _one(joint: Joint, least: int, terms: Tensor) -> Tensor:
    """One estimate for each observation, whose K is given, ``(B,)``."""
    last = int(terms.max())
    log_w = joint.log_weight(joint.guide.sample(torch.Size([least + last]))).double()
    k = torch.arange(1, least + last + 1, device=log_w.device)[:, None]
    bounds = log_w.logcumsumexp(0) - k.log()
    rises = bounds[least:] - bounds[least - 1 : -1]
    k = k[:last]
    return bounds[least - 1] + torch.where(k <= terms, rises / survival(k), 0.0).sum(0)


def survival(k: Tensor) -> Tensor:
    """P(K >= k)."""
    return 1 / k.clamp(max=FLAT) * DECAY ** (k - FLAT).clamp(min=0)


def cut(u: Tensor) -> Tensor:
    """K, from uniform draws."""
    k = (1 / u.clamp(min=torch.finfo(u.dtype).tiny)).floor()
    beyond = (FLAT * u).log() / torch.tensor(DECAY, dtype=u.dtype).log()
    return torch.where(k < FLAT, k, FLAT + beyond.floor()).long()
