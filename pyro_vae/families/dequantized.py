"""Densities as likelihoods of levels, through noise that fills the room between them."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import SigmoidTransform
from torch import Tensor, nn

from ..core.checks import whole
from ..distributions import DequantizedLevels
from ..language.spec import Spec, as_spec
from .cells import CellLikelihood
from .networks import batched, build_network, make_network, spec_of
from .parameters import Amortized
from .part import Ends, Line, start_from
from .support import innermost, support_of, transform

__all__ = ["Dequantized"]


class Dequantized(CellLikelihood):
    r"""Levels 0, 1, ..., L - 1 by a density on [0, 1]: the family reads (x + u) / L with noise u.

    .. math:: \log P(x) \ge \mathrm{E}_{q(u|x)}
        \left[\log p\Big(\frac{x + u}{L}\Big) - \log q(u \mid x)\right] - \log L

    So an ELBO of the density is one of the levels' probabilities, and compares with those of
    ``DiscretizedLogistic`` and ``Categorical``, while one of x / 255 does not. The noise is drawn
    anew at every evaluation. Uniform on [0, 1], it asks the density to be even between two levels;
    variational, it is learned with the density, and lies where that is high: the bound is tight
    where q(u|x) is the density between the two levels. More ``samples`` tighten the bound too. What
    the density has outside of [0, 1] is lost, and the bound so much lower.

    Args:
        family: on [0, 1] or wider: ``"Normal"``, ``"Mixture(Normal, components=3)"``,
            ``"ContinuousBernoulli"``. Its numbers count in the unit of that interval.
        levels: L.
        samples: draws of u, whose densities are averaged.
        noise: ``uniform``, or a network that reads x, ``"MLP([64])"``, and makes q(u|x) of it.

    Raises:
        ValueError: a family of whole numbers, or one that draws arrays at once.

    References:
        Theis, van den Oord & Bethge (2016), arXiv:1511.01844; Ho et al. (2019), Flow++,
        arXiv:1902.00275, for variational noise; Hoogeboom, Cohen & Tomczak (2020),
        arXiv:2001.11235.

    >>> from pyro_vae.families.registry import make_part
    >>> p = make_part("Dequantized(Normal)", Ends((3,), "likelihood", (5,)))(torch.zeros(2, 5))
    >>> p.log_prob(torch.tensor([0.0, 100.0, 255.0])).shape
    torch.Size([2])
    """

    def __init__(
        self,
        family: str | Spec,
        levels: int = 256,
        samples: int = 1,
        noise: Line = "uniform",
    ) -> None:
        super().__init__()
        self.line, self.levels = as_spec(family), whole("levels", levels, 2)
        self.samples = whole("samples", samples)
        self.noise = None if str(noise) == "uniform" else Noise(make_network(noise, "noise"))
        said = {} if self.noise is None else {"noise": spec_of(self.noise.network)}
        self.spec = Spec("Dequantized", self.line, levels=self.levels, samples=self.samples, **said)

    def build(self, ends: Ends) -> None:
        """Make the family."""
        if ends.event_dim(self.line):
            raise ValueError(
                f"{self.line.name} draws arrays at once: levels are dequantized one by one"
            )
        if (support := support_of(self.make_family(ends))) is not None and support.is_discrete:
            raise ValueError(
                f"{self.line.name} is of whole numbers already: leave out Dequantized, or use a "
                "density such as Normal"
            )
        if self.noise is not None:
            self.noise.build(ends.shape, self.levels)

    def start_from(self, x: Tensor) -> None:
        """The family from the middle of each level's part of [0, 1]."""
        start_from(self.family, (x + 0.5) / self.levels)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The levels' distribution, of batch shape that of the features."""
        base = innermost(self.family(features))
        levels = DequantizedLevels(base, self.levels, self.samples, self.noise)
        return levels.to_event(self.cells)


class Noise(nn.Module):
    r"""Variational noise of levels: cells of logistic noise brought into [0, 1].

    .. math:: u = \sigma(m + s\,\epsilon), \quad \epsilon \sim \mathrm{Logistic}(0, 1)

    with m and s by a network that reads x. At m = 0 and s = 1, where training starts, u is uniform.

    Args:
        network: from levels, brought to [-1, 1], to features.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def build(self, shape: tuple[int, ...], levels: int) -> None:
        """Make the network and its heads."""
        self.shape, self.middle = shape, (levels - 1) / 2
        example = torch.zeros(1, *shape)
        features = build_network(self.network, example, shape, "network of the noise")
        positive = transform(constraints.positive)
        self.loc = Amortized(features, shape, transform(constraints.real))
        self.scale = Amortized(features, shape, positive)
        unit: Any = positive.inv(torch.ones(()))
        for parameter, start in ((self.loc, 0.0), (self.scale, float(unit))):
            head: Any = parameter.head
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, start)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """q(u|x), of the shape of x, ``(..., *shape)``."""
        features = batched(self.network, x / self.middle - 1, len(self.shape))
        logits = dist.Logistic(self.loc(features), self.scale(features))
        return dist.TransformedDistribution(logits, [SigmoidTransform(cache_size=1)])
