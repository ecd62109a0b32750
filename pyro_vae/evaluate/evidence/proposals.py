"""What z is drawn from in the guide's place where log p(x) is estimated."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ...model.face import Densities, Face
from ...model.joint import Joint
from ...program.line import RealLine
from .paths import joint_of

__all__ = ["Blend", "log_weights", "widened"]

WIDTH = 2.0  # standard deviations of the wide component, in those of the guide
MOMENTS = 200  # draws of the guide that give them


class Blend:
    r"""A mixture of two distributions of the same z.

    .. math:: r(z) = (1 - w)\, q_1(z) + w\, q_2(z)

    References:
        Hesterberg (1995), Technometrics 37, for defensive mixtures.
    """

    def __init__(
        self, first: dist.TorchDistribution, second: dist.TorchDistribution, share: float
    ) -> None:
        self.parts, self.share = (first, second), share
        self.batch_shape, self.event_shape = first.batch_shape, first.event_shape

    def sample(self, shape: torch.Size) -> Tensor:
        """Draws, ``(*shape, B, *z_shape)``."""
        first, second = (part.sample(shape) for part in self.parts)
        pick = torch.rand(shape + self.batch_shape, device=first.device) < self.share
        return torch.where(pick.reshape(*pick.shape, *[1] * len(self.event_shape)), second, first)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density, ``(..., B)``."""
        first, second = (part.log_prob(z) for part in self.parts)
        w = self.share
        return torch.logaddexp(first + math.log1p(-w), second + math.log(w))


def widened(vae: Face, x: Tensor, share: float) -> Joint | RealLine:
    """The densities at some rows, whose guide is blended with a wider component.

    That of a continuous z is normal on the real line that maps to its support, with the guide's
    means and twice its standard deviations; that of a discrete z is the prior. No weight is more
    than 1 / (1 - w) times what it is under the guide alone, or 1 / w times what it is under the
    wide component alone.

    Args:
        vae: a VAE, or a program.
        x: its observations.
        share: w, of draws from the wide component, in (0, 1).
    """
    joint = joint_of(vae, x)
    guide: Any = Blend(joint.guide, _wide(joint), share)
    joint.guide = guide
    return joint


def log_weights(joint: Densities, num_samples: int, at_once: int) -> Tensor:
    """Log weights of draws of the guide, ``(K, B)``; at least one at once."""
    step = max(1, at_once)
    sizes = [min(step, num_samples - start) for start in range(0, num_samples, step)]
    return torch.cat([joint.log_weight(joint.draw(n)) for n in sizes])


def _wide(joint: Joint | RealLine) -> dist.TorchDistribution:
    batch = joint.guide.batch_shape
    if isinstance(joint, Joint) and (
        joint.prior.support is None or joint.prior.support.is_discrete
    ):
        return joint.prior.expand(batch)
    transform: Any = joint.to_support("a wide proposal")
    u = transform.inv(joint.guide.sample(torch.Size([MOMENTS])))
    normal = dist.Normal(u.mean(0), WIDTH * u.std(0)).to_event(u.ndim - 1 - len(batch))
    return dist.TransformedDistribution(normal, [transform])
