"""The chi upper bound on log p(x), which the guide descends."""

from typing import Unpack

from torch import Tensor

from ...core.checks import number
from .bounds import Bound, Chi
from .multisample import Plates
from .profile import Profile
from .rules import (
    no_factor_counts_the_wrong_way,
    sites_are_alike,
    the_guide_has_parameters_of_its_own,
)
from .weights import WeightedELBO, Weights, weights_serve

__all__ = ["CUBO"]


class CUBO(WeightedELBO):
    r"""The chi upper bound (CUBO): the guide minimizes the chi divergence from q to the posterior.

    .. math:: \log p(x) \le \text{CUBO}_n = \frac{1}{n} \log E_q\left[w^n\right], \quad n > 1

    The guide descends :math:`\exp(n\, \text{CUBO}_n) = E_q[w^n]`, per data point, which is unbiased
    up to its normalization by the largest weight,

    .. math:: -\frac{1}{n}\nabla_\phi E_q[w^n] \approx (n - 1) \frac{1}{K} \sum_k v_k
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}
        \;\text{ or }\; \frac{n - 1}{n} \frac{1}{K} \sum_k v_k \nabla_\phi \log q_\phi(z_k),
        \quad v_k = \left(\frac{w_k}{\max_j w_j}\right)^n

    the first, doubly reparameterized, where the guide has a path. Nothing is gained where the model
    ascends an upper bound, so it ascends the importance-weighted lower one, from the same draws.
    The value is :math:`\frac{1}{n} \log \frac{1}{K} \sum_k w_k^n`, at which the logarithm of a mean
    is biased low: it bounds log p(x) from above only as K grows. One evaluation a particle.

    Args:
        num_particles: K, at least 2.
        n: the order, above 1; 2 is the chi-square divergence.

    Raises:
        ValueError: arguments out of range; in a step, sites of different scale, or a guide of which
            only some sites are reparameterized.

    References:
        Dieng, Tran, Ranganath, Paisley & Blei (2017), arXiv:1611.00328.

    >>> str(CUBO(num_particles=100, n=2).bound)
    'CUBO(2, 100)'
    """

    least = 2
    instead = "CUBO(gradient=score)"
    profile = Profile(
        gradients=("pathwise", "score"),
        guides="any, its sites alike",
        note="an upper bound (as K grows), which the guide descends; the model ascends the "
        "importance-weighted one; one evaluation a particle",
        needs=(
            no_factor_counts_the_wrong_way,
            the_guide_has_parameters_of_its_own,
            weights_serve,
            sites_are_alike,
        ),
        refused=(("stl", "its pathwise gradient has that already: leave gradient out"),),
        weighted=False,
        ascends="none",
    )

    def __init__(
        self,
        num_particles: int = 10,
        n: float = 2.0,
        **plates: Unpack[Plates],
    ) -> None:
        super().__init__(num_particles, **plates)
        self.n = number("n", n)
        if not self.n > 1:
            raise ValueError(f"n is the order of an upper bound, greater than 1, got {n}")

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return Chi(self.num_particles, 1 - self.n)

    def _weights(self, log_w: Tensor) -> Weights:
        v = (self.n * (log_w - self._reference(log_w))).exp() / self.num_particles
        return Weights(log_w.softmax(0), (self.n - 1) * v, (self.n - 1) / self.n * v)

    def _reference(self, log_w: Tensor) -> Tensor:
        """The log weight that the others are measured by."""
        return log_w.amax(0)
