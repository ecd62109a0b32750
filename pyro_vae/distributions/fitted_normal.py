"""Normal cells of one scale, which is the best one for the values that are scored."""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["FittedNormal"]

MEMORY = 0.9  # of the mean square, from one batch to the next


class FittedNormal(dist.Normal):
    r"""Normal cells of one scale; while a model learns, each batch is scored at its best scale.

    .. math:: \log p(x) = -\frac{(x - m)^2}{2 s^2} - \log s - \frac12 \log 2\pi, \quad
        s^2 = \frac1n \sum_i (x_i - m_i)^2

    with the mean over all n cells of the batch, which maximizes its sum; where rows have weights,
    the weighted mean. That hangs on x, so it is no density: elsewhere s is what training has left
    in ``square``, a running mean.

    Args:
        loc: m.
        square: the mean square, a tensor of one number, which learning changes in place.
        learn: whether values that are scored are training data.

    Attributes:
        observed: which cells are.
        weight: of each cell, as far as it is known; broadcast.

    References:
        Rybkin, Daniilidis & Levine (2021), sigma-VAE, arXiv:2006.13202.

    >>> p = FittedNormal(torch.zeros(4), torch.ones(1))
    >>> p.log_prob(torch.zeros(4))[0]
    tensor(-0.9189)
    """

    fits_batches = True

    def __init__(self, loc: Tensor, square: Tensor, *, learn: bool = False) -> None:
        self.square, self.learn = square, learn
        self.observed: Tensor | bool = True
        self.weight: Tensor | None = None
        super().__init__(loc, square.sqrt().expand(loc.shape), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "FittedNormal":
        """The same, expanded."""
        loc = self.loc.expand(torch.Size(batch_shape))
        new = FittedNormal(loc, self.square, learn=self.learn)
        new.observed, new.weight = self.observed, self.weight
        return new

    def mask(self, mask: Tensor | bool) -> dist.TorchDistribution:
        """The same where cells are observed; the others have no part in the scale."""
        new = self.expand(self.batch_shape)
        new.observed = mask
        return dist.Normal.mask(new, mask)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        squares = (value - self.loc).square()
        square = self._learned(squares.detach()) if self.learn else self.square
        return -(squares / square + square.log() + math.log(2 * math.pi)) / 2

    @torch.no_grad()
    def _learned(self, squares: Tensor) -> Tensor:
        """The mean square of a batch, which the running mean moves towards."""
        least = torch.finfo(squares.dtype).tiny
        if self.observed is True and self.weight is None:
            mean = squares.mean()
        else:
            counts = torch.ones_like(squares) * self.observed
            counts = counts if self.weight is None else counts * self.weight
            mean = torch.where(counts > 0, counts * squares, 0.0).sum() / counts.sum()
            mean = torch.where(counts.any(), mean, self.square)
        self.square.lerp_(mean.clamp(min=least), 1 - MEMORY)
        return mean.clamp(min=least)
