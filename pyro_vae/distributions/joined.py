"""Independent distributions side by side in one event: the blocks of an observation."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = ["Joined", "JoinedSupport"]


class JoinedSupport(constraints.Constraint):
    """Values whose parts, side by side, lie in the supports of the parts."""

    event_dim = 1

    def __init__(self, supports: Sequence[constraints.Constraint], widths: Sequence[int]) -> None:
        self.supports, self.widths = list(supports), list(widths)
        self.is_discrete = all(s.is_discrete for s in supports)

    def check(self, value: Tensor) -> Tensor:
        """Whether all cells do, ``(...)``."""
        parts = value.split(self.widths, -1)
        checked = (s.check(v) for s, v in zip(self.supports, parts, strict=True))
        return torch.stack(list(checked)).all(0)


class Joined(dist.TorchDistribution):
    r"""Independent distributions of vectors as one distribution of a longer vector.

    .. math:: p(x) = \prod_b p_b(x_b)

    Args:
        parts: each of event shape ``(D_b,)``.

    >>> bits, counts = dist.Bernoulli(logits=torch.zeros(2)), dist.Poisson(torch.ones(1))
    >>> p = Joined([bits.to_event(1), counts.to_event(1)])
    >>> p.sample((4,)).shape, p.log_prob(torch.zeros(4, 3)).shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, parts: Sequence[dist.TorchDistribution]) -> None:
        self.parts = list(parts)
        self.widths = [p.event_shape[0] for p in parts]
        batch = torch.broadcast_shapes(*(p.batch_shape for p in parts))
        super().__init__(batch, torch.Size([sum(self.widths)]), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all are reparameterized."""
        return all(p.has_rsample for p in self.parts)

    @property
    def support(self) -> constraints.Constraint | None:
        """The product of theirs."""
        return JoinedSupport([p.support for p in self.parts], self.widths)  # pyright: ignore

    @property
    def mean(self) -> Tensor:
        """Their means."""
        return self._gather(lambda p: p.mean)

    @property
    def variance(self) -> Tensor:
        """Their variances."""
        return self._gather(lambda p: p.variance)

    def map(self, change: Callable[..., dist.TorchDistribution], *values: Tensor) -> "Joined":
        """Each part changed, beside its share of each value, ``(..., D)``."""
        shares = (value.split(self.widths, -1) for value in values)
        return Joined([change(p, *share) for p, *share in zip(self.parts, *shares, strict=True)])

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Joined":
        """Each for a larger batch."""
        return self.map(lambda p: p.expand(torch.Size(batch_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of each."""
        return self._gather(lambda p: p.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A reparameterized draw of each."""
        return self._gather(lambda p: p.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of theirs."""
        parts = value.split(self.widths, -1)
        return sum(p.log_prob(v) for p, v in zip(self.parts, parts, strict=True))  # pyright: ignore

    def _gather(self, of: Callable[[dist.TorchDistribution], Tensor]) -> Tensor:
        each = [of(p) for p in self.parts]
        lead = torch.broadcast_shapes(*(v.shape[:-1] for v in each))
        return torch.cat([v.expand(*lead, -1) for v in each], -1)
