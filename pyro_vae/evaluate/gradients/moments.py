"""Running moments of gradient draws: memory does not grow with draws times parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moments"]

BLOCK = 16  # chunks that have one centre, and are summed in the gradients' own precision


class Moments:
    r"""Mean and variance by coordinate, and per draw a few numbers by tensor.

    Draws come in chunks, as differences :math:`d = g - c` from a centre that is near their mean,
    so that single precision does not lose what float64 then sums. With a centre that is the mean of
    k other draws, :math:`\frac{k}{k + 1} \|d\|^2` has the trace of the covariance as its
    expectation: its scatter gives the standard error of the trace. With
    :math:`e_k = (g_{2k} - g_{2k+1}) / \sqrt 2` the mean of :math:`(e_k \cdot e_{k+1})^2` estimates
    the trace of the covariance's square without bias.

    Where the gradient of a weight matrix is :math:`g = \delta^\top a`, with an input a that is the
    same in all draws, its draws are those of :math:`\delta`, fewer numbers that need no product:
    :math:`\langle g, g' \rangle = \langle \delta, a a^\top \delta' \rangle`.

    Args:
        center: a first centre, a tensor for each of the parameters'.
        weight: how many draws it is the mean of.
        towards: a gradient whose inner product with each draw is kept.
        coordinates: whether the variance of each coordinate is asked for; that of tensors is there.
        inputs: for each tensor its a, ``(B, I)``, or ``None``; without ``coordinates`` alone.

    References:
        Chan, Golub & LeVeque (1983), for the variance; Chen & Qin (2010), Annals of Statistics 38,
        for the trace of the square; Goodfellow (2015), arXiv:1510.01799, for norms by factors.
    """

    def __init__(
        self,
        center: Sequence[Tensor],
        weight: int,
        towards: Sequence[Tensor] | None = None,
        *,
        coordinates: bool = False,
        inputs: Sequence[Tensor | None] | None = None,
    ) -> None:
        self.sizes = [c.numel() for c in center]
        self.inputs = inputs or [None] * len(center)
        self.metrics = [None if a is None else a @ a.T for a in self.inputs]
        self.center = [_reduced(c.detach(), a) for c, a in zip(center, self.inputs, strict=True)]
        self.has_towards = towards is not None
        self.towards = [
            (t.to(c).flatten() if a is None else a @ t.to(c).view_as(c).T).flatten()
            for t, c, a in zip(towards or center, center, self.inputs, strict=True)
        ]
        self.sums, self.last = ([torch.zeros_like(c) for c in self.center] for _ in range(2))
        self.squares = [torch.zeros_like(c) for c in self.center] if coordinates else []
        self.weight, self.count, self.pending, self.chunks = weight, 0, 0, 0
        self._mean = torch.cat(self.center).double() * 0
        self.sum_squares = torch.zeros_like(self._mean) if coordinates else None
        self.traces = np.zeros(len(self.sizes))
        self._rows: list[np.ndarray] = []
        self._increments: list[np.ndarray] = []
        self._pairs: list[np.ndarray] = []
        self._of_center = self._center_products()

    def measure(self, gradients: Sequence[Tensor], keep: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of a chunk; the sums grow in place. It can be traced into a graph.

        Args:
            gradients: ``(C, ...)`` each, C even; of a tensor with inputs, delta ``(C, B, O)``.
            keep: ``(C,)``, 0 for draws that do not count, the last ones.

        Returns:
            ``(T, 3, C)``: inner products of d with itself, the centre and ``towards``; and
            ``(T, C / 2)``: those of a difference of neighbours with the one before it.
        """
        rows, pairs = [], []
        for t, gradient in enumerate(gradients):
            d = (gradient.reshape(len(gradient), -1) - self.center[t]) * keep[:, None]
            e, dual = d[0::2] - d[1::2], self._dual(d, t)
            before = torch.cat([self.last[t][None], e[:-1]])
            products = [(dual * d).sum(1), (dual * self.center[t]).sum(1)]
            rows.append(torch.stack([*products, (d * self.towards[t]).sum(1)]))
            pairs.append(((dual[0::2] - dual[1::2]) * before).sum(1) / 2)
            self.last[t].copy_(e[-1])
            self.sums[t].add_(d.sum(0))
            if self.squares:
                self.squares[t].add_(d.square().sum(0))
        return torch.stack(rows), torch.stack(pairs)

    def restart(self) -> None:
        """Forget the sums: a graph was made of :meth:`measure`, which wrote to them."""
        for tensor in (*self.sums, *self.last, *self.squares):
            tensor.zero_()

    def add(self, measured: Tensor, pairs: Tensor, n: int) -> None:
        """Take in a chunk of :meth:`measure`, of which the first n draws count."""
        rows = measured.double().cpu().numpy()[:, :, :n]
        first = 0 if self.count + self.pending else 1
        self._pairs.append(pairs.double().cpu().numpy()[:, first : n // 2].T)
        self._increments.append(rows[:, 0].T * (self.weight / (self.weight + 1)))
        norm, dot = self._of_center
        whole = [rows[:, 0] + 2 * rows[:, 1] + norm[:, None], rows[:, 2] + dot[:, None]]
        self._rows.append(np.stack(whole).transpose(0, 2, 1))
        self.traces += rows[:, 0].sum(1)
        self.pending, self.chunks = self.pending + n, self.chunks + 1
        if self.chunks == BLOCK:
            self.close()

    def close(self) -> None:
        """Fold what is pending into the mean, which is the centre from then on."""
        n, k = self.count, self.pending
        if not k:
            return
        center, sums = torch.cat(self.center).double(), torch.cat(self.sums).double()
        shift = center + sums / k - self._mean  # of the chunks' mean from that of all before
        weight = n * k / (n + k)
        self.traces += weight * self._products(shift, shift) - self._products(sums, sums) / k
        if self.sum_squares is not None:
            self.sum_squares += (
                torch.cat(self.squares).double() - sums.square() / k + shift.square() * weight
            )
        self._mean += shift * (k / (n + k))
        self.count, self.pending, self.chunks = n + k, 0, 0
        self.weight = self.count
        for tensor in (*self.sums, *self.squares):
            tensor.zero_()
        for c, mean in zip(self.center, self._split(self._mean), strict=True):
            c.copy_(mean)
        self._of_center = self._center_products()

    @property
    def mean(self) -> Tensor:
        """The mean gradient, ``(P,)``, float64."""
        parts = zip(self._split(self._mean), self.inputs, strict=True)
        whole = [m if a is None else m.view(len(a), -1).T @ a.double() for m, a in parts]
        return torch.cat([m.flatten() for m in whole])

    @property
    def variance(self) -> Tensor:
        """Of each coordinate, ``(P,)``, unbiased."""
        if self.sum_squares is None:
            raise ValueError("the variance of each coordinate was not asked for")
        return self.sum_squares / (self.count - 1)

    @property
    def trace(self) -> np.ndarray:
        """Of the covariance, by tensor, ``(T,)``, unbiased."""
        return self.traces / (self.count - 1)

    def increments(self) -> np.ndarray:
        """``(n, T)``: their expectation is the trace of the covariance, by tensor."""
        return np.concatenate(self._increments)

    def norms(self) -> np.ndarray:
        """``(n, T)``: squared norms of the draws."""
        return np.concatenate(self._rows, 1)[0]

    def dots(self) -> np.ndarray:
        """``(n, T)``: inner products of the draws with ``towards``."""
        return np.concatenate(self._rows, 1)[1]

    def pairs(self) -> np.ndarray:
        """``(n // 2 - 1, T)``: summed over tensors and squared, the trace of a squared block."""
        return np.concatenate(self._pairs)

    def _center_products(self) -> tuple[np.ndarray, np.ndarray]:
        """By tensor, the centre's squared norm and its inner product with ``towards``."""
        center = torch.cat(self.center).double()
        dots = [(c * t).sum() for c, t in zip(self._split(center), self.towards, strict=True)]
        return self._products(center, center), torch.stack(dots).cpu().numpy()

    def _products(self, u: Tensor, v: Tensor) -> np.ndarray:
        """By tensor, the inner product of two gradients."""
        parts = zip(self._split(u), self._split(v), strict=True)
        found = [(self._dual(a[None], t)[0] * b).sum() for t, (a, b) in enumerate(parts)]
        return torch.stack(found).cpu().numpy()

    def _dual(self, d: Tensor, t: int) -> Tensor:
        """What a product with gives the inner product of gradients, of rows ``(C, ...)``."""
        metric = self.metrics[t]
        if metric is None:
            return d
        return (metric.to(d) @ d.view(len(d), len(metric), -1)).view_as(d)

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split([c.numel() for c in self.center])


def _reduced(gradient: Tensor, a: Tensor | None) -> Tensor:
    """A gradient as its draws come: flat, or the flat delta of which it is delta^T a."""
    if a is None:
        return gradient.flatten().clone()
    found = torch.linalg.lstsq(a.T.double().cpu(), gradient.T.double().cpu(), driver="gelsd")
    return found.solution.to(gradient).flatten()
