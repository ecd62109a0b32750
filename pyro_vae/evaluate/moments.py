"""Running moments of gradient draws: memory does not grow with draws times parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moments"]

CHUNK = 2**18  # numbers that are absorbed at once


class Moments:
    r"""Mean and variance by coordinate, and per draw a few numbers by tensor, in float64.

    With :math:`m_{i-1}` the mean of the draws before draw i, Welford's increments
    :math:`w_i = \frac{i-1}{i} \|g_i - m_{i-1}\|^2, i \ge 2`, each have the trace of the covariance
    as their expectation and are its unbiased estimate on average. Their scatter therefore gives the
    estimate's standard error. With :math:`e_k = (g_{2k} - g_{2k+1}) / \sqrt 2` the mean of
    :math:`(e_k \cdot e_{k+1})^2` estimates the trace of the covariance's square without bias.

    Args:
        sizes: how many coordinates each tensor has.
        towards: a gradient ``(P,)`` whose inner product with each draw is kept.
        device: where the draws are.

    References:
        Welford (1962), Technometrics 4; Chen & Qin (2010), Annals of Statistics 38.
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

    @property
    def variance(self) -> Tensor:
        """Of each coordinate, ``(P,)``, unbiased."""
        self._absorb()
        return self.sum_squares / (self.count - 1)

    def increments(self) -> np.ndarray:
        """``(n - 1, T)``: their mean is the trace of the covariance, by tensor."""
        return self._rows(self._increments)[1:]

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
        self._absorb()
        if not found:
            return np.zeros((0, len(self.sizes)))
        return torch.cat(found).cpu().numpy()

    def _absorb(self) -> None:
        if not self.filled:
            return
        g, n = self.buffer[: self.filled], self.count
        order = torch.arange(n + 1, n + len(g) + 1, dtype=g.dtype, device=g.device)[:, None]
        before = (g.cumsum(0) - g + n * self.mean) / (order - 1).clamp(min=1)
        increments = (g - before).square_() * ((order - 1) / order)
        self.sum_squares += increments.sum(0)
        self.mean += (g.sum(0) - len(g) * self.mean) / (n + len(g))
        self._increments.append(self._by_tensor(increments))
        self._norms.append(self._by_tensor(g.square()))
        if self.towards is not None:
            self._dots.append(self._by_tensor(g * self.towards))
        even = len(g) // 2 * 2
        e = (g[0:even:2] - g[1:even:2]) / 2**0.5
        if self.last is not None:
            e = torch.cat([self.last, e])
        if len(e):
            self._pairs.append(self._by_tensor(e[1:] * e[:-1]))
            self.last = e[-1:].clone()
        self.count += len(g)
        self.filled = 0

    def _by_tensor(self, values: Tensor) -> Tensor:
        return torch.stack([part.sum(1) for part in values.split(self.sizes, 1)], 1)
