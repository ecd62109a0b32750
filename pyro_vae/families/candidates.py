"""What a missing cell may be, given z: all its values with their probabilities, or draws."""

import math
from typing import Any, cast

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..distributions import DequantizedLevels, WithSpike
from .support import support_bounds, support_of

__all__ = ["MOST", "candidates", "greatest"]

MOST = 256  # of whole numbers that a sum goes to


def greatest(p: dist.TorchDistribution, largest: float) -> int | None:
    """The last of the whole numbers that a sum over the values of p goes to; 0 of a density.

    Args:
        p: of single cells.
        largest: of the counts that were seen: the sum goes to twice that.

    Returns:
        ``None`` where there is no such sum, nor a draw along gradients.
    """
    if p.has_rsample:
        return 0
    if isinstance(p, WithSpike):
        return greatest(p.base, largest)
    if _has_paths(p):
        return 0
    support = support_of(p)
    if support is None or not support.is_discrete or isinstance(p, DequantizedLevels):
        return None
    kind, _, high = support_bounds(support)
    if kind == "boolean":
        return 1
    if isinstance(p, dist.Categorical) or high <= MOST:
        return int(high)
    return min(2 * int(largest), MOST) if math.isinf(high) and largest <= MOST else None


def _has_paths(p: Any) -> bool:  # noqa: ANN401
    """Whether p is a mixture whose components are drawn along gradients."""
    return isinstance(p, dist.MixtureSameFamily) and p.component_distribution.has_rsample


def candidates(p: dist.TorchDistribution, last: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Values of each cell, ``(V, ..., B, *shape)``, and log probabilities that sum to 1 over V.

    A density has one value, drawn along gradients, a spike or a mixture one for each of its parts.
    Counts of ``last`` and above are one value.

    Args:
        p: of single cells, ``(..., B, *shape)``.
        last: as :func:`greatest` gives it.
        like: a tensor of the type of the cells.
    """
    if p.has_rsample:
        values = p.rsample()[None]
        return values, torch.zeros_like(values)
    if isinstance(p, WithSpike):
        values, log_p = candidates(p.base, last, like)
        values = torch.cat([torch.full_like(values[:1], p.at), values])
        return values, torch.cat([logsigmoid(p.logits)[None], log_p + logsigmoid(-p.logits)])
    if _has_paths(mixed := cast("dist.MixtureSameFamily", p)):
        values = mixed.component_distribution.rsample().movedim(-1, 0)
        log_p = mixed.mixture_distribution.logits.movedim(-1, 0)
        return values, log_p.expand(values.shape)
    support: Any = p.support
    kind, low, high = support_bounds(support)
    first = 0 if kind == "boolean" else int(low)
    values = torch.arange(first, last + 1).to(like).reshape(-1, *[1] * len(p.batch_shape))
    log_p = p.log_prob(values)
    if kind != "boolean" and math.isinf(high):
        below = log_p[:-1].exp().sum(0, keepdim=True)
        rest = (1 - below).clamp(min=torch.finfo(below.dtype).eps).log()
        log_p = torch.cat([log_p[:-1], rest])
    return values.expand(log_p.shape), log_p
