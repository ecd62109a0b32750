"""Guides with structure, and what makes a guide fit a prior."""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .families import Family, Role, check_amortized, innermost, support_bounds
from .flows import Flow
from .mixtures import Mixture, Transformed
from .spec import Spec, Value

__all__ = ["GUIDES", "DeltaNormal", "fitting", "refined"]


class DeltaNormal(nn.Module):
    r"""Normal, its scale so far below 1 that each dimension carries a committed rate (delta-VAE).

    .. math:: KL(q(z_j|x) \| N(0, 1)) \ge \tfrac12 (\sigma_\delta^2 - 1 - \log \sigma_\delta^2)
        = \delta, \quad \sigma_j(x) < \sigma_\delta < 1

    No datum's posterior can be the prior then, in any dimension. The prior must be ``Normal`` as it
    is: one that learns would follow the guide.

    Args:
        rate: :math:`\delta`, nats per dimension.
        parameters: ``scale=learned``; ``loc`` and ``scale`` are amortized where it is not said.

    Raises:
        ValueError: a rate that is not positive, or a scale that is a number.

    References:
        Razavi et al. (2019), arXiv:1901.03416.

    >>> guide = DeltaNormal(rate=0.5)
    >>> round(guide.largest, 4), round(0.5 * (guide.largest**2 - 1) - math.log(guide.largest), 4)
    (0.3982, 0.5)
    """

    def __init__(self, rate: float = 0.1, **parameters: Value) -> None:
        super().__init__()
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ValueError(f"rate is a positive number of nats per dimension, got {rate!r}")
        if isinstance(parameters.get("scale"), int | float):
            raise ValueError("the rate says how large the scale may be: leave it out, or learned")
        self.rate, self.inner = rate, Spec("Normal", **parameters)
        self.spec = Spec("DeltaNormal", rate=rate, **parameters)

        def excess(s: float) -> float:
            return 0.5 * (s * s - 1) - math.log(s) - rate

        low, high = math.exp(-0.5 - rate), 1.0  # the excess is >= 0 at the one and < 0 at the other
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) >= 0 else (low, middle)
        self.largest = low

    def build(
        self, shape: tuple[int, ...], role: Role, feature_shape: tuple[int, ...] | None = None
    ) -> None:
        """Make the parameters for draws of this shape."""
        self.family = Family(self.inner, shape, role, feature_shape)
        check_amortized(self, role)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The normal distribution, of batch shape that of the features."""
        q: Any = innermost(self.family(features))
        scale = -self.largest * torch.expm1(-q.scale)
        return dist.Normal(q.loc, scale).to_event(len(self.family.event_shape))

    def check_prior(self, prior: nn.Module) -> None:
        """Raise where the rate would not be committed: another prior than N(0, 1)."""
        p: Any = innermost(prior())
        standard = isinstance(p, dist.Normal) and bool((p.loc == 0).all() & (p.scale == 1).all())
        if not standard or any(True for _ in prior.parameters()):
            raise ValueError(
                f"{self.spec} commits to a rate against N(0, 1): use prior='Normal' with it, or "
                "fit(..., free_bits=...) with another prior"
            )


GUIDES: dict[str, type[nn.Module]] = {
    c.__name__: c for c in (DeltaNormal, Flow, Mixture, Transformed)
}


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
