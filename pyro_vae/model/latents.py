"""The latent variables as named blocks: their sites, sizes, and how the decoder reads each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..core.seeding import seeded
from ..distributions import Joined, Layered
from ..families.guides import suggest_guide
from ..families.layers import layer_sizes
from ..families.steps import Autoregressive, Ragged
from ..families.support import describe_constraint, innermost, same_support
from .blocks import shape_of

__all__ = ["Latents", "check_supports", "latent_shape", "point"]


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

    @property
    def read_dim(self) -> int:
        """The dimensions of what the decoder reads of one z: one-hot vectors are flat."""
        return 1 if self.categorical else len(self.shape)

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


def latent_shape(
    latent_dim: int | tuple[int, ...] | None, layers: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of z, and the widths of stochastic layers where there are several."""
    if (latent_dim is None) == (layers is None):
        raise ValueError("say latent_dim=50, or for stochastic layers layers=[100, 50]")
    if latent_dim is not None:
        return shape_of(latent_dim, "latent_dim", least=1), ()
    sizes = layer_sizes(layers)
    return (sum(sizes),), sizes if len(sizes) > 1 else ()


def check_supports(
    p: dist.TorchDistribution, q: dist.TorchDistribution, prior: str, guide: str
) -> None:
    """Raise if guide and prior have different supports at some site."""
    if not (isinstance(p, Layered) and isinstance(q, Layered)):
        if same_support(p, q) is False:
            _refuse(p, q, "", (prior, guide), f"for example guide={suggest_guide(p)!r}")
        return
    for site, p_site, q_site in zip(p.names, p.conditionals, q.conditionals, strict=True):
        if same_support(p_site, q_site) is False:
            names = [type(innermost(d)).__name__ for d in (p_site, q_site)]
            advice = f"for example guide={suggest_guide(p_site)!r}"
            if p.read < len(p.names):
                each = ", ".join(suggest_guide(d) for d in p.conditionals)
                advice = f"layer by layer, such as guide='BottomUp([{each}])'"
            _refuse(p_site, q_site, f"at {site} ", names, advice)


def _refuse(
    p: dist.TorchDistribution,
    q: dist.TorchDistribution,
    where: str,
    names: Sequence[str],
    advice: str,
) -> None:
    supports = [describe_constraint(d.support) for d in (p, q)]
    raise ValueError(
        f"{where}the guide {names[1]} draws {supports[1]}, the prior {names[0]} {supports[0]}: "
        f"choose a guide with the prior's support, {advice}"
    )


def point(d: dist.TorchDistribution) -> Tensor:
    """One value for each cell: its mean, else its mode, else the median of 101 draws."""
    if isinstance(d, Joined):
        return d.layout.join([point(part) for part in d.parts])
    if isinstance(d, Ragged | Autoregressive):
        return d.point(point)
    found = None
    for name in ("mean", "mode"):
        try:
            value = getattr(d, name)
        except (NotImplementedError, AttributeError):
            continue
        found = value if found is None else torch.where(found.isfinite(), found, value)
        if found.isfinite().all():
            return found
    with seeded(0):
        median = d.sample(torch.Size([101])).median(0).values
    return median if found is None else torch.where(found.isfinite(), found, median)


def _categories(q: dist.TorchDistribution) -> int:
    """The number of categories where a draw is category numbers, else 0."""
    base = innermost(q)
    return base.logits.shape[-1] if isinstance(base, dist.Categorical) else 0
