"""A point, and what is zero or near it: sparse codes."""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .edges import Expanding
from .spike import SpikeOr

__all__ = ["Delta", "Horseshoe", "SpikeAndSlab"]

LOG_2PI = math.log(2 * math.pi)

Size = Sequence[int]


class Delta(Expanding, dist.Delta):
    """A point, as a family: one parameter ``v``, no density around it.

    >>> Delta(torch.tensor([1.0, 2.0])).log_prob(torch.tensor([1.0, 0.0]))
    tensor([0., -inf])
    """

    arg_constraints = {"v": constraints.real}

    def __init__(self, v: Tensor, *, validate_args: bool | None = None) -> None:
        super().__init__(v, validate_args=validate_args)


class SpikeAndSlab(Expanding, dist.TorchDistribution):
    r"""Zero, or with probability ``probs = sigmoid(logits)`` a normal variable: sparse codes.

    .. math:: p(z) = (1 - \pi)\,\delta_0(z) + \pi\, N(z; m, s^2)

    The density is with respect to Lebesgue measure plus a unit mass at zero, so a guide of a
    spike-and-slab prior is spike-and-slab too. Without a reparameterized sampler.

    Args:
        logits: of the slab, ``(...)``.
        loc: of the slab.
        scale: of the slab.

    References:
        Mitchell & Beauchamp (1988), JASA 83; Tonolini, Jensen & Murray-Smith (2019),
        arXiv:1806.08462.

    >>> SpikeAndSlab(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0)).log_prob(
    ...     torch.tensor([0.0, 1.0])
    ... )
    tensor([-0.6931, -2.1121])
    """

    arg_constraints = {
        "logits": constraints.real, "loc": constraints.real, "scale": constraints.positive,
    }  # fmt: skip
    support = SpikeOr(0.0, constraints.real)

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The slab's mean times its probability."""
        return self.logits.sigmoid() * self.loc

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: exact zeros among others."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            slab = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            keep = torch.rand_like(slab) < self.logits.sigmoid()
            return torch.where(keep, self.loc + self.scale * slab, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability of zero, the log density elsewhere."""
        slab = -((value - self.loc) / self.scale).square() / 2 - self.scale.log() - LOG_2PI / 2
        log = torch.nn.functional.logsigmoid
        return torch.where(value == 0, log(-self.logits), log(self.logits) + slab)


class Horseshoe(Expanding, dist.TorchDistribution):
    r"""The scale mixture :math:`z \sim N(0, \lambda^2 \tau^2)`, :math:`\lambda \sim C^+(0, 1)`.

    .. math:: p(z) = \frac{1}{\tau \sqrt{2\pi^3}}\, e^t E_1(t), \quad t = \frac{z^2}{2\tau^2}

    A pole at zero and tails as heavy as Cauchy's: what is small is shrunk, what is large is left.

    Args:
        scale: :math:`\tau`, ``(...)``.

    References:
        Carvalho, Polson & Scott (2010), Biometrika 97.

    >>> Horseshoe(torch.tensor(1.0)).log_prob(torch.tensor([0.1, 3.0]))
    tensor([-0.5056, -3.7422])
    """

    arg_constraints = {"scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.scale = scale
        super().__init__(scale.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, reparameterized."""
        shape = self._extended_shape(torch.Size(sample_shape))
        normal, u = torch.randn(shape).to(self.scale), torch.rand(shape).to(self.scale)
        return self.scale * normal * (math.pi / 2 * u).tan()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density; at zero itself, where it is infinite, that at the nearest number."""
        ratio = (value / self.scale).abs().clamp_min(torch.finfo(value.dtype).tiny)
        return log_scaled_e1(ratio) - self.scale.log() - 0.5 * math.log(2 * math.pi**3)


def log_scaled_e1(r: Tensor) -> Tensor:
    """log(e^t E_1(t)) at t = r^2 / 2: a power series below 1, a continued fraction above.

    Of a small r the square would underflow, and its logarithm does not.
    """
    t, least = r.square() / 2, r.clamp_max(math.sqrt(2))
    small, large = t.clamp_max(1.0), t.clamp_min(1.0)
    term, series = torch.ones_like(t), -0.5772156649015329 + math.log(2) - 2 * least.log()
    for k in range(1, 20):
        term = -term * small / k
        series = series - term / k
    fraction = torch.zeros_like(t)
    for k in range(60, 0, -1):
        fraction = k * k / (large + 2 * k + 1 - fraction)
    return torch.where(t < 1, small + series.log(), -(large + 1 - fraction).log())
