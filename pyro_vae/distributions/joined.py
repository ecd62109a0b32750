"""Independent distributions side by side in one event: the blocks of an observation."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = ["Joined", "JoinedSupport", "Layout", "OfParts"]

Size = Sequence[int]


class Layout:
    """Where the cells of several blocks are in a vector.

    Args:
        places: of each block its cells' places in the vector, each place once; or the widths of
            blocks that lie side by side.

    >>> layout = Layout([[0, 2], [1]])
    >>> layout.join(layout.split(torch.arange(3)))
    tensor([0, 1, 2])
    """

    def __init__(self, places: "Sequence[Sequence[int]] | Sequence[int]") -> None:
        ends, beside = 0, True
        self.places: list[Sequence[int]] = []
        for part in places:
            beside &= isinstance(part, int)
            place = range(ends, ends + part) if isinstance(part, int) else list(part)
            self.places.append(place)
            ends += len(place)
        self.widths = [len(place) for place in self.places]
        plain = range(ends)  # however wide, it takes no memory
        self.order = plain if beside else [i for place in self.places for i in place]
        self.plain = beside or self.order == list(plain)
        order = torch.tensor([] if self.plain else self.order, dtype=torch.long)
        self._indices = {order.device: (order, order.argsort())}

    def split(self, value: Tensor) -> tuple[Tensor, ...]:
        """The blocks, ``(..., D_b)``, of a vector ``(..., D)``."""
        if not self.plain:
            value = value.index_select(-1, self._on(value.device)[0])
        return value.split(self.widths, -1)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The vector of blocks, whose first dimensions are broadcast."""
        lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        value = torch.cat([part.expand(*lead, -1) for part in parts], -1)
        return value if self.plain else value.index_select(-1, self._on(value.device)[1])

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The places in the blocks' order, and their inverse, kept by device."""
        if device not in self._indices:
            order, inverse = self._indices[torch.device("cpu")]
            self._indices[device] = order.to(device), inverse.to(device)
        return self._indices[device]


class JoinedSupport(constraints.Constraint):
    """Values whose blocks lie in the supports of the blocks."""

    def __init__(self, supports: Sequence[constraints.Constraint], layout: Layout) -> None:
        self.supports, self.layout = list(supports), layout
        self.event_dim = max(s.event_dim for s in supports)
        self.is_discrete = all(s.is_discrete for s in supports)

    def check(self, value: Tensor) -> Tensor:
        """Whether all cells do, ``(...)``."""
        parts = self.layout.split(value)
        checked = (s.check(v) for s, v in zip(self.supports, parts, strict=True))
        return torch.stack(list(checked)).all(0)


class OfParts(dist.TorchDistribution):
    """Independent distributions; a subclass says how their values are put together."""

    arg_constraints = {}

    def __init__(
        self, parts: Sequence[dist.TorchDistribution], batch_shape: Size, event_shape: Size
    ) -> None:
        self.parts = list(parts)
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @abstractmethod
    def gather(self, of: Callable[[dist.TorchDistribution], Tensor]) -> Tensor:
        """What holds of each part, put together as their values are."""

    @property
    def has_rsample(self) -> bool:  # pyrefly: ignore[bad-override]
        """Whether all are reparameterized."""
        return all(p.has_rsample for p in self.parts)

    @property
    def mean(self) -> Tensor:
        """Their means."""
        return self.gather(lambda p: p.mean)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw of each."""
        return self.gather(lambda p: p.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A reparameterized draw of each."""
        return self.gather(lambda p: p.rsample(torch.Size(sample_shape)))


class Joined(OfParts):
    r"""Independent distributions of vectors as one distribution of a longer vector.

    .. math:: p(x) = \prod_b p_b(x_b)

    Args:
        parts: each of event shape ``(D_b,)``; or ``(T, D_b)`` of T vectors.
        layout: of their cells in the vector; side by side where it is not given.

    >>> bits, counts = dist.Bernoulli(logits=torch.zeros(2)), dist.Poisson(torch.ones(1))
    >>> p = Joined([bits.to_event(1), counts.to_event(1)])
    >>> p.sample((4,)).shape, p.log_prob(torch.zeros(4, 3)).shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    def __init__(
        self, parts: Sequence[dist.TorchDistribution], layout: Layout | None = None
    ) -> None:
        self.layout = layout or Layout([p.event_shape[-1] for p in parts])
        batch = torch.broadcast_shapes(*(p.batch_shape for p in parts))
        super().__init__(parts, batch, (*parts[0].event_shape[:-1], len(self.layout.order)))

    @property
    def support(self) -> constraints.Constraint | None:
        """The product of theirs."""
        return JoinedSupport([p.support for p in self.parts], self.layout)  # pyrefly: ignore[bad-argument-type]

    @property
    def variance(self) -> Tensor:
        """Their variances."""
        return self.gather(lambda p: p.variance)

    def map(self, change: Callable[..., dist.TorchDistribution], *values: Tensor) -> "Joined":
        """Each part changed, beside its share of each value, ``(..., D)``."""
        shares = (self.layout.split(value) for value in values)
        parts = [change(p, *share) for p, *share in zip(self.parts, *shares, strict=True)]
        return Joined(parts, self.layout)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Joined":
        """Each for a larger batch."""
        return self.map(lambda p: p.expand(torch.Size(batch_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of theirs."""
        parts = self.layout.split(value)
        return sum(p.log_prob(v) for p, v in zip(self.parts, parts, strict=True))  # pyrefly: ignore[bad-return]

    def gather(self, of: Callable[[dist.TorchDistribution], Tensor]) -> Tensor:
        """What holds of each part, as a vector of its cells."""
        return self.layout.join([of(p) for p in self.parts])
