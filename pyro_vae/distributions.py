"""The few distributions that Pyro lacks; their names are families, as Pyro's own are."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    SigmoidTransform,
    Transform,
    register_kl,
)

__all__ = [
    "AutoregressiveBits", "Delta", "Horseshoe", "ImplicitVonMises", "Interval", "NormalMixture",
    "Pushforward", "ResampledDistribution", "SpikeAndSlab", "Sticks", "VonMisesFisher", "mixture",
]  # fmt: skip

LOG_2PI = math.log(2 * math.pi)
ROUNDS = 32  # proposals a draw: Wood's sampler accepts more than 6 in 10, so 1e-13 are left

Size = Sequence[int]


class Delta(dist.Delta):
    """A point, as a family: one parameter ``v``, no density around it.

    >>> Delta(torch.tensor([1.0, 2.0])).log_prob(torch.tensor([1.0, 0.0]))
    tensor([0., -inf])
    """

    arg_constraints: ClassVar[dict] = {"v": constraints.real}  # pyright: ignore

    def __init__(self, v: Tensor, *, validate_args: bool | None = None) -> None:
        super().__init__(v, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Delta":
        """The same, expanded."""
        return Delta(self.v.expand(torch.Size(batch_shape)), validate_args=False)


class SpikeAndSlab(dist.TorchDistribution):
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

    arg_constraints: ClassVar[dict] = {  # pyright: ignore[reportIncompatibleMethodOverride]
        "logits": constraints.real, "loc": constraints.real, "scale": constraints.positive,
    }  # fmt: skip
    support = constraints.real  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: object = None) -> "SpikeAndSlab":
        """The same, expanded."""
        shape, parts = torch.Size(batch_shape), (self.logits, self.loc, self.scale)
        return SpikeAndSlab(*(p.expand(shape) for p in parts), validate_args=False)

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


class Horseshoe(dist.TorchDistribution):
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

    arg_constraints: ClassVar[dict] = {"scale": constraints.positive}  # pyright: ignore
    support = constraints.real  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    has_rsample = True

    def __init__(self, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.scale = scale
        super().__init__(scale.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Horseshoe":
        """The same, expanded."""
        return Horseshoe(self.scale.expand(torch.Size(batch_shape)), validate_args=False)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, reparameterized."""
        shape = self._extended_shape(torch.Size(sample_shape))
        normal, u = torch.randn(shape).to(self.scale), torch.rand(shape).to(self.scale)
        return self.scale * normal * (math.pi / 2 * u).tan()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density; at zero itself, where it is infinite, that at the nearest number."""
        t = (value / self.scale).square().clamp_min(torch.finfo(value.dtype).tiny) / 2
        return log_scaled_e1(t) - self.scale.log() - 0.5 * math.log(2 * math.pi**3)


def log_scaled_e1(t: Tensor) -> Tensor:
    """log(e^t E_1(t)) for t > 0: a power series below 1, a continued fraction above."""
    small, large = t.clamp_max(1.0), t.clamp_min(1.0)
    term, series = torch.ones_like(t), -0.5772156649015329 - small.log()
    for k in range(1, 20):
        term = -term * small / k
        series = series - term / k
    fraction = torch.zeros_like(t)
    for k in range(60, 0, -1):
        fraction = k * k / (large + 2 * k + 1 - fraction)
    return torch.where(t < 1, small + series.log(), -(large + 1 - fraction).log())


class VonMisesFisher(dist.TorchDistribution):
    r"""A direction near ``loc``: the normal distribution of the unit sphere.

    .. math:: p(z) = C_D(\kappa)\, e^{\kappa\, \mu^\top z}, \quad |z| = 1, \quad
        C_D(\kappa) = \frac{\kappa^{D/2 - 1}}{(2\pi)^{D/2} I_{D/2 - 1}(\kappa)}

    The cosine is drawn by Wood's rejection sampler and reparameterized implicitly: its derivative
    in :math:`\kappa` is that of the distribution function over the density. (The gradient that
    follows the accepted proposal alone leaves out a term.) The KL between two is in closed form.

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

    arg_constraints: ClassVar[dict] = {  # pyright: ignore[reportIncompatibleMethodOverride]
        "loc": constraints.sphere, "concentration": constraints.nonnegative,
    }  # fmt: skip
    support = constraints.sphere  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
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
        return self.loc * self._normalizer()[1].unsqueeze(-1)

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density with respect to the sphere's area."""
        return self._normalizer()[0] + self.concentration * (self.loc * value).sum(-1)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: a cosine along ``loc``, and a uniform direction across it."""
        shape = self._extended_shape(torch.Size(sample_shape))
        kappa = self.concentration.expand(shape[:-1])
        with torch.no_grad():
            w = self._cosine(kappa)
            slope = self._slope(w, kappa)
        w = (w + slope * (kappa - kappa.detach())).unsqueeze(-1)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        across = noise - (noise * self.loc).sum(-1, keepdim=True) * self.loc
        across = torch.nn.functional.normalize(across, dim=-1)
        return w * self.loc + (1 - w.square()).clamp_min(1e-30).sqrt() * across

    def _cosine(self, kappa: Tensor) -> Tensor:
        """Draws of the cosine: all proposals at once, and the first that is accepted."""
        n = self.event_shape[0] - 1
        b = n / (2 * kappa + (4 * kappa.square() + n * n).sqrt())
        x = (1 - b) / (1 + b)
        c = kappa * x + n * (4 * b / (1 + b).square()).log()  # log(1 - x^2), without cancellation
        half = torch.full((*kappa.shape, ROUNDS), n / 2, dtype=kappa.dtype, device=kappa.device)
        beta = dist.Beta(half, half, validate_args=False).sample()
        b, x, c, kappa = (v.unsqueeze(-1) for v in (b, x, c, kappa))
        w = (1 - (1 + b) * beta) / (1 - (1 - b) * beta)
        ratio = kappa * w + n * (1 - x * w).log() - c
        accepted = ratio >= torch.rand_like(w).log()
        first = accepted.to(torch.int8).argmax(-1, keepdim=True)
        return w.gather(-1, first).squeeze(-1).clamp(-1.0, 1.0)

    def _slope(self, w: Tensor, kappa: Tensor) -> Tensor:
        r"""dw/dkappa = -dF/dkappa / p(w), by quadrature over the shorter tail.

        In the angle the density is sin^{D-2} e^{kappa cos}: smooth up to its ends.
        """
        n = self.event_shape[0] - 2
        mean = self._normalizer()[1].detach()
        nodes, weights = (torch.as_tensor(v).to(w) for v in gauss_legendre(64))
        angle = w.acos()
        # Beyond 12 of its widths the tail holds nothing that a float would show.
        width = 12 / (n + 1 + kappa).sqrt()
        lower = w > mean
        end = torch.where(lower, (angle - width).clamp_min(0.0), (angle + width).clamp_max(math.pi))
        t = angle.unsqueeze(-1) + (end - angle).unsqueeze(-1) * nodes
        log = kappa.unsqueeze(-1) * (t.cos() - w.unsqueeze(-1))
        ratio = (t.sin() / angle.sin().clamp_min(1e-12).unsqueeze(-1)).clamp_min(0.0)
        density = ratio.pow(n) * log.exp()
        moment = ((t.cos() - mean.unsqueeze(-1)) * density * weights).sum(-1)
        # dF/dkappa = -int_tail (cos - mean) p; dw = -sin d(angle)
        return moment * (angle - end).abs() * angle.sin() * torch.where(lower, 1.0, -1.0)

    def _normalizer(self) -> tuple[Tensor, Tensor]:
        """log C_D(kappa), and the mean cosine."""
        d = self.event_shape[0]
        log, ratio = bessel(d / 2 - 1, self.concentration)
        return -d / 2 * LOG_2PI - log, ratio


class ImplicitVonMises(dist.VonMises):
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
    r"""log of :math:`I_\nu(x) / x^\nu` and :math:`I_{\nu+1}(x) / I_\nu(x)`, for :math:`x \ge 0`.

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
    """log of I_nu(x) / x^nu for a large order."""
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
    return s - nu * (nu + s).log() - s.log() / 2 - LOG_2PI / 2 + series


@cache
def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    log_q, cosine = q._normalizer()
    along = q.concentration - p.concentration * (q.loc * p.loc).sum(-1)
    return log_q - p._normalizer()[0] + cosine * along


class Interval(ComposeTransform):
    """From the real line to ``(low, high)``: a sigmoid, stretched, that knows where it ends.

    >>> Interval(-1.0, 3.0)(torch.tensor(0.0))
    tensor(1.)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        super().__init__([SigmoidTransform(), AffineTransform(low, high - low)])

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> constraints.Constraint:  # pyright: ignore
        """The interval."""
        return constraints.interval(self.low, self.high)


class Sticks(Transform):
    r"""Break a stick: fractions :math:`v \in (0, 1)^{K-1}` to a point of the simplex.

    .. math:: z_k = v_k \prod_{j < k} (1 - v_j), \quad z_K = \prod_j (1 - v_j)

    References:
        Sethuraman (1994), Statistica Sinica 4; Nalisnick & Smyth (2017), arXiv:1605.06197.

    >>> Sticks()(torch.tensor([0.5, 0.5]))
    tensor([0.5000, 0.2500, 0.2500])
    """

    domain = constraints.independent(constraints.unit_interval, 1)
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sticks)

    def __hash__(self) -> int:
        return hash(Sticks)

    def _call(self, x: Tensor) -> Tensor:
        one = torch.ones_like(x[..., :1])
        return torch.cat([x, one], -1) * torch.cat([one, (1 - x).cumprod(-1)], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., :-1] / self._left(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log of the product of what was left at each break."""
        return self._left(y).log().sum(-1)

    def _left(self, y: Tensor) -> Tensor:
        """What is left of the stick before each break, from its end: no cancellation."""
        left = y.flip(-1).cumsum(-1).flip(-1)[..., :-1]
        return left.clamp_min(torch.finfo(y.dtype).tiny)

    def forward_shape(self, shape: Size) -> Size:
        """One more than the breaks."""
        return torch.Size([*shape[:-1], shape[-1] + 1])

    def inverse_shape(self, shape: Size) -> Size:
        """One less than the pieces."""
        return torch.Size([*shape[:-1], shape[-1] - 1])


class NormalMixture(dist.TorchDistribution):
    r"""A mixture of normals of independent coordinates, made for many components.

    .. math:: p(z) = \sum_k \pi_k \prod_d N(z_d; m_{kd}, s_{kd}^2)

    Components without a batch dimension stay so when the distribution is expanded, and then the
    log densities are two matrix products: :math:`(z - m)^2 / s^2` multiplied out. Draws are
    reparameterized, by Pyro's path through the mixture.

    Args:
        logits: of the components, ``(*batch, K)``.
        loc: ``(*batch, K, *event)``.
        scale: as ``loc``.
        event_dim: how many dimensions one draw has.

    References:
        Jankowiak & Karaletsos (2019), arXiv:1806.01856, for the path.

    >>> p = NormalMixture(torch.zeros(500), torch.randn(500, 40), torch.ones(500, 40))
    >>> p.expand([100]).log_prob(torch.zeros(100, 40)).shape
    torch.Size([100])
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]
    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, *, event_dim: int = 1) -> None:
        self.logits = logits.log_softmax(-1)
        self.loc, self.scale = loc.flatten(-event_dim), scale.flatten(-event_dim)
        batch = torch.broadcast_shapes(logits.shape[:-1], self.loc.shape[:-2])
        super().__init__(batch, loc.shape[loc.ndim - event_dim :], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All arrays of the event's shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> "NormalMixture":
        """The same for a larger batch; the components are shared, not copied."""
        new = object.__new__(type(self))
        new.logits, new.loc, new.scale = self.logits, self.loc, self.scale
        dist.TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    @property
    def mean(self) -> Tensor:
        """The components' means, weighted."""
        mean = (self.logits.exp().unsqueeze(-1) * self.loc).sum(-2)
        return mean.reshape(mean.shape[:-1] + self.event_shape).expand(self._extended_shape())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, by logsumexp over the components."""
        z = value.flatten(-len(self.event_shape))
        log = self.logits - self.scale.log().sum(-1)
        if self.loc.ndim == 2:
            precision = self.scale.square().reciprocal()
            weighted = self.loc * precision
            log = log - (self.loc * weighted).sum(-1) / 2
            log = log + z.square() @ (precision / -2).T + z @ weighted.T
        else:
            log = log - ((z.unsqueeze(-2) - self.loc) / self.scale).square().sum(-1) / 2
        log_prob = _logsumexp(log) - z.shape[-1] * LOG_2PI / 2
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, with a path to all parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        lead = shape[: len(shape) - len(self.event_shape)]
        loc, scale = (v.expand(*lead, *v.shape[-2:]) for v in (self.loc, self.scale))
        logits = self.logits.expand(*lead, self.logits.shape[-1])
        return dist.MixtureOfDiagNormals(loc, scale, logits).rsample().reshape(shape)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw: a component, then a point of it."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            lead = shape[: len(shape) - len(self.event_shape)]
            logits = self.logits.expand(*lead, self.logits.shape[-1])
            which = dist.Categorical(logits=logits).sample()
            if self.loc.ndim == 2:
                loc, scale = self.loc[which], self.scale[which]
            else:
                index = which[..., None, None]
                loc, scale = (
                    v.expand(*lead, *v.shape[-2:]).take_along_dim(index, -2).squeeze(-2)
                    for v in (self.loc, self.scale)
                )
            return (loc + scale * torch.randn_like(loc)).reshape(shape)


def _logsumexp(log: Tensor) -> Tensor:
    """Over the last dimension, where most of many terms underflow, at which exp is slow."""
    top = log.detach().amax(-1, keepdim=True)
    least = 0.9 * math.log(torch.finfo(log.dtype).tiny)
    return (log - top).clamp(min=least).exp().sum(-1).log() + top.squeeze(-1)


def mixture(
    weights: dist.TorchDistribution, components: dist.TorchDistribution
) -> dist.TorchDistribution:
    """The mixture of the last batch dimension of ``components``.

    Args:
        weights: a ``Categorical``, of batch shape ``(*batch,)``.
        components: of batch shape ``(*batch, K)``.
    """
    base: Any = components
    while isinstance(base, dist.Independent):
        base = base.base_dist
    logits: Any = weights.logits
    if isinstance(base, dist.Normal):
        return NormalMixture(logits, base.loc, base.scale, event_dim=components.event_dim)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


class Pushforward(dist.TorchDistribution):
    r"""A base distribution through an invertible map, with the density of its own draws for free.

    .. math:: z = f(u), \quad \log p(z) = \log p_0(u) - \log |\det \partial f / \partial u|

    One direction of a flow may be much dearer than the other. The log density of a reparameterized
    draw comes from the pass that made it; that of any other value, and of a draw without a path
    (the score function needs the gradient at a fixed z), from the inverse.

    Args:
        base: of event shape ``(D,)``.
        transform: from a value to the base where not ``inverse``, as Zuko has it; otherwise from
            the base to a value. It must have ``call_and_ladj`` and ``inv``.
        shape: of one draw, D numbers in all.
        inverse: see ``transform``.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]
    has_rsample = True

    def __init__(
        self,
        base: dist.TorchDistribution,
        transform: Any,  # noqa: ANN401
        shape: Size,
        *,
        inverse: bool = False,
    ) -> None:
        self.base, self.transform, self.inverse = base, transform, inverse
        self.draw: Any = None, None
        super().__init__(base.batch_shape, torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All arrays of the event's shape (on circles too, as ``VonMises`` has it)."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> Self:
        """The base expanded, under the same map."""
        base = self.base.expand(torch.Size(batch_shape))
        return type(self)(base, self.transform, self.event_shape, inverse=self.inverse)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw; its log density is kept with it."""
        u = self.base.rsample(torch.Size(sample_shape))
        z, ladj = self._pass(forth=True)(u)
        z = z.reshape(u.shape[:-1] + self.event_shape)
        self.draw = z, self.base.log_prob(u) - ladj
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        own = value is self.draw[0]
        if own and (value.requires_grad or not torch.is_grad_enabled()):
            return self.draw[1]
        z = value.flatten(-len(self.event_shape))
        u, ladj = self._pass(forth=False)(z)
        return self.base.log_prob(u) + ladj

    def _pass(self, *, forth: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        transform = self.transform if forth == self.inverse else self.transform.inv
        return transform.call_and_ladj


class ResampledDistribution(dist.TorchDistribution):
    r"""Draws of a proposal, accepted with probability a(z), at most ``truncation`` of them.

    .. math:: p(z) = \pi(z) \left[\frac{a(z)}{Z} (1 - \alpha) + \alpha\right],
        \quad \alpha = (1 - Z)^{T - 1}

    Args:
        proposal: :math:`\pi`.
        log_accept: from z to log a(z).
        normalizer: :math:`Z = E_\pi[a]`.
        truncation: T.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(
        self,
        proposal: dist.TorchDistribution,
        log_accept: Callable[[Tensor], Tensor],
        normalizer: Tensor,
        truncation: int,
    ) -> None:
        self.proposal, self.log_accept = proposal, log_accept
        self.normalizer, self.truncation = normalizer, truncation
        super().__init__(proposal.batch_shape, proposal.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the proposal."""
        return self.proposal.support

    def expand(self, batch_shape: Size, _instance: object = None) -> "ResampledDistribution":
        """The proposal expanded, under the same acceptance."""
        proposal = self.proposal.expand(torch.Size(batch_shape))
        return ResampledDistribution(proposal, self.log_accept, self.normalizer, self.truncation)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        last = (self.truncation - 1) * torch.log1p(-self.normalizer)
        first = self.log_accept(value) - self.normalizer.log() + torch.log(-torch.expm1(last))
        return self.proposal.log_prob(value) + torch.logaddexp(first, last)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw by rejection."""
        with torch.no_grad():
            shape, ones = torch.Size(sample_shape), (1,) * len(self.event_shape)
            z = self.proposal.sample(shape)
            rejected = torch.ones(z.shape[: z.ndim - len(ones)], dtype=torch.bool, device=z.device)
            for _ in range(self.truncation - 1):
                log_accept = self.log_accept(z)
                rejected = rejected & (torch.rand_like(log_accept).log() > log_accept)
                if not rejected.any():
                    break
                again = rejected.reshape(rejected.shape + ones)
                z = torch.where(again, self.proposal.sample(shape), z)
            return z


class AutoregressiveBits(dist.TorchDistribution):
    r"""Bits, each one's logit a function of those before it.

    Args:
        logits: from bits ``(..., D)`` to logits ``(..., D)``, the d-th a function of the first d-1.
        shape: of one draw, D bits in all.
        batch_shape: of independent draws.
        like: a tensor of the type and on the device of the draws.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        shape: Size,
        batch_shape: Size = (),
        *,
        like: Tensor | None = None,
    ) -> None:
        self.logits, self.like = logits, torch.empty(0) if like is None else like
        super().__init__(torch.Size(batch_shape), torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """0 or 1."""
        return constraints.independent(constraints.boolean, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> "AutoregressiveBits":
        """The same for a larger batch."""
        return AutoregressiveBits(self.logits, self.event_shape, batch_shape, like=self.like)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability, in one pass."""
        bits = value.flatten(-len(self.event_shape))
        logits = self.logits(bits)
        log = -torch.nn.functional.softplus(torch.where(bits > 0.5, -logits, logits)).sum(-1)
        return log.expand(torch.broadcast_shapes(log.shape, self.batch_shape))

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, bit by bit."""
        with torch.no_grad():
            shape, n = self._extended_shape(torch.Size(sample_shape)), self.event_shape.numel()
            lead = shape[: len(shape) - len(self.event_shape)]
            bits = torch.zeros(*lead, n, dtype=self.like.dtype, device=self.like.device)
            for d in range(n):
                bits[..., d] = self.logits(bits)[..., d].sigmoid().bernoulli()
            return bits.reshape(shape)
