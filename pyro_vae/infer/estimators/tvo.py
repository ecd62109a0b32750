"""The thermodynamic variational objective: between the ELBO and the importance-weighted bound."""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from ...core.checks import fraction, number, whole
from .bounds import Bound, Thermodynamic
from .multisample import Plates
from .profile import Profile
from .rules import sites_are_alike
from .weights import WeightedELBO, Weights, weights_serve

__all__ = ["TVO"]


class TVO(WeightedELBO):
    r"""The thermodynamic variational objective (TVO), a left Riemann sum of log p(x)'s integral.

    .. math:: \log p(x) = \int_0^1 E_{\pi_\beta}[\log w]\, d\beta
        \ge \sum_{i=0}^{P-1} (\beta_{i+1} - \beta_i)\, E_{\pi_{\beta_i}}[\log w],
        \quad \pi_\beta \propto p(x, z)^\beta\, q(z)^{1 - \beta}

    with :math:`0 = \beta_0 < \dots < \beta_P = 1`; the expectations are estimated from K draws of
    q by weights :math:`\tilde w^{(i)} \propto w^{\beta_i}`. Draw by draw that estimate lies between
    the mean of log w and the importance-weighted one, so it estimates a lower bound at every K, and
    one partition makes it the ELBO.

    Reparameterized guides get the doubly reparameterized gradient, unbiased for the K-particle
    bound. Others (and all under ``gradient=score``) get the covariance gradient,

    .. math:: \nabla_\phi E_{\pi_\beta}[\log w] = E_{\pi_\beta}[\nabla_\phi \log w] +
        \operatorname{Cov}_{\pi_\beta}\left[\log w,\;
        \nabla_\phi \log\left(p^\beta q^{1 - \beta}\right)\right]

    whose bias falls as 1/K where P > 1. One evaluation a particle.

    Args:
        num_particles: K, at least 2.
        partitions: P, or the points between 0 and 1 themselves.
        beta_min: the first point after 0, .01 without it; the others follow evenly in log beta.

    Raises:
        ValueError: arguments out of range; in a step, sites of different scale, or a guide of which
            only some sites are reparameterized.

    References:
        Masrani, Le & Wood (2019), arXiv:1907.00031; Brekelmans et al. (2020), arXiv:2007.00642, for
        the doubly reparameterized gradient.

    >>> TVO(num_particles=10, partitions=3, beta_min=0.01).betas
    (0.0, 0.01, 0.1)
    """

    least = 2
    instead = "TVO(gradient=score)"
    profile = Profile(
        gradients=("pathwise", "score"),
        guides="any, its sites alike",
        note="thermodynamic bound; unbiased for it where reparameterized (doubly so); else the "
        "covariance gradient, whose bias falls as 1/K; one evaluation a particle",
        needs=(weights_serve, sites_are_alike),
        refused=(("stl", "its pathwise gradient has that already: leave gradient out"),),
        weighted=False,
        biased=("score",),
    )

    def __init__(
        self,
        num_particles: int = 10,
        partitions: int | Sequence[float] = 5,
        beta_min: float | None = None,
        **plates: Unpack[Plates],
    ) -> None:
        super().__init__(num_particles, **plates)
        if not isinstance(partitions, Sequence):
            steps = whole("partitions", partitions) - 1
            least = fraction("beta_min", 0.01 if beta_min is None else beta_min)
            partitions = [least ** (1 - i / steps) for i in range(steps)]
        elif beta_min is not None:
            raise ValueError(
                f"beta_min is the first point where partitions is their number, and {partitions} "
                "are the points themselves: leave beta_min out"
            )
        self.betas = (0.0, *(number("partitions", beta) for beta in partitions))
        if sorted({*self.betas, 1.0}) != [*self.betas, 1.0]:
            raise ValueError(
                f"TVO's partitions rise between 0 and 1, both left out, got {list(partitions)}"
            )

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return Thermodynamic(self.num_particles, self.betas) if len(self.betas) > 1 else Bound()

    def _weights(self, log_w: Tensor) -> Weights:
        bound = Thermodynamic(self.num_particles, self.betas)
        model, path = bound.slopes(log_w)
        return Weights(model, path, bound.covariance(log_w) - model)
