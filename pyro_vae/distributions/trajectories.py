"""Latent trajectories over the visits of a subject: a normal distribution along each dimension."""

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import register_kl

__all__ = ["Trajectories"]


class Trajectories(dist.TorchDistribution):
    r"""L independent multivariate normal distributions over T visits; a draw is ``(T, L)``.

    .. math:: p(z) = \prod_l N(z_{\cdot l}; \mu_l, C_l C_l^T)

    Args:
        loc: :math:`\mu`, ``(..., L, T)``.
        scale_tril: C, lower triangular, ``(..., L, T, T)``.
    """

    arg_constraints = {}
    has_rsample = True
    support = constraints.independent(constraints.real, 2)

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        lead = torch.broadcast_shapes(loc.shape[:-1], scale_tril.shape[:-2])
        self.loc = loc.expand(*lead, loc.shape[-1])
        self.scale_tril = scale_tril.expand(*lead, *scale_tril.shape[-2:])
        event = torch.Size([loc.shape[-1], lead[-1]])
        super().__init__(torch.Size(lead[:-1]), event, validate_args=False)

    @classmethod
    def of(cls, loc: Tensor, covariance: Tensor, there: Tensor) -> "Trajectories":
        """Of means and covariances; visits that only fill up the shape are N(0, 1) each.

        Args:
            loc: ``(B, L, T)``.
            covariance: ``(B, L, T, T)``, positive definite.
            there: ``(B, T)``, true for visits.
        """
        there = there[:, None]
        both = there[..., None] & there[..., None, :]
        eye = torch.eye(loc.shape[-1], dtype=loc.dtype, device=loc.device)
        tril = torch.linalg.cholesky(torch.where(both, covariance, eye))
        return cls(torch.where(there, loc, 0.0), tril)

    @property
    def mean(self) -> Tensor:
        """Of each visit, ``(..., T, L)``."""
        return self.loc.mT

    @property
    def variance(self) -> Tensor:
        """Of each visit, ``(..., T, L)``."""
        return self.scale_tril.square().sum(-1).mT

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Trajectories":
        """For a larger batch."""
        lead = (*batch_shape, self.event_shape[1])
        tril = self.scale_tril.expand(*lead, *self.scale_tril.shape[-2:])
        return Trajectories(self.loc.expand(*lead, self.event_shape[0]), tril)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, with their gradient."""
        shape = torch.Size([*sample_shape, *self.loc.shape])
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return (self.loc + (self.scale_tril @ noise[..., None])[..., 0]).mT

    def log_prob(self, value: Tensor) -> Tensor:
        """Of trajectories ``(..., T, L)``."""
        e = _solve(self.scale_tril, (value.mT - self.loc)[..., None])[..., 0]
        each = -0.5 * (e.square() + math.log(2 * math.pi)).sum(-1) - _log_det(self.scale_tril)
        return each.sum(-1)

    def times(self, loc: Tensor, precision: Tensor) -> "Trajectories":
        r"""Given what has been seen of each visit, by normal factors.

        .. math:: q(z) \propto p(z) \prod_{tl} N(z_{tl}; m_{tl}, 1 / \lambda_{tl})

        With the covariance :math:`C C^T` and :math:`I + C^T \Lambda C = U U^T`, U upper triangular,
        that of q has the factor :math:`C U^{-T}`: no difference of near matrices is taken.

        Args:
            loc: m, ``(..., T, L)``.
            precision: :math:`\lambda`, ``(..., T, L)``; 0 where nothing was seen.
        """
        c, weight = self.scale_tril, precision.mT
        eye = torch.eye(c.shape[-1], dtype=c.dtype, device=c.device)
        m = eye + c.mT @ (weight[..., None] * c)
        upper = torch.linalg.cholesky(m.flip(-1, -2)).flip(-1, -2)
        tril = c @ _solve(upper.mT, eye.expand_as(m))
        slope = (weight * (loc.mT - self.loc))[..., None]
        return Trajectories(self.loc + (tril @ (tril.mT @ slope))[..., 0], tril)

    def given(self, z: Tensor) -> "Trajectories":
        """The last visits given the first ones.

        Args:
            z: of the first T visits, ``(..., T, L)``.
        """
        n = z.shape[-2]
        c = self.scale_tril  # the first rows of its factor are that of the first visits
        e = _solve(c[..., :n, :n], (z.mT - self.loc[..., :n])[..., None])
        loc = self.loc[..., n:] + (c[..., n:, :n] @ e)[..., 0]
        return Trajectories(loc, c[..., n:, n:])


def _solve(tril: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(tril, b, upper=False)


def _log_det(tril: Tensor) -> Tensor:
    return tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _divergence(loc: Tensor, tril: Tensor, p: Trajectories) -> Tensor:
    """Of a normal distribution from another one, over all dimensions."""
    e = _solve(p.scale_tril, torch.cat([tril, (loc - p.loc)[..., None]], -1))
    each = 0.5 * (e.square().sum((-1, -2)) - loc.shape[-1])
    return (each + _log_det(p.scale_tril) - _log_det(tril)).sum(-1)


@register_kl(Trajectories, Trajectories)
def _of_trajectories(q: Trajectories, p: Trajectories) -> Tensor:
    return _divergence(q.loc, q.scale_tril, p)


@register_kl(dist.Independent, Trajectories)
def _of_visits(q: Any, p: Trajectories) -> Tensor:  # noqa: ANN401
    while isinstance(q, dist.Independent):
        q = q.base_dist
    if not isinstance(q, dist.Normal):
        raise NotImplementedError
    return _divergence(q.loc.mT, torch.diag_embed(q.scale.mT), p)
