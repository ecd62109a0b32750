"""What the latent space carries: KL by dimension, mutual information, collapse."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...distributions import Layered
from ...families.support import innermost
from ...model.joint import Joint, reading
from ...model.vae import VAE

__all__ = ["LatentSummary", "cross_factors", "factors_of", "latent_summary"]

ACTIVE = 0.01  # Burda et al.: variance over x of the guide's mean
CELLS = 2**21  # densities of draws under the guides of all data, at once


@dataclass(frozen=True)
class LatentSummary:
    """What z carries of x; nats per datum.

    ``totals`` has a row for ``kl``, ``mutual_information``, ``aggregate_kl``,
    ``total_correlation`` and ``dimension_kl``, with ``value`` and ``standard_error`` over the data.
    ``dimensions`` has a row for each latent dimension: ``kl``, ``activity``, ``active`` and
    ``aggregate_kl``.
    """

    totals: pd.DataFrame
    dimensions: pd.DataFrame
    num_data: int

    @property
    def active_units(self) -> int:
        """Dimensions whose guide moves with x."""
        return int(self.dimensions["active"].to_numpy().sum())

    @property
    def verdict(self) -> str:
        """Whether the posterior has collapsed, and what else there is to know, in words."""
        value: dict[str, float] = dict(zip(self.totals.index, self.totals["value"], strict=True))
        d, active, ceiling = len(self.dimensions), self.active_units, math.log(self.num_data)
        told = f"mutual information {value['mutual_information']:.2f} nats"
        if active == 0:
            return (
                f"The posterior has collapsed: none of {d} latent dimensions moves with x "
                f"({told}). The decoder models the data without z."
            )
        text = f"{active} of {d} latent dimensions {'is' if active == 1 else 'are'} active ({told})"
        have = "has" if d - active == 1 else "have"
        text += "." if active == d else f"; {d - active} {have} collapsed to the prior."
        if value["mutual_information"] > ceiling - 1:
            text += f" That is near the ceiling of {self.num_data} data, {ceiling:.1f} nats: "
            text += "more data would show more."
        if value["aggregate_kl"] > 1:
            text += (
                f" The encoded data are {value['aggregate_kl']:.1f} nats from the prior: draws of "
                "the prior fall where the decoder has not been trained."
            )
        return text


@torch.no_grad()
def latent_summary(
    vae: VAE, x: Tensor | ArrayLike, *, num_samples: int = 1, seed: int | None = None
) -> LatentSummary:
    r"""KL by dimension, active units, mutual information, aggregate KL, and a verdict.

    With :math:`q(z) = \frac1N \sum_n q(z|x_n)` over the given data,

    .. math:: \underbrace{E_x KL(q(z|x) \| p(z))}_{\text{kl}} =
        \underbrace{I_q(x; z)}_{\text{mutual information}} +
        \underbrace{KL(q(z) \| \textstyle\prod_j q(z_j))}_{\text{total correlation}} +
        \underbrace{\textstyle\sum_j KL(q(z_j) \| p(z_j))}_{\text{dimension kl}}

    where the last two make the aggregate KL, :math:`KL(q(z) \| p(z))`. The mutual information is
    that of z and *which* of the N data was drawn: it is at most log N, and below that of the
    population where it comes near. A dimension is active where the guide's mean has a variance of
    more than 0.01 over the data.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``; the time grows with N squared.
        num_samples: draws of z per datum.
        seed: of the draws.

    Returns:
        :class:`LatentSummary`: ``totals``, ``dimensions``, ``active_units``, ``verdict``. What
        needs factors that the guide or the prior does not have is NaN.

    Raises:
        ValueError: data that are not the model's, or fewer than two.

    References:
        Hoffman & Johnson (2016), "ELBO surgery"; Chen et al. (2018), arXiv:1802.04942; Burda,
        Grosse & Salakhutdinov (2016), arXiv:1509.00519, for active units.

    >>> vae = VAE(2, latent_dim=3, likelihood="Normal", seed=0)
    >>> found = latent_summary(vae, torch.randn(50, 2), seed=0)
    >>> list(found.totals.index)[:3], len(found.dimensions)
    (['kl', 'mutual_information', 'aggregate_kl'], 3)
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    x = vae.check(x)
    n = len(x)
    if n < 2:
        raise ValueError("x holds one datum: mutual information is between data, give more")
    with reading(vae, seed):
        joint = Joint(vae, x)
        z = joint.guide.sample(torch.Size([num_samples]))
        own, prior = joint.log_guide(z), joint.log_prior(z)
        joined, by_factor = _aggregate(joint.guide, z)
        q = factors_of(joint.guide)
        dims = math.prod(vae.z_shape) if q is None else q.batch_shape[1:].numel()
        none = torch.full((num_samples, n, dims), math.nan).to(own)
        by_factor = none if by_factor is None else by_factor
        own_factor = _by_dimension(joint.guide, z, dims)
        prior_factor = _by_dimension(joint.prior, z, dims)
        activity = _activity(joint.guide, z, dims)
    parts = {
        "kl": own - prior,
        "mutual_information": own - joined,
        "aggregate_kl": joined - prior,
        "total_correlation": joined - by_factor.sum(-1),
        "dimension_kl": (by_factor - prior_factor).sum(-1),
    }
    totals = pd.DataFrame(
        {k: (v.mean().item(), v.mean(0).std().item() / math.sqrt(n)) for k, v in parts.items()},
        index=["value", "standard_error"],
    ).T
    kl = (own_factor - prior_factor).mean(0)
    names = vae.latents.coordinates if vae.latents.layers else range(dims)
    dimensions = pd.DataFrame(
        {
            "kl": kl.mean(0).cpu(),
            "kl_error": (kl.std(0) / math.sqrt(n)).cpu(),
            "activity": activity.cpu(),
            "active": (activity > ACTIVE).cpu(),
            "aggregate_kl": (by_factor - prior_factor).mean((0, 1)).cpu(),
        },
        index=pd.Index(names, name="latent_dim"),
    )
    return LatentSummary(totals, dimensions, n)


def factors_of(q: dist.TorchDistribution) -> dist.TorchDistribution | None:
    """Its marginals by latent dimension, as a batch; ``None`` where they are not known."""
    if isinstance(q, torch.distributions.MultivariateNormal | dist.LowRankMultivariateNormal):
        return dist.Normal(q.mean, q.variance.sqrt())
    base = innermost(q)
    return base if base is not q else None


def _by_dimension(d: dist.TorchDistribution, z: Tensor, dims: int) -> Tensor:
    """The log density of each latent dimension ``(S, N, D)``, NaN where it is not known.

    In stochastic layers it is that given the layer drawn before.
    """
    layered = isinstance(d, Layered)
    parts = [(q, v, v.shape[-1]) for q, v in d.factors(z)] if layered else [(d, z, dims)]
    each: list[Tensor] = []
    for part, value, size in parts:
        q, none = factors_of(part), torch.full((*value.shape[:2], size), math.nan)
        each.append(none.to(value.device) if q is None else q.log_prob(value).flatten(2))
    return torch.cat(each, -1)


def cross_factors(guide: dist.TorchDistribution, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of ``(rows, log q(z_j | x_n))``, ``(R,)`` and ``(R, N, D)``, for z ``(M, ...)``."""
    factors = factors_of(guide)
    if factors is None:
        raise ValueError("the guide does not say the marginals of its dimensions")
    cells = factors.batch_shape.numel()
    for rows in torch.arange(len(z), device=z.device).split(max(1, CELLS // cells)):
        yield rows, factors.log_prob(z[rows, None]).flatten(2)


def _aggregate(guide: dist.TorchDistribution, z: Tensor) -> tuple[Tensor, Tensor | None]:
    """log q(z) ``(S, N)`` and log q(z_j) ``(S, N, D)``, of the mixture over all data."""
    s, n = z.shape[:2]
    flat = z.flatten(0, 1)
    product = innermost(guide) is not guide
    by_factor: list[Tensor] = []
    joined: list[Tensor] = []
    if factors_of(guide) is not None:
        for _, log_q in cross_factors(guide, flat):
            by_factor.append(log_q.logsumexp(1) - math.log(n))
            if product:
                joined.append(log_q.sum(-1).logsumexp(1) - math.log(n))
    if not product:
        step = max(1, CELLS // (n * math.prod(z.shape[2:])))
        for some in flat.split(step):
            joined.append(guide.log_prob(some[:, None]).logsumexp(1) - math.log(n))
    every = torch.cat(by_factor).unflatten(0, (s, n)) if by_factor else None
    return torch.cat(joined).unflatten(0, (s, n)), every


def _activity(guide: dist.TorchDistribution, z: Tensor, dims: int) -> Tensor:
    """Variance over the data of the guide's mean, by latent dimension ``(D,)``."""
    try:
        mean = guide.mean
    except (NotImplementedError, AttributeError):
        mean = z.mean(0)
    if not mean.isfinite().all():  # categories have no mean
        mean = z.to(torch.get_default_dtype()).mean(0)
    return mean.flatten(1).var(0).reshape(dims, -1).sum(-1)
