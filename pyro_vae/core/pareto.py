"""Checks of importance weights: Pareto's shape of the largest ones, and the effective draws."""

import math

import torch
from torch import Tensor

__all__ = ["RELIABLE", "effective_draws", "tail_shape"]

RELIABLE = 0.7  # the k-hat above which an importance sampling estimate is not to be trusted
LEAST = 25  # draws, below which there is no tail to look at
SPREAD, PRIOR = 3, 10  # of the profile's points, and the weight in draws of the prior shape 0.5


def effective_draws(log_w: Tensor) -> Tensor:
    r"""The effective sample size :math:`(\sum w)^2 / \sum w^2`, ``(N,)``, of ``(K, N)``."""
    return 1 / log_w.double().softmax(0).square().sum(0)


def tail_shape(log_w: Tensor) -> Tensor:
    r"""Pareto k-hat of the weights' tail: above 0.7 their mean is not to be trusted.

    It describes the largest weights that were drawn. At or below 0.7 the mean may still be too low,
    where the proposal gives no draws to a part of the target.

    Args:
        log_w: ``(K, N)``.

    Returns:
        ``(N,)``; NaN of fewer than 25 draws; minus infinity where the largest weights are all
        equal (an exact guide, or a discrete z), so that there is no tail.

    References:
        Vehtari et al. (2024), arXiv:1507.02646; Zhang & Stephens (2009), Technometrics 51(3).

    >>> tail_shape(torch.zeros(30, 2))
    tensor([-inf, -inf], dtype=torch.float64)
    """
    if len(log_w) < LEAST:
        return torch.full_like(log_w[0], math.nan, dtype=torch.float64)
    size = math.ceil(min(len(log_w) / 5, 3 * math.sqrt(len(log_w))))
    top = log_w.double().topk(size + 1, 0).values
    top = (top - top[0]).clamp(min=math.log(torch.finfo(torch.float64).tiny)).exp()
    khat = torch.full_like(top[0], -math.inf)
    uneven = top[0] > top[-2]
    if uneven.any():
        khat[uneven] = _fit((top[:-1] - top[-1])[:, uneven].flip(0))
    return khat


def _fit(x: Tensor) -> Tensor:
    """The shape of a generalized Pareto distribution of ascending ``x`` ``(n, N)``, by Bayes.

    Zeros, at the start where weights are tied at the threshold, do not count.
    """
    n = (x > 0).sum(0)
    quartile = x.gather(0, (len(x) - n + (n / 4 + 0.5).long() - 1).clamp(min=0)[None])
    points = 30 + math.isqrt(len(x))
    grid = torch.arange(1, points + 1, dtype=x.dtype, device=x.device)[:, None] - 0.5
    theta = (1 - (points / grid).sqrt()) / (SPREAD * quartile) + 1 / x[-1]
    shape = torch.log1p(-theta[:, None] * x).sum(1) / n
    weight = (n * ((-theta / shape).log() - shape - 1)).softmax(0)
    theta = (theta * weight).sum(0)
    shape = torch.log1p(-theta * x).sum(0) / n
    return (n * shape + PRIOR * 0.5) / (n + PRIOR)
