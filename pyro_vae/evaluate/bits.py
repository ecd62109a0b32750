"""Levels, as those of 8-bit images: how many there are, and bits per dimension."""

import math
from typing import Any

import torch
from torch import Tensor

from ..families.likelihoods import parts_of
from ..families.support import support_bounds, support_of
from ..model.designed import DesignedRecord
from ..model.entry import of_model
from ..model.joint import reading
from ..model.record import Record
from ..model.vae import VAE

__all__ = ["bits_per_dimension", "has_levels", "levels"]


@torch.no_grad()
def levels(vae: VAE) -> int | None:
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


def has_levels(vae: VAE) -> bool:
    """Whether x is an array without holes, all of whose cells are levels, of more than two.

    Sequences of several lengths, tables and missing cells have no one number of dimensions.
    """
    whole = type(vae.record) in (Record, DesignedRecord) and not vae.record.missing
    return whole and (levels(vae) or 0) > 2


@of_model
def bits_per_dimension(vae: VAE, nats: Tensor | float) -> Tensor | float:
    r"""An ELBO or log p(x) in bits per dimension, of which fewer are better.

    .. math:: -\frac{\log p(x)}{D \log 2}

    for D cells, such as 3 x 32 x 32. It is a number of bits, to which a code comes close, where x
    are levels, as those of 8-bit images: a density's would hang on the unit of x.

    Args:
        vae: a model of levels: ``DiscretizedLogistic``, ``Categorical``, ``Dequantized(Normal)``,
            ``Binomial``.
        nats: per observation, of any shape, as ``elbo(vae, x)`` gives them.

    Raises:
        ValueError: x are no levels.

    References:
        Theis, van den Oord & Bethge (2016), "A note on the evaluation of generative models",
        arXiv:1511.01844.

    >>> vae = VAE((1, 4, 4), 2, likelihood="Categorical(categories=256)", seed=0)
    >>> bits_per_dimension(vae, -16 * math.log(256))
    8.0
    """
    if not has_levels(vae):
        raise ValueError(
            "bits per dimension are of levels 0, 1, ..., such as 8-bit images, without missing "
            "cells: take a likelihood of these, DiscretizedLogistic, Categorical(categories=256) "
            "or Dequantized(Normal)"
        )
    return -nats / (math.prod(vae.x_shape) * math.log(2))
