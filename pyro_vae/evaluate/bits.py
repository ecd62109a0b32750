"""Bits per dimension: nats of levels in the unit that figures of images have elsewhere."""

import math

from torch import Tensor

from ..model.entry import of_model
from ..model.levels import levels
from ..model.record import Record
from ..model.vae import VAE

__all__ = ["bits_per_dimension", "has_levels"]


def has_levels(vae: VAE) -> bool:
    """Whether x is an array without holes, all of whose cells are levels, of more than two.

    Sequences of several lengths, tables and missing cells have no one number of dimensions.
    """
    whole = type(vae.record) is Record and not vae.record.missing
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
