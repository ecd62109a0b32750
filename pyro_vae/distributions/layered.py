"""Stochastic layers as one distribution: z = (z1, ..., zL), from x upward."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..core.seeding import seeded

__all__ = ["Given", "Layered", "side_by_side"]

Given: TypeAlias = Callable[[Tensor], dist.TorchDistribution]
Size: TypeAlias = Sequence[int]


class Layered(dist.TorchDistribution):
    r"""A chain of conditionals as one distribution of all layers, side by side: z1 comes first.

    .. math:: p(z) = p(z_{o_1}) \prod_{i > 1} p(z_{o_i} \mid z_{o_{i-1}})

    Args:
        sizes: of the layers, from x upward.
        order: :math:`o`, the layers (from 0) as they are drawn.
        first: the distribution of the layer that is drawn first.
        given: for each later one, from the layer drawn before it to its distribution.
        names: of the layers' sites; ``z1``, ``z2`` ... by default.

    >>> first, given = dist.Normal(torch.zeros(3), 1.0).to_event(1), lambda z: dist.Normal(
    ...     z[..., :2], 0.5).to_event(1)
    >>> p = Layered((2, 3), (1, 0), first, [given])
    >>> p.sample((4,)).shape, p.log_prob(torch.zeros(4, 5)).shape
    (torch.Size([4, 5]), torch.Size([4]))
    """

    read = 1  # how many of the layers the decoder reads
    arg_constraints = {}

    def __init__(
        self,
        sizes: Size,
        order: Size,
        first: dist.TorchDistribution,
        given: Sequence[Given],
        names: Sequence[str] | None = None,
    ) -> None:
        self.sizes, self.order, self.first, self.given = tuple(sizes), order, first, given
        self.names = tuple(names or (f"z{i + 1}" for i in range(len(self.sizes))))
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Layered":
        """The same for a larger batch: the layers after the first follow its draws."""
        first = self.first.expand(torch.Size(batch_shape))
        return Layered(self.sizes, self.order, first, self.given, self.names)

    @property
    def conditionals(self) -> list[dist.TorchDistribution]:
        """The distribution of each layer, from x upward, given some draw of the one before it.

        They say on what a layer lives and how it is drawn, whatever that draw.
        """
        layers: dict[int, dist.TorchDistribution] = {}

        def take(layer: int, d: dist.TorchDistribution) -> Tensor:
            layers[layer] = d
            return d.sample()

        with torch.no_grad(), seeded(0):
            self.along(take)
        return [layers[layer] for layer in range(len(self.sizes))]

    @property
    def has_rsample(self) -> bool:  # pyrefly: ignore[bad-override]
        """Whether all layers are reparameterized."""
        return all(d.has_rsample for d in self.conditionals)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of all layers, or of each its own; ``None`` where they are not numbers by cell."""
        cells: list[Any] = [d.support for d in self.conditionals]
        for i, cell in enumerate(cells):
            while isinstance(cell, constraints.independent):
                cell = cell.base_constraint
            cells[i] = cell
        if any(cell.event_dim for cell in cells):
            return None
        alike = all(cell is cells[0] for cell in cells)
        whole = cells[0] if alike else constraints.cat(cells, -1, list(self.sizes))
        return constraints.independent(whole, 1)

    @property
    def mean(self) -> Tensor:
        """Each layer's mean at the mean of the one before it: the mean, where these are linear."""
        return self.along(lambda layer, d: d.mean)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw of each layer, in order."""
        with torch.no_grad():
            return self._many(sample_shape).along(lambda layer, d: d.sample())

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw with its path through all layers."""
        return self._many(sample_shape).along(lambda layer, d: d.rsample())

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the layers' log densities."""
        terms = (d.log_prob(z) for d, z in self.factors(value))
        return sum(terms)  # pyrefly: ignore[bad-return]

    def factors(self, value: Tensor) -> list[tuple[dist.TorchDistribution, Tensor]]:
        """Each layer's distribution given the value of the one before, and its value, by layer."""
        parts = value.split(self.sizes, -1)
        layers: dict[int, dist.TorchDistribution] = {}

        def take(layer: int, d: dist.TorchDistribution) -> Tensor:
            layers[layer] = d
            return parts[layer]

        self.along(take)
        return [(layers[layer], parts[layer]) for layer in range(len(parts))]

    @property
    def top(self) -> dist.TorchDistribution:
        """The top layer's distribution, at the means of those drawn before it.

        Raises:
            NotImplementedError: a layer that has no mean.
        """
        d = self.first
        for given in self.given if self.order[0] == 0 else ():
            d = given(d.mean)
        return d

    def _many(self, sample_shape: Size) -> "Layered":
        return self.expand((*sample_shape, *self.batch_shape)) if sample_shape else self

    def along(self, take: Callable[[int, dist.TorchDistribution], Tensor]) -> Tensor:
        """Visit the layers in order; the values that ``take`` gives them, side by side.

        Args:
            take: from a layer's number and its distribution to its value.
        """
        values: dict[int, Tensor] = {}
        z = torch.empty(0)
        for i, layer in enumerate(self.order):
            z = values[layer] = take(layer, self.given[i - 1](z) if i else self.first)
        return side_by_side(*(values[layer] for layer in range(len(values))))


def side_by_side(*parts: Tensor) -> Tensor:
    """Vectors ``(..., A)``, ``(..., B)`` as ``(..., A + B)``; leading dimensions broadcast."""
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], -1)
