"""Whether observations are levels, as those of 8-bit images are."""

import math
from typing import Any

import torch

from ..families.likelihoods import parts_of
from ..families.support import support_bounds, support_of
from .evaluated import Evaluated
from .joint import reading

__all__ = ["levels"]


@torch.no_grad()
def levels(vae: Evaluated) -> int | None:
    """L, where the likelihood says that all cells of x are whole numbers 0, 1, ..., L - 1.

    Args:
        vae: a model; ``None`` is the answer of one with several likelihoods.
    """
    example: Any = vae.example
    x = example.new_zeros(1, *vae.record.shape)
    with reading(vae, 0):
        first, *others = parts_of(vae.decode(vae.prior_at(x).expand([1]).sample(), x))
    support = support_of(first)
    if others or support is None or not support.is_discrete:
        return None
    kind, lower, upper = support_bounds(support)
    if kind == "boolean":
        return 2
    return int(upper) + 1 if (kind, lower) == ("discrete", 0) and upper < math.inf else None
