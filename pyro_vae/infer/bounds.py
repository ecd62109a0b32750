"""The ELBO of each datum, from the messages of any model and guide with one plate over data."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from .handlers import latent

__all__ = ["elbo_terms"]


@torch.no_grad()
def elbo_terms(
    model: Callable, guide: Callable, x: Tensor, *, num_samples: int = 1, chunk: int = 1000
) -> tuple[Tensor, Tensor]:
    r"""Both terms of the ELBO per datum, :math:`E_q[\log p(x|z)]` and :math:`KL(q \| p)`.

    Args:
        model: a Pyro model whose sites all lie in one plate over data, at dimension -1.
        guide: its guide.
        x: ``(N, ...)``.
        num_samples: draws of z per datum; both expectations are their means.
        chunk: how many log weights are in memory at once.

    Returns:
        log likelihood and KL, ``(N,)`` each, in nats; the ELBO is their difference.
    """
    terms = [_terms(model, guide, rows, num_samples) for rows in _chunks(x, num_samples, chunk)]
    likelihood, kl = zip(*terms, strict=True)
    return torch.cat(likelihood), torch.cat(kl)


def _chunks(x: Tensor, num_samples: int, chunk: int) -> Iterator[Tensor]:
    yield from x.split(max(1, chunk // num_samples))


def _terms(model: Callable, guide: Callable, x: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    with poutine.block():
        q = poutine.trace(_vectorize(guide, num_samples)).get_trace(x)
        p = poutine.trace(poutine.replay(_vectorize(model, num_samples), q)).get_trace(x)
    p.compute_log_prob()
    q.compute_log_prob()
    likelihood = kl = torch.zeros(num_samples, len(x), device=x.device)
    site: Any
    for name, site in p.nodes.items():
        if latent(site):
            log_q: Any = q.nodes[name]["log_prob"]
            kl = kl + log_q - site["log_prob"]
        elif site["type"] == "sample" and site["is_observed"]:
            likelihood = likelihood + site["log_prob"]
    return likelihood.mean(0), kl.mean(0)


def _vectorize(fn: Callable, num_samples: int) -> Callable:
    return pyro.plate("num_samples", num_samples, dim=-2)(fn)
