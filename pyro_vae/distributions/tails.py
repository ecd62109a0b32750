"""Families with tails so heavy that float32 would make draws infinite, or their density 0.

Each is Pyro's, under Pyro's name. A draw that is too large is the largest number there is, and has
a finite density, which is made in logarithms where the numbers themselves overflow.
"""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .edges import Checked, Expanding, InLogarithms, finite_exp, inside, log1mexp, remembered

__all__ = [
    "AffineBeta",
    "FisherSnedecor",
    "GeneralizedPareto",
    "Logistic",
    "SkewLogistic",
    "SoftAsymmetricLaplace",
    "SoftLaplace",
    "StudentT",
]

Size = Sequence[int]
LARGE = 1e6  # a number to which 1 adds nothing
EXPONENT = 80.0  # of which float32 has the exponential
ASYMPTOTIC = 1e3  # from here on erfcx is its asymptotic series
NO_TAIL = 1e-8  # a concentration that is none


class StudentT(Checked, dist.StudentT):
    """Student's t, whose chi-squared is drawn in logarithms."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite."""
        shape = self._extended_shape(torch.Size(sample_shape))
        normal = torch.randn(shape, dtype=self.df.dtype, device=self.df.device)
        log = normal.abs().log() - _log_chi2(self.df, sample_shape) / 2
        return inside(self.loc + self.scale * normal.sign() * finite_exp(log), None, None)

    def _log_density(self, x: Tensor) -> Tensor:
        df, size = self.df.double(), (x - self.loc).abs()
        beta = ((df / 2).lgamma() - ((df + 1) / 2).lgamma()).to(self.df)
        norm = beta + (self.df.log() + math.log(math.pi)) / 2 + self.scale.log()
        return -(self.df + 1) / 2 * _log1p(size, self.scale * self.df.sqrt(), 2) - norm


class FisherSnedecor(InLogarithms, dist.FisherSnedecor):
    """Ratios of two chi-squared variables over their degrees of freedom."""

    def _log_draw(self, sample_shape: torch.Size) -> Tensor:
        return _log_chi2(self.df1, sample_shape) - _log_chi2(self.df2, sample_shape)

    def _log_density(self, x: Tensor) -> Tensor:
        a, b, ratio = self.df1.double() / 2, self.df2.double() / 2, self.df2 / self.df1
        beta = ((a + b).lgamma() - a.lgamma() - b.lgamma()).to(self.df1)
        first, second = _log1p(ratio, x, 1), _log1p(x, ratio, 1)
        return beta - x.log() - (self.df1 * first + self.df2 * second) / 2


class GeneralizedPareto(Checked, dist.GeneralizedPareto):  # pyrefly: ignore[missing-attribute]
    r"""Numbers above a threshold, :math:`\mu + \sigma (e^{\xi E} - 1) / \xi`, E exponential."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite, and within the support."""
        wait = -_uniform(self.loc, self._extended_shape(torch.Size(sample_shape))).log()
        k, tail = self._tail
        grown = k * wait
        far = grown > EXPONENT
        near = torch.expm1(torch.where(far, 0.0, grown)) / k
        beyond = finite_exp(torch.where(far, grown, 0.0) - k.abs().log() + self.scale.log())
        plain = wait * (1 + self.concentration * wait / 2)
        size = torch.where(far, beyond, self.scale * torch.where(tail, near, plain))
        return torch.minimum(inside(self.loc + size, None, None), self._most)

    def _log_density(self, x: Tensor) -> Tensor:
        """At the upper bound that of the number before it."""
        size = x - self.loc
        k, tail = self._tail
        ends = tail & (k < 0)
        power = (1 / k + 1) * self._log_grown(size)
        plain = torch.where(tail, 0.0, size) / self.scale
        y = plain.clamp(max=LARGE)
        slope = (self.concentration - self.concentration.detach()) * y * (1 - y / 2)
        log = -self.scale.log() - torch.where(tail, power, plain + slope)
        return torch.where((size >= 0) & ~(ends & (x > self._most)), log, -math.inf)

    def log_survival(self, x: Tensor) -> Tensor:
        """log P(X > x), which is finite within the support."""
        size, (k, tail) = (x - self.loc).clamp(min=0), self._tail
        log = -torch.where(tail, self._log_grown(size) / k, size / self.scale)
        return torch.where(x < self._most, log, -math.inf)

    def _log_grown(self, size: Tensor) -> Tensor:
        """log(1 + k size / scale); at the upper bound that of the number before it."""
        k, tail = self._tail
        ends = tail & (k < 0)
        grows = _log1p(torch.where(ends, 0.0, size), self.scale / k.abs(), 1)
        share = torch.where(ends, size, 0.0) * k.abs() / self.scale
        falls = share.clamp(max=1 - torch.finfo(share.dtype).eps).neg().log1p()
        return torch.where(ends, falls, grows)

    @property
    def _most(self) -> Tensor:
        """The upper bound."""
        k, _ = self._tail
        return torch.where(k < 0, self.loc - self.scale / k, math.inf)

    @property
    def _tail(self) -> tuple[Tensor, Tensor]:
        """The concentration, 1 where it is 0, and whether it is not."""
        tail = self.concentration.abs() > NO_TAIL
        return torch.where(tail, self.concentration, 1.0), tail


class Logistic(dist.Logistic):
    """Numbers whose sigmoid is uniform."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite."""
        return self.icdf(_uniform(self.loc, self._extended_shape(torch.Size(sample_shape))))


class SoftLaplace(dist.SoftLaplace):
    """Numbers with two smooth exponential tails."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite."""
        return self.icdf(_uniform(self.loc, self._extended_shape(torch.Size(sample_shape))))


class SoftAsymmetricLaplace(Checked, Expanding, dist.SoftAsymmetricLaplace):
    r"""A normal variable and two exponential ones, :math:`\mu + \sigma (s N - a E + E' / a)`.

    Its log density is made by the scaled complementary error function, whose logarithm is finite
    where that of Pyro's complement of the error function is not.
    """

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite."""
        return inside(super().rsample(torch.Size(sample_shape)), None, None)

    def _log_density(self, x: Tensor) -> Tensor:
        a, soft = self.asymmetry.double(), self.softness.double()
        z = (x.double() - self.loc.double()) / self.scale.double()
        tails = torch.logaddexp(_soft_tail(z, a, soft), _soft_tail(-z, 1 / a, soft))
        found = tails - (a + 1 / a).log() - self.scale.double().log() - math.log(2)
        return found.to(torch.promote_types(x.dtype, self.loc.dtype))


class AffineBeta(Checked, dist.AffineBeta):
    """A beta variable, scaled and moved."""

    _behind: list[Tensor] | None = None  # logarithms of both shares of the last draw, and the draw

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw within the bounds."""
        shares = self.base_dist._dirichlet.rsample(torch.Size(sample_shape))
        x = self.loc + self.scale * shares[..., 0]
        drawn = torch.minimum(torch.maximum(x, self.low), self.high)
        self._behind = [*shares.double().log().unbind(-1), drawn]
        return drawn

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw without a path."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _log_density(self, x: Tensor) -> Tensor:
        """At a bound that of half of the way to the number beside it, and none outside of both."""
        a, b = self.concentration1.double(), self.concentration0.double()
        of, kind = torch.finfo(x.dtype), torch.promote_types(x.dtype, self.concentration1.dtype)
        outside = (x < self.low) | (x > self.high)
        scale, wide = self.scale.double(), x.double()
        ends = self.loc.double(), self.loc.double() + scale

        def find(x: Tensor) -> list[Tensor]:
            least = [(end.abs() * of.eps / 2).clamp(min=of.tiny) for end in ends]
            away = [(wide - end).abs().maximum(rest) for end, rest in zip(ends, least, strict=True)]
            return [*((each / scale).clamp(max=1).log() for each in away), x]

        steps = remembered(x, self._behind, find)
        beta = (a + b).lgamma() - a.lgamma() - b.lgamma()
        found = beta + (a - 1) * steps[0] + (b - 1) * steps[1] - scale.log()
        return torch.where(outside, -math.inf, found.to(kind))


class SkewLogistic(Checked, dist.SkewLogistic):
    """Numbers a power of whose sigmoid is uniform."""

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite."""
        uniform = _uniform(self.loc, self._extended_shape(torch.Size(sample_shape)))
        wait = -uniform.log() / self.asymmetry  # minus the logarithm of the sigmoid
        return inside(self.loc - self.scale * (wait + log1mexp(wait)), None, None)

    def _log_density(self, x: Tensor) -> Tensor:
        z, a = (x - self.loc) / self.scale, self.asymmetry
        return (a / self.scale).log() + logsigmoid(-z) + a * logsigmoid(z)


def _uniform(like: Tensor, shape: torch.Size) -> Tensor:
    """Uniform draws that are greater than 0."""
    return like.new_empty(shape).uniform_().clamp(min=torch.finfo(like.dtype).tiny)


def _log_chi2(df: Tensor, sample_shape: Size) -> Tensor:
    """The logarithm of chi-squared draws over their degrees of freedom.

    A gamma variable of shape a is one of shape a + 1 times a uniform one to the power 1 / a.
    """
    half = df / 2
    gamma = dist.Gamma(half + 1, torch.ones_like(half)).rsample(torch.Size(sample_shape))
    return gamma.log() - torch.empty_like(gamma).exponential_() / half - half.log()


def _log1p(x: Tensor, scale: Tensor, power: int) -> Tensor:
    """log(1 + (x / scale) ** power) of numbers that are at least 0, with a finite gradient."""
    x, scale = torch.broadcast_tensors(x, scale)
    far = x > LARGE * scale
    near = torch.where(far, 0.0, x) / scale
    beyond = torch.where(far, x, 1.0).log() - scale.log()
    return torch.where(far, power * beyond, near.pow(power).log1p())


def _soft_tail(x: Tensor, a: Tensor, soft: Tensor) -> Tensor:
    """log(2 P(N soft - a E in dx) a / dx), of the exponential tail to the left."""
    u = (soft * soft + a * x) / (a * soft * math.sqrt(2))
    above = u > 0
    near = -((x / soft) ** 2) / 2 + _log_erfcx(torch.where(above, u, 1.0))
    below = torch.where(above, 0.0, u)
    far = (soft * soft / 2 + a * x) / a**2 + torch.special.erfc(below).log()
    return torch.where(above, near, far)


def _log_erfcx(x: Tensor) -> Tensor:
    """log(exp(x ** 2) erfc(x)) of numbers greater than 0."""
    large = x > ASYMPTOTIC
    series = torch.where(large, x, ASYMPTOTIC)
    beyond = -series.log() - math.log(math.pi) / 2 + torch.log1p(-1 / (2 * series * series))
    return torch.where(large, beyond, torch.special.erfcx(torch.where(large, 1.0, x)).log())
