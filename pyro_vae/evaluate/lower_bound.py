"""The evidence lower bound (ELBO) of each observation."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.acting import evaluating
from ..core.checks import whole
from ..infer.elbo_terms import CHUNK, elbo_terms
from ..model.entry import of_face
from ..model.face import Face
from ..model.pieces import pieces

__all__ = ["elbo"]


@of_face
def elbo(
    vae: Face, x: Tensor | ArrayLike, *, num_samples: int = 10, seed: int | None = None
) -> Tensor:
    r"""The evidence lower bound of each observation, in nats; higher is better.

    .. math:: L(x) = E_{q(z|x)}[\log p(x|z) + \log p(z) - \log q(z|x)] \le \log p(x)

    Args:
        vae: a trained model, or a :class:`Program`, which carries its x.
        x: ``(N, *x_shape)``; a loader is read piece by piece.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        ``(N,)``, unbiased for the bound; of weighted observations their mean is to be weighted too.

    Raises:
        ValueError: data that the model refuses, or no draws.

    References:
        Kingma & Welling (2014), arXiv:1312.6114.

    >>> import torch
    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> elbo(vae, torch.zeros(3, 2), num_samples=100, seed=0).shape
    torch.Size([3])
    """
    num_samples = whole("num_samples", num_samples)
    bounds = []
    with evaluating(vae, seed):
        rows = max(1, CHUNK // num_samples) if vae.layout is None else len(vae.as_data(x))
        for some in pieces(vae, x, rows):
            likelihood, kl = elbo_terms(
                vae.model, vae.guide, some, num_samples=num_samples, layout=vae.layout
            )
            bounds.append(likelihood - kl)
    return torch.cat(bounds)
