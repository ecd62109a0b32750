"""What z says of x: KL by latent dimension, mutual information, posterior collapse."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...distributions import Layered
from ...families.support import innermost
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.vae import VAE
from ..statistics import chunks, mean, mean_and_error, standard_error

__all__ = ["LatentSummary", "cross_factors", "dimension_names", "latent_summary"]

ACTIVE = 0.01  # Burda et al.: variance over x of the guide's mean
ERRORS = 2  # standard errors that the KL of an active dimension is above 0
CELLS = 2**21  # densities of draws under the guides of all observations, at once


@dataclass(frozen=True)
class LatentSummary:
    """What z says of x; nats per observation.

    Attributes:
        totals: rows ``kl``, ``mutual_information``, ``aggregate_kl``, ``total_correlation`` and
            ``dimension_kl``, with ``value`` and ``standard_error`` over the data.
        dimensions: a row for each latent dimension, by its name: ``kl``, ``kl_error``,
            ``activity``, ``active`` and ``aggregate_kl``.
        num_data: N.
        ceiling: of the mutual information, log N; of weighted observations their entropy.
    """

    totals: pd.DataFrame
    dimensions: pd.DataFrame
    num_data: int
    ceiling: float

    @property
    def active_units(self) -> int:
        """The number of latent dimensions that are active."""
        return int(self.dimensions["active"].to_numpy().sum())

    @property
    def verdict(self) -> str:
        """Whether the posterior has collapsed, and what else there is to know, in words."""
        value: dict[str, float] = dict(zip(self.totals.index, self.totals["value"], strict=True))
        d, active, ceiling = len(self.dimensions), self.active_units, self.ceiling
        information = f"mutual information {value['mutual_information']:.2f} nats"
        if active == 0:
            return (
                f"The posterior has collapsed: none of {d} latent dimensions moves with x "
                f"({information}). The decoder models the data without z."
            )
        verb = "is" if active == 1 else "are"
        text = f"{active} of {d} latent dimensions {verb} active ({information})"
        have = "has" if d - active == 1 else "have"
        text += "." if active == d else f"; {d - active} {have} collapsed to the prior."
        if value["mutual_information"] > ceiling - 1:
            text += (
                f" That is near the ceiling of {self.num_data} observations, {ceiling:.1f} nats: "
            )
            text += "more data would show more."
        if value["aggregate_kl"] > 1:
            text += (
                f" The encoded data are {value['aggregate_kl']:.1f} nats from the prior: draws of "
                "the prior fall where the decoder has not been trained."
            )
        return text


@of_model
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
    more than 0.01 over the data, unless its KL is known to be within two standard errors of 0.
    Where observations have weights, q(z) and all means are by them. Where the prior reads a
    condition, kl is from :math:`p(z|c_n)`, p(z) is its mixture over the data, as q(z) is, so that
    the parts do not add up to kl, and what the guide's mean adds to the prior's is active.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``; the time grows with N squared.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        :class:`LatentSummary`: ``totals``, ``dimensions``, ``active_units``, ``verdict``. Figures
        that need marginals which the guide or the prior does not give are NaN.

    Raises:
        ValueError: data that the model refuses, or fewer than two observations.

    References:
        Hoffman & Johnson (2016), "ELBO surgery"; Chen et al. (2018), arXiv:1802.04942; Burda,
        Grosse & Salakhutdinov (2016), arXiv:1509.00519, for active units.

    >>> vae = VAE(2, latent_dim=3, likelihood="Normal", seed=0)
    >>> summary = latent_summary(vae, torch.randn(50, 2), seed=0)
    >>> list(summary.totals.index)[:3], len(summary.dimensions)
    (['kl', 'mutual_information', 'aggregate_kl'], 3)
    """
    num_samples = whole("num_samples", num_samples)
    x = vae.check(x)
    n = len(x)
    if n < 2:
        raise ValueError("x holds one observation: mutual information needs at least two")
    weights, log_share = vae.weights_of(x), vae.counts_as(x).log() - math.log(n)
    with reading(vae, seed):
        joint = Joint(vae, x)
        z = joint.guide.sample(torch.Size([num_samples]))
        own, prior = joint.log_guide(z), joint.log_prior(z)
        joined, by_factor = _aggregate(joint.guide, z, log_share)
        q = factors_of(joint.guide)
        dims = math.prod(vae.z_shape) if q is None else q.batch_shape[1:].numel()
        own_factor = _by_dimension(joint.guide, z, dims)
        prior_factor = _by_dimension(joint.prior, z, dims)
        marginal, by_marginal = prior, prior_factor
        if vae.prior_reads:
            marginal, by_marginal = _aggregate(joint.prior, z, log_share)
        none = torch.full((num_samples, n, dims), math.nan).to(own)
        by_factor = none if by_factor is None else by_factor
        by_marginal = none if by_marginal is None else by_marginal
        activity = _activity(joint, vae.prior_reads, z, dims, weights)
    parts = {
        "kl": own - prior,
        "mutual_information": own - joined,
        "aggregate_kl": joined - marginal,
        "total_correlation": joined - by_factor.sum(-1),
        "dimension_kl": (by_factor - by_marginal).sum(-1),
    }
    totals = pd.DataFrame(
        {k: mean_and_error(v.mean(0), weights) for k, v in parts.items()},
        index=["value", "standard_error"],
    ).T
    kl = (own_factor - prior_factor).mean(0)
    value, error = mean(kl, weights), standard_error(kl, weights)
    dimensions = pd.DataFrame(
        {
            "kl": value.cpu(),
            "kl_error": error.cpu(),
            "activity": activity.cpu(),
            "active": ((activity > ACTIVE) & ~(value <= ERRORS * error)).cpu(),
            "aggregate_kl": mean((by_factor - by_marginal).mean(0), weights).cpu(),
        },
        index=dimension_names(vae, dims),
    )
    ceiling = -(log_share.exp() * log_share).sum().item()
    return LatentSummary(totals, dimensions, n, ceiling)


def dimension_names(vae: VAE, dims: int) -> pd.Index:
    """Names of the coordinates of z; a one-hot vector counts as one."""
    names = vae.latents.coordinates
    same = len(names) == dims
    return pd.Index(names if same else [f"z[{i}]" for i in range(dims)], name="latent_dim")


def factors_of(q: dist.TorchDistribution) -> dist.TorchDistribution | None:
    """The marginals of each latent dimension, as a batch; ``None`` where they are not known."""
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
        raise ValueError("the marginals of this guide's latent dimensions are not known")
    cells = factors.batch_shape.numel()
    for rows in chunks(torch.arange(len(z), device=z.device), cells, CELLS):
        yield rows, factors.log_prob(z[rows, None]).flatten(2)


def _aggregate(
    guide: dist.TorchDistribution, z: Tensor, log_share: Tensor
) -> tuple[Tensor, Tensor | None]:
    """log q(z) ``(S, N)`` and log q(z_j) ``(S, N, D)``, of the mixture over all observations.

    Their shares in the mixture are ``exp(log_share)``, ``(N,)``.
    """
    s, n = z.shape[:2]
    flat = z.flatten(0, 1)
    product = innermost(guide) is not guide
    by_factor: list[Tensor] = []
    joined: list[Tensor] = []
    if factors_of(guide) is not None:
        for _, log_q in cross_factors(guide, flat):
            by_factor.append((log_q + log_share[:, None]).logsumexp(1))
            if product:
                joined.append((log_q.sum(-1) + log_share).logsumexp(1))
    if not product:
        for some in chunks(flat, n * math.prod(z.shape[2:]), CELLS):
            joined.append((guide.log_prob(some[:, None]) + log_share).logsumexp(1))
    every = torch.cat(by_factor).unflatten(0, (s, n)) if by_factor else None
    return torch.cat(joined).unflatten(0, (s, n)), every


def _activity(
    joint: Joint, conditional: bool, z: Tensor, dims: int, weights: Tensor | None
) -> Tensor:
    """Variance over the data of the guide's mean, by latent dimension ``(D,)``.

    Less the mean of a prior that is conditional, which moves with the data too.
    """
    means = _mean_of(joint.guide)
    if means is None:
        means = z.to(torch.get_default_dtype()).mean(0)
    elif conditional and (expected := _mean_of(joint.prior)) is not None:
        means = means - expected
    means, n = means.flatten(1), len(means)
    variance = mean((means - mean(means, weights)).square(), weights) * n / (n - 1)
    return variance.reshape(dims, -1).sum(-1)


def _mean_of(d: dist.TorchDistribution) -> Tensor | None:
    """The means of a batch; ``None`` where they are not known, or there are none."""
    try:
        means = d.mean
    except (NotImplementedError, AttributeError):
        return None
    return means if means.isfinite().all() else None  # categories have none
