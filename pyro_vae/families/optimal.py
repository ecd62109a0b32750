"""A normal likelihood whose scale is no parameter: it is the best one for the residuals."""

from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..distributions import FittedNormal
from ..language.spec import Spec
from .cells import CellLikelihood
from .family import Family
from .part import Ends
from .support import innermost

__all__ = ["OptimalNormal"]


class OptimalNormal(CellLikelihood):
    r"""Normal cells of one scale, the best one for each batch in training: the sigma-VAE.

    .. math:: \max_s \sum_i \log N(x_i; m_i, s^2) = -\frac n2 \log(2 \pi e\, s^2), \quad
        s^2 = \frac1n \sum_i (x_i - m_i)^2

    so that a batch's squared errors weigh as they should beside the KL, from the first step on. In
    evaluation s is fixed, a running mean of the last training steps (:attr:`square` is its square).
    ``Normal(scale=learned)`` learns one scale by gradients instead, as it must under an estimator
    that scores values that are no draws, such as ``TraceEnum_ELBO``.

    References:
        Rybkin, Daniilidis & Levine (2021), sigma-VAE, arXiv:2006.13202.

    >>> from pyro_vae.families.registry import make_part
    >>> p = make_part("OptimalNormal", Ends((3,), "likelihood", (5,)))(torch.zeros(2, 5))
    >>> p.log_prob(torch.zeros(3)).shape
    torch.Size([2])
    """

    square: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec("OptimalNormal")

    def build(self, ends: Ends) -> None:
        """Make the locations."""
        if ends.components or ends.cells:
            raise ValueError("its scale is that of all cells: it is no part of a mixture")
        self.cells = len(ends.shape)
        self.family = Family(Spec("Normal", scale=1.0))
        self.family.build(replace(ends, whole=False))
        self.register_buffer("square", torch.ones(1))

    def start_from(self, x: Tensor) -> None:
        """The locations in their units, and the scale at the spread of the data."""
        self.family.start_from(x)
        known = x[~x.isnan()]
        if len(known) > 1 and (square := known.var()) > 0:
            self.square.fill_(float(square))

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The cells' distribution, of batch shape that of the features."""
        p: Any = innermost(self.family(features))
        return FittedNormal(p.loc, self.square, learn=self.training).to_event(self.cells)
