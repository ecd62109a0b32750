"""Mixtures of normals of dependent coordinates, with a path from a draw to all parameters."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.slight import in_doubles
from .same_family import MixtureSameFamily

__all__ = ["MultivariateNormalMixture", "follow", "solve_by", "weights_before"]

Size = Sequence[int]


class MultivariateNormalMixture(MixtureSameFamily):
    r"""A mixture of multivariate normals, or of several side by side, that is reparameterized.

    .. math:: \frac{\partial z}{\partial \theta} =
        -\left(\frac{\partial F}{\partial z}\right)^{-1} \frac{\partial F}{\partial \theta}, \quad
        F_d(z) = P(Z_d \le z_d \mid Z_{<d} = z_{<d}) = \sum_k w_{kd}\, \Phi(e_{kd})

    with :math:`e_k = L_k^{-1} (z - m_k)`, and the weights :math:`w_{kd} \propto \pi_k \prod_{i<d}
    \phi(e_{ki}) / L_{kii}` that the coordinates before d leave to the components. F maps draws to
    uniform variables, one coordinate after the other, whatever the parameters: a draw that keeps
    its uniform variables moves with them. The matrix :math:`\partial F / \partial z` is triangular
    and known in closed form.

    Args:
        mixture_distribution: a ``Categorical``, of batch shape ``(*batch,)``.
        component_distribution: ``MultivariateNormal``, of batch shape ``(*batch, K)``.

    References:
        Graves (2016), arXiv:1607.05690; Figurnov, Mohamed & Mnih (2018), arXiv:1805.08498.

    >>> components = dist.MultivariateNormal(torch.randn(4, 2), torch.eye(2))
    >>> p = MultivariateNormalMixture(dist.Categorical(logits=torch.zeros(4)), components)
    >>> p.rsample((3,)).shape, p.has_rsample
    (torch.Size([3, 2]), True)
    """

    has_rsample = True

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, with a path to all parameters."""
        z = self.sample(torch.Size(sample_shape)).detach()
        loc, tril, logits = self._parameters()
        flat = z.double().reshape(*z.shape[: z.ndim - len(self.event_shape)], 1, loc.shape[-1])
        inverse = torch.linalg.inv(tril)  # triangular, as few coordinates as a latent variable has
        e = (inverse @ (flat - loc)[..., None])[..., 0]
        weights = weights_before(logits, e, tril.diagonal(dim1=-2, dim2=-1))
        with torch.no_grad():
            below, density = torch.special.ndtr(e), (-e.square() / 2).exp() / (2 * torch.pi) ** 0.5
            pulls = _sums_before(-e[..., None] * inverse, -2)
            pulls = pulls - (weights[..., None] * pulls).sum(-3, keepdim=True)
            by_weight = (weights * below)[..., None] * pulls
            slopes = (by_weight + (weights * density)[..., None] * inverse).sum(-3)
        return follow(z, weights, e, partial(solve_by, slopes))

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means ``(*batch, K, D)``, triangles ``(*batch, K, D, D)`` and logits, in doubles."""
        base: Any = self.component_distribution
        while isinstance(base, dist.Independent):
            base = base.base_dist
        blocks = self.event_shape[:-1].numel()
        logits: Any = self.mixture_distribution.logits
        loc, tril = in_doubles(base.loc), in_doubles(base.scale_tril)
        if blocks > 1:
            lead, d = self.batch_shape + logits.shape[-1:], blocks * self.event_shape[-1]
            tril = tril.reshape(*lead, blocks, *tril.shape[-2:])
            eye = torch.eye(blocks, dtype=tril.dtype, device=tril.device)
            tril = torch.einsum("...rij,rs->...risj", tril, eye).reshape(*lead, d, d)
            loc = loc.reshape(*lead, d)
        return loc, tril, in_doubles(logits)


def follow(z: Tensor, weights: Tensor, e: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
    """Draws, whose gradient is that of keeping F where the parameters move.

    Args:
        z: ``(*batch, *event)``.
        weights: of the components before each coordinate, ``(*batch, K, D)``.
        e: the coordinates in units of each component, likewise.
        solve: how far z moves for F to move so far, both ``(*batch, D)``.
    """
    share = (weights * torch.special.ndtr(e)).sum(-2)
    step = solve(share - share.detach())  # nothing but a gradient
    return z - step.to(z).reshape(z.shape)


def solve_by(slopes: Tensor, moved: Tensor) -> Tensor:
    """By the slopes of F along z, ``(*batch, D, D)``, without a graph."""
    return torch.linalg.solve_triangular(slopes, moved[..., None], upper=False)[..., 0]


def weights_before(logits: Tensor, e: Tensor, scale: Tensor) -> Tensor:
    """Weights of the components before each coordinate, ``(..., K, D)``, by their scales there."""
    each = -e.square() / 2 - scale.log()
    return (logits[..., None] + _sums_before(each, -1)).softmax(-2)


def _sums_before(terms: Tensor, dim: int) -> Tensor:
    """The sum of the terms before each one along a dimension, 0 of the first."""
    sums = terms.cumsum(dim).narrow(dim, 0, terms.shape[dim] - 1)
    return torch.cat([torch.zeros_like(terms.narrow(dim, 0, 1)), sums], dim)
