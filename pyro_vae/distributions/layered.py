"""Stochastic layers as one distribution: z = (z1, ..., zL), from x upward."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..core.seeding import seeded

__all__ = ["Given", "Layered", "draw_sites"]

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

    >>> first, given = dist.Normal(torch.zeros(3), 1.0).to_event(1), lambda z: dist.Normal(
    ...     z[..., :2], 0.5).to_event(1)
    >>> p = Layered((2, 3), (1, 0), first, [given])
    >>> p.sample((4,)).shape, p.log_prob(torch.zeros(4, 5)).shape
    (torch.Size([4, 5]), torch.Size([4]))
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(
        self,
        sizes: Size,
        order: Size,
        first: dist.TorchDistribution,
        given: Sequence[Given],
    ) -> None:
        self.sizes, self.order, self.first, self.given = tuple(sizes), order, first, given
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Layered":
        """The same for a larger batch: the layers after the first follow its draws."""
        first = self.first.expand(torch.Size(batch_shape))
        return Layered(self.sizes, self.order, first, self.given)

    @property
    def conditionals(self) -> list[dist.TorchDistribution]:
        """The distribution of each layer, from x upward, given some draw of the one before it.

        They say on what a layer lives and how it is drawn, whatever that draw.
        """
        found: dict[int, dist.TorchDistribution] = {}

        def take(layer: int, d: dist.TorchDistribution) -> Tensor:
            found[layer] = d
            return d.sample()

        with torch.no_grad(), seeded(0):
            self._along(take)
        return [found[layer] for layer in range(len(self.sizes))]

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
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
        return self._along(lambda layer, d: d.mean)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw of each layer, in order."""
        with torch.no_grad():
            return self._many(sample_shape)._along(lambda layer, d: d.sample())

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw with its path through all layers."""
        return self._many(sample_shape)._along(lambda layer, d: d.rsample())

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the layers' log densities."""
        terms = (d.log_prob(z) for d, z in self.factors(value))
        return sum(terms)  # pyright: ignore[reportReturnType]

    def factors(self, value: Tensor) -> list[tuple[dist.TorchDistribution, Tensor]]:
        """Each layer's distribution given the value of the one before, and its value, by layer."""
        parts = value.split(self.sizes, -1)
        found: dict[int, dist.TorchDistribution] = {}

        def take(layer: int, d: dist.TorchDistribution) -> Tensor:
            found[layer] = d
            return parts[layer]

        self._along(take)
        return [(found[layer], parts[layer]) for layer in range(len(parts))]

    def draw_sites(self) -> Tensor:
        """The layers as Pyro's sites ``z1``, ``z2`` ..., from x upward, drawn in order."""
        return self._along(lambda layer, d: pyro.sample(f"z{layer + 1}", d))

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

    def _along(self, take: Callable[[int, dist.TorchDistribution], Tensor]) -> Tensor:
        """Go through the layers in order; ``take`` says the value of each; side by side."""
        values: dict[int, Tensor] = {}
        z = torch.empty(0)
        for i, layer in enumerate(self.order):
            z = values[layer] = take(layer, self.given[i - 1](z) if i else self.first)
        lead = torch.broadcast_shapes(*(z.shape[:-1] for z in values.values()))
        each = (values[layer] for layer in range(len(values)))
        return torch.cat([z.expand(*lead, z.shape[-1]) for z in each], -1)


def draw_sites(d: dist.TorchDistribution) -> Tensor:
    """z as Pyro sees it: the site ``z``, or ``z1``, ``z2`` ... of stochastic layers."""
    return d.draw_sites() if isinstance(d, Layered) else pyro.sample("z", d)
