"""The importance-weighted bound by the score function, with a control variate: VIMCO."""

from pyro.distributions.util import is_identically_zero
from torch import Tensor

from ...core.slight import not_slight
from ..sites import samples
from .bounds import Bound, renyi
from .multisample import MultiSampleELBO, Run
from .profile import of_scores
from .weights import log_weights, replace_each, sum_inside

__all__ = ["VIMCO"]


class VIMCO(MultiSampleELBO):
    r"""The importance-weighted bound by the score function, with a control variate per particle.

    .. math:: \nabla_\phi L_K \approx \sum_{k=1}^K
        \left(\hat L - \hat L_{-k}\right) \nabla_\phi \log q_\phi(z_k)
        + \sum_{k=1}^K \tilde w_k \nabla_\phi \log w_k

    where :math:`\hat L_{-k}` is the bound's estimate with :math:`w_k` replaced by the geometric
    mean of the others, and :math:`\tilde w` are the normalized weights. Reparameterized sites keep
    their pathwise gradient; wrap the guide in :class:`ScoreFunction` to switch them. Unbiased for
    the bound, for any guide; one evaluation a particle.

    Args:
        num_particles: K, at least 2.

    Raises:
        ValueError: fewer than 2 particles; in a step, sites of different scale.

    References:
        Mnih & Rezende (2016), arXiv:1602.06725.
    """

    least = 2
    profile = of_scores(
        "any",
        "importance-weighted bound, unbiased for it; leave-one-out control variate; one "
        "evaluation a particle",
        (),
        weighted=False,
    )

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return renyi(0.0, self.num_particles)

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        log_p, log_q, scale, inside, lead = log_weights(self, run)
        bound, (weights, _) = self.bound(lead), self.bound.slopes(lead)
        signal = bound - self.bound(replace_each(lead, self._instead_of_each(lead)))
        surrogate = (scale * not_slight(weights) * (log_p - log_q)).sum()
        for site in samples(run.guide):
            score = site["score_parts"].score_function
            if not is_identically_zero(score):
                surrogate = surrogate + (scale * signal * sum_inside(score, inside)).sum()
        return (scale * bound).sum(), surrogate

    def _instead_of_each(self, log_w: Tensor) -> Tensor:
        """What stands for each log weight in the others' bound: the mean of the others."""
        return (log_w.sum(0) - log_w) / (self.num_particles - 1)
