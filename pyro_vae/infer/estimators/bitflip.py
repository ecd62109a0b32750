"""Gradients for Bernoulli latents from one bit that is turned at random: bitflip-1 and UGC."""

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor
from torch.nn.functional import one_hot

from .arm import antithetic_pair, difference, odd_part
from .logits import LogitELBO, Scored, pull
from .relaxed import Bits, Kind
from .rules import Trial, UnsoundError, first_that_meet

__all__ = ["UGC", "BitFlip"]


def one_bit_is_turned(trial: Trial) -> None:
    """What a site of the model reads has one bit turned, and no more."""
    if len(trial.sites) > 1:
        raise UnsoundError(
            f"it turns one bit, and the guide has the sites {', '.join(map(repr, trial.sites))}: "
            "use DisARM"
        )
    if meeting := first_that_meet(trial, trial.sites):
        name, plate, reader = meeting
        raise UnsoundError(
            f"it turns a bit of site {name!r} in each member of the plate {plate!r}, and "
            f"{reader!r}, outside it, reads them all: use DisARM"
        )


class BitFlip(LogitELBO):
    r"""The ELBO by the difference that one random bit makes (bitflip-1), for Bernoulli latents.

    .. math:: \nabla_{\phi_i} L = E_{b, I}\left[D\, 1[i = I]\; \theta_i (1 - \theta_i)
        \left(f(b_{I = 1}) - f(b_{I = 0})\right)\right],
        \quad \theta = \sigma(\phi), \; I \sim \mathrm{Uniform}\{1 \dots D\}

    with :math:`f = \log p(x, z) - \log q(z)`. The variance falls as
    :math:`D\, \theta_i^2 (1 - \theta_i)^2`, where :class:`DisARM`'s falls as
    :math:`\theta_i (1 - \theta_i)`: it is for bits that are nearly sure, and for few of them.
    Unbiased, for a guide of one Bernoulli site; two evaluations a particle.

    Args:
        num_particles: how many pairs, each with a bit of its own turned.

    Raises:
        ValueError: in a step, a site that is not Bernoulli.

    References:
        Kunes, Yin, Land, Haviv, Pe'er & Tavaré (2022), arXiv:2208.06124.
    """

    kinds = (Bits,)
    needs = (one_bit_is_turned,)
    where = ", one site"
    flat = True
    note = "unbiased; two evaluations a particle, one bit turned; for few bits that are nearly sure"

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, None]:
        b = logits.sigmoid().bernoulli()
        return torch.stack([b, turn(b, torch.rand_like(b))]), None

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        return [slope(cost, one, one.site["fn"].event_shape.numel()) for one in sites]


class UGC(BitFlip):
    r"""The ELBO by DisARM, and by bitflip-1 for bits that are nearly sure (UGC), for Bernoulli.

    A bit whose rarer value has a probability of at most 1 / (2D) has the gradient of
    :class:`BitFlip`, in which one of these bits alone is turned; all others have that of
    :class:`DisARM`. Over all costs of a given range that is where bitflip's largest variance is
    below DisARM's, which is as :math:`\theta_i` near the edge and not as its square: "unbiased
    gradient variance clipping". (The threshold is derived from the variances here, as the authors'
    own could not be looked up.) Unbiased, for a guide of one Bernoulli site; three evaluations a
    particle.

    Args:
        num_particles: how many pairs, with a turned bit beside each.

    Raises:
        ValueError: in a step, a site that is not Bernoulli.

    References:
        Kunes, Yin, Land, Haviv, Pe'er & Tavaré (2022), arXiv:2208.06124.
    """

    values = 3
    draws = 2
    note = (
        "unbiased; three evaluations a particle, an antithetic pair and one bit turned; for bits "
        "of which many are nearly sure"
    )

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, None]:
        (b, other), _ = antithetic_pair(logits)
        sure = nearly_sure(logits, logits.shape[-1])
        return torch.stack([b, other, turn(b, torch.rand_like(b) * sure)]), None

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        gradients = []
        for one in sites:
            fn, logits = one.site["fn"], one.logits.detach()
            sure = nearly_sure(logits, fn.event_shape.numel())
            many = sure.sum(tuple(range(-fn.event_dim, 0)), keepdim=True) if fn.event_dim else sure
            pair = difference(cost, one.site) * odd_part(one)
            gradients.append(torch.where(sure, slope(cost, one, many), pair))
        return gradients


def turn(b: Tensor, by: Tensor) -> Tensor:
    """Bits ``(..., D)``, of which the one with the largest number is turned."""
    which = one_hot(by.argmax(-1), b.shape[-1]).to(b)
    return b + which - 2 * b * which


def nearly_sure(logits: Tensor, d: int) -> Tensor:
    """Which of D bits have a value of a probability of at most 1 / (2D)."""
    return (-logits.abs()).sigmoid() <= 1 / (2 * d)


def slope(cost: MultiFrameTensor, one: Scored, many: Tensor | int) -> Tensor:
    """Of a bit that is turned, one of so many; 0 of the others. The last value has it turned."""
    b, turned = one.site["value"][0], one.site["value"][-1]
    return pull(many * difference(cost, one.site, -1) * (b - turned), one.mean, one.kind)
