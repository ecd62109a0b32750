"""Chains of leapfrog steps that are never rejected, on a path of log densities."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

__all__ = ["Chain", "Path", "can_move"]


def can_move(q: Distribution) -> bool:
    """Whether draws can take leapfrog steps: reparameterized ones, on the real line.

    >>> can_move(torch.distributions.Normal(0.0, 1.0)), can_move(torch.distributions.Poisson(1.0))
    (True, False)
    """
    support: Any = getattr(q, "support", None)
    real = getattr(support, "base_constraint", support) is constraints.real
    return q.has_rsample and (real or support is constraints.real_vector)


class Path(Protocol):
    """The slopes of log q(z|x) and log p(x, z) in z, site by site.

    Attributes:
        event_dims: of each site; the momenta's densities are summed over these dimensions.
    """

    event_dims: dict[str, int]

    def slopes(
        self, z: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Draws of which there is a gradient, and both slopes there."""
        ...


class Chain(nn.Module):
    r"""Leapfrog steps from q(z) to p(x, z), without rejection.

    .. math:: \log \gamma_\beta = (1 - \beta) \log q(z|x) + \beta \log p(x, z)

    A step on :math:`\gamma_{\beta_t}` takes z and a momentum to others; the next momentum is
    :math:`\eta` times the last and fresh noise. Step lengths, temperatures and :math:`\eta` are
    learned.

    Args:
        steps: T.
        step: their length at the start.
        damping: :math:`\eta` at the start, in (0, 1); ``None``: each momentum is fresh, for good.

    References:
        Zhang, Hsu, Li, Finn & Grosse (2021), arXiv:2107.10150; Geffner & Domke (2021),
        arXiv:2107.04150.
    """

    def __init__(self, steps: int, step: float, damping: float | None) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.full((steps,), math.log(step)))
        self.temperatures = nn.Parameter(torch.zeros(steps))
        self.damping = None if damping is None else nn.Parameter(torch.tensor(damping).logit())

    def forward(
        self, path: Path, z: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The ends of the chains, and by site the log ratio of their momenta's densities."""
        betas = self.temperatures.softmax(0).cumsum(0)
        eta = torch.zeros(()) if self.damping is None else self.damping.sigmoid()
        ratios: dict[str, Any] = dict.fromkeys(z, 0.0)
        v = {name: torch.randn_like(value) for name, value in z.items()}
        z, of_q, of_p = path.slopes(z)
        for t, (beta, step) in enumerate(zip(betas, self.log_step.exp(), strict=True)):
            if t:
                fresh = (1 - eta.square()).sqrt()
                v = {n: eta * old + fresh * torch.randn_like(old) for n, old in v.items()}
            begun = v
            v = {n: v[n] + step / 2 * torch.lerp(of_q[n], of_p[n], beta) for n in v}
            z, of_q, of_p = path.slopes({n: z[n] + step * v[n] for n in v})
            v = {n: v[n] + step / 2 * torch.lerp(of_q[n], of_p[n], beta) for n in v}
            for n in v:
                change: Any = (begun[n].square() - v[n].square()) / 2
                ratios[n] = ratios[n] + sum_last(change, path.event_dims[n])
        return z, ratios


def sum_last(value: Tensor, dims: int) -> Tensor:
    """The sum over so many dimensions from the right."""
    return value.sum(list(range(-dims, 0))) if dims else value
