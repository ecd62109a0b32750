"""A normal proposal for each observation, fitted to its posterior by mode and curvature."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ...model.joint import Joint
from ...program.line import RealLine

__all__ = ["ASCENT", "Blend", "fit_normal", "normal_proposal"]

ASCENT, RATE = 60, 0.05  # steps of Adam to the mode, and their rate, which falls to 0
MOMENTS = 200  # draws: the mean of the guide's is where the ascent starts
WHO = "a proposal for each observation"
FLOOR = 0.25  # over the largest variance of guide and prior: no direction is taken for flatter
WIDER = 1.1  # times the variances of the curvature, as tails that are too thin cost most


class Blend:
    r"""A mixture of two distributions of the same z.

    .. math:: r(z) = (1 - w)\, q_1(z) + w\, q_2(z)
    """

    def __init__(
        self, first: dist.TorchDistribution, second: dist.TorchDistribution, share: float
    ) -> None:
        self.parts, self.share = (first, second), share
        self.batch_shape, self.event_shape = first.batch_shape, first.event_shape

    def sample(self, shape: torch.Size) -> Tensor:
        """Draws, ``(*shape, B, *z_shape)``."""
        first, second = (part.sample(shape) for part in self.parts)
        pick = torch.rand(shape + self.batch_shape, device=first.device) < self.share
        return torch.where(pick.reshape(*pick.shape, *[1] * len(self.event_shape)), second, first)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density, ``(..., B)``."""
        first, second = (part.log_prob(z) for part in self.parts)
        w = self.share
        return torch.logaddexp(first + math.log1p(-w), second + math.log(w))


def fit_normal(joint: Joint | RealLine) -> tuple[Tensor, Tensor]:
    r"""Mean and scale of the normal at the posterior's mode with its curvature.

    .. math:: N\big(u^*, \lambda H^{-1}\big), \quad u^* = \arg\max_u \log f(u), \quad
        H = -\nabla^2 \log f(u^*), \quad f(u) = p(x, T(u))\, |T'(u)|

    Args:
        joint: of B observations; u is on the real line that T maps to z.

    Returns:
        ``(B, D)`` and a lower triangle ``(B, D, D)``.

    References:
        Tierney & Kadane (1986), JASA 81, for Laplace's approximation; Geweke (1989), Econometrica
        57, for it as a proposal.
    """
    transform: Any = joint.to_support(WHO)
    u = transform.inv(joint.guide.sample(torch.Size([MOMENTS])))
    v = transform.inv(joint.from_prior(MOMENTS))
    shape, widest = u.shape[2:], torch.maximum(u.var(0), v.var(0)).flatten(1).amax(1)

    def log_f(u: Tensor) -> Tensor:
        u = u.reshape(1, len(u), *shape)
        z = transform(u)
        volume = transform.log_abs_det_jacobian(u, z).reshape(1, u.shape[1], -1).sum(-1)
        return (joint.log_joint(z) + volume)[0]

    mode = _ascend(log_f, u.mean(0).flatten(1))
    values, vectors = torch.linalg.eigh(_curvature(log_f, mode).double())
    values = torch.maximum(values, (FLOOR / widest[:, None]).to(values))
    scale = vectors @ torch.diag_embed((WIDER / values).sqrt())
    return mode, _triangular(scale).to(mode)


def normal_proposal(joint: Joint | RealLine, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
    """The normal on the real line that maps to z, as a distribution of z."""
    transform: Any = joint.to_support(WHO)
    normal = dist.MultivariateNormal(loc, scale_tril=scale, validate_args=False)
    shape = transform.inverse_shape(joint.guide.event_shape)  # a simplex has a dimension less
    parts = [transform]
    if loc.shape[1:] != shape:
        parts.insert(0, dist.transforms.ReshapeTransform(loc.shape[1:], shape))
    return dist.TransformedDistribution(normal, parts, validate_args=False)


def _ascend(log_f: Any, start: Tensor) -> Tensor:  # noqa: ANN401
    """The mode of each observation, ``(B, D)``; what ends lower than its start stays there."""
    u = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([u], lr=RATE)
    with torch.enable_grad():
        for step in range(ASCENT):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / ASCENT)
            u.grad = torch.autograd.grad(-log_f(u).sum(), u)[0].nan_to_num()
            optimizer.step()
    u = u.detach()
    return torch.where((log_f(u) >= log_f(start))[:, None], u, start)


def _curvature(log_f: Any, u: Tensor) -> Tensor:  # noqa: ANN401
    """Minus the second derivatives, ``(B, D, D)``: a backward pass for each dimension."""
    with torch.enable_grad():
        u = u.clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_f(u).sum(), u, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros(*u.shape, u.shape[1]).to(u)
        rows = [
            torch.autograd.grad(
                part.sum(), u, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            for part in slope.unbind(1)
        ]
    found = -torch.stack(rows, 1).nan_to_num(0.0, 0.0, 0.0)
    return (found + found.mT) / 2


def _triangular(scale: Tensor) -> Tensor:
    """The Cholesky factor of ``scale scale'``, which it has exactly, by QR."""
    factor = torch.linalg.qr(scale.mT).R.mT
    return factor * factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
