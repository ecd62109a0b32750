"""Censored likelihoods: times until an event, of which some are only known to be later."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..distributions import RightCensored, log_survival
from ..language.spec import Spec, as_spec
from .cells import CellLikelihood
from .part import Ends, start_from
from .support import innermost, support_bounds, support_of

__all__ = ["Censored"]


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
