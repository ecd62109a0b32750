"""Draws of the ELBO of each datum, for ArviZ."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from numpy.typing import ArrayLike
from pyro.infer import ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor

from ..infer import Estimator, make_estimator
from ..infer.bounds import draw_terms
from ..seeding import seeded
from ..spec import Spec
from ..vae import VAE
from .references import Bound, bound_of

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["elbo_draws", "to_arviz"]

CHUNK = 2**13  # log weights at once
CHAINS = 4


@torch.no_grad()
def elbo_draws(
    vae: VAE,
    x: Tensor | ArrayLike,
    estimator: str | Spec | ELBO | Estimator = "Trace_ELBO",
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> "InferenceData":
    r"""Draws of an estimator's bound, as ArviZ takes them.

    With :math:`w_k = p(x, z_k) / q(z_k | x)` for independent :math:`z_1 \dots z_K \sim q(z|x)`,
    a draw is

    .. math::
        \frac1K \sum_k \log w_k \quad \text{(ELBO)}, \qquad
        \frac{1}{1 - \alpha} \log \frac1K \sum_k w_k^{1 - \alpha} \quad \text{(Rényi, IWAE)}

    ``TraceMeanField_ELBO`` has its KL term in closed form, ``TraceEnum_ELBO`` is exact: all of its
    draws are equal.

    Args:
        vae: a model.
        x: ``(N, *x_shape)``.
        estimator: the bound; its gradient rule changes no value.
        num_draws: how many.
        seed: of the draws.

    Returns:
        ``InferenceData`` (a ``DataTree`` under ArviZ 1.x) whose ``posterior`` holds ``elbo``
        (chain, draw, datum), nats per datum, and ``total`` (chain, draw), nats, their sum:
        ``arviz.summary`` gives mean, sd, quantiles and Monte Carlo error, ``arviz.plot_forest`` a
        picture. The draws are independent; they are dealt into 4 chains where num_draws is a
        multiple of 4 and at least 16, so that ArviZ's diagnostics have something to compare, else
        they are one.

    Raises:
        ValueError: data that are not the model's, an estimator that cannot serve the guide or whose
            bound is not known here.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> elbo_draws(vae, torch.zeros(3, 2), num_draws=40).posterior["elbo"].shape
    (4, 10, 3)
    """
    x = vae.check(x)
    if not isinstance(num_draws, int) or num_draws < 1:
        raise ValueError(f"num_draws must be a whole number of at least 1, got {num_draws!r}")
    line = make_estimator(estimator)
    bound = bound_of(line.elbo)
    if bound is None:
        raise ValueError(f"{line} is of a bound that is not the ELBO, IWAE or Rényi's: unknown")
    with pyro.get_param_store().scope(), seeded(seed):
        line.check(vae.model, vae.guide, x)
        if isinstance(line.elbo, TraceEnum_ELBO):
            values = _enumerate(vae, line, x).expand(num_draws, -1)
        else:
            k = line.elbo.num_particles
            chunk = max(1, CHUNK // (k * len(x)))
            counts = [chunk] * (num_draws // chunk) + [num_draws % chunk]
            exact_kl = isinstance(line.elbo, TraceMeanField_ELBO)
            parts = [_log_weights(vae, x, n * k, exact_kl) for n in counts if n]
            values = _bound(torch.cat(parts).double().reshape(num_draws, k, len(x)), bound)
    chains = CHAINS if num_draws % CHAINS == 0 and num_draws >= CHAINS**2 else 1
    found = values.cpu().numpy().reshape(chains, -1, len(x))
    return to_arviz(
        {"elbo": found, "total": found.sum(-1)},
        dims={"elbo": ["datum"]},
        coords={"datum": np.arange(len(x))},
    )


def to_arviz(
    posterior: Mapping[str, np.ndarray],
    *,
    dims: Mapping[str, list[str]],
    coords: Mapping[str, np.ndarray],
) -> "InferenceData":
    """Arrays (chain, draw, ...) as ArviZ's container: ``InferenceData``, in 1.x ``DataTree``.

    Args:
        posterior: the arrays by name.
        dims: names of the dimensions past draw.
        coords: their coordinates.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ 0.23 announces 1.0 at import
        import arviz

    make: Any = arviz.from_dict
    options = {"dims": dict(dims), "coords": dict(coords)}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return make({"posterior": dict(posterior)}, **options)
    return make(posterior=dict(posterior), **options)


def _log_weights(vae: VAE, x: Tensor, n: int, exact_kl: bool) -> Tensor:
    """``(n, N)``."""
    with pyro.validation_enabled(False):
        likelihood, kl = draw_terms(vae.model, vae.guide, x, n, exact_kl=exact_kl)
    return likelihood - kl


def _bound(log_w: Tensor, bound: Bound) -> Tensor:
    """``(S, K, N)`` to ``(S, N)``."""
    if bound.alpha == 1:
        return log_w.mean(1)
    power, log_k = 1 - bound.alpha, np.log(bound.num_particles)
    return ((power * log_w).logsumexp(1) - log_k) / power


def _enumerate(vae: VAE, estimator: Estimator, x: Tensor) -> Tensor:
    elbo: Any = estimator.elbo
    guide = estimator.wrap(vae.guide, x)
    losses = [elbo.loss(vae.model, guide, one) for one in x.split(1)]
    return -torch.tensor(losses, dtype=torch.float64)
