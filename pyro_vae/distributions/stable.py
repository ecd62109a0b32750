"""Stable laws, whose density is integrated where the integrand lies."""

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .edges import Checked, Expanding, finite_exp
from .sphere import gauss_legendre

__all__ = ["Stable", "StableWithLogProb"]

Size = Sequence[int]
HOLE = 1e-6  # so far from 1 is the stability, where the formulas have a pole
EDGE = 750.0  # of the coordinate t, whose logistic function double precision still has
NODES = 64  # of each of the two panels of the integral
FALL = 38.0  # from its peak to where the integrand is left out, in nats
LEAST = 1e-50  # of the distance from zeta, near which the density is flat
NOWHERE = 1e-300  # an interval of angles so wide is none: of the empty side of a law of skew 1
STEEP = 10.0  # a slope of log h at its peak, from which on it is a needle
ROOM = 700.0  # of which double precision has the exponential


class Stable(Checked, Expanding, dist.Stable):
    r"""Pyro's stable laws (Nolan's parametrization :math:`S^0`), with the digits of their density.

    .. math:: f(x) = \frac{\alpha}{\pi |\alpha - 1| (x - \zeta)} \int h e^{-h} d\theta

    where h is monotone in :math:`\theta` (Nolan, 1997). Of far x the integrand is a needle at one
    end of the interval, which a fixed rule misses; here its peak is found first, in
    :math:`t = \operatorname{logit}` of the place of :math:`\theta`. Draws are those of Chambers,
    Mallows and Stuck (1976), in logarithms, and finite.

    Raises:
        ValueError: ``coords="S"``, whose density Pyro confuses.

    References:
        J. P. Nolan, Numerical calculation of stable densities and distribution functions,
        Stochastic Models 13, 1997.
    """

    def __init__(
        self,
        stability: Tensor,
        skew: Tensor,
        scale: Tensor | float = 1.0,
        loc: Tensor | float = 0.0,
        coords: str = "S0",
        validate_args: bool | None = None,
    ) -> None:
        if coords != "S0":
            raise ValueError(f"Stable has coords='S0' alone, got {coords!r}: leave coords out")
        told: Any = (stability, skew, scale, loc, coords)
        super().__init__(*told, validate_args=validate_args)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw that is finite."""
        shape = self._extended_shape(torch.Size(sample_shape))
        of = {"dtype": torch.float64, "device": self.loc.device}
        end = math.pi / 2 * (1 - torch.finfo(torch.float64).eps)
        angle = torch.empty(shape, **of).uniform_(-end, end)
        wait = torch.empty(shape, **of).exponential_().clamp(min=torch.finfo(torch.float64).tiny)
        a, away, tan = _exact(self.stability)
        b = self.skew.double() * tan
        turned = a * angle + b.atan()
        log = (
            turned.sin().abs().log()
            + torch.log1p(b * b) / (2 * a)
            - angle.cos().log() / a
            - away / a * ((angle - turned).cos().abs().log() - wait.log())
        )
        size = turned.sin().sign() * finite_exp(log)
        most = torch.finfo(self.loc.dtype).max * (1 - torch.finfo(self.loc.dtype).eps)
        return (self.loc + self.scale * (size - b)).clamp(-most, most).to(self.loc.dtype)

    def _log_density(self, x: Tensor) -> Tensor:
        scale = self.scale.double()
        z = (x.double() - self.loc.double()) / scale
        found = _log_density(z, self.stability, self.skew) - scale.log()
        return found.to(torch.promote_types(x.dtype, self.loc.dtype))


class StableWithLogProb(Stable):
    """Stable laws that Pyro's reparameterizations leave alone."""


def _exact(stability: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The stability a, which is not 1, and with their digits a - 1 and tan(pi a / 2)."""
    a = stability.double()
    away = a - 1
    least = torch.where(away < 0, -HOLE, HOLE)
    away = torch.where(away.abs() < HOLE, least + away - away.detach(), away)
    a = 1 + away
    near = -1 / torch.tan(math.pi / 2 * away)
    return a, away, torch.where(a > 1.5, -torch.tan(math.pi / 2 * (2 - a)), near)


def _log_density(z: Tensor, stability: Tensor, skew: Tensor) -> Tensor:
    """The log density of a standard law."""
    a, away, tan = _exact(stability)
    b = skew.double() * tan
    x, a, away, tan, skew = torch.broadcast_tensors(z + b, a, away, tan.abs(), skew.double())
    skew = torch.where(x < 0, -skew, skew)  # x < 0 is x > 0 of the other skew
    # Differences of arcs, of 0 where the skew is -1 or 1.
    most, least = (torch.atan2(tan * (1 + one), 1 - one * tan * tan) for one in (skew, -skew))
    width = torch.where(away < 0, most, math.pi - most) / a
    ends = (
        torch.where(away < 0, least / a, math.pi - width),
        torch.where(away < 0, math.pi - most, most),
    )
    log_x = x.abs().clamp(min=LEAST).log()
    scale = -torch.log1p((skew * tan) ** 2) / (2 * away)
    told = (log_x, a, away, width.clamp(min=NOWHERE), *ends, scale)
    with torch.no_grad():
        peak, nodes, weights = _panels(*told)
        steep = _integrand(peak, *told)[3]
    # A needle moves with the parameters. Its nodes go with it, or large slopes of both signs would
    # be left to cancel.
    height = _integrand(peak, *told)[2]
    move = (height.detach() - height) / torch.where(steep.abs() > STEEP, steep, math.inf)
    log = _integrand(nodes + move, *told)[0]
    area = torch.logsumexp(log + weights, 0)
    log = a.log() - away.abs().log() - math.log(math.pi) - log_x + area
    return torch.where(width < NOWHERE, -math.inf, log)


def _integrand(
    t: Tensor,
    log_x: Tensor,
    a: Tensor,
    away: Tensor,
    width: Tensor,
    first: Tensor,
    last: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The logarithms of h exp(-h) d theta / dt and of h, each before its slope in t."""
    low, high = width * torch.sigmoid(t), width * torch.sigmoid(-t)  # from either end
    # Three sines, each of the angle from the nearer end, whose digits a difference would lose.
    near = t < 0
    angles = (
        torch.where(near, a * low, last + a * high),
        torch.where(near, first + low, high),
        torch.where(near, first - away * low, last + away * high),
    )
    logs = [angle.sin().abs().clamp(min=torch.finfo(t.dtype).tiny).log() for angle in angles]
    side, power = torch.where(near, 1.0, -1.0), a / away
    rates = [
        rate / torch.tan(angle) for rate, angle in zip((side * a, side, -away), angles, strict=True)
    ]
    log_h, rise = (power * (v[1] - v[0]) + v[2] - v[1] for v in (logs, rates))
    log_h = log_h + power * log_x + scale
    h = log_h.clamp(max=ROOM).exp()
    moved = width * torch.sigmoid(t) * torch.sigmoid(-t)
    steep = rise * moved
    slope = steep * (1 - h) + torch.sigmoid(-t) - torch.sigmoid(t)
    return log_h - h + moved.log(), slope, log_h, steep


def _panels(*told: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The peak, nodes on both sides of it, and the logarithms of their weights, by dimension 0."""
    edge = torch.full_like(told[0], EDGE)
    peak = _where(lambda t: _integrand(t, *told)[1] > 0, -edge, edge)
    floor = _integrand(peak, *told)[0] - FALL
    first = _where(lambda t: _integrand(t, *told)[0] < floor, -edge, peak)
    last = _where(lambda t: _integrand(t, *told)[0] > floor, peak, edge)
    at, weights = (torch.as_tensor(v).to(peak) for v in gauss_legendre(NODES))
    shape = (-1, *[1] * peak.dim())
    at, weights = at.reshape(shape), weights.reshape(shape)
    nodes = [left + (right - left) * at for left, right in ((first, peak), (peak, last))]
    sizes = [(right - left).clamp(min=0).log() for left, right in ((first, peak), (peak, last))]
    return peak, torch.cat(nodes), torch.cat([weights.log() + size for size in sizes])


def _where(is_left, low: Tensor, high: Tensor) -> Tensor:  # noqa: ANN001
    """The point up to which a condition holds, by bisection."""
    for _ in range(56):
        middle = (low + high) / 2
        left = is_left(middle)
        low, high = torch.where(left, middle, low), torch.where(left, high, middle)
    return (low + high) / 2
