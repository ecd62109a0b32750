"""Model and guide at given data as plain functions of z: what the long loops of this room call."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from ..core.modes import untouched
from ..core.seeding import seeded
from ..families.support import innermost
from .vae import VAE

__all__ = ["Joint", "reading"]


@contextmanager
def reading(vae: VAE, seed: int | None) -> Iterator[None]:
    """Within it the model is in evaluation mode, draws start from ``seed``, nothing is validated.

    Data were checked at the boundary; a loop of thousands of chunks does not pay for it again.
    """
    with untouched(vae), seeded(seed), pyro.validation_enabled(False):
        yield


class Joint:
    """p(z), p(x, z) and q(z|x) at B data; z is ``(..., B, *z_shape)``, densities are ``(..., B)``.

    Prior and guide are made once: a prior that runs a network would do so for every chunk.

    Args:
        vae: a model, in evaluation mode.
        x: ``(B, *x_shape)``.
        prior: the model's, where it has been made.
    """

    def __init__(self, vae: VAE, x: Tensor, prior: dist.TorchDistribution | None = None) -> None:
        self.vae, self.x = vae, x
        self.prior: dist.TorchDistribution = vae.prior() if prior is None else prior
        self.guide = vae.encode(x)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z)."""
        return self.prior.log_prob(z)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z), of the observed cells."""
        likelihood, x = self.vae._observe(self.vae.decode(z), self.x)
        return _log_prob(likelihood, self.x if x is None else x)

    def log_guide(self, z: Tensor) -> Tensor:
        """log q(z|x)."""
        return self.guide.log_prob(z)

    def log_weight(self, z: Tensor) -> Tensor:
        """log p(x, z) - log q(z|x)."""
        return self.log_likelihood(z) + self.log_prior(z) - self.log_guide(z)

    def to_support(self, who: str) -> Transform:
        """From the real line onto the support of z.

        Raises:
            ValueError: z is discrete, or its support is no image of a real space.
        """
        support = self.prior.support
        advice = f"{who} moves z along gradients: use log_evidence, which only draws z"
        if support is None or support.is_discrete:
            raise ValueError(f"z is discrete here, and {advice}")
        try:
            return biject_to(support)
        except NotImplementedError:
            raise ValueError(
                f"the support {support} of z is not an image of a real space, and {advice}"
            ) from None


def _log_prob(p: dist.TorchDistribution, x: Tensor) -> Tensor:
    r"""The density; of bits :math:`x \cdot l - \sum \log(1 + e^l)`, in fewer passes over memory.

    Beside the matrix products of the decoder this is what a long loop spends its time on.
    """
    bits = innermost(p)
    if type(bits) is not dist.Bernoulli or p.batch_shape[-1] != len(x):
        return p.log_prob(x)
    logits = bits.logits.flatten(-p.event_dim)
    fit = torch.einsum("...bd,bd->...b", logits, x.flatten(-p.event_dim))
    return fit - torch.nn.functional.softplus(logits).sum(-1)
