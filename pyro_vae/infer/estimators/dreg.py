"""The importance-weighted bound with a doubly reparameterized gradient: DReG."""

from .weights import WeightedELBO, of_paths

__all__ = ["DReG"]


class DReG(WeightedELBO):
    r"""The importance-weighted bound with a doubly reparameterized gradient of the guide.

    .. math:: \nabla_\phi L_K \approx \sum_{k=1}^K \tilde w_k^2
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},
        \quad \nabla_\theta L_K \approx \sum_{k=1}^K \tilde w_k \nabla_\theta \log p_\theta(x, z_k)

    with normalized weights :math:`\tilde w`. The guide's signal-to-noise ratio grows with K, where
    that of the standard gradient falls. With one particle it is sticking the landing. Right for
    guides of several sites too: :math:`z_k` is all of them, with the paths from one to the next.
    Unbiased for the bound, for reparameterized guides; one evaluation a particle.

    Args:
        num_particles: K.

    Raises:
        ValueError: in a step, a site without ``rsample``, or sites of different scale.

    References:
        Tucker et al. (2019), arXiv:1810.04152; Bauer & Mnih (2021), arXiv:2101.11046, for several
        sites; Rainforth et al. (2018), arXiv:1802.04537, for the signal-to-noise ratio.
    """

    profile = of_paths("importance-weighted bound, unbiased for it")
