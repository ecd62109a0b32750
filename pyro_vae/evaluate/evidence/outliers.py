"""Scores of how unusual an observation is to the model, and why not to trust them alone."""

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.vae import VAE
from ..statistics import by_observation, chunks, log_mean_exp
from .importance import log_evidence

__all__ = ["outlier_scores"]

ROWS = 2**12  # observations times draws at once


@of_model
@torch.no_grad()
def outlier_scores(
    vae: VAE,
    x: Tensor | ArrayLike,
    reference: Tensor | ArrayLike,
    *,
    num_samples: int = 100,
    seed: int | None = None,
) -> pd.DataFrame:
    r"""Scores of being out of distribution, for each observation; higher is more unusual.

    .. math:: \text{surprise} = -\log p(x), \quad
        \text{typicality} = \left|\log p(x) - \overline{\log p(x_{ref})}\right|, \quad
        \text{waic} = -\log \overline{p(x|z)} + \mathrm{var} \log p(x|z)

    with z from the guide. A known failure: a likelihood is a density, and simple data of another
    kind may have a *higher* one than the data the model was trained on (house numbers under a model
    of natural images), so that ``surprise`` calls them usual. ``typicality`` mends this where the
    likelihoods differ in either direction, and fails where they agree by accident. Compare scores
    with those of held-out data of the right kind, never with a fixed threshold.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``, the data in question.
        reference: ``(M, *x_shape)``, held-out data of the right kind.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        A row for each observation: ``surprise``, ``typicality``, ``waic``, nats.

    Raises:
        ValueError: data that the model refuses, or fewer than two draws.

    References:
        Nalisnick et al. (2019), arXiv:1810.09136, for the failure, and arXiv:1906.02994, for
        typicality; Choi, Jang & Alemi (2018), arXiv:1810.01392, for WAIC, there of an ensemble.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> x = torch.randn(10, 2)
    >>> outlier_scores(vae, x + 9, x, seed=0).shape
    (10, 3)
    """
    num_samples = whole("num_samples", num_samples, 2)
    data = vae.check(x)
    log_p = log_evidence(
        vae, data, num_samples=num_samples, num_simulated=0, seed=seed
    ).log_evidence
    usual = log_evidence(vae, reference, num_samples=num_samples, num_simulated=0, seed=seed).mean
    with reading(vae, seed):
        parts = chunks(data, num_samples, ROWS)
        waic = torch.cat([_waic(Joint(vae, some), num_samples) for some in parts])
    return by_observation({"surprise": -log_p, "typicality": (log_p - usual).abs(), "waic": waic})


def _waic(joint: Joint, num_samples: int) -> Tensor:
    log_p = joint.log_likelihood(joint.guide.sample(torch.Size([num_samples]))).double()
    return log_p.var(0) - log_mean_exp(log_p)[0]
