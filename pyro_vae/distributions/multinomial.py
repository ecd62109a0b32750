"""Multinomial counts, each observation with a total of its own."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = ["Multinomial"]

Size = Sequence[int]
DRAWS = 2**20  # outcomes that are drawn at once


class Totals(constraints.Constraint):
    """Whole numbers of at least 0 with a known sum, along the last dimension."""

    is_discrete, event_dim = True, 1
    lower_bound = 0

    def __init__(self, total_count: int) -> None:
        self.total_count = total_count

    def check(self, value: Tensor) -> Tensor:
        """Whether each row is such counts."""
        counts = ((value >= 0) & (value == value.round())).all(-1)
        return counts & (value.sum(-1) == self.total_count)


class Multinomial(dist.TorchDistribution):
    r"""Counts of the outcomes of n independent draws.

    .. math:: p(x) = \frac{n!}{\prod_v x_v!} \prod_v \pi_v^{x_v}, \quad \pi = softmax(logits)

    Args:
        total_count: n: a number, or one for each observation, of the batch shape.
        probs: :math:`\pi`, ``(..., V)``.
        logits: in their place, up to a constant.

    >>> p = Multinomial(torch.tensor([2, 3]), logits=torch.zeros(2, 4))
    >>> p.log_prob(torch.tensor([[2.0, 0, 0, 0], [1, 1, 1, 0]])).exp()
    tensor([0.0625, 0.0938])
    """

    arg_constraints: dict = {
        "logits": constraints.real_vector,
        "probs": constraints.simplex,
    }

    def __init__(
        self,
        total_count: int | Tensor = 1,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (probs is None) == (logits is None):
            raise ValueError("Multinomial takes probs or logits, and one of them")
        given: Any = logits if probs is None else probs.log()
        batch = given.shape[:-1]
        if isinstance(total_count, Tensor):
            batch = torch.broadcast_shapes(batch, total_count.shape)
            total_count = total_count.expand(batch)
        self.total_count, self._given = total_count, given.expand(*batch, given.shape[-1])
        super().__init__(batch, given.shape[-1:], validate_args=validate_args)

    @property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities, ``(..., V)``."""
        return self._given.log_softmax(-1)

    @property
    def probs(self) -> Tensor:
        """Of the outcomes, ``(..., V)``."""
        return self._given.softmax(-1)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Counts of this total; any, where each observation has a total of its own."""
        if isinstance(self.total_count, Tensor):
            return constraints.independent(constraints.nonnegative_integer, 1)
        return Totals(self.total_count)

    @property
    def mean(self) -> Tensor:
        """Counts that are expected, ``(..., V)``."""
        return self._n * self.probs

    @property
    def variance(self) -> Tensor:
        """Of each count, ``(..., V)``."""
        return self._n * self.probs * (1 - self.probs)

    @property
    def _n(self) -> Any:  # noqa: ANN401
        n = self.total_count
        return n[..., None] if isinstance(n, Tensor) else n

    def with_total(self, total_count: int | Tensor) -> "Multinomial":
        """The same of other totals."""
        return Multinomial(total_count, logits=self._given, validate_args=False)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Multinomial":
        """The same, of a larger batch shape."""
        n, shape = self.total_count, torch.Size(batch_shape)
        n = n.expand(shape) if isinstance(n, Tensor) else n
        logits = self._given.expand(*shape, -1)
        return Multinomial(n, logits=logits, validate_args=False)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """Counts, ``(*sample_shape, ..., V)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            n = torch.as_tensor(self.total_count, device=self._given.device)
            n = n.expand(shape[:-1]).reshape(-1)
            probs = self.probs.expand(shape).reshape(-1, shape[-1])
            counts = torch.zeros_like(probs)
            most = int(n.max()) if len(n) else 0
            step = max(1, DRAWS // max(1, len(n)))
            for start in range(0, most, step):
                drawn = torch.multinomial(probs, min(step, most - start), replacement=True)
                there = start + torch.arange(drawn.shape[1], device=n.device) < n[:, None]
                counts.scatter_add_(1, drawn, there.to(counts))
        return counts.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of counts ``(..., V)``; an outcome without probability that did not occur costs none."""
        if self._validate_args:
            self._validate_sample(value)
        logits = self.logits
        cost = torch.where(value == 0, 0.0, value * torch.where(value == 0, 0.0, logits))
        ways = (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1)
        return ways + cost.sum(-1)
