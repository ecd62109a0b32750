"""Bounds on log p(x) as functions of log weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Bound", "Chi", "Convex", "Renyi", "Thermodynamic", "renyi"]


@dataclass(frozen=True)
class Bound:
    r"""A bound on log p(x) as a function of K log weights, :math:`l_k`; this one is the ELBO.

    .. math:: \hat L(l_1 \dots l_K) = \frac{1}{K} \sum_k l_k,
        \quad l_k = \log p(x, z_k) - \log q(z_k)

    Attributes:
        num_particles: K; bounds of different K are different bounds. The ELBO's is always 1.
    """

    num_particles: int = 1

    def __call__(self, log_w: Tensor) -> Tensor:
        """Its estimate from ``(K, ...)`` log weights, ``(...)``."""
        return log_w.mean(0)

    def slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        r"""What weights each particle's gradient: for the model, and for the guide along z.

        By reparameterizing a second time the score of q under the weights :math:`u` becomes a part
        of the path, which leaves :math:`c` of it; importance weights :math:`\tilde w` give DReG's
        :math:`\tilde w^2`.

        Returns:
            :math:`u_k = \partial \hat L / \partial l_k` and
            :math:`c_k = u_k - \partial u_k / \partial l_k`, ``(K, ...)`` each.
        """
        even = torch.full_like(log_w, 1 / len(log_w))
        return even, even

    def __str__(self) -> str:
        return "ELBO"


@dataclass(frozen=True)
class Renyi(Bound):
    r"""The Rényi bound; at alpha = 0 it is the importance-weighted one.

    .. math:: \hat L = \frac{1}{1 - \alpha} \log \frac{1}{K} \sum_k e^{(1 - \alpha) l_k}
    """

    alpha: float = 0.0

    def __call__(self, log_w: Tensor) -> Tensor:
        """Its estimate from ``(K, ...)`` log weights, ``(...)``."""
        power = 1 - self.alpha
        return ((power * log_w).logsumexp(0) - math.log(len(log_w))) / power

    def slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """For the model, and for the guide along z: see :meth:`Bound.slopes`."""
        w = ((1 - self.alpha) * log_w).softmax(0)
        return w, self.alpha * w + (1 - self.alpha) * w.square()

    def __str__(self) -> str:
        if self.alpha == 0:
            return f"IWAE({self.num_particles})"
        return f"Renyi({self.alpha:g}, {self.num_particles})"


@dataclass(frozen=True)
class Chi(Renyi):
    """CUBO's estimate, which is Rényi's at alpha = 1 - n < 0."""

    def __str__(self) -> str:
        return f"CUBO({1 - self.alpha:g}, {self.num_particles})"


@dataclass(frozen=True)
class Convex(Bound):
    r"""A convex combination of the ELBO and the importance-weighted bound (CIWAE).

    .. math:: \hat L = \beta\, \frac{1}{K} \sum_k l_k
        + (1 - \beta) \log \frac{1}{K} \sum_k e^{l_k}
    """

    beta: float = 0.5

    def __call__(self, log_w: Tensor) -> Tensor:
        """Its estimate from ``(K, ...)`` log weights, ``(...)``."""
        tight = log_w.logsumexp(0) - math.log(len(log_w))
        return self.beta * log_w.mean(0) + (1 - self.beta) * tight

    def slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """For the model, and for the guide along z: see :meth:`Bound.slopes`."""
        even, w = self.beta / len(log_w), log_w.softmax(0)
        return even + (1 - self.beta) * w, even + (1 - self.beta) * w.square()

    def __str__(self) -> str:
        return f"CIWAE({self.num_particles}; {self.beta:g})"


@dataclass(frozen=True)
class Thermodynamic(Bound):
    r"""The thermodynamic bound: a left Riemann sum over :math:`0 = \beta_0 < \dots < \beta_P = 1`.

    .. math:: \hat L = \sum_{i=0}^{P-1} (\beta_{i+1} - \beta_i)
        \sum_k \tilde w_k^{(i)} l_k, \quad \tilde w^{(i)} = \text{softmax}(\beta_i l)

    Attributes:
        betas: the points from 0 on, 1 left out.
    """

    betas: tuple[float, ...] = (0.0,)

    def __call__(self, log_w: Tensor) -> Tensor:
        """Its estimate from ``(K, ...)`` log weights, ``(...)``."""
        w, _, widths = self._tempered(log_w)
        return (widths * w * log_w).sum((0, 1))

    def slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """For the model, and for the guide along z: see :meth:`Bound.slopes`."""
        w, beta, widths = self._tempered(log_w)
        r = 1 + beta * self._centred(w, log_w)
        u = widths * w * r
        return u.sum(0), (u - widths * beta * w * (r + 1 - 2 * w * r)).sum(0)

    def covariance(self, log_w: Tensor) -> Tensor:
        r"""What weights the score of q at each particle, ``(K, ...)``.

        It is the sample covariance of log w and the score under each :math:`\tilde w^{(i)}`, with
        Bessel's K - 1.
        """
        w, _, widths = self._tempered(log_w)
        k = len(log_w)
        return (widths * w * self._centred(w, log_w)).sum(0) * (k / max(k - 1, 1))

    def _tempered(self, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights ``(P, K, ...)``; betas and widths, to be broadcast against them."""
        shape = (-1, *[1] * log_w.ndim)
        ends = log_w.new_tensor([*self.betas, 1.0])
        beta = ends[:-1].reshape(shape)
        return (beta * log_w).softmax(1), beta, ends.diff().reshape(shape)

    def _centred(self, w: Tensor, log_w: Tensor) -> Tensor:
        return log_w - (w * log_w).sum(1, keepdim=True)

    def __str__(self) -> str:
        return f"TVO({self.num_particles}; {', '.join(f'{b:.3g}' for b in self.betas)})"


def renyi(alpha: float, num_particles: int) -> Bound:
    """The Rényi bound of K particles, which is the ELBO at alpha = 1 or K = 1."""
    elbo = alpha == 1 or num_particles == 1
    return Bound() if elbo else Renyi(num_particles, float(alpha))
