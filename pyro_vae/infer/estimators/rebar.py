"""Control variates through a relaxation of the discrete draw: REBAR and RELAX."""

import math
from typing import Any

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor, nn

from .control_variates import KINDS, Learned, logits_of, number
from .importance import widen
from .points import Paired, spread
from .relaxed import Bits, Kind

__all__ = ["REBAR", "RELAX"]


class REBAR(Learned, Paired):
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
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: a temperature that is not positive; in a step, a site that is neither Bernoulli
            nor one-hot.

    References:
        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein (2017), arXiv:1703.07370.

    >>> REBAR(temperature=0.1).temperature
    0.1
    """

    kinds = KINDS
    draws = 1

    def __init__(
        self,
        num_particles: int = 1,
        temperature: float | None = None,
        eta: float | None = None,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        if temperature is not None and not temperature > 0:
            raise ValueError(
                f"temperature is a positive number, or learned where it is not given, got "
                f"{temperature}"
            )
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        self.temperature, self.eta = temperature, eta

    def _control(self, sites: list[Any]) -> nn.Module:
        given = None if self.temperature is None else math.log(self.temperature)
        control = nn.Module()
        control.log_temperature = number(given, math.log(0.5))
        control.eta = number(self.eta, 1.0)
        return control

    def _pair(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        temperature = self.control.log_temperature.exp()  # pyright: ignore
        z = (logits + kind.noise(logits)).requires_grad_()
        return torch.stack([kind.hard(z.detach()), kind.soft(z / temperature)]), {"z": z}

    def _slopes(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        control: Any = self.control
        found = []
        for site, (c, slope) in zip(sites, self._relaxed(cost, sites), strict=True):
            kind, mean = site["infer"]["kind"], site["infer"]["kind"].soft(logits_of(site))
            rest = spread(cost, site)[0].detach() - control.eta * c
            path = difference(slope, site["infer"]["z"].detach(), mean, kind)
            found.append(rest * (site["value"][0].detach() - mean) + control.eta * path)
        return found

    def _relaxed(self, cost: MultiFrameTensor, sites: list[Any]) -> list[tuple[Tensor, Tensor]]:
        """The control variate of each site, and its slope in z; they know their parameters."""
        relaxed: Any = sum(value[1].sum() for value in cost.values())
        learn = bool(self.control.log_temperature.requires_grad)  # pyright: ignore
        zs = [site["infer"]["z"] for site in sites]
        slopes = torch.autograd.grad(relaxed, zs, retain_graph=True, create_graph=learn)
        values = [spread(cost, site)[1] for site in sites]
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
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: a temperature that is not positive, or units that are no whole number; in a
            step, a site that is neither Bernoulli nor one-hot.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud (2018), arXiv:1711.00123.

    >>> RELAX(hidden=20).hidden
    20
    """

    def __init__(
        self,
        num_particles: int = 1,
        temperature: float | None = None,
        eta: float | None = None,
        hidden: int = 100,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, temperature, eta, max_plate_nesting, vectorize_particles)
        if hidden < 1 or hidden != int(hidden):
            raise ValueError(f"hidden is a whole number of at least 1, got {hidden}")
        self.hidden = int(hidden)

    def _control(self, sites: list[Any]) -> nn.Module:
        control = super()._control(sites)
        control.networks = nn.ModuleList()
        for site in sites:
            first = nn.Linear(2 * site["fn"].event_shape.numel(), self.hidden)
            last = nn.Linear(self.hidden, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            control.networks.append(nn.Sequential(first, nn.Tanh(), last))
        return control

    def _relaxed(self, cost: MultiFrameTensor, sites: list[Any]) -> list[tuple[Tensor, Tensor]]:
        found = []
        control: Any = self.control
        whole = super()._relaxed(cost, sites)
        for site, network, (c, slope) in zip(sites, control.networks, whole, strict=True):
            z, n = site["infer"]["z"], site["fn"].event_dim
            seen = [value.flatten(value.ndim - n) if n else value[..., None]
                    for value in (z, logits_of(site))]  # fmt: skip
            r = network(torch.cat(seen, -1)).squeeze(-1)
            (r_slope,) = torch.autograd.grad(r.sum(), z, create_graph=True)
            found.append((c + widen(r, site), slope + r_slope))
        return found


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
