"""Hurdle likelihoods: a spike at one value, and a family for the rest."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.checks import number
from ..distributions import WithSpike
from ..language.spec import Spec, as_spec
from .cells import CellLikelihood
from .family import Family
from .part import Ends, start_from
from .support import innermost, support_of

__all__ = ["Hurdle"]


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
