"""The importance-weighted bound by the score function, at its optimal variance: OVIS."""

import math

import torch
from torch import Tensor

from .profile import of_scores
from .vimco import VIMCO

__all__ = ["OVIS"]


class OVIS(VIMCO):
    r"""The importance-weighted bound by the score function, with the optimal control variate.

    .. math:: \nabla_\phi L_K \approx \sum_{k=1}^K \left(\hat L - \hat L_{-k} - \tilde w_k\right)
        \nabla_\phi \log q_\phi(z_k), \quad
        \hat L_{-k} = \log \frac{1}{K} \sum_{j \ne k} w_j

    for the guide, with normalized weights :math:`\tilde w`; the model's gradient is
    :class:`VIMCO`'s. Where VIMCO puts the geometric mean of the others for :math:`w_k`, this puts
    0. That takes off what weights every score by 1/K, so that a particle's weight is
    :math:`-\log(1 - \tilde w_k) - \tilde w_k`, which falls as :math:`1/K^2`: the guide's
    signal-to-noise ratio grows as the root of K, where VIMCO's falls so. It is the authors'
    asymptotic estimator at :math:`\gamma = 0`, which is unbiased and takes no further draws; the
    variance is large where one weight is nearly all. Reparameterized sites keep their pathwise
    gradient. Of all that put a multiple of the others' mean for :math:`w_k` only the multiple 0
    has a variance that falls as :math:`1/K^3`, the rate of VIMCO-star on this bound. Unbiased for
    the bound, for any guide; one evaluation a particle.

    Args:
        num_particles: K, at least 2.

    Raises:
        ValueError: fewer than 2 particles; in a step, sites of different scale.

    References:
        Liévin, Dittadi, Christensen & Winther (2020), arXiv:2008.01998; Daudel et al. (2026),
        arXiv:2602.01412, VIMCO-star.
    """

    profile = of_scores(
        "any",
        "importance-weighted bound, unbiased for it; the guide's signal-to-noise ratio grows with "
        "K; one evaluation a particle",
        (),
        weighted=False,
    )

    def _instead_of_each(self, log_w: Tensor) -> Tensor:
        """No weight at all."""
        return torch.full_like(log_w, -math.inf)
