"""A Student's t for each observation, fitted to weighted draws of z: the proposal of the next."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Chi2, biject_to, constraints
from torch.distributions.transforms import Transform

from ..core.pareto import effective_draws

__all__ = ["Ellipses", "to_real"]

DF = 8.0  # degrees of freedom: tails a little heavier than a posterior's
LEAST = 60  # effective draws that a fit is of; weights are tempered where there are fewer
HALVINGS = 15  # of the interval that the temper of the weights is in


def to_real(support: constraints.Constraint | None) -> Transform | None:
    """From the real line onto a support; ``None`` where it is no image of a real space."""
    if support is None or support.is_discrete:
        return None
    try:
        return biject_to(support)
    except NotImplementedError:
        return None


@dataclass(frozen=True)
class Ellipses:
    r"""Multivariate Student's t distributions of :math:`u = T^{-1}(z)`, one for each row.

    Args:
        loc: of u, ``(B, d)``.
        tril: the Cholesky factor of its scale matrix, ``(B, d, d)``.
        transform: T, from u to z.
        shape: of u at one row.
    """

    loc: Tensor
    tril: Tensor
    transform: Transform
    shape: torch.Size

    @classmethod
    def of(cls, z: Tensor, log_w: Tensor, transform: Transform) -> "Ellipses":
        r"""Mean and covariance of weighted draws; the weights of few draws are tempered.

        The weights are :math:`w^t` with the largest :math:`t \le 1` that leaves 60 effective draws
        (a quarter of them, where there are few), so that the fit nears a narrow posterior step by
        step. Correlations shrink by :math:`n / (n + d)` at n effective draws.

        Args:
            z: ``(K, B, *z_shape)``.
            log_w: ``(K, B)``.
            transform: from the real line onto the support of z.

        References:
            Cappe et al. (2008), Statistics and Computing 18 (adaptive importance sampling);
            Koblents & Miguez (2015), Statistics and Computing 25 (tempered weights).
        """
        real: Tensor = transform.inv(z)
        u = real.flatten(2)
        inside = u.isfinite().all(-1)
        log_w = _temper(log_w.masked_fill(~inside, -math.inf), min(LEAST, len(z) / 4))
        u = torch.where(inside[..., None], u, 0.0)
        w, n, d = log_w.softmax(0).to(u), effective_draws(log_w).to(u), u.shape[-1]
        loc = torch.einsum("kb,kbd->bd", w, u)
        centred = u - loc
        cov = torch.einsum("kb,kbd,kbe->bde", w, centred, centred)
        # A draw that has all the weight has no variance: some of that of all draws.
        variance = cov.diagonal(dim1=1, dim2=2) + 1e-6 * u.var(0, unbiased=False) + 1e-12
        sd = variance.sqrt()
        cov = cov / sd[:, :, None] / sd[:, None, :] * (n / (n + d))[:, None, None]
        cov.diagonal(dim1=1, dim2=2).fill_(1.0)
        tril = sd[:, :, None] * torch.linalg.cholesky(cov)
        return cls(loc, tril, transform, real.shape[2:])

    def __getitem__(self, rows: Tensor) -> "Ellipses":
        return Ellipses(self.loc[rows], self.tril[rows], self.transform, self.shape)

    def sample(self, n: int) -> Tensor:
        """Draws of z, ``(n, B, *z_shape)``."""
        eps = torch.randn(n, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        chi2 = Chi2(self.loc.new_tensor(DF)).sample(torch.Size([n, len(self.loc), 1]))
        u = self.loc + torch.einsum("bde,kbe->kbd", self.tril, eps * (DF / chi2).sqrt())
        return self.transform(u.unflatten(2, self.shape))

    def log_prob(self, z: Tensor) -> Tensor:
        """The log density of z, ``(K, B, *z_shape)``."""
        real: Tensor = self.transform.inv(z)
        d, u = self.loc.shape[1], (real.flatten(2) - self.loc).movedim(0, 2)
        square = torch.linalg.solve_triangular(self.tril, u, upper=False).square().sum(1).T
        log_scale = self.tril.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = math.lgamma((DF + d) / 2) - math.lgamma(DF / 2) - d / 2 * math.log(DF * math.pi)
        log_p = constant - log_scale - (DF + d) / 2 * torch.log1p(square / DF)
        return log_p - self.transform.log_abs_det_jacobian(real, z)


def _temper(log_w: Tensor, least: float) -> Tensor:
    """Log weights times the largest number up to 1 that leaves so many effective draws."""
    low, high = torch.zeros_like(log_w[0]), torch.ones_like(log_w[0])
    few = (effective_draws(log_w) < least).nonzero()[:, 0]
    for _ in range(HALVINGS if len(few) else 0):
        middle = (low[few] + high[few]) / 2
        enough = effective_draws(_scaled(log_w[:, few], middle)) >= least
        low[few] = torch.where(enough, middle, low[few])
        high[few] = torch.where(enough, high[few], middle)
    high[few] = low[few]
    return _scaled(log_w, high)


def _scaled(log_w: Tensor, by: Tensor) -> Tensor:
    """Log weights times a number; those of nothing stay so."""
    return torch.where(log_w.isneginf(), log_w, log_w * by)
