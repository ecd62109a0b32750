"""The score function with a leave-one-out baseline: RLOO."""

from pyro.distributions.util import is_identically_zero
from torch import Tensor

from ..sites import samples
from .multisample import MultiSampleELBO, Run, add, log_weight, own, total
from .profile import of_scores

__all__ = ["RLOO"]


class RLOO(MultiSampleELBO):
    r"""The ELBO by the score function, each particle's baseline the mean of the others (RLOO).

    .. math:: \nabla_\phi L \approx \frac{1}{K - 1} \sum_{k=1}^K
        \left(f(z_k) - \frac{1}{K} \sum_{j=1}^K f(z_j)\right) \nabla_\phi \log q_\phi(z_k),
        \quad f = \log p(x, z) - \log q(z)

    REINFORCE with a leave-one-out baseline: one for every data point, with no network and no decay.
    The cost f of a site is summed to the site's own plates, as in ``Trace_ELBO``. Reparameterized
    sites keep their pathwise gradient; wrap the guide in :class:`ScoreFunction` to switch them.
    Unbiased, for any guide; one evaluation a particle. VarGrad, the gradient of half the sample
    variance of log w in the guide's parameters, is the same estimator, and LOORF another name.

    Args:
        num_particles: K, at least 2.

    Raises:
        ValueError: fewer than 2 particles.

    References:
        Kool, van Hoof & Welling (2019), "Buy 4 REINFORCE samples, get a baseline for free!";
        Salimans & Knowles (2014), arXiv:1401.1022; Mnih & Rezende (2016), arXiv:1602.06725;
        Richter, Boustati, Nüsken, Ruiz & Akyildiz (2020), arXiv:2010.10436, VarGrad.
    """

    least = 2
    profile = of_scores("any", "unbiased; leave-one-out baseline; one evaluation a particle", ())

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        cost, k = log_weight(run.model, run.guide), self.num_particles
        surrogate = add(site["log_prob"].sum() for site in samples(run.model))
        for site in samples(run.guide):
            _, score, entropy = site["score_parts"]
            if not is_identically_zero(entropy):
                surrogate = surrogate - entropy.sum()
            if not is_identically_zero(score):
                f = own(cost, site)
                surrogate = surrogate + ((f - f.mean(0)) * (k / (k - 1)) * score).sum()
        return total(cost) / k, surrogate / k
