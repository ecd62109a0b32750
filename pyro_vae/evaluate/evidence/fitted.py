"""A normal proposal for each observation, fitted to its posterior by mode and curvature."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ...model.joint import Joint
from ...program.line import RealLine

__all__ = ["ASCENT", "Fitted", "fit_normal", "normal_proposal"]

ASCENT, RATE = 60, 0.05  # steps of Adam to the mode, and their rate, which falls to 0
NEWTON, SHORTER = 4, (1.0, 0.25, 0.0625)  # steps after them at most, and what a step is cut to
NEAR, MOST = 0.5, 0.9  # nats between promise and gain of a step, and the share that is so near
BENT = 0.02  # third differences, in second ones: less is a parabola
LOOK, STEP = 2, 1  # the evaluations before the ascent, and in a step of Newton's, in gradients
MOMENTS = 200  # draws: the mean of the guide's is where the ascent starts
WHO = "a proposal for each observation"
FLOOR = 0.25  # over the largest variance of guide and prior: no direction is taken for flatter
WIDER = 1.1  # times the variances of the curvature, as tails that are too thin cost most


class Fitted(NamedTuple):
    """A normal for each of B observations, and what it has cost.

    Attributes:
        loc: ``(B, D)``.
        scale: a lower triangle, ``(B, D, D)``.
        gradients: of log p(x, z) for each observation, a row of second derivatives counted as two.
    """

    loc: Tensor
    scale: Tensor
    gradients: int


def fit_normal(joint: Joint | RealLine) -> Fitted:
    r"""Mean and scale of the normal at the posterior's mode with its curvature.

    .. math:: N\big(u^*, \lambda H^{-1}\big), \quad u^* = \arg\max_u \log f(u), \quad
        H = -\nabla^2 \log f(u^*), \quad f(u) = p(x, T(u))\, |T'(u)|

    Some steps of Adam climb from the guide's mean, or the prior's where that is higher, and
    Newton's from there. Where log f is quadratic one of Newton's is enough, however far off the
    guide is, and Adam's are left out.

    Args:
        joint: of B observations; u is on the real line that T maps to z.

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

    mode, height = _highest(log_f, [u.mean(0).flatten(1), v.mean(0).flatten(1)])
    least, spent = (FLOOR / widest[:, None]).double(), LOOK
    if not _is_quadratic(log_f, mode, widest.sqrt()):
        (mode, height), spent = _ascend(log_f, mode), spent + ASCENT
    scale = torch.zeros(0)
    for _ in range(NEWTON):
        slope, curvature = _derivatives(log_f, mode)
        values, vectors = torch.linalg.eigh(curvature.double())
        values, spent = torch.maximum(values, least), spent + STEP + 2 * mode.shape[1]
        scale = vectors @ torch.diag_embed((WIDER / values).sqrt())
        along, before = (slope.double()[:, None] @ vectors)[:, 0], height
        step = (vectors @ (along / values)[..., None])[..., 0].to(mode)
        mode, height = _highest(log_f, [mode, *(mode + share * step for share in SHORTER)])
        promised = (along.square() / values).sum(1) / 2
        if (height - before - promised).abs().le(NEAR).double().mean() >= MOST:
            break  # the curvature before the step will do
    return Fitted(mode, _triangular(scale).to(mode), spent)


def normal_proposal(joint: Joint | RealLine, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
    """The normal on the real line that maps to z, as a distribution of z."""
    transform: Any = joint.to_support(WHO)
    normal = dist.MultivariateNormal(loc, scale_tril=scale, validate_args=False)
    shape = transform.inverse_shape(joint.guide.event_shape)  # a simplex has a dimension less
    parts = [transform]
    if loc.shape[1:] != shape:
        parts.insert(0, dist.transforms.ReshapeTransform(loc.shape[1:], shape))
    return dist.TransformedDistribution(normal, parts, validate_args=False)


def _ascend(log_f: Any, start: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """The mode of each observation, ``(B, D)``, and its height; none is below its start."""
    u = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([u], lr=RATE)
    with torch.enable_grad():
        for step in range(ASCENT):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / ASCENT)
            u.grad = torch.autograd.grad(-log_f(u).sum(), u)[0].nan_to_num()
            optimizer.step()
    return _highest(log_f, [start, u.detach()])


def _highest(log_f: Any, places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Of some places the highest for each observation, ``(B, D)``, and its height ``(B,)``."""
    heights = torch.stack([log_f(place).nan_to_num(-math.inf) for place in places])
    height, which = heights.max(0)
    return torch.stack([*places])[which, torch.arange(len(which), device=which.device)], height


def _is_quadratic(log_f: Any, u: Tensor, width: Tensor) -> bool:  # noqa: ANN401
    """Whether log f is a parabola on a line through each u, of some widths ``(B,)``."""
    line = torch.randn_like(u) * width[:, None] / u.shape[1] ** 0.5
    heights = torch.stack([log_f(u + t * line).double() for t in range(4)])
    second, third = heights.diff(n=2, dim=0).abs().amax(0), heights.diff(n=3, dim=0)[0].abs()
    rounding = 64 * torch.finfo(u.dtype).eps * heights.abs().amax(0)
    return bool((third <= BENT * second + rounding).all())


def _derivatives(log_f: Any, u: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """The slope ``(B, D)`` and minus the second derivatives, a backward pass for each dimension."""
    with torch.enable_grad():
        u = u.clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_f(u).sum(), u, create_graph=True)
        if not slope.requires_grad:
            return slope.nan_to_num(), torch.zeros(*u.shape, u.shape[1]).to(u)
        rows = [
            torch.autograd.grad(
                part.sum(), u, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            for part in slope.unbind(1)
        ]
    found = -torch.stack(rows, 1).nan_to_num(0.0, 0.0, 0.0)
    return slope.detach().nan_to_num(0.0, 0.0, 0.0), (found + found.mT) / 2


def _triangular(scale: Tensor) -> Tensor:
    """The Cholesky factor of ``scale scale'``, which it has exactly, by QR."""
    factor = torch.linalg.qr(scale.mT).R.mT
    return factor * factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
