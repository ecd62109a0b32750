"""What z is drawn from where log p(x) is estimated: the guide, or the guide and a wider one."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ...core.checks import number
from ...model.face import Densities
from ...model.joint import Joint
from ...program.line import RealLine

__all__ = ["Proposal"]

WIDTH = 2.0  # standard deviations of the wide component, in those of the guide
MOMENTS = 200  # draws of the guide that give them


class Proposal:
    r"""The guide, or a mixture of it and a wider component.

    .. math:: r(z) = (1 - w)\, q(z|x) + w\, q_{wide}(z|x)

    The wide component of a continuous z is normal on the real line that maps to its support, with
    the guide's means and twice its standard deviations; that of a discrete z is the prior. No
    weight is more than 1 / (1 - w) times what it is under the guide alone, or 1 / w times what it
    is under the wide component alone.

    Args:
        joint: of the observations.
        wide: w, the share of draws from the wide component, in [0, 1).

    Raises:
        ValueError: a share that is not in [0, 1).

    References:
        Hesterberg (1995), Technometrics 37, for defensive mixtures.
    """

    def __init__(self, joint: Densities, wide: float = 0.0) -> None:
        self.share = number("wide", wide, 0)
        if self.share >= 1:
            raise ValueError(f"wide is a number below 1, the share of wide draws, got {wide!r}")
        self.joint, self.wide = joint, None
        if self.share:
            on_line: Any = joint
            self.guide, self.wide = on_line.guide, _wide(on_line)

    def sample(self, num_samples: int) -> Any:  # noqa: ANN401
        """Draws of z: of a VAE ``(S, B, *z_shape)``."""
        z = self.joint.draw(num_samples)
        if self.wide is None:
            return z
        lead = z.shape[: z.ndim - len(self.guide.event_shape)]
        pick = torch.rand(lead, device=z.device) < self.share
        pick = pick.reshape(lead + (1,) * len(self.guide.event_shape))
        return torch.where(pick, self.wide.sample(torch.Size([num_samples])), z)

    def log_weight(self, z: Any) -> Tensor:  # noqa: ANN401
        """log p(x, z) minus the log density of the proposal, ``(S, B)``."""
        if self.wide is None:
            return self.joint.log_weight(z)
        log_r = self.joint.log_guide(z)
        wide = self.wide.log_prob(z) + math.log(self.share)
        log_r = torch.logaddexp(log_r + math.log1p(-self.share), wide)
        return self.joint.log_likelihood(z) + self.joint.log_prior(z) - log_r


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
