"""The latent variables as named blocks: their sites, sizes, and how the decoder reads each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, TypeAlias, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..core.seeding import seeded
from ..families.family import describe, innermost, same_support
from ..families.guides import fitting

__all__ = ["Given", "Latents", "Layered", "Size", "check_supports", "point", "side_by_side"]

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

    read: ClassVar[int] = 1  # how many of the layers the decoder reads
    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

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
        found: dict[int, dist.TorchDistribution] = {}

        def take(layer: int, d: dist.TorchDistribution) -> Tensor:
            found[layer] = d
            return d.sample()

        with torch.no_grad(), seeded(0):
            self.along(take)
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
        return sum(terms)  # pyright: ignore[reportReturnType]

    def factors(self, value: Tensor) -> list[tuple[dist.TorchDistribution, Tensor]]:
        """Each layer's distribution given the value of the one before, and its value, by layer."""
        parts = value.split(self.sizes, -1)
        found: dict[int, dist.TorchDistribution] = {}

        def take(layer: int, d: dist.TorchDistribution) -> Tensor:
            found[layer] = d
            return parts[layer]

        self.along(take)
        return [(found[layer], parts[layer]) for layer in range(len(parts))]

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


@dataclass(frozen=True)
class Latents:
    """The latent sites of a model, whose values side by side are z.

    Args:
        sites: their names, in the order in which they lie in z.
        shapes: of each.
        categories: of each, how many category numbers it can hold; 0 where it holds none. The
            decoder reads category numbers as one-hot vectors, all others as they are.
        read: how many of the sites the decoder reads, from the first on.

    >>> Latents(("z1", "z2"), ((2,), (1,)), (0, 0), read=1).coordinates
    ('z1[0]', 'z1[1]', 'z2[0]')
    """

    sites: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    categories: tuple[int, ...]
    read: int

    @classmethod
    def of(cls, q: dist.TorchDistribution) -> "Latents":
        """The sites that a distribution of z is drawn as: ``z``, or those of a :class:`Layered`."""
        if not isinstance(q, Layered):
            return cls(("z",), (tuple(q.event_shape),), (_categories(q),), 1)
        shapes = tuple((size,) for size in q.sizes)
        return cls(q.names, shapes, tuple(map(_categories, q.conditionals)), q.read)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each site holds."""
        return tuple(map(math.prod, self.shapes))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one z."""
        return self.shapes[0] if len(self.shapes) == 1 else (sum(self.sizes),)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """One name for each number in z, flattened: ``z[0]``, ``z2[1]``, ``z[0, 3]``."""
        return tuple(
            f"{site}[{', '.join(map(str, place))}]"
            for site, shape in zip(self.sites, self.shapes, strict=True)
            for place in product(*map(range, shape))
        )

    @property
    def categorical(self) -> bool:
        """Whether some site holds category numbers, between which there is no line."""
        return any(self.categories)

    @property
    def layers(self) -> tuple[int, ...]:
        """The widths of stochastic layers, from x upward; empty where there are none."""
        return self.sizes if self.read < len(self.sites) else ()

    def draw(self, d: dist.TorchDistribution) -> Tensor:
        """z from a distribution, drawn as Pyro's sites."""
        if isinstance(d, Layered):
            return d.along(lambda layer, part: pyro.sample(d.names[layer], part))
        return pyro.sample("z", d)

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """z from the value of each site, ``(..., *shape)``."""
        return torch.cat([values[site] for site in self.sites], -1)

    def features(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """What the decoder reads of z, ``(..., *shape)``: as it is, or ``(..., D)``."""
        if not self.categorical:
            return z if self.read == len(self.sites) else z[..., : sum(self.sizes[: self.read])]
        start = z.ndim - len(self.shape)
        parts = [z] if len(self.sites) == 1 else z.split(self.sizes, -1)
        each = [
            nn.functional.one_hot(part.long(), n).to(dtype) if n else part
            for part, n in zip(parts, self.categories, strict=True)
        ]
        return torch.cat([part.flatten(start) for part in each[: self.read]], -1)


def check_supports(
    p: dist.TorchDistribution, q: dist.TorchDistribution, prior: str, guide: str
) -> None:
    """Raise if guide and prior have different supports at some site.

    Args:
        p: a prior.
        q: a guide.
        prior: the prior's line, for the message.
        guide: the guide's line.
    """
    if not (isinstance(p, Layered) and isinstance(q, Layered)):
        if same_support(p, q) is False:
            _refuse(p, q, "", (prior, guide), fitting(p, prior.split("(")[0]))
        return
    for site, p_site, q_site in zip(p.names, p.conditionals, q.conditionals, strict=True):
        if same_support(p_site, q_site) is False:
            names = [type(innermost(d)).__name__ for d in (p_site, q_site)]
            advice = fitting(p_site, names[0])
            if p.read < len(p.names):
                each = ", ".join(names[:1] * len(p.names))
                advice = f"layer by layer, such as guide='BottomUp([{each}])'"
            _refuse(p_site, q_site, f"at {site} ", names, advice)


def _refuse(
    p: dist.TorchDistribution,
    q: dist.TorchDistribution,
    where: str,
    names: Sequence[str],
    advice: str,
) -> None:
    supports = [describe(d.support) for d in (p, q)]  # pyright: ignore[reportArgumentType]
    raise ValueError(
        f"{where}the guide {names[1]} draws {supports[1]}, the prior {names[0]} {supports[0]}: "
        f"choose a guide with the prior's support, {advice}"
    )


def point(d: dist.TorchDistribution) -> Tensor:
    """One value for a distribution: its mean, else its mode, else the median of 101 draws."""
    for name in ("mean", "mode"):
        try:
            value = getattr(d, name)
        except (NotImplementedError, AttributeError):
            continue
        if value.isfinite().all():
            return value
    with seeded(0):
        return d.sample(torch.Size([101])).median(0).values


def side_by_side(*parts: Tensor) -> Tensor:
    """Vectors ``(..., A)``, ``(..., B)`` as ``(..., A + B)``; leading dimensions broadcast."""
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], -1)


def _categories(q: dist.TorchDistribution) -> int:
    """The number of categories where a draw is category numbers, else 0."""
    base = innermost(q)
    return cast("Tensor", base.logits).shape[-1] if isinstance(base, dist.Categorical) else 0
