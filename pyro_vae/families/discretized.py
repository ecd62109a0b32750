"""Likelihoods of whole numbers that are levels, as those of 8-bit images are."""

from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import TanhTransform

from ..core.checks import boolean, whole
from ..distributions import CoupledLogisticLevels, LogisticLevels
from ..language.spec import Spec, Value
from .cells import CellLikelihood
from .family import Family
from .mixtures import make_weights
from .parameters import Amortized
from .part import Ends
from .support import innermost

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(CellLikelihood):
    r"""Levels 0, 1, ..., L - 1 by logistic densities cut into levels: 8-bit images as they are.

    .. math:: P(x) = \sum_k \pi_k
        \left[\sigma\Big(\frac{x + \frac12 - m_k}{s_k}\Big)
            - \sigma\Big(\frac{x - \frac12 - m_k}{s_k}\Big)\right]

    The lowest level has all mass below it too, and the highest all above it. Cells are independent
    given z, each with a mixture of its own; coupled, the channels of a place (a pixel) share their
    component, and :math:`m_{kc}` moves by :math:`\sum_{d<c} a_{kcd}\,(x_d - \bar x)` with the
    channels before c.

    Args:
        components: K.
        levels: L.
        coupled: whether the channels of a place hang together; x is then ``(C, *places)``.
        loc: m, counted in levels: a number, learned or amortized.
        scale: s, likewise.

    Raises:
        ValueError: coupled, and x has no channels.

    References:
        Kingma et al. (2016), arXiv:1606.04934; Salimans, Karpathy, Chen & Kingma (2017),
        PixelCNN++, arXiv:1701.05517, for the mixture and the channels.

    >>> from pyro_vae.families.registry import make_part
    >>> ends = Ends((3, 8, 8), "likelihood", (16,))
    >>> p = make_part("DiscretizedLogistic(components=5, coupled=True)", ends)(torch.zeros(2, 16))
    >>> p.log_prob(p.sample()).shape
    torch.Size([2])
    """

    batches = True

    def __init__(
        self,
        components: int = 1,
        *,
        levels: int = 256,
        coupled: bool = False,
        loc: Value = None,
        scale: Value = None,
    ) -> None:
        super().__init__()
        self.components, self.levels = whole("components", components), whole("levels", levels, 2)
        self.coupled = boolean("coupled", coupled)
        given = {"loc": loc, "scale": scale}
        self.given = {name: value for name, value in given.items() if value is not None}
        more = {"coupled": True} if coupled else {}
        self.spec = Spec(
            "DiscretizedLogistic", components=components, levels=levels, **more, **self.given
        )

    def build(self, ends: Ends) -> None:
        """Make locations and scales of the components, and what else they need."""
        self.shape = ends.shape
        cells = replace(ends, shape=(), cells=(*ends.cells, *ends.shape), in_units=True)
        self.family = Family(Spec("Logistic", **self.given))
        self.family.build(replace(cells, components=(*ends.components, self.components)))
        half = (self.levels - 1) / 2  # what the networks give counts in halves of the range
        for name, unit in self.family.units.items():
            unit.shift.fill_(half if name == "loc" else 0.0)  # pyrefly: ignore[not-callable]
            unit.factor.fill_(half)  # pyrefly: ignore[not-callable]
        self._part_components()
        if self.coupled:
            self.coefficients = self._coefficients(ends)
            cells = replace(cells, cells=ends.shape[1:])
        if self.components > 1:
            self.weights = make_weights(self.components, cells)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The levels' distribution, of batch shape that of the features."""
        p: Any = innermost(self.family(features))
        one = p.loc.select(-len(self.shape) - 1, 0) if self.coupled else p.loc
        logits: Any = torch.zeros_like(one)
        if self.components > 1:
            logits = innermost(self.weights(features)).logits  # pyrefly: ignore[missing-attribute]
        if not self.coupled:
            return LogisticLevels(logits, p.loc, p.scale, self.levels).to_event(len(self.shape))
        a = self.coefficients(features)
        return CoupledLogisticLevels(logits, p.loc, p.scale, a, self.levels, len(self.shape) - 1)

    def start_from(self, x: Tensor) -> None:
        """Nothing: the levels say where to start."""

    def event_dim(self, ends: Ends) -> int:
        """None, where cells are independent."""
        return len(ends.shape) if self.coupled else 0

    def _coefficients(self, ends: Ends) -> Amortized:
        """How a channel's location hangs on those before it: numbers in (-1, 1)."""
        channels, *places = ends.shape or (1,)
        if not places or channels < 2:
            raise ValueError(
                f"coupled channels need x of shape (C, ...) with C of at least 2, got "
                f"{ends.shape}: leave out coupled=True"
            )
        if ends.feature_shape is None or ends.components or ends.cells:
            raise ValueError("coupled channels are a likelihood's, and no part of a mixture")
        shape = (channels * (channels - 1) // 2, *places, self.components)
        return Amortized(ends.feature_shape, shape, TanhTransform(), slice(0, len(places) + 1))

    def _part_components(self) -> None:
        """Let amortized locations start apart, evenly over the levels."""
        loc = self.family.sources["loc"]
        if self.components > 1 and isinstance(loc, Amortized):
            apart = (torch.arange(self.components) + 0.5) / self.components * 2 - 1
            loc.move(apart.expand(loc.shape))
