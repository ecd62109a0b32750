"""Covariates with holes: a condition's columns that are latent where they are missing.

What is known of them comes as ``(..., 2 m)``: their m values, 0 where there is none, and m bits
that are 1 where there is one. Numbers come first, in the data's units, then bits.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import Joined, Layered
from .networks import batched, spec_of
from .part import Ends, Line, Part, connect, looks_at_joint
from .support import innermost

__all__ = [
    "CovariateDecoder",
    "CovariateGuide",
    "CovariateLikelihood",
    "CovariatePrior",
    "Marginals",
]

CERTAIN = 1e4  # a logit whose probability is 1
SHARP = 1e-6  # the spread of a cell that is what the latent says, in units of the column's


class Marginals(nn.Module):
    r"""p(c): independent normal distributions of numbers, and probabilities of bits.

    .. math:: c_j = \mu_j + s_j u_j, \quad u_j \sim N(m_j, \tau_j^2), \quad
        b_k \sim \mathrm{Bernoulli}(\pi_k)

    where :math:`\mu` and s are the centre and spread of training data, and the others are learned.

    Args:
        numbers: how many numbers.
        bits: how many bits.
    """

    centre: Tensor
    spread: Tensor
    started: Tensor

    def __init__(self, numbers: int, bits: int) -> None:
        super().__init__()
        self.numbers, self.bits = numbers, bits
        self.loc = nn.Parameter(torch.zeros(numbers))
        self.log_scale = nn.Parameter(torch.zeros(numbers))
        self.logits = nn.Parameter(torch.zeros(bits))
        self.register_buffer("centre", torch.zeros(numbers))
        self.register_buffer("spread", torch.ones(numbers))
        self.register_buffer("started", torch.tensor(False))

    @property
    def count(self) -> int:
        """m, of all of them."""
        return self.numbers + self.bits

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the sites of numbers and of bits, those that there are."""
        return tuple(n for n in (self.numbers, self.bits) if n)

    @torch.no_grad()
    def start_from(self, beside: Tensor) -> None:
        """Learn centres and spreads, and start at the frequencies of bits, once."""
        if self.started:
            return
        value, known = beside.split(self.count, -1)
        n = known.sum(0).clamp(min=1)
        mean = (value * known).sum(0) / n
        spread = ((value - mean).square() * known).sum(0).div(n).sqrt()
        self.centre.copy_(mean[: self.numbers])
        wide = spread[: self.numbers]
        self.spread.copy_(torch.where(wide > 0, wide, 1.0))
        self.logits.copy_(mean[self.numbers :].clamp(0.01, 0.99).logit())
        self.started.fill_(True)

    def standardized(self, value: Tensor) -> Tensor:
        """Values ``(..., m)`` near unit scale: numbers less their centre over their spread."""
        numbers = (value[..., : self.numbers] - self.centre) / self.spread
        return torch.cat([numbers, value[..., self.numbers :]], -1)

    def sites(
        self, known: Tensor, value: Tensor, loc: Tensor, scale: Tensor, logits: Tensor
    ) -> list[dist.TorchDistribution]:
        """The sites of numbers and bits; what is known is drawn by all as one: nothing is to learn.

        Args:
            known: ``(..., m)`` bits.
            value: ``(..., m)``.
            loc: of the numbers that are not known, near unit scale.
            scale: likewise.
            logits: of the bits that are not known.
        """
        n, there = self.numbers, known > 0
        point = CERTAIN * (2 * value[..., n:] - 1)
        normal = dist.Normal(
            torch.where(there[..., :n], 0.0, loc), torch.where(there[..., :n], 1.0, scale)
        )
        bits = dist.Bernoulli(logits=torch.where(there[..., n:], point, logits))
        pairs = ((self.numbers, normal), (self.bits, bits))
        return [d.to_event(1) for size, d in pairs if size]


class Beside(Layered):
    """z, numbers and bits, which are independent, side by side in this order."""

    def __init__(self, z: dist.TorchDistribution, others: list[dist.TorchDistribution]) -> None:
        sizes = (z.event_shape[0], *(d.event_shape[0] for d in others))
        kinds = ["covariates" if d.has_rsample else "bits" for d in others]
        given = [self._given(d) for d in others]
        super().__init__(sizes, range(len(sizes)), z, given, ("z", *kinds))
        self.read = len(sizes)

    @staticmethod
    def _given(d: dist.TorchDistribution) -> Any:  # noqa: ANN401
        return lambda before: d.expand(torch.broadcast_shapes(before.shape[:-1], d.batch_shape))

    @property
    def mean(self) -> Tensor:
        """Of bits their probabilities."""
        return self.along(lambda layer, d: d.mean)


class CovariatePrior(Part):
    """p(z) p(c).

    Args:
        line: of p(z).
        marginals: p(c).

    References:
        Ramchandran et al. (2022), arXiv:2203.01218.
    """

    roles: ClassVar[frozenset] = frozenset({"prior"})

    def __init__(self, line: Line, marginals: Marginals) -> None:
        super().__init__()
        self.line, self.marginals = line, marginals

    def build(self, ends: Ends) -> None:
        """Make p(z)."""
        n = ends.shape[0] - self.marginals.count
        self.family = ends.make(self.line, shape=(n,), feature_shape=None)
        self.spec = spec_of(self.family)

    def connect(self, ends: Ends) -> None:
        """Let p(z) take notice of nothing: q(z|x) comes with covariates."""
        connect(self.family, Ends(ends.shape, "prior"))

    def start_from(self, x: Tensor) -> None:
        """Start from what is known of the covariates, ``(N, 2 m)``."""
        self.marginals.start_from(x)

    def forward(self, features: Tensor | None = None) -> Beside:
        """Of batch shape ``(B,)``, where it is said what is known; else nothing is."""
        c = self.marginals
        beside = c.loc.new_zeros(1, 2 * c.count)[0] if features is None else features
        value, known = beside.split(c.count, -1)
        others = c.sites(known, value, c.loc, c.log_scale.exp(), c.logits)
        return Beside(self.family().expand(beside.shape[:-1]), others)


class CovariateGuide(Part):
    """q(z|x) q(c|x).

    Args:
        line: of q(z|x).
        marginals: p(c), for what is known.
    """

    def __init__(self, line: Line, marginals: Marginals) -> None:
        super().__init__()
        self.line, self.prior = line, [marginals]  # the prior's

    def build(self, ends: Ends) -> None:
        """Make q(z|x), and a normal or Bernoulli distribution of each covariate."""
        c, width = self.prior[0], (ends.feature_shape or (0,))[0]
        changes: Any = {"feature_shape": (width - 2 * c.count,), "whole": True}
        self.family = ends.make(self.line, shape=(ends.shape[0] - c.count,), **changes)
        if looks_at_joint(self.family):
            raise ValueError("a guide that takes steps of its own goes without covariates=")
        self.spec = spec_of(self.family)
        self.numbers = ends.make("Normal", shape=(c.numbers,), **changes) if c.numbers else None
        self.bits = ends.make("Bernoulli", shape=(c.bits,), **changes) if c.bits else None

    def connect(self, ends: Ends) -> None:
        """Let q(z|x) take notice of p(z)."""
        partner: Any = ends.partner
        connect(self.family, Ends((0,), "guide", partner=partner and partner.family))

    def forward(self, features: Tensor) -> Beside:
        """Of batch shape ``(B,)``."""
        c = self.prior[0]
        h, beside = features[..., : -2 * c.count], features[..., -2 * c.count :]
        value, known = beside.split(c.count, -1)
        normal: Any = innermost(self.numbers(h)) if self.numbers else dist.Normal(*_none(h))
        bits: Any = innermost(self.bits(h)) if self.bits else dist.Bernoulli(logits=_none(h)[0])
        return Beside(self.family(h), c.sites(known, value, normal.loc, normal.scale, bits.logits))


class CovariateDecoder(nn.Module):
    """A network of z and covariates: of those that are known their values, else the latent ones.

    It reads ``(..., L + m + D + 2 m)``: z, the latent covariates, another condition, and what is
    known. Its features have the covariates and the bits of what is known beside them.

    Args:
        network: from z, the covariates and the condition to features.
        marginals: p(c).
        latent_dim: L.
    """

    def __init__(self, network: nn.Module, marginals: Marginals, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim, self.prior = network, latent_dim, [marginals]
        self.spec = getattr(network, "spec", None)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Build the network, for what it reads."""
        if (build := getattr(self.network, "build", None)) is not None:
            build((in_shape[0] - 2 * self.prior[0].count,), out_shape)  # pyrefly: ignore[not-callable]

    def forward(self, h: Tensor) -> Tensor:
        """``(B, ...)`` to features ``(B, H + 2 m)``."""
        c, n = self.prior[0], self.latent_dim
        z, latent, rest = h[..., :n], h[..., n : n + c.count], h[..., n + c.count :]
        value, known = rest[..., -2 * c.count :].split(c.count, -1)
        used = torch.where(known > 0, c.standardized(value), latent)
        read = torch.cat([z, used, rest[..., : -2 * c.count]], -1)
        return torch.cat([batched(self.network, read, 1).flatten(h.ndim - 1), used, known], -1)


class CovariateLikelihood(Part):
    """p(x|z, c), where the cells of covariates are scored by p(c) if they are known, else are c.

    Args:
        line: of p(x|z, c).
        marginals: p(c).
        places: of the covariates' cells in x.
    """

    in_units = True

    def __init__(self, line: Line, marginals: Marginals, places: list[int]) -> None:
        super().__init__()
        self.line, self.prior, self.places = line, [marginals], places

    def build(self, ends: Ends) -> None:
        """Make the likelihood."""
        width = (ends.feature_shape or (0,))[0] - 2 * self.prior[0].count
        self.part = ends.make(self.line, feature_shape=(width,), whole=True)
        self.spec = spec_of(self.part)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """Of batch shape that of the features."""
        c = self.prior[0]
        h, beside = features[..., : -2 * c.count], features[..., -2 * c.count :]
        used, known = beside.split(c.count, -1)
        n, there = c.numbers, known > 0
        scale = torch.where(there[..., :n], c.log_scale.exp(), SHARP)
        loc = torch.where(there[..., :n], c.loc, used[..., :n])
        point = CERTAIN * (2 * used[..., n:] - 1)
        values = {
            "loc": c.centre + c.spread * loc,
            "scale": c.spread * scale,
            "logits": torch.where(there[..., n:], c.logits, point),
        }
        p = self.part(h)
        blocks = (
            zip(p.layout.places, p.parts, strict=True)
            if isinstance(p, Joined)
            else [(list(range(p.event_shape[0])), p)]
        )
        parts = [self._with(one, place, values) for place, one in blocks]
        return Joined(parts, p.layout) if isinstance(p, Joined) else parts[0]

    def _with(
        self,
        p: Any,  # noqa: ANN401
        place: Sequence[int],
        values: dict[str, Tensor],
    ) -> dist.TorchDistribution:
        """The likelihood of a block, with the parameters of the covariates in it."""
        own = [j for j, at in enumerate(self.places) if at in place]
        if not own:
            return p
        base: Any = innermost(p)
        names = ("loc", "scale") if isinstance(base, dist.Normal) else ("logits",)
        first = 0 if "loc" in names else self.prior[0].numbers
        parameters = {}
        for name in names:
            value = getattr(base, name).clone()
            for j in own:
                value[..., place.index(self.places[j])] = values[name][..., j - first]
            parameters[name] = value
        return type(base)(**parameters).to_event(1)


def _none(h: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters of no numbers."""
    return h.new_zeros(*h.shape[:-1], 0), h.new_ones(*h.shape[:-1], 0)
