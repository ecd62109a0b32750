"""The two terms of the ELBO of each data point, from the traces of a model and a guide."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..core.layout import Layout
from .draws import draws
from .sites import latent, replayed, unweighted

__all__ = ["CHUNK", "draw_terms", "elbo_terms"]

CHUNK = 1000  # log weights in memory at once


@torch.no_grad()
def elbo_terms(
    model: Callable,
    guide: Callable,
    x: Tensor,
    *,
    num_samples: int = 1,
    layout: Layout | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Both terms of the ELBO per data point, :math:`E_q[\log p(x|z)]` and :math:`KL(q \| p)`.

    Args:
        model: a Pyro model whose sites all lie in one plate over data, at dimension -1, if no
            layout says otherwise.
        guide: its guide.
        x: ``(N, ...)``.
        num_samples: draws of z per data point; both expectations are their means.
        layout: of the plates of a program.

    Returns:
        log likelihood and KL, ``(N,)`` each, in nats; the ELBO is their difference.
    """
    rows = x.split(max(1, CHUNK // num_samples))
    terms = [draw_terms(model, guide, some, num_samples, layout=layout) for some in rows]
    likelihood, kl = zip(*terms, strict=True)
    return torch.cat([t.mean(0) for t in likelihood]), torch.cat([t.mean(0) for t in kl])


@torch.no_grad()
def draw_terms(
    model: Callable,
    guide: Callable,
    x: Tensor,
    num_samples: int,
    *,
    exact_kl: bool = False,
    layout: Layout | None = None,
) -> tuple[Tensor, Tensor]:
    """Both terms of the log weight of each draw: log p(x|z), and log q(z|x) - log p(z).

    Weights of observations (``poutine.scale``) are of the objective, not of these.

    Args:
        model: a Pyro model whose sites all lie in one plate over data, at dimension -1, if no
            layout says otherwise.
        guide: its guide.
        x: ``(N, ...)``.
        num_samples: S draws of z per data point, all at once.
        exact_kl: give KL(q || p) in closed form for the second term.
        layout: of the plates of a program.

    Returns:
        ``(S, N)`` each, in nats.
    """
    if layout is not None:
        several = draws(model, guide, x, num_samples, layout, exact_kl=exact_kl)
        return several.log_likelihood, several.log_guide - several.log_prior
    with poutine.block():
        q = poutine.trace(_vectorize(guide, num_samples)).get_trace(x)
        p: Any = replayed(_vectorize(model, num_samples), q, x)
    p.compute_log_prob()
    q.compute_log_prob()
    likelihood = kl = torch.zeros(num_samples, len(x), device=x.device)
    for name, site in p.nodes.items():
        if latent(site):
            own: Any = q.nodes[name]
            exact = kl_divergence(own["fn"], site["fn"]) if exact_kl else None
            kl = kl + (unweighted(own) - unweighted(site) if exact is None else exact)
        elif site["type"] == "sample" and site["is_observed"]:
            likelihood = likelihood + unweighted(site)
    return likelihood, kl


def _vectorize(fn: Callable, num_samples: int) -> Callable:
    return pyro.plate("num_samples", num_samples, dim=-2)(fn)
