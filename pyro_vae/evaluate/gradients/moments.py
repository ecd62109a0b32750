"""Running moments of gradient draws: memory does not grow with draws times parameters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moments", "View"]

BLOCK = 16  # chunks that have one centre, and are summed in the gradients' own precision


class View:
    r"""The draws of one parameter's gradient: flat, or by a factor.

    Where the gradient of a weight matrix is :math:`g = \delta^\top a`, with an input a that is the
    same in all draws, its draws are those of :math:`\delta`, fewer numbers that need no product:
    :math:`\langle g, g' \rangle = \langle \delta, a a^\top \delta' \rangle`.

    Args:
        inputs: a, ``(B, I)``; ``None`` for a flat view.

    References:
        Goodfellow (2015), arXiv:1510.01799, for norms by factors.
    """

    def __init__(self, inputs: Tensor | None = None) -> None:
        self.inputs = inputs
        self.metric = None if inputs is None else inputs @ inputs.T

    def reduce(self, gradient: Tensor) -> Tensor:
        """A gradient as its draws come: flat, or the flat delta of which it is delta^T a."""
        if self.inputs is None:
            return gradient.flatten().clone()
        a, b = (t.T.double().cpu() for t in (self.inputs, gradient))
        return torch.linalg.lstsq(a, b, driver="gelsd").solution.to(gradient).flatten()

    def restore(self, reduced: Tensor) -> Tensor:
        """The gradient of a reduced one, flat."""
        if self.inputs is None:
            return reduced
        return (reduced.view(len(self.inputs), -1).T @ self.inputs.double()).flatten()

    def project(self, gradient: Tensor) -> Tensor:
        """The vector whose product with a reduced gradient is the inner product of gradients."""
        return (gradient if self.inputs is None else self.inputs @ gradient.T).flatten()

    def dual(self, rows: Tensor) -> Tensor:
        """:meth:`project` of gradients that are reduced, ``(C, ...)``."""
        if self.metric is None:
            return rows
        return (self.metric.to(rows) @ rows.view(len(rows), len(self.metric), -1)).view_as(rows)


class Moments:
    r"""Mean by coordinate, and the trace of the covariance and a few numbers a draw by tensor.

    Draws come in chunks, as differences :math:`d = g - c` from a centre that is near their mean,
    so that single precision does not lose what float64 then sums. With a centre that is the mean of
    k other draws, :math:`\frac{k}{k + 1} \|d\|^2` has the trace of the covariance as its
    expectation: its scatter gives the standard error of the trace. With
    :math:`e_k = (g_{2k} - g_{2k+1}) / \sqrt 2` the mean of :math:`(e_k \cdot e_{k+1})^2` estimates
    the trace of the covariance's square without bias.

    Args:
        center: a first centre, a tensor for each of the T parameters.
        weight: the number of draws of which it is the mean.
        towards: a gradient whose inner product with each draw is kept.
        views: how the draws of each parameter come; flat by default.

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
        views: Sequence[View] | None = None,
    ) -> None:
        self.sizes = [c.numel() for c in center]
        self.views = [View() for _ in center] if views is None else views
        pairs = list(zip(self.views, center, strict=True))
        self.center = [view.reduce(c.detach()) for view, c in pairs]
        given = center if towards is None else towards
        self.towards = [
            view.project(t.to(c).view_as(c)) for (view, c), t in zip(pairs, given, strict=True)
        ]
        self.sums, self.last = ([torch.zeros_like(c) for c in self.center] for _ in range(2))
        self.weight, self.count, self.pending, self.chunks = weight, 0, 0, 0
        self._mean = torch.cat(self.center).double() * 0
        self._trace_sums = np.zeros(len(self.sizes))
        names = ("norms", "dots", "increments", "pairs")
        self._by_draw: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self._of_center = self._center_products()

    def measure(self, gradients: Sequence[Tensor], keep: Tensor) -> tuple[Tensor, Tensor]:
        """The inner products of a chunk; the sums grow in place. It can be traced into a graph.

        Args:
            gradients: reduced, ``(C, ...)`` each, C even.
            keep: ``(C,)``, 0 for draws that do not count, the last ones.

        Returns:
            ``(T, 3, C)``: inner products of d with itself, the centre and ``towards``; and
            ``(T, C / 2)``: those of a difference of neighbours with the one before it.
        """
        rows, pairs = [], []
        for t, gradient in enumerate(gradients):
            d = (gradient.reshape(len(gradient), -1) - self.center[t]) * keep[:, None]
            e, dual = d[0::2] - d[1::2], self.views[t].dual(d)
            before = torch.cat([self.last[t][None], e[:-1]])
            products = [(dual * d).sum(1), (dual * self.center[t]).sum(1)]
            rows.append(torch.stack([*products, (d * self.towards[t]).sum(1)]))
            pairs.append(((dual[0::2] - dual[1::2]) * before).sum(1) / 2)
            self.last[t].copy_(e[-1])
            self.sums[t].add_(d.sum(0))
        return torch.stack(rows), torch.stack(pairs)

    def restart(self) -> None:
        """Forget the sums, to which :meth:`measure` wrote while it was traced."""
        for tensor in (*self.sums, *self.last):
            tensor.zero_()

    def add(self, rows: Tensor, pairs: Tensor, n: int) -> None:
        """Take in a chunk of :meth:`measure`, of which the first n draws count."""
        products = rows.double().cpu().numpy()[:, :, :n]
        first = 0 if self.count + self.pending else 1
        norm, dot = self._of_center
        by_draw = {
            "norms": products[:, 0] + 2 * products[:, 1] + norm[:, None],
            "dots": products[:, 2] + dot[:, None],
            "increments": products[:, 0] * (self.weight / (self.weight + 1)),
            "pairs": pairs.double().cpu().numpy()[:, first : n // 2],
        }
        for name, values in by_draw.items():
            self._by_draw[name].append(values.T)
        self._trace_sums += products[:, 0].sum(1)
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
        self._trace_sums += weight * self._products(shift, shift) - self._products(sums, sums) / k
        self._mean += shift * (k / (n + k))
        self.count, self.pending, self.chunks = n + k, 0, 0
        self.weight = self.count
        for tensor in self.sums:
            tensor.zero_()
        for c, mean in zip(self.center, self._split(self._mean), strict=True):
            c.copy_(mean)
        self._of_center = self._center_products()

    @property
    def mean(self) -> Tensor:
        """The mean gradient, ``(P,)``, float64."""
        parts = zip(self.views, self._split(self._mean), strict=True)
        return torch.cat([view.restore(mean) for view, mean in parts])

    @property
    def trace(self) -> np.ndarray:
        """Trace of the covariance, by tensor, ``(T,)``, unbiased."""
        return self._trace_sums / (self.count - 1)

    def by_draw(self, name: str) -> np.ndarray:
        """A number by draw and tensor, ``(n, T)``.

        ``norms`` are squared norms, ``dots`` inner products with ``towards``; the expectation of
        ``increments`` is the trace of the covariance. ``pairs`` ``(n // 2 - 1, T)``, summed over
        tensors and squared, have that of its square.
        """
        return np.concatenate(self._by_draw[name])

    def _center_products(self) -> tuple[np.ndarray, np.ndarray]:
        """The centre's squared norm and its inner product with ``towards``, by tensor."""
        center = torch.cat(self.center).double()
        dots = [(c * t).sum() for c, t in zip(self._split(center), self.towards, strict=True)]
        return self._products(center, center), torch.stack(dots).cpu().numpy()

    def _products(self, u: Tensor, v: Tensor) -> np.ndarray:
        """The inner product of two reduced gradients, by tensor."""
        parts = zip(self.views, self._split(u), self._split(v), strict=True)
        products = [(view.dual(a[None])[0] * b).sum() for view, a, b in parts]
        return torch.stack(products).cpu().numpy()

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split([c.numel() for c in self.center])
