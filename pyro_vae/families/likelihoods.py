"""What p(x|z) needs beyond its family: missing cells, and the check that x lies in the support."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ..distributions import (
    FittedNormal,
    Joined,
    JoinedSupport,
    LogNormal,
    Multinomial,
    ZeroInflatedDistribution,
    support_of_cell,
)
from .support import describe_constraint, extremes, innermost, support_bounds, support_of

__all__ = [
    "check_cells",
    "check_support",
    "drop_missing",
    "fill",
    "has_independent_cells",
    "parts_of",
    "scaled",
    "weigh",
    "with_offset",
]

OFFSETS = (dist.Poisson, dist.NegativeBinomial, dist.GammaPoisson, dist.Exponential, dist.LogNormal)
OFFSETS += (Multinomial,)
ROWS = 8192  # observations whose support is checked together

BIT = ("boolean", -math.inf, math.inf)  # the bounds of bits

LEVELS = (
    "give 8-bit images as they are, or (x * 255).round() of grey values in [0, 1]; levels= says "
    "another number of levels"
)
COUNTS = ("Poisson", "NegativeBinomial", "GammaPoisson")
COUNTS += tuple(f"ZeroInflated{name}" for name in COUNTS[:2])
ADVICE = {
    "Bernoulli": "binarize it (dynamic binarization draws fresh bits from grey values), "
    "or use ContinuousBernoulli; of 8-bit images DiscretizedLogistic, of counts Poisson, of codes "
    "Categorical, of other numbers Normal",
    "ContinuousBernoulli": "divide by the largest, or use DiscretizedLogistic of 8-bit images; of "
    "numbers of either sign Normal",
    "Beta": "shrink the ends, x -> (x * (n - 1) + 0.5) / n, or use ContinuousBernoulli",
    "DiscretizedLogistic": LEVELS,
    "Dequantized": LEVELS,
    "Categorical": "code the categories as 0, 1, ..., categories - 1",
    **dict.fromkeys(
        COUNTS,
        "give raw counts (of an AnnData Counts.of(adata, layer='counts')), or choose a likelihood "
        "with this support",
    ),
    **dict.fromkeys(
        ("VonMises", "SineBivariateVonMises"),
        "give angles in radians, (x + pi) % (2 pi) - pi; degrees by numpy.deg2rad(x) first",
    ),
    **dict.fromkeys(
        ("Binomial", "BetaBinomial"),
        "say of how many trials it counts, total_count=100, or choose Poisson",
    ),
    "Multinomial": "give rows of one total; without total_count= rows have totals of their own",
}


def parts_of(likelihood: dist.TorchDistribution) -> list[dist.TorchDistribution]:
    """The likelihoods of the blocks, where they have their own; else the one that there is."""
    return likelihood.parts if isinstance(likelihood, Joined) else [likelihood]


def has_independent_cells(likelihood: dist.TorchDistribution) -> bool:
    """Whether cells are independent given z, so that some may be missing."""
    return not any(innermost(part).event_dim for part in parts_of(likelihood))


def check_cells(
    likelihood: dist.TorchDistribution, columns: Sequence[str] | None, levels: Mapping[int, int]
) -> None:
    """Raise for the first cell that cannot be missing, or of which a draw could be no code.

    Args:
        likelihood: p(x|z) at some z.
        columns: their names, where they have names.
        levels: how many levels some cells have, whose codes count from 0.
    """
    parts = parts_of(likelihood)
    layout = likelihood.layout.places if isinstance(likelihood, Joined) else [range(10**9)]
    for part, places in zip(parts, layout, strict=True):
        whose = f"column {columns[places[0]]!r}: " if columns else ""
        if innermost(part).event_dim:
            raise ValueError(
                f"{whose}missing cells need a likelihood of independent cells, as Normal, Gamma "
                "and Categorical are"
            )
        coded = [place for place in levels if place in places]
        if coded and (found := support_of(part)) is not None:
            most = levels[coded[0]] - 1
            if support_bounds(found) not in (("discrete", 0, most), BIT if most == 1 else ()):
                raise ValueError(
                    f"{whose}{type(innermost(part)).__name__} has other values than the codes of "
                    f"its {most + 1} levels: Categorical, OrderedLogistic and Bernoulli have these"
                )


def drop_missing(likelihood: dist.TorchDistribution, mask: Tensor) -> dist.TorchDistribution:
    """The likelihood of the cells that are there: the others drop out of log p(x|z).

    Args:
        likelihood: batch shape ``(..., B)``, independent cells.
        mask: ``(B, *x_shape)``, true where the cell was observed.
    """
    if isinstance(likelihood, Joined):
        return likelihood.map(drop_missing, mask)
    return innermost(likelihood).mask(mask).to_event(likelihood.event_dim)


def weigh(likelihood: dist.TorchDistribution, weight: Tensor | None) -> None:
    """Let a scale that is fitted to a batch count each row by its weight, ``(B,)``."""
    if weight is None:
        return
    for part in parts_of(likelihood):
        base: Any = innermost(part)
        if isinstance(base, FittedNormal):
            base.weight = weight.reshape(-1, *[1] * likelihood.event_dim)
        elif hasattr(base, "row_weight"):
            base.row_weight = weight


def fill(x: Tensor, mask: Tensor, support: constraints.Constraint) -> Tensor:
    """x with a value of the support in its missing cells, so that no NaN reaches a gradient."""
    if not isinstance(support, JoinedSupport):
        return torch.where(mask, x, _member(support))
    # One number a column, put in order once, where the cells of all rows would be.
    members = zip(support.supports, support.layout.widths, strict=True)
    each = [x.new_zeros(width) + _member(part) for part, width in members]
    return torch.where(mask, x, support.layout.join(each))


def _member(support: constraints.Constraint) -> Tensor | float:
    """A value of the support; where its ends are parameters, one for each cell."""
    cell = support_of_cell(support)
    if (member := getattr(cell, "member", None)) is not None:
        return member
    if isinstance(lower := getattr(cell, "lower_bound", None), Tensor):
        upper = getattr(cell, "upper_bound", math.inf) + torch.zeros_like(lower)
        if _is_of_mixture(support):  # whose components hold it all
            lower, upper = lower.amax(-1), upper.amin(-1)
        return torch.where(upper.isfinite(), (lower + upper) / 2, lower + 1).detach()
    kind, lower, upper = support_bounds(support)
    if math.isfinite(lower) and math.isfinite(upper) and kind == "continuous":
        return (lower + upper) / 2
    if math.isfinite(lower):
        return lower + (kind == "continuous")
    return 0.0


def _is_of_mixture(support: constraints.Constraint) -> bool:
    while (inner := getattr(support, "base_constraint", None)) is not None:
        if isinstance(support, constraints.MixtureSameFamilyConstraint):
            return True
        support = inner
    return False


def with_offset(likelihood: dist.TorchDistribution, offset: Tensor) -> dist.TorchDistribution:
    r"""The likelihood with its mean multiplied by :math:`e^{offset}`, as an exposure does.

    Of several blocks it is that of the counts, and the others stay as they are.

    Args:
        likelihood: of batch shape ``(..., B)``; of independent ``Poisson``, ``NegativeBinomial``,
            ``GammaPoisson``, ``Exponential`` or ``LogNormal`` cells, or zero-inflated counts.
        offset: ``(B, *x_shape)``, or ``(B, 1, ...)``; on the scale of the logarithm. It multiplies
            the total of ``Multinomial`` rows.

    Raises:
        ValueError: another family.
    """
    if isinstance(likelihood, Joined) and any(_exposed(likelihood)):
        lead = offset.shape[: -len(likelihood.event_shape)]
        offsets = offset.expand(*lead, *likelihood.event_shape)
        return likelihood.map(lambda p, o: with_offset(p, o) if _has_counts(p) else p, offsets)
    base: Any = innermost(likelihood)
    return _shifted(base, offset).to_event(likelihood.event_dim - base.event_dim)


def _exposed(likelihood: dist.TorchDistribution) -> list[bool]:
    """Of each block, whether an offset multiplies its mean: of several, those of counts alone."""
    if isinstance(likelihood, Joined):
        return [_has_counts(part) for part in likelihood.parts]
    return [_takes_offset(likelihood)]


def scaled(likelihood: dist.TorchDistribution) -> list[bool]:
    """Of each block, whether an offset is in its parameters: not of shares, which have a total."""
    pairs = zip(parts_of(likelihood), _exposed(likelihood), strict=True)
    return [takes and not isinstance(innermost(part), Multinomial) for part, takes in pairs]


def _has_counts(likelihood: dist.TorchDistribution) -> bool:
    support: Any = likelihood.support
    free = support.is_discrete and support_bounds(support)[1:] == (0.0, math.inf)
    return free or (_takes_offset(likelihood) and bool(support.is_discrete))


def _takes_offset(likelihood: dist.TorchDistribution) -> bool:
    base: Any = innermost(likelihood)
    own = base.base_dist if isinstance(base, dist.ZeroInflatedDistribution) else base
    return isinstance(own, OFFSETS)


def _shifted(base: Any, offset: Tensor) -> dist.TorchDistribution:  # noqa: ANN401
    """A family of single cells with its mean multiplied."""
    match base:
        case dist.ZeroInflatedDistribution() if isinstance(base.base_dist, OFFSETS):
            name = "gate_logits" if "gate_logits" in vars(base) else "gate"
            own = _shifted(base.base_dist, offset)
            shifted = ZeroInflatedDistribution(own, **{name: getattr(base, name)})
        case dist.Poisson():
            shifted = dist.Poisson(base.rate * offset.exp())
        case dist.NegativeBinomial():
            shifted = dist.NegativeBinomial(base.total_count, logits=base.logits + offset)
        case dist.GammaPoisson():
            shifted = dist.GammaPoisson(base.concentration, base.rate * (-offset).exp())
        case dist.Exponential():
            shifted = dist.Exponential(base.rate * (-offset).exp())
        case dist.LogNormal():
            shifted = LogNormal(base.loc + offset, base.scale)
        case Multinomial():
            total = base.total_count * offset[..., 0].double().exp()
            shifted = base.with_total(total.round().to(offset))
        case _:
            own = "a table without counts" if isinstance(base, Joined) else type(base).__name__
            raise ValueError(
                f"{own} takes no offset, which multiplies a mean: use Poisson, "
                "NegativeBinomial, GammaPoisson, Exponential or LogNormal, or a context block"
            )
    return shifted


def check_support(
    x: Tensor,
    likelihoods: Sequence[dist.TorchDistribution],
    name: str,
    place: Callable[..., str],
) -> None:
    """Raise unless x lies in the likelihood's support, where its density is finite.

    Where the support depends on z, that of an observation's own z is not known yet, and only
    numbers that are not finite are refused.

    Args:
        x: ``(N, *x_shape)``; NaN cells are skipped.
        likelihoods: p(x|z) at some draws of z, each of batch shape ``(1,)``.
        name: the family's name, for the message.
        place: from a row and the index of a cell to words that say where it is.
    """
    base: Any = innermost(likelihoods[0])
    ends = [_ends(innermost(p).support) for p in likelihoods]
    moves = any(end != ends[0] for end in ends)
    support: Any = constraints.real if moves else _of_cells(base.support)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        inside = support.check(rows)
        inside = inside & rows.isfinite() if moves else inside
        if inside.all():
            continue
        bad = ~inside & ~rows.isnan().reshape(*inside.shape, -1).all(-1)
        if bad.any():
            row, *cell = bad.nonzero()[0].tolist()
            value = rows[(row, *cell)]
            _refuse(value, f"needs {_needs(base, support, value)}", name, place(start + row, *cell))
    if base.event_dim == 0 and not moves:
        bounds = support_bounds(base.support)[1:]
        for edge in extremes(x):
            cells = edge.expand(likelihoods[0].event_shape)
            cells = fill(cells, support.check(cells), support)  # not every cell may reach it
            # Between the bounds a density is but small, as where units are not learned yet.
            if edge.item() in bounds and not base.log_prob(cells).isfinite().all():
                at = place(*(x == edge).nonzero()[0].tolist())
                _refuse(edge, "has no finite density there", name, at)


def _ends(support: Any) -> list[list[float]]:  # noqa: ANN401
    """The bounds of a support, of every cell."""
    support = support_of_cell(support)
    bounds = (getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound"))
    return [torch.as_tensor(bound).flatten().tolist() for bound in bounds]


def _of_cells(support: constraints.Constraint) -> constraints.Constraint:
    """A support that asks the same of every cell as that of one, so that a cell is told."""
    return support.base_constraint if isinstance(support, constraints.independent) else support


def _needs(base: Any, support: constraints.Constraint, value: Tensor) -> str:  # noqa: ANN401
    """What a support asks for, in words."""
    if isinstance(base, Multinomial) and isinstance(base.total_count, int):
        total, sums = base.total_count, f"and these sum to {value.sum().item():g}"
        return f"whole numbers of at least 0 that sum to {total}, {sums}"
    return describe_constraint(support)


def _refuse(cell: Tensor, why: str, name: str, place: str) -> None:
    text = ", ".join(f"{v:.3g}" for v in cell.flatten().tolist())
    text = text if cell.ndim == 0 else f"[{text}]"
    advice = ADVICE.get(name, "choose a likelihood with this support, or transform x")
    if name == "Multinomial" and cell.ndim == 0:
        advice = "give raw counts"
    raise ValueError(f"x holds {text}; {name} {why}: {advice} (first in {place})")
