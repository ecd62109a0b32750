"""Likelihoods of independent cells that are made of a family, and those of one family alone."""

import math
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.checks import number
from ..distributions import FittedNormal, RightCensored, WithSpike, log_survival
from ..language.spec import Spec, as_spec
from .family import Family, is_amortized
from .part import Ends, Part, start_from
from .support import innermost, support_bounds, support_of

__all__ = ["CellLikelihood", "Censored", "Hurdle", "OptimalNormal"]


class CellLikelihood(Part):
    """Independent cells, each of a distribution that is made of a family's."""

    roles = frozenset({"likelihood"})
    in_units = True
    line: Spec
    family: Any  # of a cell, once it is built

    def make_family(self, ends: Ends) -> dist.TorchDistribution:
        """Make the family of ``line``; the distribution of one cell, where all features are 0."""
        self.cells = len(ends.shape)
        self.family = ends.make(self.line, depends=False)
        return innermost(self.family(ends.example))

    def event_dim(self, ends: Ends) -> int:
        """None: cells are independent."""
        return 0

    def depends(self) -> bool:
        """Whether a parameter is amortized."""
        return is_amortized(self)


class Hurdle(CellLikelihood):
    r"""Cells that are one value, often, and else of a family: zeros among amounts.

    .. math:: p(x) = \pi\,\delta_{at}(x) + (1 - \pi)\, \mathrm{Family}(x; \theta)

    Args:
        family: of the rest: ``"Gamma"``, ``"LogNormal"``, ``"Mixture(Normal, components=3)"``.
        at: the value of the spike.

    Raises:
        ValueError: a family whose cells are not single numbers.

    References:
        Cragg (1971), Econometrica 39.

    >>> from pyro_vae.families.registry import make_part
    >>> p = make_part("Hurdle(Gamma)", Ends((3,), "likelihood", (5,)))(torch.zeros(2, 5))
    >>> p.log_prob(torch.tensor([0.0, 1.0, 0.0])).shape
    torch.Size([2])
    """

    def __init__(self, family: str | Spec, at: float = 0.0) -> None:
        super().__init__()
        self.line, self.at = as_spec(family), number("at", at)
        self.spec = Spec("Hurdle", self.line, at=self.at)

    def build(self, ends: Ends) -> None:
        """Make the family of the rest and the gate, for cells of this shape."""
        if ends.event_dim(self.line):
            raise ValueError(
                f"{self.line.name} draws arrays at once: a hurdle is of single numbers"
            )
        if (support := support_of(self.make_family(ends))) is not None and support.is_discrete:
            raise ValueError(
                f"{self.line.name} has mass at {self.at:g} of its own: use ZeroInflatedPoisson or "
                "ZeroInflatedNegativeBinomial for counts"
            )
        self.gate = Family("Bernoulli")
        self.gate.build(ends)

    def start_from(self, x: Tensor) -> None:
        """The gate from how often the spike occurs, the family from the rest."""
        spike = (x == self.at).to(x)
        start_from(self.gate, torch.where(x.isnan(), math.nan, spike))
        start_from(self.family, torch.where(spike == 1, math.nan, x))

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The cells' distribution, of batch shape that of the features."""
        gate: dist.Bernoulli = innermost(self.gate(features))
        base = innermost(self.family(features))
        return WithSpike(gate.logits, base, self.at).to_event(self.cells)


class Censored(CellLikelihood):
    r"""Times until an event, right-censored where x is negative: the event came after -x.

    .. math:: p(x) = \mathrm{Family}(x; \theta) \text{ where } x > 0, \quad
              P(T > -x; \theta) \text{ where } x < 0

    Of a table, a column of times and one that says whether the event was seen make such numbers.
    What is drawn, imputed or reconstructed is the time until the event, and positive: censoring
    itself is not modelled, and taken to say nothing of the event but that it came later.

    Args:
        family: of positive numbers, with a distribution function: ``"Weibull"``, ``"LogNormal"``,
            ``"Gamma"``, ``"Exponential"``, ``"Mixture(Weibull, components=3)"``.

    Raises:
        ValueError: another family.

    References:
        Klein & Moeschberger (2003), Survival Analysis, section 3.5.

    >>> from pyro_vae.families.registry import make_part
    >>> p = make_part("Censored(Weibull)", Ends((2,), "likelihood", (5,)))(torch.zeros(1, 5))
    >>> p.log_prob(torch.tensor([1.0, -1.0])).shape
    torch.Size([1])
    """

    def __init__(self, family: str | Spec) -> None:
        super().__init__()
        self.line = as_spec(family)
        self.spec = Spec("Censored", self.line)

    def build(self, ends: Ends) -> None:
        """Make the family of the times."""
        p: Any = self.make_family(ends)
        support = None if p.event_dim else support_of(p)
        positive = support and support_bounds(support) == ("continuous", 0.0, float("inf"))
        try:
            tail = log_survival(p, torch.ones(p.batch_shape)) if positive else None
        except NotImplementedError:
            tail = None
        if tail is None:
            raise ValueError(
                f"a censored time needs a family of positive numbers with a distribution function, "
                f"such as Weibull, LogNormal, Gamma or Exponential; {self.line.name} is none"
            )

    def start_from(self, x: Tensor) -> None:
        """The family from the times, those that were censored longer by the mean time.

        The mean is the total time over the number of events, which is the exponential
        distribution's maximum-likelihood estimate.
        """
        time, events = x.abs(), (x > 0).sum(0).clamp(min=1)
        start_from(self.family, torch.where(x < 0, time + time.nansum(0) / events, time))

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The cells' distribution, of batch shape that of the features."""
        return RightCensored(innermost(self.family(features))).to_event(self.cells)


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
