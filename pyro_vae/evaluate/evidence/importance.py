"""log p(x) of each datum by importance sampling from the guide, with its error."""

import math
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...model.joint import Joint, reading
from ...model.vae import VAE
from ..inference_data import tail_shape

__all__ = ["RELIABLE", "Evidence", "log_evidence", "log_mean_exp"]

CELLS = 2**20  # numbers of x-hat at once: they stay in the cache
RELIABLE = 0.7  # the k-hat up to which an importance sampling estimate may be trusted


@dataclass(frozen=True)
class Evidence:
    """An estimate of log p(x), nats per datum, and what is known of its error.

    ``standard_error`` is of the Monte Carlo error, by the delta method: it sees only the weights
    that were drawn, so where ``khat`` is above 0.7 it is too small itself. There is no ``khat``
    (NaN) of fewer than 25 draws.
    """

    log_evidence: Tensor
    standard_error: Tensor
    khat: Tensor
    num_samples: int

    @property
    def mean(self) -> float:
        """Over the data, nats per datum."""
        return self.log_evidence.mean().item()

    @property
    def mean_error(self) -> float:
        """Standard error of the mean as one of other data of the same kind."""
        n = len(self.log_evidence)
        return (self.log_evidence.std() / math.sqrt(n)).item() if n > 1 else math.nan

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean over these data: that of drawing z."""
        return (self.standard_error.square().sum().sqrt() / len(self.standard_error)).item()

    def summary(self) -> str:
        """The figure in words, and whether to believe it."""
        n = len(self.log_evidence)
        text = (
            f"log p(x) = {self.mean:.2f} nats per datum, by {self.num_samples} draws a datum "
            f"(standard error over {n} data {self.mean_error:.2g}, of drawing z "
            f"{self.monte_carlo_error:.2g})."
        )
        if self.khat.isnan().all():
            return f"{text} Too few draws for k-hat: it is a lower bound, how loose is not known."
        doubtful = (self.khat > RELIABLE).double().mean().item()
        if not doubtful:
            return f"{text} No datum has k-hat > {RELIABLE}."
        return (
            f"{text} {doubtful:.1%} of the data have k-hat > {RELIABLE}: "
            "for them this figure is a loose lower bound."
        )


@torch.no_grad()
def log_evidence(
    vae: VAE, x: Tensor | ArrayLike, *, num_samples: int = 5000, seed: int | None = None
) -> Evidence:
    r"""log p(x) of each datum, estimated by importance sampling from the guide.

    .. math:: \log \hat p(x) = \log \frac1K \sum_{k=1}^K w_k, \quad
        w_k = \frac{p(x, z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    In expectation it is the importance-weighted bound: below log p(x), by half the square of the
    standard error where that is small. The Pareto k-hat of the weights says whether it is: above
    0.7 the guide misses mass of the posterior, and both the figure and its standard error are too
    low.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        num_samples: K, draws of z per datum. Memory does not grow with it.
        seed: of the draws.

    Returns:
        :class:`Evidence`: ``log_evidence``, ``standard_error``, ``khat``, ``(N,)`` each;
        ``summary()`` says them in words.

    Raises:
        ValueError: data that are not the model's, or fewer than two draws.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519; Vehtari et al. (2024),
        arXiv:1507.02646, for k-hat.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> found = log_evidence(vae, torch.zeros(3, 2), num_samples=200, seed=0)
    >>> found.log_evidence.shape, found.khat.shape
    (torch.Size([3]), torch.Size([3]))
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    x = vae.check(x)
    rows = max(1, CELLS // math.prod(vae.x_shape))
    with reading(vae, seed):
        prior = vae.prior()
        parts = [
            _estimate(_log_weights(Joint(vae, some, prior), num_samples, rows))
            for some in x.split(max(1, rows // num_samples))
        ]
    found, error, khat = (torch.cat(part) for part in zip(*parts, strict=True))
    return Evidence(found, error, khat, num_samples)


def log_mean_exp(log_w: Tensor) -> tuple[Tensor, Tensor]:
    r"""Logarithm of the mean weight, and its standard error by the delta method.

    .. math:: \frac{\mathrm{sd}(w)}{\bar w \sqrt K}

    Args:
        log_w: ``(K, N)``.

    Returns:
        ``(N,)`` each.
    """
    k, log_w = len(log_w), log_w.double()
    share = log_w.softmax(0)
    error = ((share.square().sum(0) - 1 / k) * (k / (k - 1))).clamp(min=0).sqrt()
    return log_w.logsumexp(0) - math.log(k), error


def _log_weights(joint: Joint, num_samples: int, rows: int) -> Tensor:
    """``(K, B)``, from chunks of at most ``rows`` passes through the decoder, where B allows."""
    step = max(1, rows // len(joint.x))
    sizes = [min(step, num_samples - start) for start in range(0, num_samples, step)]
    return torch.cat([joint.log_weight(joint.guide.sample(torch.Size([n]))) for n in sizes])


def _estimate(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return *log_mean_exp(log_w), tail_shape(log_w)
