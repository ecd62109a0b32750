"""Which counts differ between two groups of observations, given what the model knows of them."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import fraction, whole
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.pieces import pieces
from ...model.sequences import Sequences
from ...model.vae import VAE
from ...model.visits import VisitsRecord
from ..statistics import check_equal
from .rates import column_names, rate_of, unexposed

__all__ = ["differential_expression"]

NUMBERS = 2**22  # decoded at once
SMALLEST = 0.5  # counts that are added to what a group has of a column


@of_model
@torch.no_grad()
def differential_expression(
    vae: VAE,
    x: Tensor | ArrayLike,
    group_a: ArrayLike | Sequence[int],
    group_b: ArrayLike | Sequence[int],
    *,
    draws: int = 200,
    level: float = 0.95,
    seed: int | None = None,
) -> pd.DataFrame:
    r"""Log fold changes between two groups of rows, with intervals, from draws of z.

    .. math:: \Delta_g = \log_2 s_{ag} \bar\rho_{ag} - \log_2 s_{bg} \bar\rho_{bg}, \quad
        \bar\rho_{ag} = \frac{1}{|A|} \sum_{i \in A} w_i \rho_g(z_i, c), \quad z_i \sim q(z|x_i)

    Rates are those of :func:`rates`, with weights by which each condition is as common in the group
    as in both, so that a batch that is common in one group alone makes no difference. Where each
    condition is in both groups, c is the row's own; elsewhere conditions are those of all their
    rows, dealt anew to the rows at each draw. The factor :math:`s_{ag}` is what the counts of the
    group say against the decoder, :math:`s_{ag} = \sum_i w_i x_{ig} / \sum_i w_i E[x_{ig} | z_i]`;
    its posterior under Jeffreys' prior is a gamma distribution, wider where p(x|z) is
    overdispersed. Without it the intervals would hold what is not known of z, and not what is not
    known of the decoder. They are of the mean over these rows, not over a population of others.
    Counts that are missing are in no sum. Conditions that no two rows share, as of a covariate of
    many values, are not weighted, so that a decoder which takes the groups' difference for theirs
    is set right in part.

    Args:
        vae: a trained model of counts, with ``offset="library"`` or another exposure.
        x: counts, with what stands beside them.
        group_a: the rows of one group: N truth values, or their numbers.
        group_b: those of the other.
        draws: of z for each row.
        level: of the intervals.
        seed: of the draws.

    Returns:
        A frame by column: ``log2_fold_change`` (its median over draws), ``low`` and ``high``, the
        ``probability`` that it is positive, and the mean rates ``rate_a`` and ``rate_b``; the
        surest first.

    Raises:
        ValueError: a group without rows, or without a count of a column, groups that share some,
            or observations that are sequences or visits.

    Warns:
        UserWarning: no condition is in both groups, as where each is a batch of its own.

    References:
        Lopez et al. (2018), Nature Methods 15; Boyeau et al. (2019), bioRxiv 794289, for log fold
        changes from draws of z; Angelopoulos et al. (2023), arXiv:2301.09633, for predictions
        that are set right by their residuals.

    >>> vae = VAE(3, latent_dim=1, likelihood="Poisson", offset="library", seed=0)
    >>> x = torch.tensor([[5.0, 1, 1], [6, 2, 1], [1, 5, 2], [2, 6, 1]])
    >>> table = differential_expression(vae, x, [0, 1], [2, 3], draws=20, seed=0)
    >>> bool(table.loc[0, "log2_fold_change"] > 0 > table.loc[1, "log2_fold_change"])
    True
    """
    draws, level = whole("draws", draws, 2), fraction("level", level)
    if isinstance(vae.record, Sequences | VisitsRecord):
        raise ValueError(
            "differential_expression compares the columns of rows, and an observation here is a "
            "sequence or the visits of a subject: take a model of rows"
        )
    with reading(vae, seed):
        rows = list(pieces(vae, x, 1024))
        n = sum(map(len, rows))
        check_equal([vae.weights_of(some) for some in rows], "differential_expression")
        members = _two_groups(n, group_a, group_b)
        context = _contexts(vae, rows, torch.cat(members))
        try:
            balanced = [torch.ones(len(own)) for own in members]
            if context is not None:
                kinds = context.unique(dim=0, return_inverse=True)[1]
                context = context[kinds.argsort()]
                balanced, shared = _balanced(kinds.cpu().split([len(own) for own in members]))
                context = None if shared else context
            pairs = zip(members, balanced, strict=True)
            groups = [_group(vae, _chosen(rows, own), context, draws, w) for own, w in pairs]
        except NotImplementedError:  # of a distribution without a mean
            raise ValueError(
                "fold changes are of mean rates, and this likelihood has no mean in closed form: "
                "choose one of counts, such as NegativeBinomial"
            ) from None
        for group, name in zip(groups, "ab", strict=True):
            _check_group(vae, group, name)
        a, b = (group.draw() for group in groups)
    change = (a.log2() - b.log2()).cpu().numpy()
    tail = (1 - level) / 2
    low, middle, high = np.quantile(change, [tail, 0.5, 1 - tail], axis=0)
    positive = (change > 0).mean(0)
    columns = {
        "log2_fold_change": middle,
        "low": low,
        "high": high,
        "probability": positive,
        "rate_a": a.mean(0).cpu().numpy(),
        "rate_b": b.mean(0).cpu().numpy(),
    }
    table = pd.DataFrame(columns, index=column_names(vae))
    sure = np.abs(middle) / np.maximum(high - low, 1e-12)
    return table.iloc[np.argsort(-sure, kind="stable")]


@dataclass(frozen=True)
class Group:
    """Sums over the rows of a group.

    Args:
        rate: mean rates by draw, ``(S, D)``.
        mean: of the counts, the sum of E[x|z] by draw.
        poisson: what their sum's variance would be if each had its mean for its variance.
        excess: how much greater it is; by the square of the means, where that is by these.
        counts: the counts themselves, ``(D,)``.
        seen: whether some count of a column is there, ``(D,)``.
    """

    rate: Tensor
    mean: Tensor
    poisson: Tensor
    excess: Tensor
    counts: Tensor
    seen: Tensor

    def draw(self) -> Tensor:
        """Draws of the group's mean rates, ``(S, D)``, set right by its residuals."""
        counts = self.counts + SMALLEST
        spread = ((self.poisson + counts / self.mean * self.excess) / self.mean).clamp(min=1e-6)
        shape = counts / spread
        factor = torch.distributions.Gamma(shape, self.mean / spread).sample()
        return self.rate * factor


def _check_group(vae: VAE, group: Group, name: str) -> None:
    """Raise for rates that have no logarithm, or a column without a count."""
    if not (group.rate > 0).all():
        raise ValueError(
            "fold changes are of rates greater than 0, and this likelihood has others: choose one "
            "of counts, such as NegativeBinomial"
        )
    if (never := ~group.seen).any():
        column = column_names(vae)[int(never.nonzero()[0])]
        raise ValueError(
            f"group_{name} has no count of column {column!r}, which is missing in all its rows: "
            "leave the column out, or give the group a row that has it"
        )


def _balanced(kinds: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """How often each row counts, so that conditions are as common in each group as in both.

    Args:
        kinds: the number of the condition of each row, by group.

    Returns:
        These, and whether each condition is in both groups.
    """
    both, found = torch.cat([*kinds]).bincount().double(), []
    each = [own.bincount(minlength=len(both)) for own in kinds]
    if len(both) < both.sum() / 2 and not (each[0] * each[1]).any():
        warnings.warn(
            "no condition is in both groups, so the decoder alone tells what it does from what the "
            "groups do: compare groups within a batch, or within all",
            stacklevel=5,
        )
    for own, n in zip(kinds, each, strict=True):
        weights = (both / n)[own]
        found.append(weights / weights.mean())
    return found, bool((each[0] * each[1] > 0).all())


def _group(
    vae: VAE, rows: Iterator[Tensor], context: Tensor | None, draws: int, weights: Tensor
) -> Group:
    """Decode the rows of a group at draws of z, a few at a time."""
    n, width = 0, math.prod(vae.x_shape)
    sums = torch.zeros(4, draws, width, dtype=torch.float64, device=vae.example.device)
    counts, cells = sums[0, 0].clone(), sums[0, 0].clone()
    for some in rows:
        n, joint = n + len(some), Joint(vae, some)
        own_cells = vae.record.cells(some).double().flatten(1)
        own_weights = weights[n - len(some) : n, None].to(own_cells)
        seen = (~own_cells.isnan()).double() * own_weights
        counts, cells = counts + (own_weights * own_cells).nansum(0), cells + seen.sum(0)
        step = max(1, NUMBERS // (width * len(some)))
        for start in range(0, draws, step):
            z, place = joint.draw(min(step, draws - start)), start
            for own in z.split(len(z) if context is None else 1):  # or under conditions of its own
                p, places = vae.decode(own, some), slice(place, place + len(own))
                other = vae.decode(own, unexposed(vae, _under(vae, some, context)))
                sums[0, places] += (rate_of(other).double().flatten(2) * own_weights).sum(1)
                mean, variance = p.mean.flatten(2) * seen, p.variance.flatten(2) * seen
                sums[1, places] += mean.sum(1)
                sums[2, places] += (mean * own_weights).sum(1)
                sums[3, places] += ((variance - mean) * own_weights).sum(1)
                place += len(own)
    mean, poisson, excess = sums[1:]
    return Group(sums[0] / n, mean, poisson, excess, counts, cells > 0)


def _under(vae: VAE, x: Tensor, context: Tensor | None) -> Tensor:
    """Rows under conditions that are drawn from some, in which equal ones stand together."""
    if context is None:
        return x
    x, start = x.clone(), 0
    at = (torch.arange(len(x)) + torch.rand(())) * (len(context) / len(x))  # each by its share
    drawn = context[at.long().clamp(max=len(context) - 1)[torch.randperm(len(x))].to(x.device)]
    for block in vae.record.blocks:
        if block.role == "context":
            part = vae.record.unpack(x)[block.name]
            part.copy_(drawn[:, start : start + block.width].reshape(part.shape))
            start += block.width
    return x


def _contexts(vae: VAE, rows: Sequence[Tensor], members: Tensor) -> Tensor | None:
    """The conditions of some rows, ``(M, C)``."""
    parts: list[Any] = [vae.record.part(some, "context") for some in rows]
    return None if parts[0] is None else torch.cat(parts)[members.to(parts[0].device)]


def _chosen(rows: Sequence[Tensor], members: Tensor) -> Iterator[Tensor]:
    """Rows by their numbers, from pieces of all."""
    start = 0
    for some in rows:
        own = members[(members >= start) & (members < start + len(some))] - start
        if len(own):
            yield some[own.to(some.device)]
        start += len(some)


def _two_groups(n: int, a: object, b: object) -> list[Tensor]:
    """The numbers of the rows of two groups that share none."""
    members = [_members(n, group, name) for group, name in ((a, "a"), (b, "b"))]
    if shared := set(members[0].tolist()) & set(members[1].tolist()):
        raise ValueError(f"both groups have row {min(shared)}: give each row to one of them")
    return members


def _members(n: int, group: object, name: str) -> Tensor:
    """The numbers of the rows of a group.

    Raises:
        ValueError: none, or rows that are not there.
    """
    rows = np.asarray(group)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise ValueError(f"group_{name} has {len(rows)} truth values, and x {n} rows")
        rows = np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        kind = f"{rows.dtype} of shape {rows.shape}"
        raise ValueError(f"group_{name} is N truth values, labels == 'T', or rows, got {kind}")
    if not len(rows):
        raise ValueError(f"group_{name} has no rows")
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(f"group_{name} has rows {rows.min()} to {rows.max()}, and x has {n}")
    return torch.from_numpy(np.unique(rows))
