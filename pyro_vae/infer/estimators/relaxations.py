"""The relaxed gradients that a line can name, and straight-through rules of smaller bias.

Their draws are discrete, so that the loss is a true estimate of the ELBO; they differ in the path.
"""

import math

from torch import Tensor

from ...language.schedules import schedule
from ...language.spec import Value
from .relaxed import (
    Concrete,
    GumbelStraightThrough,
    Kind,
    Relaxation,
    StraightThrough,
    through,
)

__all__ = [
    "NO_TEMPERATURE",
    "RELAXED",
    "GappedStraightThrough",
    "GumbelRao",
    "ReinMax",
    "relaxation",
]

NO_TEMPERATURE = (
    "temperature serves relaxed draws: use Trace_ELBO(gradient=concrete, temperature=0.5)"
)

NUM_NOISE = 10  # M of Gumbel-Rao
GAP = 1.0  # between the logit of the draw and the others', in GST


class ReinMax(Relaxation):
    r"""Straight through to second order: the trapezoidal rule for the differences of f (ReinMax).

    .. math:: \nabla_\phi L \approx E_q\left[\frac{\partial f(b)}{\partial b} \left(
        2\, J\left(\frac{b + \pi_\phi}{2}\right) - \frac{1}{2} J(\pi_\phi)\right)\right],
        \quad J(\pi) = \operatorname{diag}(\pi) - \pi \pi^\top, \quad b \sim q_\phi

    in the logits :math:`\phi`, with :math:`f = \log p(x, z) - \log q(z)`. The difference of f
    between two corners is taken as the mean of its slopes there, where :class:`StraightThrough`
    takes the slope at one: exact where f is quadratic in each variable. The authors' temperature is
    1, where alone that holds.

    Biased; for guides of Bernoulli and OneHotCategorical sites; one evaluation a particle.

    References:
        Liu, Dong, Liu, Yu & Gao (2023), arXiv:2304.08612.
    """

    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A corner."""
        fixed, mean = logits.detach(), kind.soft(logits)
        corner = kind.hard(fixed + kind.noise(fixed))
        halfway = kind.scores((corner + mean.detach()) / 2) - fixed
        return through(corner, 2 * kind.soft(logits + halfway) - mean / 2)


class GumbelRao(Concrete):
    r"""The mean of ST-Gumbel over the noise that gives the same draw (Gumbel-Rao).

    .. math:: \nabla_\phi L \approx E_q\left[\frac{\partial f(b)}{\partial b}\,
        \frac{1}{M} \sum_{m=1}^M \frac{\partial z_\phi(g_m)}{\partial \phi}\right],
        \quad g_m \sim p(g | b), \quad b \sim q_\phi

    with z as in :class:`Concrete` and f differentiated once: the mean, and so the bias, is that of
    :class:`GumbelStraightThrough`, and the variance falls with M, here 10, towards what b alone
    has. As in the authors' code the noise is held while :math:`\phi` moves.

    Biased; for guides of Bernoulli and OneHotCategorical sites; one evaluation a particle.

    Args:
        temperature: T > 0, of the path.

    References:
        Paulus, Maddison & Krause (2021), arXiv:2010.04838.
    """

    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A corner."""
        fixed = logits.detach()
        corner = kind.hard(fixed + kind.noise(fixed))
        shape = NUM_NOISE, *logits.shape
        noise = kind.noise_given(fixed.expand(shape), corner)
        return through(corner, kind.soft((logits + noise) / self.temperature).mean(0))


class GappedStraightThrough(Concrete):
    r"""Straight through a softmax whose largest entry is the draw's, by a gap (GST).

    .. math:: \nabla_\phi L \approx E_q\left[\frac{\partial f(b)}{\partial b}
        \frac{\partial}{\partial \phi} \mathrm{softmax}\left(
        \frac{\log \pi_\phi + m(b)}{T}\right)\right], \quad b \sim q_\phi

    where m, held fixed, lifts the drawn category to the largest logit and takes the others to at
    least a gap of 1 below it: what the noise of :class:`GumbelStraightThrough` does to the softmax,
    without its variance.

    Biased; for guides of Bernoulli and OneHotCategorical sites; one evaluation a particle.

    Args:
        temperature: T > 0, of the path.

    References:
        Fan, Chi, Rudnicky & Ramadge (2022), arXiv:2206.07235.
    """

    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A corner."""
        fixed = logits.detach()
        corner = kind.hard(fixed + kind.noise(fixed))
        moved = kind.gapped(fixed, corner, GAP) - fixed
        return through(corner, kind.soft((logits + moved) / self.temperature))


RELAXED: dict[str, type[Relaxation]] = {
    "concrete": Concrete,
    "straight_through": StraightThrough,
    "st_gumbel": GumbelStraightThrough,
    "reinmax": ReinMax,
    "gumbel_rao": GumbelRao,
    "gapped": GappedStraightThrough,
}


def relaxation(gradient: str, temperature: Value = None) -> Relaxation:
    """The rule of a relaxed gradient, at the temperature of the start.

    Args:
        gradient: a name of :data:`RELAXED`.
        temperature: a number, or a schedule over the epochs.

    Raises:
        ValueError: a temperature that is not positive, or for a rule that has none.
    """
    rule = RELAXED[gradient]
    if temperature is None:
        return rule()
    if not issubclass(rule, Concrete):
        raise ValueError(NO_TEMPERATURE)
    at = schedule(temperature, 1, "temperature")  # pyrefly: ignore[bad-argument-type]
    if not min(at(0.0), at(math.inf)) > 0:
        raise ValueError(
            f"temperature is positive throughout, such as 0.5 or exponential(1, 0.3), got "
            f"{temperature}"
        )
    return rule(at(0.0))
