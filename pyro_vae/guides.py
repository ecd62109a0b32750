"""Guides with structure, and what makes a guide fit a prior."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .families import support_bounds
from .flows import Flow
from .mixtures import Mixture, Transformed

__all__ = ["GUIDES", "fitting", "refined"]

GUIDES: dict[str, type[nn.Module]] = {c.__name__: c for c in (Flow, Mixture, Transformed)}


def fitting(p: dist.TorchDistribution, name: str) -> str:
    """Guides that live where a prior does, in words.

    Args:
        p: the prior.
        name: its family's.
    """
    kind, lower, upper = support_bounds(p.support)  # pyright: ignore[reportArgumentType]
    known = {
        ("continuous", float("-inf"), float("inf")): "Normal",
        ("continuous", 0.0, float("inf")): "Transformed(Normal, SoftplusTransform)",
        ("continuous", 0.0, 1.0): "Transformed(Normal, SigmoidTransform)",
    }
    if kind == "simplex":
        return f"guide='Transformed(Normal, StickBreakingTransform)' or '{name}'"
    if kind == "sphere":
        return "guide='VonMisesFisher' or 'ProjectedNormal'"
    if (kind, lower, upper) in known:
        return f"for example guide={known[kind, lower, upper]!r}"
    if kind == "continuous" and upper < float("inf"):
        return f"for example guide='Transformed(Normal, Interval({lower:g}, {upper:g}))'"
    return f"for example guide={name!r}"


def refined(
    posterior: nn.Module,
    features: Tensor,
    log_joint: Callable[[Tensor], Tensor],
    *,
    steps: int,
    lr: float,
    num_particles: int,
) -> dist.TorchDistribution:
    r"""q(z|x) with its features improved for each datum by ascent on its ELBO.

    The features, not the family's parameters, are what moves: so it serves every guide.

    Args:
        posterior: from features to q(z|x); its weights stay.
        features: the encoder's answer, ``(B, ...)``, where the ascent starts.
        log_joint: from z, ``(K, B, ...)``, to log p(x, z), ``(K, B)``.
        steps: of Adam.
        lr: its learning rate.
        num_particles: draws of z a step.
    """
    h = features.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([h], lr=lr)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            q = posterior(h)
            if not q.has_rsample:
                raise ValueError(
                    f"{type(q).__name__} has no reparameterized sampler, so refining would not see "
                    "how z moves: use a reparameterized guide"
                )
            z = q.rsample(torch.Size([num_particles]))
            bound = (log_joint(z) - q.log_prob(z)).mean(0).sum()
            (gradient,) = torch.autograd.grad(-bound, h)
            h.grad = gradient
            optimizer.step()
    with torch.no_grad():
        return posterior(h.detach())
