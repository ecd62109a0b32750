"""On the sphere and the circle."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import register_kl

from .same_family import MixtureSameFamily

__all__ = [
    "ImplicitVonMises",
    "SineBivariateVonMises",
    "VonMises",
    "VonMisesFisher",
    "VonMisesMixture",
    "bessel",
    "direction",
    "gauss_legendre",
]

LOG_2PI = math.log(2 * math.pi)
ROUNDS = 32  # proposals a draw: Wood's sampler accepts more than 6 in 10, so 1e-13 are left

Size = Sequence[int]


class VonMisesFisher(dist.TorchDistribution):
    r"""A direction near ``loc``: the normal distribution of the unit sphere.

    .. math:: p(z) = C_D(\kappa)\, e^{\kappa\, \mu^\top z}, \quad |z| = 1, \quad
        C_D(\kappa) = \frac{\kappa^{D/2 - 1}}{(2\pi)^{D/2} I_{D/2 - 1}(\kappa)}

    The cosine is drawn by Wood's rejection sampler and reparameterized implicitly: its derivative
    in :math:`\kappa` is that of the distribution function over the density. (The gradient that
    follows the accepted proposal alone leaves out a term.) The KL between two is in closed form.

    Of a concentrated direction the digits are in how far it is from the mean: log densities are
    that at the mean minus :math:`\kappa |z - \mu|^2 / 2`, and :math:`\kappa` in doubles.

    Args:
        loc: the mean direction :math:`\mu`, ``(..., D)``, of length 1.
        concentration: :math:`\kappa \ge 0`, ``(...)``; 0 is uniform on the sphere.

    References:
        Wood (1994), Commun. Stat. Simul. 23; Davidson et al. (2018), arXiv:1804.00891;
        Figurnov, Mohamed & Mnih (2018), arXiv:1805.08498.

    >>> VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(0.0)).log_prob(
    ...     torch.tensor([0.0, 1.0, 0.0])
    ... ).exp() * 4 * math.pi
    tensor(1.0000)
    """

    arg_constraints: dict = {
        "loc": constraints.sphere, "concentration": constraints.nonnegative,
    }  # fmt: skip
    support = constraints.sphere
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor, *, validate_args: bool | None = None
    ) -> None:
        if loc.shape[-1] < 2:
            raise ValueError(f"a direction needs at least 2 dimensions, got {loc.shape[-1]}")
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.concentration = concentration.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: object = None) -> "VonMisesFisher":
        """The same, expanded."""
        shape = torch.Size(batch_shape)
        loc, concentration = self.loc.expand(shape + self.event_shape), self.concentration
        return VonMisesFisher(loc, concentration.expand(shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """``loc`` times the mean cosine; inside the sphere."""
        return self.loc * self._normalizer()[1].to(self.loc).unsqueeze(-1)

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density with respect to the sphere's area."""
        top = self._normalizer()[0].to(self.loc)
        return top - self.concentration * (value - self.loc).square().sum(-1) / 2

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: a cosine along ``loc``, and a uniform direction across it."""
        shape = self._extended_shape(torch.Size(sample_shape))
        kappa = self.concentration.expand(shape[:-1])
        with torch.no_grad():
            v = self._versine(kappa)
            slope = self._slope(v.double(), kappa.double()).to(v)
        v = (v + slope * (kappa - kappa.detach())).unsqueeze(-1)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        across = noise - (noise * self.loc).sum(-1, keepdim=True) * self.loc
        across = torch.nn.functional.normalize(across, dim=-1)
        return self.loc - v * self.loc + (v * (2 - v)).clamp_min(1e-30).sqrt() * across

    def _versine(self, kappa: Tensor) -> Tensor:
        """Draws of 1 - cosine: all proposals at once, and the first that is accepted."""
        n = self.event_shape[0] - 1
        b = n / (2 * kappa + (4 * kappa.square() + n * n).sqrt())
        half = torch.full((*kappa.shape, ROUNDS), n / 2, dtype=kappa.dtype, device=kappa.device)
        beta = dist.Beta(half, half, validate_args=False).sample()
        b, kappa = b.unsqueeze(-1), kappa.unsqueeze(-1)
        v = 2 * b * beta / (1 - (1 - b) * beta)
        off, x = 2 * b / (1 + b), (1 - b) / (1 + b)  # x is the cosine at which all are accepted
        # (1 - x w) / (1 - x^2), each written without a difference of numbers near 1.
        quotient = (off + x * v) / (off * (1 + x))
        ratio = kappa * (off - v) + n * quotient.log()
        accepted = ratio >= torch.rand_like(v).log()
        first = accepted.to(torch.int8).argmax(-1, keepdim=True)
        return v.gather(-1, first).squeeze(-1).clamp(0.0, 2.0)

    def _slope(self, v: Tensor, kappa: Tensor) -> Tensor:
        r"""dv/dkappa = dF/dkappa / p(w), by quadrature over the shorter tail.

        In the angle the density is sin^{D-2} e^{kappa cos}: smooth up to its ends.
        """
        n = self.event_shape[0] - 2
        short = 1 - self._normalizer()[1].detach().expand(kappa.shape)  # of the mean cosine
        nodes, weights = (torch.as_tensor(t).to(v) for t in gauss_legendre(64))
        angle = 2 * (v / 2).sqrt().asin()
        # Beyond 12 of its widths the tail holds nothing that a float would show.
        width = 12 / (n + 1 + kappa).sqrt()
        lower = v < short
        end = torch.where(lower, (angle - width).clamp_min(0.0), (angle + width).clamp_max(math.pi))
        t = angle.unsqueeze(-1) + (end - angle).unsqueeze(-1) * nodes
        versine = 2 * (t / 2).sin().square()
        log = kappa.unsqueeze(-1) * (v.unsqueeze(-1) - versine)
        ratio = (t.sin() / angle.sin().clamp_min(1e-12).unsqueeze(-1)).clamp_min(0.0)
        density = ratio.pow(n) * log.exp()
        moment = ((short.unsqueeze(-1) - versine) * density * weights).sum(-1)
        # dF/dkappa = -int_tail (cos - mean) p; dw = -sin d(angle) = -dv
        return moment * (angle - end).abs() * angle.sin() * torch.where(lower, -1.0, 1.0)

    def _normalizer(self) -> tuple[Tensor, Tensor]:
        """The log density at the mean direction, and the mean cosine, in doubles."""
        d, kappa = self.event_shape[0], self.concentration.double()
        log, ratio = bessel(d / 2 - 1, kappa)
        return -d / 2 * LOG_2PI - log, ratio


class VonMises(dist.VonMises):
    r"""An angle near ``loc``, as Pyro has it, with a log density that keeps its digits.

    .. math:: \log p(z) = -2 \kappa \sin^2 \tfrac{z - \mu}{2} - \log\left(
        2 \pi e^{-\kappa} I_0(\kappa)\right)

    Args:
        loc: the mean direction, in radians.
        concentration: kappa, at least 0.

    >>> VonMises(torch.tensor(0.0), torch.tensor(1e6)).log_prob(torch.tensor(0.0))
    tensor(5.9888)
    """

    support = constraints.interval(-math.pi, math.pi)

    @property
    def mean(self) -> Tensor:
        """The mean direction, in [-pi, pi]."""
        return direction(self).angle()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        top = -torch.special.i0e(self.concentration.double()).log() - LOG_2PI
        down = 2 * self.concentration * ((value - self.loc) / 2).sin().square()
        return top.to(down) - down


class VonMisesMixture(MixtureSameFamily):
    """A mixture of angles: its mean is a direction, and its variance that of directions."""

    @property
    def mean(self) -> Tensor:
        """The mean direction, in [-pi, pi]."""
        return direction(self).angle()

    @property
    def variance(self) -> Tensor:
        """One less the length of the mean of unit vectors, as of one angle."""
        return 1 - direction(self).abs()


def direction(p: Any) -> Tensor:  # noqa: ANN401
    """The mean of the unit vectors at angles, as complex numbers, of a mixture's too.

    Angles themselves have no mean: those of 3 and -3 radians are near to each other, and 0 is not.
    """
    while isinstance(p, dist.Independent):
        p = p.base_dist
    if isinstance(p, VonMisesMixture):
        parts: Any = p.component_distribution
        weights = p.mixture_distribution.probs
        weights = weights.reshape(*weights.shape, *[1] * len(p.event_shape))
        return (weights * direction(parts)).sum(-1 - len(p.event_shape))
    length = torch.special.i1e(p.concentration) / torch.special.i0e(p.concentration)
    return torch.polar(*torch.broadcast_tensors(length, p.loc))


class SineBivariateVonMises(dist.SineBivariateVonMises):
    """Two dependent angles, as Pyro has them, whose support is that of angles."""

    support = constraints.independent(VonMises.support, 1)


class ImplicitVonMises(VonMises):
    r"""Von Mises with a reparameterized sampler, by implicit differentiation of its CDF.

    .. math:: \frac{\partial z}{\partial \mu} = 1, \quad
        \frac{\partial z}{\partial \kappa} = -\frac{\partial F / \partial \kappa}{p(z)}
        = -\int_0^{z - \mu} \left(\cos t - \frac{I_1(\kappa)}{I_0(\kappa)}\right)
            e^{\kappa (\cos t - \cos(z - \mu))}\, dt

    Draws lie on the circle, in [-pi, pi). The pathwise gradient is right for functions that are
    continuous there, as those of (cos z, sin z) are. A network that reads the angle itself jumps
    where the circle is cut, and its pathwise gradient is biased: Pyro's ``VonMises``, by the score
    function, serves it. First derivatives only.

    Args:
        loc: the mean direction, in radians.
        concentration: kappa, at least 0.

    References:
        Figurnov, Mohamed & Mnih (2018), arXiv:1805.08498.

    >>> concentration = torch.tensor(2.0, requires_grad=True)
    >>> ImplicitVonMises(torch.tensor(0.0), concentration).rsample().cos().requires_grad
    True
    """

    has_rsample = True

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw with its path to both parameters."""
        z = self.sample(torch.Size(sample_shape))
        with torch.no_grad():
            z0 = (z - self.loc + math.pi).remainder(2 * math.pi) - math.pi
            slope = self._slope(z0.double(), self.concentration.double()).to(z)
        path = (self.loc - self.loc.detach()) + slope * (
            self.concentration - self.concentration.detach()
        )
        return z + path

    @staticmethod
    def _slope(z: Tensor, concentration: Tensor) -> Tensor:
        """dz/dkappa, the integral by quadrature: it is smooth wherever draws fall."""
        nodes, weights = (torch.from_numpy(a).to(z) for a in gauss_legendre(32))
        mean = torch.special.i1e(concentration) / torch.special.i0e(concentration)
        t, kappa = z[..., None] * nodes, concentration[..., None]
        ratio = (kappa * (t.cos() - z.cos()[..., None])).exp()
        return -z * (((t.cos() - mean[..., None]) * ratio) @ weights)


def bessel(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""log of :math:`e^{-x} I_\nu(x) / x^\nu` and :math:`I_{\nu+1}(x) / I_\nu(x)`, x not below 0.

    Olver's uniform expansion at a high order, then the recurrence downwards, which is stable.
    """
    steps = max(0, math.ceil(32 - order))
    nu = order + steps
    log, above = olver(nu, x), olver(nu + 1, x)
    ratio = x * (above - log).exp()
    for k in range(steps):
        denominator = 2 * (nu - k) + x * ratio
        log, ratio = log + denominator.log(), x / denominator
    return log, ratio


def olver(nu: float, x: Tensor) -> Tensor:
    """log of e^-x I_nu(x) / x^nu for a large order."""
    s = (nu * nu + x.square()).sqrt()
    p = nu / s
    q = p * p
    u1 = p * (3 - 5 * q) / 24
    u2 = q * (81 - 462 * q + 385 * q**2) / 1152
    u3 = p * q * (30375 - 369603 * q + 765765 * q**2 - 425425 * q**3) / 414720
    u4 = q * q * (
        4465125 - 94121676 * q + 349922430 * q**2 - 446185740 * q**3 + 185910725 * q**4
    ) / 39813120  # fmt: skip
    series = torch.log1p(u1 / nu + u2 / nu**2 + u3 / nu**3 + u4 / nu**4)
    beyond = nu * nu / (s + x)  # s - x
    return beyond - nu * (nu + s).log() - s.log() / 2 - LOG_2PI / 2 + series


@cache
def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    (top_q, cosine), (top_p, _) = q._normalizer(), p._normalizer()
    apart = p.concentration.double() * (q.loc - p.loc).double().square().sum(-1) / 2
    narrower = q.concentration.double() - p.concentration
    return (top_q - top_p - (1 - cosine) * narrower + cosine * apart).to(q.loc)
