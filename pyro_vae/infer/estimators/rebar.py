"""Control variates through a relaxation of the discrete draw: REBAR and RELAX."""

import math
from typing import Any, Unpack

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor, nn

from ...core.checks import number, positive, whole
from .jumps import the_cost_has_no_jumps
from .learner import Learner, learned
from .logits import LogitELBO, Scored, spread
from .multisample import Plates, add
from .relaxed import Bits, Kind
from .weights import widen

__all__ = ["REBAR", "RELAX"]


class REBAR(LogitELBO):
    r"""The ELBO by REBAR: the score function, less the cost at a relaxed draw, which has a path.

    .. math:: \nabla_\phi L \approx \left(f(b) - \eta\, c(z)\right) \nabla_\phi \log q_\phi(b)
        + \eta\, c'(z)^\top \left(\nabla_\phi z - \nabla_\phi \tilde z\right),
        \quad c(z) = f\left(\sigma(z / T)\right)

    with :math:`f = \log p(x, z) - \log q(z)`, z the logits plus logistic noise, b its sign, and
    :math:`\tilde z` a draw of z given b, which moves with the logits while b stays. Its noise is
    tied to that of z (as in the authors' code), so that :math:`\tilde z` *is* z and only their
    paths differ: two evaluations, where noise of its own costs three, for about the same variance.
    For one-hot sites the noise is Gumbel's, b the largest, and :math:`\sigma` the softmax. Unbiased
    whatever T and :math:`\eta` are, for guides whose sites are Bernoulli or one-hot and do not
    depend on each other; two evaluations a particle, and while T is learned a second derivative.

    Args:
        num_particles: K; the gradient is the mean over K draws.
        temperature: T > 0; learned from 0.5 where it is not given.
        eta: learned from 1 where it is not given.

    Raises:
        ValueError: a temperature that is not positive; in a step, a site that is neither Bernoulli
            nor one-hot.

    References:
        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein (2017), arXiv:1703.07370.
    """

    note = (
        "unbiased; learned control variate, the cost at a relaxed draw; two evaluations a particle"
    )
    needs = (the_cost_has_no_jumps,)

    def __init__(
        self,
        num_particles: int = 1,
        temperature: float | None = None,
        eta: float | None = None,
        **plates: Unpack[Plates],
    ) -> None:
        super().__init__(num_particles, **plates)
        if temperature is not None:
            temperature = positive("temperature", temperature)
        self.temperature = temperature
        self.eta = None if eta is None else number("eta", eta)
        self.learner = Learner(type(self).__name__, self._start)

    def _start(self, sites: list[Any], args: tuple) -> nn.Module:
        given = None if self.temperature is None else math.log(self.temperature)
        control = nn.Module()
        control.log_temperature = learned(given, math.log(0.5))
        control.eta = learned(self.eta, 1.0)
        return control

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
        z = (logits + kind.noise(logits)).requires_grad_()
        soft = kind.soft(z / self.control.log_temperature.exp())
        return torch.stack([kind.hard(z.detach()), soft]), z

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        gradients, eta = [], self.control.eta
        for one, (c, slope) in zip(sites, self._relaxed(cost, sites), strict=True):
            z = one.about
            rest = spread(cost, one.site)[0].detach() - eta * c
            path = difference(slope, z.detach(), one.mean, one.kind)
            gradients.append(rest * (one.site["value"][0].detach() - one.mean) + eta * path)
        return gradients

    def _relaxed(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[tuple[Tensor, Tensor]]:
        """The control variate of each site, and its slope in z; they know their parameters."""
        relaxed = add(value[1].sum() for value in cost.values())
        learn = bool(self.control.log_temperature.requires_grad)
        zs = [one.about for one in sites]
        slopes = torch.autograd.grad(relaxed, zs, retain_graph=True, create_graph=learn)
        values = [spread(cost, one.site)[1] for one in sites]
        if not learn:
            values = [value.detach() for value in values]
        return list(zip(values, slopes, strict=True))


class RELAX(REBAR):
    r"""The ELBO by RELAX: REBAR whose control variate has a network of its own too.

    .. math:: c(z) = f\left(\sigma(z / T)\right) + r(z, \phi)

    in the estimate of :class:`REBAR`. The network r, one for each site, reads the relaxed draw and
    the logits, and starts at zero, as REBAR. Unbiased whatever it has learned, for guides whose
    sites are Bernoulli or one-hot and do not depend on each other; two evaluations a particle, and
    while T is learned a second derivative.

    Args:
        num_particles: K; the gradient is the mean over K draws.
        temperature: T > 0; learned from 0.5 where it is not given.
        eta: learned from 1 where it is not given.
        hidden: units of the network's one hidden layer.

    Raises:
        ValueError: a temperature that is not positive, or units that are no whole number; in a
            step, a site that is neither Bernoulli nor one-hot.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud (2018), arXiv:1711.00123.
    """

    note = "unbiased; learned control variate, REBAR's and a network; two evaluations a particle"

    def __init__(
        self,
        num_particles: int = 1,
        temperature: float | None = None,
        eta: float | None = None,
        hidden: int = 100,
        **plates: Unpack[Plates],
    ) -> None:
        super().__init__(num_particles, temperature, eta, **plates)
        self.hidden = whole("hidden", hidden)

    def _start(self, sites: list[Any], args: tuple) -> nn.Module:
        control: Any = super()._start(sites, args)
        control.networks = nn.ModuleList()
        for site in sites:
            first = nn.Linear(2 * site["fn"].event_shape.numel(), self.hidden)
            last = nn.Linear(self.hidden, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            control.networks.append(nn.Sequential(first, nn.Tanh(), last))
        return control

    def _relaxed(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[tuple[Tensor, Tensor]]:
        pairs, networks = super()._relaxed(cost, sites), self.control.networks
        whole_variates = []
        for one, network, (c, slope) in zip(sites, networks, pairs, strict=True):
            z = one.about
            n = one.site["fn"].event_dim
            seen = [
                value.flatten(value.ndim - n) if n else value[..., None]
                for value in (z, one.logits.detach())
            ]
            r = network(torch.cat(seen, -1)).squeeze(-1)
            (r_slope,) = torch.autograd.grad(r.sum(), z, create_graph=True)
            whole_variates.append((c + widen(r, one.site), slope + r_slope))
        return whole_variates


def difference(slope: Tensor, z: Tensor, mean: Tensor, kind: Kind) -> Tensor:
    r"""A slope in z times what z moves with the logits, less what it moves where b is given.

    A bit is given by an event of probability q(b), in which z, at a fixed value of its conditional
    distribution function, moves by :math:`q(b) (1 - e^{-|z|})`; without it by 1. The largest of
    Gumbels, given its place, moves as the logarithm of :math:`\sum_k e^{\phi_k}`, so by the mean;
    the others, truncated there, move with it by :math:`w = e^{z - \max z}`, and with their own
    logit by 1 - w.
    """
    if kind is Bits:
        return slope * (1 + torch.where(z > 0, mean, 1 - mean) * (-z.abs()).expm1())
    weighted = slope * (z - z.amax(-1, keepdim=True)).exp()
    return weighted - mean * weighted.sum(-1, keepdim=True)
