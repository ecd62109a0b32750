"""The evidence lower bound (ELBO) of each observation."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.acting import evaluating
from ..core.checks import whole
from ..infer.elbo_terms import CHUNK, elbo_terms
from ..model.entry import of_model
from ..model.pieces import pieces
from ..model.vae import VAE

__all__ = ["elbo"]


@of_model
def elbo(
    vae: VAE, x: Tensor | ArrayLike, *, num_samples: int = 10, seed: int | None = None
) -> Tensor:
    r"""The evidence lower bound of each observation, in nats; higher is better.

    .. math:: L(x) = E_{q(z|x)}[\log p(x|z) + \log p(z) - \log q(z|x)] \le \log p(x)

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``; a loader is read piece by piece.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        ``(N,)``, unbiased for the bound.

    Raises:
        ValueError: data that the model refuses, or no draws.

    References:
        Kingma & Welling (2014), arXiv:1312.6114.

    >>> import torch
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> elbo(vae, torch.zeros(3, 2), num_samples=100, seed=0).shape
    torch.Size([3])
    """
    num_samples = whole("num_samples", num_samples)
    bounds = []
    with evaluating(vae, seed):
        for some in pieces(vae, x, max(1, CHUNK // num_samples)):
            likelihood, kl = elbo_terms(vae.model, vae.guide, some, num_samples=num_samples)
            bounds.append(likelihood - kl)
    return torch.cat(bounds)
