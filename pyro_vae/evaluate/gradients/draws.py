"""Draws of the ELBO of each observation, for ArviZ."""

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from numpy.typing import ArrayLike
from pyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor

from ...core.acting import evaluating
from ...core.checks import whole
from ...infer.elbo_terms import draw_terms
from ...infer.estimators.bounds import Bound
from ...infer.estimators.estimator import Estimator, make_estimator
from ...infer.estimators.soundness import check_and_nest
from ...model.entry import of_face
from ...model.face import Face
from ..inference_data import as_draws, container
from .references import EstimatorLike, states

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["elbo_draws"]

CHUNK = 2**13  # log weights at once


@of_face
@torch.no_grad()
def elbo_draws(
    vae: Face,
    x: Tensor | ArrayLike,
    estimator: EstimatorLike = "Trace_ELBO",
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> "InferenceData":
    r"""Draws of an estimator's bound, for ArviZ.

    With :math:`w_k = p(x, z_k) / q(z_k | x)` for independent :math:`z_1 \dots z_K \sim q(z|x)`,
    a draw is

    .. math::
        \frac1K \sum_k \log w_k \quad \text{(ELBO)}, \qquad
        \frac{1}{1 - \alpha} \log \frac1K \sum_k w_k^{1 - \alpha} \quad \text{(Rényi, IWAE)}

    and so on by the estimator's :class:`~pyro_vae.infer.estimators.bounds.Bound`.
    ``TraceMeanField_ELBO`` has its KL term in closed form.
    ``TraceEnum_ELBO`` is exact where the guide draws nothing but what has finitely many values, so
    that all its draws are equal, and ArviZ's diagnostics are 0 / 0: use
    ``arviz.summary(draws, kind="stats")``. A draw is of K independent z,
    also where the gradient evaluates others (antithetic pairs): the spread of the value that such
    an estimator reports is ``value_sd`` of :func:`compare_estimators`.

    Args:
        vae: a model, or a :class:`Program`, which carries its x.
        x: ``(N, *x_shape)``.
        estimator: the bound; its gradient rule changes no value.
        num_draws: the number of draws.
        seed: of the draws.

    Returns:
        ``InferenceData`` (a ``DataTree`` under ArviZ 1.x) whose ``posterior`` holds ``elbo``
        (chain, draw, observation), and ``total`` (chain, draw), their sum, in nats:
        ``arviz.summary`` gives mean, sd, quantiles and Monte Carlo error, ``arviz.plot_forest`` a
        picture. The draws are independent; they are dealt into 4 chains where num_draws is a
        multiple of 4 and at least 16, for ArviZ's diagnostics, else they are one chain.

    Raises:
        ValueError: data that the model refuses, an estimator that
            cannot serve the guide or whose bound is not known here.

    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> elbo_draws(vae, torch.zeros(3, 2), num_draws=40).posterior["elbo"].shape
    (4, 10, 3)
    """
    num_draws = whole("num_draws", num_draws)
    x = vae.check(x)
    line = make_estimator(estimator)
    bound = line.bound
    if bound is None:
        raise ValueError(
            f"{line} is of a bound that is not known here: give an estimator of the table"
        )
    with evaluating(vae, seed):
        check_and_nest(line, vae.model, vae.guide, x)
        if isinstance(line.elbo, TraceEnum_ELBO):
            once = states(vae, x) < math.inf  # and then all draws are equal
            each = [_enumerate(vae, line, x) for _ in range(1 if once else num_draws)]
            values = torch.stack(each).expand(num_draws, -1)
        else:
            k = line.elbo.num_particles
            chunk = max(1, CHUNK // (k * vae.count(x)))
            counts = [chunk] * (num_draws // chunk) + [num_draws % chunk]
            together = not vae.separate and bound != Bound()  # no function of one observation's
            how = {"exact_kl": isinstance(line.elbo, TraceMeanField_ELBO), "layout": vae.layout}
            with pyro.validation_enabled(False):
                parts = [draw_terms(vae.model, vae.guide, x, n * k, **how) for n in counts if n]
            log_w = torch.cat([likelihood - kl for likelihood, kl in parts]).double()
            log_w = log_w.sum(-1, keepdim=True) if together else log_w
            values = bound(log_w.reshape(num_draws, k, -1).movedim(1, 0))
    draws = {"elbo": as_draws(values, "observation"), "total": as_draws(values.sum(-1))}
    return container({"posterior": draws}, {})


def _enumerate(vae: Face, estimator: Estimator, x: Tensor) -> Tensor:
    elbo: Any = estimator.elbo
    if not vae.separate and vae.count(x) > 1:
        raise ValueError(
            f"{estimator} gives one figure for all observations of this program, which share "
            "latent variables or arguments: take Trace_ELBO, or data=None"
        )
    guide = estimator.wrap(vae.guide, x)
    losses = [elbo.loss(vae.model, guide, one) for one in x.split(1)]
    return -torch.tensor(losses, dtype=torch.float64)
