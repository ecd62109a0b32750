"""Densities as likelihoods of levels, through noise that fills the room between them."""

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.checks import whole
from ..distributions import DequantizedLevels
from ..language.spec import Spec, as_spec
from .family import is_amortized
from .part import Ends, Part, start_from
from .support import innermost, support_of

__all__ = ["Dequantized"]


class Dequantized(Part):
    r"""Levels 0, 1, ..., L - 1 by a density on [0, 1]: the family reads (x + u) / L with noise u.

    .. math:: \log P(x) \ge \mathrm{E}_{u \sim U(0,1)}
        \left[\log p\Big(\frac{x + u}{L}\Big)\right] - \log L

    So an ELBO of the density is one of the levels' probabilities, and compares with those of
    ``DiscretizedLogistic`` and ``Categorical``, while one of x / 255 does not. The noise is drawn
    anew at every evaluation. More ``samples`` of it tighten the bound. What the density has
    outside of [0, 1] is lost, and the bound so much lower.

    Args:
        family: on [0, 1] or wider: ``"Normal"``, ``"Mixture(Normal, components=3)"``,
            ``"ContinuousBernoulli"``. Its numbers count in the unit of that interval.
        levels: L.
        samples: draws of u, whose densities are averaged.

    Raises:
        ValueError: a family of whole numbers, or one that draws arrays at once.

    References:
        Theis, van den Oord & Bethge (2016), arXiv:1511.01844; Hoogeboom, Cohen & Tomczak (2020),
        arXiv:2001.11235.

    >>> from pyro_vae.families.registry import make_part
    >>> p = make_part("Dequantized(Normal)", Ends((3,), "likelihood", (5,)))(torch.zeros(2, 5))
    >>> p.log_prob(torch.tensor([0.0, 100.0, 255.0])).shape
    torch.Size([2])
    """

    roles = frozenset({"likelihood"})
    in_units = True

    def __init__(self, family: str | Spec, levels: int = 256, samples: int = 1) -> None:
        super().__init__()
        self.line, self.levels = as_spec(family), whole("levels", levels, 2)
        self.samples = whole("samples", samples)
        self.spec = Spec("Dequantized", self.line, levels=self.levels, samples=self.samples)

    def build(self, ends: Ends) -> None:
        """Make the family."""
        if ends.event_dim(self.line):
            raise ValueError(
                f"{self.line.name} draws arrays at once: levels are dequantized one by one"
            )
        self.cells, shape = len(ends.shape), ends.feature_shape
        self.family = ends.make(self.line, depends=False)
        base = innermost(self.family(None if shape is None else torch.zeros(1, *shape)))
        if (support := support_of(base)) is not None and support.is_discrete:
            raise ValueError(
                f"{self.line.name} is of whole numbers already: leave out Dequantized, or use a "
                "density such as Normal"
            )

    def start_from(self, x: Tensor) -> None:
        """The family from the middle of each level's part of [0, 1]."""
        start_from(self.family, (x + 0.5) / self.levels)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The levels' distribution, of batch shape that of the features."""
        base = innermost(self.family(features))
        return DequantizedLevels(base, self.levels, self.samples).to_event(self.cells)

    def event_dim(self, ends: Ends) -> int:
        """None: cells are independent."""
        return 0

    def depends(self) -> bool:
        """Whether the family is amortized."""
        return is_amortized(self)
