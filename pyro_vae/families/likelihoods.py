"""What p(x|z) needs beyond its family: missing cells, and the check that x lies in the support."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .support import describe_constraint, innermost, support_bounds

__all__ = ["check_support", "drop_missing", "fill"]

ADVICE = {
    "Bernoulli": "binarize it (dynamic binarization draws fresh bits from grey values), "
    "or use ContinuousBernoulli",
    "Beta": "shrink the ends, x -> (x * (n - 1) + 0.5) / n, or use ContinuousBernoulli",
    "Categorical": "code the categories as 0, 1, ..., categories - 1",
}


def drop_missing(likelihood: dist.TorchDistribution, mask: Tensor) -> dist.TorchDistribution:
    """The likelihood of the cells that are there: the others drop out of log p(x|z).

    Args:
        likelihood: batch shape ``(..., B)``, independent cells.
        mask: ``(B, *x_shape)``, true where the cell was observed.
    """
    return innermost(likelihood).mask(mask).to_event(likelihood.event_dim)


def fill(x: Tensor, mask: Tensor, support: constraints.Constraint) -> Tensor:
    """x with a value of the support in its missing cells, so that no NaN reaches a gradient."""
    kind, lower, upper = support_bounds(support)
    if math.isfinite(lower) and math.isfinite(upper) and kind == "continuous":
        value = (lower + upper) / 2
    elif math.isfinite(lower):
        value = lower + (kind == "continuous")
    else:
        value = 0.0
    return torch.where(mask, x, value)


def check_support(x: Tensor, likelihood: dist.TorchDistribution, name: str) -> None:
    """Raise unless x lies in the likelihood's support, where its density is finite.

    Args:
        x: ``(N, *x_shape)``; NaN cells are skipped.
        likelihood: of batch shape ``(1,)``.
        name: the family's name, for the message.
    """
    base = innermost(likelihood)
    for rows in x.split(8192):
        there = ~rows.isnan()
        inside = base.support.check(rows)  # pyright: ignore[reportOptionalMemberAccess]
        bad = ~inside & (there if inside.shape == there.shape else True)
        if bad.any():
            index = bad.nonzero()[0]
            cell = rows[tuple(index)]
            text = ", ".join(f"{v:.3g}" for v in cell.flatten().tolist())
            text = text if cell.ndim == 0 else f"[{text}]"
            _refuse(text, f"needs {describe_constraint(base.support)}", name)  # pyright: ignore
    if base.event_dim == 0:
        seen = x[~x.isnan()]
        for edge in (seen.min(), seen.max()):
            log_prob = base.log_prob(edge.expand(likelihood.event_shape))
            if not log_prob.isfinite().all():
                _refuse(f"{edge.item():g}", "has no finite density there", name)


def _refuse(cell: str, why: str, name: str) -> None:
    advice = ADVICE.get(name, "choose a likelihood with this support, or transform x")
    raise ValueError(f"x holds {cell}; {name} {why}: {advice}")
