"""Gradients without the terms that are too slight for any sum of them to see."""

import math

import torch
from torch import Tensor

__all__ = ["SLIGHT", "in_doubles", "logsumexp", "not_slight"]

SLIGHT = 1e-26


def not_slight(weights: Tensor) -> Tensor:
    """Weights whose sum is of the order of 1, with zeros for those below 1e-26.

    Left in, they become subnormal numbers on their way through a network, and processors take many
    times as long for each of those.
    """
    return weights.where(weights.abs() > SLIGHT, 0.0)


def logsumexp(log: Tensor, dim: int = -1) -> Tensor:
    """Over a dimension, with no gradient for terms whose share is below 1e-26.

    Of many terms most underflow, and exp is slow there.
    """
    top, of = log.detach().amax(dim, keepdim=True), torch.finfo(log.dtype)
    share = (log - top.clamp(of.min, of.max)).clamp(min=math.log(SLIGHT)).exp()
    return share.sum(dim).log() + top.squeeze(dim)


def in_doubles(x: Tensor) -> Tensor:
    """The tensor in doubles, whose gradient comes back without slight terms."""
    y = x.double()
    if y is not x and y.requires_grad:  # x itself may be a parameter, whose hooks would pile up
        y.register_hook(not_slight)
    return y
