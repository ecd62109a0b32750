"""Importance-weighted bounds whose guide sees fewer particles: MIWAE, PIWAE and CIWAE."""

from typing import Unpack

from torch import Tensor

from ...core.checks import fraction, whole
from .bounds import Bound, Convex, renyi
from .multisample import Plates
from .weights import WeightedELBO, Weights, of_paths

__all__ = ["CIWAE", "MIWAE", "PIWAE"]


class MIWAE(WeightedELBO):
    r"""The mean of M importance-weighted bounds of K / M particles each.

    .. math:: L = E\left[\frac{1}{M} \sum_{m=1}^M \log \frac{M}{K} \sum_{k \in m} w_k\right]

    M = K is the ELBO, M = 1 the importance-weighted bound of K. More particles in a group tighten
    the bound, which makes the guide's signal weak where it is not doubly reparameterized, as it is
    here (:class:`DReG`); more groups lower the variance. (The MIWAE of missing data is another
    thing: ``VAE(..., missing=True)`` under an importance-weighted bound.) Unbiased for the bound,
    for reparameterized guides; one evaluation a particle.

    Args:
        num_particles: K, at least 2: all draws.
        groups: M, which divides K; the smallest number above 1 that does where it is not given.

    Raises:
        ValueError: groups that do not divide the particles; in a step, a site without ``rsample``,
            or sites of different scale.

    References:
        Rainforth et al. (2018), arXiv:1802.04537.

    >>> str(MIWAE(num_particles=6, groups=2).bound)
    'IWAE(3)'
    """

    least = 2
    profile = of_paths("mean of importance-weighted bounds, unbiased for it")

    def __init__(
        self, num_particles: int = 4, groups: int | None = None, **plates: Unpack[Plates]
    ) -> None:
        super().__init__(num_particles, **plates)
        divisors = [m for m in range(2, num_particles + 1) if num_particles % m == 0]
        self.groups = divisors[0] if groups is None else whole("groups", groups)
        if num_particles % self.groups:
            raise ValueError(
                f"groups divides num_particles={num_particles}, so it is one of "
                f"{', '.join(map(str, [1, *divisors]))}, got {groups}"
            )
        self.of_group = renyi(0.0, num_particles // self.groups)

    @property
    def bound(self) -> Bound:
        """Of one group."""
        return self.of_group

    def _value(self, log_w: Tensor) -> Tensor:
        return self.of_group(self._grouped(log_w)).mean(0)

    def _weights(self, log_w: Tensor) -> Weights:
        slopes = self.of_group.slopes(self._grouped(log_w))
        model, path = (s.movedim(0, 1).reshape(log_w.shape) / self.groups for s in slopes)
        return Weights(model, path, None)

    def _grouped(self, log_w: Tensor) -> Tensor:
        """Log weights ``(K / M, M, ...)``."""
        return log_w.reshape(self.groups, -1, *log_w.shape[1:]).movedim(1, 0)


class PIWAE(MIWAE):
    r"""The model ascends the bound of all particles, the guide the mean of its groups' bounds.

    .. math:: \nabla_\theta E\left[\log \frac{1}{K} \sum_{k=1}^K w_k\right], \qquad
        \nabla_\phi E\left[\frac{1}{M} \sum_{m=1}^M \log \frac{M}{K} \sum_{k \in m} w_k\right]

    The value, and what the model ascends, is the tight bound; the guide is that of :class:`MIWAE`.
    For reparameterized guides; one evaluation a particle.

    Args:
        num_particles: K, at least 2: all draws.
        groups: M, which divides K; the smallest number above 1 that does where it is not given.

    Raises:
        ValueError: as :class:`MIWAE`.

    References:
        Rainforth et al. (2018), arXiv:1802.04537.
    """

    profile = of_paths(
        "importance-weighted bound, unbiased for it in the model; the guide ascends the mean of "
        "bounds of fewer particles",
        "model",
    )

    @property
    def bound(self) -> Bound:
        """Of all particles."""
        return renyi(0.0, self.num_particles)

    def _value(self, log_w: Tensor) -> Tensor:
        return self.bound(log_w)

    def _weights(self, log_w: Tensor) -> Weights:
        return Weights(self.bound.slopes(log_w)[0], super()._weights(log_w).path, None)


class CIWAE(WeightedELBO):
    r"""A convex combination of the ELBO and the importance-weighted bound.

    .. math:: L = E\left[\beta\, \frac{1}{K} \sum_k \log w_k
        + (1 - \beta) \log \frac{1}{K} \sum_k w_k\right]

    Unbiased for it, for reparameterized guides; one evaluation a particle.

    Args:
        num_particles: K, at least 2.
        beta: the ELBO's share, between 0 and 1, both left out.

    Raises:
        ValueError: a share out of range; in a step, a site without ``rsample``, or sites of
            different scale.

    References:
        Rainforth et al. (2018), arXiv:1802.04537.

    >>> str(CIWAE(num_particles=5, beta=0.1).bound)
    'CIWAE(5; 0.1)'
    """

    least = 2
    profile = of_paths("between the ELBO and the importance-weighted bound, unbiased for it")

    def __init__(self, num_particles: int = 4, beta: float = 0.5, **plates: Unpack[Plates]) -> None:
        super().__init__(num_particles, **plates)
        self.beta = fraction("beta", beta)

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return Convex(self.num_particles, self.beta)
