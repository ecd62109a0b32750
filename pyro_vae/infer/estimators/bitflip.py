"""Gradients for Bernoulli latents from one bit that is turned at random: bitflip-1."""

import torch
from pyro.infer.util import MultiFrameTensor
from torch import Tensor
from torch.nn.functional import one_hot

from .arm import difference
from .logits import OF_BITS, LogitELBO, Scored, pull
from .profile import of_scores
from .relaxed import Bits, Kind
from .rules import Trial, UnsoundError, first_that_meet

__all__ = ["BitFlip"]


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
    profile = of_scores(
        "Bernoulli, one site",
        "unbiased; two evaluations a particle, one bit turned; for few bits that are nearly sure",
        (*OF_BITS, one_bit_is_turned),
    )

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, None]:
        b = logits.sigmoid().bernoulli()
        d = logits.shape[-1]
        which = one_hot(torch.randint(d, logits.shape[:-1], device=logits.device), d).to(b)
        return torch.stack([b, b + which - 2 * b * which]), None

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        gradients = []
        for one in sites:
            b, turned = one.site["value"]
            slope = b.shape[-1] * difference(cost, one.site) * (b - turned)
            gradients.append(pull(slope, one.mean, one.kind))
        return gradients
