"""What the sample sites of a Pyro trace are: latent or observed, and of which distribution."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, TorchDistributionMixin
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = [
    "computed",
    "family_name",
    "is_learned_point",
    "is_product",
    "latent",
    "replayed",
    "same_order",
    "samples",
    "scored_cells",
    "unweighted",
    "unwrapped",
]


def latent(site: Any) -> bool:  # noqa: ANN401
    """Whether a message or trace node is a latent sample site (no data, no subsampling)."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not site_is_subsample(site)
        and isinstance(site["fn"], TorchDistributionMixin)
    )


def computed(site: Any) -> bool:  # noqa: ANN401
    """Whether a site is a function of others: of ``pyro.deterministic``, or reparametrized."""
    fn = site["fn"]
    unscored = isinstance(fn, dist.MaskedDistribution) and fn._mask is False
    return site["is_observed"] and unscored and isinstance(unwrapped(fn), dist.Delta)


def samples(trace: Trace) -> list[Any]:
    """The sample sites of a trace."""
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def replayed(model: Callable, guide_trace: Trace, *args: object) -> Trace:
    """The model's run at the guide's draws."""
    return poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)


def same_order(model: Trace, guide: Trace) -> bool:
    """Whether the guide draws its sites in the order of the model's.

    Only then is a KL in closed form, at the draws before the site, a part of the KL of them all.
    """
    model_sites: list[Any] = [n for n, s in model.nodes.items() if n in guide.nodes and latent(s)]
    return model_sites == [n for n, s in guide.nodes.items() if n in model_sites and latent(s)]


def scored_cells(site: Any) -> Tensor:  # noqa: ANN401
    """Which cells of a site have a density that counts, of its batch shape: those not masked."""
    fn, mask = site["fn"], torch.as_tensor(True if site["mask"] is None else site["mask"])
    if isinstance(fn, dist.MaskedDistribution):
        mask = mask & fn._mask
    return mask & torch.ones(fn.batch_shape, dtype=torch.bool, device=mask.device)


def unweighted(site: Any) -> Tensor:  # noqa: ANN401
    """The log density of a scored site without the scale of ``poutine.scale``; masked as it is."""
    return scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"])


def unwrapped(distribution: Any) -> Any:  # noqa: ANN401
    """The distribution under ``Independent``, ``expand`` and ``mask``."""
    wrappers = (dist.Independent, torch.distributions.Independent, ExpandedDistribution)
    while isinstance(distribution, (*wrappers, dist.MaskedDistribution)):
        distribution = distribution.base_dist
    return distribution


def family_name(distribution: object) -> str:
    """The name of the family under wrappers such as ``Independent``."""
    return type(unwrapped(distribution)).__name__


def is_learned_point(distribution: object) -> bool:
    """Whether this is a ``Delta`` whose place has a gradient."""
    point = unwrapped(distribution)
    return isinstance(point, dist.Delta) and point.v.requires_grad


def is_product(distribution: object) -> bool:
    """Whether this is an ``Independent`` of finite sites, which Pyro would not enumerate."""
    return (
        isinstance(distribution, dist.Independent)
        and distribution.reinterpreted_batch_ndims > 0
        and distribution.base_dist.has_enumerate_support
    )
