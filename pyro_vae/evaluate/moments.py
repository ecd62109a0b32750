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

    Args:
        center: a first centre, a tensor for each of the parameters'.
        weight: how many draws it is the mean of.
        towards: a gradient whose inner product with each draw is kept.
        coordinates: whether the variance of each coordinate is asked for; that of tensors is there.

    References:
        Chan, Golub & LeVeque (1983), for the variance; Chen & Qin (2010), Annals of Statistics 38,
        for the trace of the square.
    """

    def __init__(
        self,
        center: Sequence[Tensor],
        weight: int,
        towards: Sequence[Tensor] | None = None,
        *,
        coordinates: bool = False,
    ) -> None:
        self.sizes = [c.numel() for c in center]
        self.center = [c.detach().flatten().clone() for c in center]
        self.has_towards = towards is not None
        self.towards = [t.to(c).flatten() for t, c in zip(towards or center, center, strict=True)]
        self.sums, self.last = ([torch.zeros_like(c) for c in self.center] for _ in range(2))
        self.squares = [torch.zeros_like(c) for c in self.center] if coordinates else []
        self.weight, self.count, self.pending, self.chunks = weight, 0, 0, 0
        self.mean = torch.cat(self.center).double() * 0
        self.sum_squares = torch.zeros_like(self.mean) if coordinates else None
        self.traces = np.zeros(len(self.sizes))
        self._rows: list[np.ndarray] = []
        self._increments: list[np.ndarray] = []
        self._pairs: list[np.ndarray] = []
        self._of_center = self._center_products()

    def measure(self, gradients: Sequence[Tensor], keep: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of a chunk; the sums grow in place. It can be traced into a graph.

        Args:
            gradients: ``(C, ...)`` each, C even.
            keep: ``(C,)``, 0 for draws that do not count, the last ones.

        Returns:
            ``(T, 3, C)``: inner products of d with itself, the centre and ``towards``; and
            ``(T, C / 2)``: those of a difference of neighbours with the one before it.
        """
        rows, pairs = [], []
        for t, gradient in enumerate(gradients):
            center = self.center[t]
            d = (gradient.reshape(len(gradient), -1) - center) * keep[:, None]
            e = d[0::2] - d[1::2]
            before = torch.cat([self.last[t][None], e[:-1]])
            products = [(d * other).sum(1) for other in (d, center, self.towards[t])]
            rows.append(torch.stack(products))
            pairs.append((e * before).sum(1) / 2)
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
        shift = center + sums / k - self.mean  # of the chunks' mean from that of all before
        between = shift.square() * (n * k / (n + k))
        within = sums.square() / k
        self.traces += self._split(between - within)
        if self.sum_squares is not None:
            self.sum_squares += torch.cat(self.squares).double() - within + between
        self.mean += shift * (k / (n + k))
        self.count, self.pending, self.chunks = n + k, 0, 0
        self.weight = self.count
        for tensor in (*self.sums, *self.squares):
            tensor.zero_()
        for c, mean in zip(self.center, self.mean.split(self.sizes), strict=True):
            c.copy_(mean)
        self._of_center = self._center_products()

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
        return self._split(center.square()), self._split(center * torch.cat(self.towards))

    def _split(self, values: Tensor) -> np.ndarray:
        return torch.stack([part.sum() for part in values.split(self.sizes)]).cpu().numpy()
