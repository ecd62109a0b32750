"""Running moments of gradient draws: memory does not grow with draws times parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moments"]

CHUNK = 2**18  # numbers that are absorbed at once


class Moments:
    r"""Mean and variance by coordinate, and per draw a few numbers by tensor, in float64.

    With :math:`m` the mean of n draws and g one that comes after them,
    :math:`\frac{n}{n + 1} \|g - m\|^2` has the trace of the covariance as its expectation: the
    scatter of these increments gives the standard error of the trace. With
    :math:`e_k = (g_{2k} - g_{2k+1}) / \sqrt 2` the mean of :math:`(e_k \cdot e_{k+1})^2` estimates
    the trace of the covariance's square without bias.

    Args:
        sizes: how many coordinates each tensor has.
        towards: a gradient ``(P,)`` whose inner product with each draw is kept.
        device: where the draws are.

    References:
        Welford (1962) and Chan, Golub & LeVeque (1983), for the variance; Chen & Qin (2010),
        Annals of Statistics 38, for the trace of the square.
    """

    def __init__(
        self, sizes: Sequence[int], towards: Tensor | None, device: torch.device | None
    ) -> None:
        self.sizes, self.towards, self.count = list(sizes), towards, 0
        size = sum(self.sizes)
        rows = 2 * max(1, min(32, CHUNK // (2 * size)))  # even: pairs stay together
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.sum_squares = torch.zeros_like(self.mean)
        self.buffer = self.mean.new_empty(rows, size)
        self.work = torch.empty_like(self.buffer)  # memory that is new costs more than arithmetic
        self.filled = 0
        self.last: Tensor | None = None
        self._increments: list[Tensor] = []
        self._dots: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._pairs: list[Tensor] = []

    def add(self, gradient: Tensor) -> None:
        """Take in one draw, ``(P,)``."""
        self.buffer[self.filled] = gradient
        self.filled += 1
        if self.filled == len(self.buffer):
            self._absorb()

    def close(self) -> None:
        """Absorb what is in the buffer: after the last draw, before anything is read."""
        self._absorb()
        self.buffer = self.work = self.buffer.new_empty(0, 0)

    @property
    def variance(self) -> Tensor:
        """Of each coordinate, ``(P,)``, unbiased."""
        return self.sum_squares / (self.count - 1)

    def increments(self) -> np.ndarray:
        """``(n - 1, T)``: their expectation is the trace of the covariance, by tensor."""
        return self._rows(self._increments)

    def dots(self) -> np.ndarray:
        """``(n, T)``: inner products of the draws with ``towards``."""
        return self._rows(self._dots)

    def norms(self) -> np.ndarray:
        """``(n, T)``: squared norms of the draws."""
        return self._rows(self._norms)

    def pairs(self) -> np.ndarray:
        """``(n // 2 - 1, T)``: summed over tensors and squared, the trace of a squared block."""
        return self._rows(self._pairs)

    def _rows(self, found: list[Tensor]) -> np.ndarray:
        return torch.cat(found).cpu().numpy()

    def _absorb(self) -> None:
        start = 0
        if self.count == 0 and self.filled:  # the first draw is the first mean
            self.mean.copy_(self.buffer[0])
            self._keep(self.buffer[:1])
            self.count = start = 1
        g, n = self.buffer[start : self.filled], self.count
        if len(g):
            d = torch.sub(g, self.mean, out=self.work[: len(g)])
            if n > 1:
                self._increments.append(self._dot(d, d) * (n / (n + 1)))
            else:  # one draw is no centre for a whole buffer
                k = torch.arange(1, self.filled, dtype=g.dtype, device=g.device)[:, None]
                e = g - self.buffer[: self.filled - 1].cumsum(0) / k
                self._increments.append(self._dot(e, e) * (k / (k + 1)))
            self._keep(g)
            shift = d.sum(0)
            self.sum_squares += d.square_().sum(0)
            self.sum_squares.addcmul_(shift, shift, value=-1 / (n + len(g)))
            self.mean.add_(shift, alpha=1 / (n + len(g)))
            self.count += len(g)
        self._pair(self.buffer[: self.filled // 2 * 2])
        self.filled = 0

    def _keep(self, g: Tensor) -> None:
        self._norms.append(self._dot(g, g))
        if self.towards is not None:
            self._dots.append(self._dot(g, self.towards.expand_as(g)))

    def _pair(self, g: Tensor) -> None:
        """Differences of neighbours; it overwrites the buffer."""
        if not len(g):
            return
        e = g[0::2].sub_(g[1::2])
        before = e[:-1] if self.last is None else torch.cat([self.last, e[:-1]])
        after = e[1:] if self.last is None else e
        if len(after):
            self._pairs.append(self._dot(before, after) / 2)
        self.last = e[-1:].clone()

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products of rows, ``(C, T)``."""
        parts = zip(a.split(self.sizes, 1), b.split(self.sizes, 1), strict=True)
        return torch.stack([torch.einsum("cp,cp->c", x, y) for x, y in parts], 1)
