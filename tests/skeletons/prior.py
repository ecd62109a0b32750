"""A new prior: one class with ``build`` and ``forward``, and its name in ``registry.REGISTRY``."""

from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.core.checks import positive
from pyro_vae.families.part import Ends, Part
from pyro_vae.language.spec import Spec


class Mirrored(Part):
    r"""Two normal densities, one the mirror image of the other, around a learned location.

    .. math:: p(z) = \tfrac12 N(z; \mu, s^2 I) + \tfrac12 N(z; -\mu, s^2 I)
    """

    roles = frozenset({"prior"})
    signs: ClassVar = torch.tensor([1.0, -1.0])

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = positive("scale", scale)
        self.spec = Spec("Mirrored", scale=scale)

    def build(self, ends: Ends) -> None:
        """Make the parameters for draws of the shape ``ends.shape``."""
        self.loc = nn.Parameter(torch.ones(ends.shape))

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution, of batch shape ()."""
        signs = self.signs.to(self.loc).reshape(2, *[1] * self.loc.ndim)
        components = dist.Normal(signs * self.loc, self.scale).to_event(self.loc.ndim)
        return dist.MixtureSameFamily(dist.Categorical(logits=torch.zeros(2)), components)
