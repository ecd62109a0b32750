"""Parts of a model whose observations are subjects: each is a series of visits.

Features of visits come with what the prior reads beside them in their last columns: its design,
then 1 where there is a visit, then (for a guide) 1 where a cell of the visit is seen.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import Joined, Trajectories
from ..language.spec import Spec, as_spec
from .networks import batched, spec_of
from .part import Ends, Line, Part, Role, looks_at_joint, start_from
from .support import innermost

__all__ = [
    "Conjugate",
    "MeanField",
    "VisitLikelihood",
    "VisitNetwork",
    "VisitPart",
    "check_visit_ends",
    "visit_features",
]


class VisitPart(Part):
    """A prior or guide of trajectories over the visits of a subject.

    Attributes:
        by: of a prior, the column that says whose visit a row is; ``None`` where it has none.
        formulas: of a prior, what it reads of each visit: by name a formula, or ``None``.
        constants: those of ``formulas`` before whose columns there is a constant one.
        visits: the most visits of a subject; those of the table by default.
        columns: what the formulas came to, by name, once a table was read.
    """

    by: str | None = None
    formulas: Mapping[str, str | None]
    constants: frozenset[str] = frozenset()
    visits: int | None = None
    columns: Mapping[str, tuple[str, ...]]

    @property
    def width(self) -> int:
        """How many columns of the design there are."""
        return sum(map(len, self.columns.values()))

    @property
    def still(self) -> int:
        """How many of a guide's last features are data: the design, and which visits there are."""
        return self.width + 2


class Conjugate(VisitPart):
    r"""The prior of a subject's visits times one normal factor for each visit that is seen.

    .. math:: q(z \mid x) \propto p(z) \prod_t N(z_t; \mu(x_t), \sigma(x_t))

    z of a visit borrows from the other visits as the prior says, and a visit that is missing costs
    nothing. With a linear decoder, one latent dimension and a normal likelihood it is exact.

    Args:
        factor: a line of ``Normal``, whose parameters come from the encoder.

    References:
        Johnson et al. (2016), arXiv:1603.06277; Pearce (2020), arXiv:1910.07515.
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"guide"})

    def __init__(self, factor: str | Spec = "Normal") -> None:
        super().__init__()
        self.line = as_spec(factor)
        if self.line.name != "Normal":
            raise ValueError(f"the factors of Conjugate are Normal, got {self.line.name}")
        self.spec = Spec("Conjugate", self.line)
        self.prior: list[nn.Module] = []  # not a part of this one

    def build(self, ends: Ends) -> None:
        """Make the factor of a visit."""
        check_visit_ends(ends, "Conjugate", getattr(self, "columns", None))
        self.factor = _of_a_visit(self, self.line, ends)

    def connect(self, ends: Ends) -> None:
        """Take the prior."""
        self.prior = [ends.partner] if ends.partner is not None else []

    def forward(self, features: Tensor | None = None) -> Trajectories:
        """The trajectories, of batch shape ``(B,)``."""
        h, beside = _split(visit_features(features), self.still)
        seen = beside[..., -1:]
        factor: Any = innermost(self.factor(h))
        if self.prior:
            p = self.prior[0](beside)
        else:  # before it is connected
            p = Trajectories(0 * factor.loc.mT, torch.diag_embed(torch.ones_like(factor.loc.mT)))
        return p.times(factor.loc, seen / factor.scale.square())


class MeanField(VisitPart):
    """A normal distribution for each visit, given its own cells alone."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line, self.spec = line, spec_of(line)

    def build(self, ends: Ends) -> None:
        """Make the guide of a visit."""
        self.part = _of_a_visit(self, self.line, ends)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """All visits, of batch shape ``(B,)``; those that only fill up the shape are N(0, 1)."""
        h, beside = _split(visit_features(features), self.still)
        q: Any = innermost(self.part(h))
        if not isinstance(q, dist.Normal):
            raise ValueError(
                f"the guide of visits is 'Conjugate' or 'Normal', got {type(q).__name__}: these "
                "are what visits that are not there can be taken out of"
            )
        there = beside[..., -2:-1] > 0
        return dist.Normal(
            torch.where(there, q.loc, 0.0), torch.where(there, q.scale, 1.0)
        ).to_event(2)


class VisitLikelihood(Part):
    """The likelihood of a visit, at each of them.

    Args:
        line: of a visit.
    """

    in_units = True

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line, self.spec = line, spec_of(line)

    def build(self, ends: Ends) -> None:
        """Make the likelihood of a visit."""
        shape, features = ends.shape[1:], (ends.feature_shape or ())[1:]
        self.part = ends.make(self.line, shape=shape, feature_shape=features, whole=True)

    def start_from(self, x: Tensor) -> None:
        """Start from the visits of training data, ``(N, T, D)``."""
        start_from(self.part, x.flatten(0, 1))

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """Of features ``(..., T, H)``, the cells ``(T, D)``, of batch shape ``(...)``."""
        p = self.part(features)
        return p.map(lambda one: one.to_event(1)) if isinstance(p, Joined) else p.to_event(1)


class VisitNetwork(nn.Module):
    """A network at each visit, or of one observation; what the prior reads goes past it.

    Args:
        network: of a visit.
        beside: columns, the last ones, that it does not read.
    """

    def __init__(self, network: nn.Module, beside: int = 0) -> None:
        super().__init__()
        self.network, self.beside = network, beside
        self.spec = getattr(network, "spec", None)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Build the network for the numbers of a visit."""
        if (build := getattr(self.network, "build", None)) is not None:
            build((in_shape[-1] - self.beside,), out_shape[-1:])  # pyrefly: ignore[not-callable]

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to features ``(..., H)``."""
        own, beside = _split(x, self.beside)
        h = batched(self.network, own, 1).flatten(x.ndim - 1)
        return torch.cat([h, beside], -1) if self.beside else h


def _split(x: Tensor, beside: int) -> tuple[Tensor, Tensor]:
    n = x.shape[-1] - beside
    return x[..., :n], x[..., n:]


def visit_features(features: Tensor | None) -> Tensor:
    """Features of visits, without which their part is none."""
    if features is None:
        raise ValueError("the visits of a subject are needed: give the rows, given=frame")
    return features


def _of_a_visit(part: VisitPart, line: Line, ends: Ends) -> nn.Module:
    """The guide of one visit."""
    width = (ends.feature_shape or (0,))[-1] - part.width - 2
    made = ends.make(line, shape=ends.shape[1:], feature_shape=(width,))
    if looks_at_joint(made):
        raise ValueError("a guide that takes steps of its own is not of visits: use 'Conjugate'")
    return made


def check_visit_ends(ends: Ends, name: str, columns: object) -> None:
    """Raise where a part of visits is not of a model of visits, or not all of its role."""
    if columns is None or ends.feature_shape is None or not ends.whole:
        what = "whole prior" if ends.role == "prior" else "whole guide"
        raise ValueError(
            f"{name} is the {what} of a table's visits, beside a prior such as "
            "LinearMixed('time + (1 + time | subject)'): VAE(Table.from_frame(df), 2, prior=...)"
        )
