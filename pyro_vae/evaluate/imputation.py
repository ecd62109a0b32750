"""Whether imputations may be believed: cells are hidden, and filled from the model."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import fraction, whole
from ..distributions import RightCensored
from ..families.support import innermost
from ..model.columns import by_cell, by_column, names_of
from ..model.entry import of_model
from ..model.imputation import ANGLES
from ..model.joint import reading
from ..model.record import Record
from ..model.sequence_forms import lengths_of
from ..model.sequences import Sequences
from ..model.vae import VAE
from ..model.visits import VisitsRecord
from .scores import (
    brier,
    commonness,
    crps,
    crps_of_angles,
    interval_width,
    pit,
    set_size,
    turned,
)
from .statistics import UNIFORMITY, smallest_p, uniformity

__all__ = ["ImputationCheck", "imputation_check"]

LEVELS = (0.5, 0.9)  # of the intervals
LEVEL = 0.01  # of the tests that the verdict rests on, all columns together
MANY = 0.05  # share of rows with doubtful draws, above which they are spoken of
CELLS = 2**24  # numbers of draws at once
MARGIN = 500  # values of a column that stand for its margin
LEAST = 10  # hidden cells of a column
NAMED = 3  # columns that the verdict names
KINDS = ("numbers", "levels", "angles")
Kind: TypeAlias = Literal["numbers", "levels", "angles"]
Drawn: TypeAlias = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
ERRORS = 2  # standard errors of a difference that the verdict speaks of


@dataclass(frozen=True)
class ImputationCheck:
    """Cells that were hidden at random, beside their distributions given the other cells.

    Attributes:
        table: a row a column of x. ``cells`` that were hidden; ``score``, CRPS in the column's
            units or Brier of categories, ``value`` its mean; ``skill``, one minus its ratio to the
            score of the column's own margin: 0 where the other cells of a row say nothing;
            ``coverage_50`` and ``width_50`` of central intervals (of categories the most probable
            levels, and their number; of angles about their direction), and the same of 90 %; a
            standard error of each over the
            cells; ``p_value``, ``bias_z`` and ``spread_z`` of the PIT, as of ranks in
            :func:`~pyro_vae.calibration`.
        cells: a row a hidden cell: ``row`` and ``column``, its ``value`` in the numbers of
            ``Table.values``, ``imputed``, one draw of it, its ``pit`` and its ``score``.
        doubtful: how many rows had too few effective draws of z, or too uneven ones.
    """

    table: pd.DataFrame
    cells: pd.DataFrame
    doubtful: int

    @property
    def summary(self) -> pd.DataFrame:
        """The figures by column in words: ``value (standard error)``."""
        rows = {}
        for name, row in self.table.iterrows():
            shown = {"cells": f"{row['cells']:d}", "score": f"{row['score']} {_with_error(row)}"}
            shown["skill"] = _with_error(row, "skill")
            for level in LEVELS:
                percent = round(100 * level)
                share, width = f"coverage_{percent}", f"width_{percent}"
                shown[f"{percent} % cover"] = _with_error(100 * row, share)
                shown[f"width of {percent} %"] = _with_error(row, width)
            rows[name] = shown
        return pd.DataFrame(rows).T.rename_axis("column")

    @property
    def verdict(self) -> str:
        """Whether hidden cells are as the model says, and which columns are not, in words."""
        names, p = self.table.index, smallest_p(self.table)
        levels = self.table.index[self.table["score"].to_numpy() == "Brier"]
        nominal = self.cells["column"].isin(levels).to_numpy()
        hit = _inside(self.cells["pit"].to_numpy(), LEVELS[-1], nominal)
        cells = self.cells.assign(hit=hit)
        hits, sizes = (cells.groupby("row")["hit"].agg(how).to_numpy() for how in ("sum", "size"))
        share = hits.sum() / sizes.sum()
        error = math.sqrt(((hits - share * sizes) ** 2).sum()) / sizes.sum()
        text = (
            f"Of {len(cells)} hidden cells {share:.1%} lie in their intervals of "
            f"{LEVELS[-1]:.0%} (standard error {error:.1%})."
        )
        wrong = [i for i in np.argsort(p) if p[i] <= LEVEL]
        if not wrong:
            text += f" No column of {len(p)} is seen to depart from calibration (p > {LEVEL})."
        else:
            words = [f"{names[i]} ({_how(self.table.iloc[i])})" for i in wrong[:NAMED]]
            more = " ..." if len(wrong) > NAMED else ""
            text += (
                f" {len(wrong)} of {len(p)} columns are not calibrated: {', '.join(words)}{more}."
            )
        skill = self.table[["skill", "skill_error"]].to_numpy(float)
        if useless := int((skill[:, 0] < ERRORS * skill[:, 1]).sum()):
            text += (
                f" In {useless} columns nothing shows that the other cells of a row help to "
                "predict them."
            )
        if self.doubtful > MANY * len(hits):
            text += f" Of {self.doubtful} rows the draws are doubtful: raise num_samples."
        return text

    def __repr__(self) -> str:
        return f"{self.summary.to_string()}\n{self.verdict}"


@of_model
@torch.no_grad()
def imputation_check(
    vae: VAE,
    x: Tensor | ArrayLike,
    *,
    share: float = 0.2,
    repeats: int = 1,
    draws: int = 199,
    num_samples: int = 1000,
    seed: int | None = 0,
) -> ImputationCheck:
    r"""Hide cells at random, and compare them with their draws given the cells that are left.

    Of each column the same share is hidden at once, so that a row loses several cells. The draws
    are those of ``vae.impute(x, draws=...)``. Where the model is right, the place of a cell among
    its draws (its PIT) is uniform, and intervals cover as often as they say. An imputation from the
    margins is calibrated too: whether it is sharp, the width and the score say. Censored times are
    not hidden: what is drawn is the time until the event, seen or not; nor is the last step of a
    sequence, without which it is shorter. Of rows with weights the cells are hidden in some alone,
    each taken with a probability in proportion to its weight. Of a subject's visits one cell of a
    column is hidden at most, so that a column has the independent cells of all visits.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``, or a frame, that it was not trained on; cells that are missing stay
            so, and are not counted.
        share: of the known cells of each column, those that are hidden.
        repeats: how often, other cells each time: 5 times a fifth are all cells of a small table.
        draws: S, of each hidden cell; (S + 1) times the levels .25 and .05 should be whole.
        num_samples: K, draws of z for each observation, as for ``vae.impute``.
        seed: of the choice and the draws.

    Returns:
        :class:`ImputationCheck`: ``table``, a row a column, ``cells``, ``verdict``.

    Raises:
        ValueError: fewer than 10 cells to hide in all columns, cells that are not independent given
            z, or a model of which cells are missing.

    References:
        Gneiting, Balabdaoui & Raftery (2007), JRSS B 69, on calibration and sharpness; Gneiting &
        Raftery (2007), JASA 102, on scores.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> imputation_check(vae, torch.randn(60, 2)).table["cells"].tolist()
    [12, 12]
    """
    share, draws = fraction("share", share), whole("draws", draws, 19)
    repeats = whole("repeats", repeats)
    if repeats * share > 1 + 1e-9:
        raise ValueError(
            f"a share of {share:g} can be hidden {int(1 / share)} times, got {repeats}"
        )
    num_samples = whole("num_samples", num_samples, 2)
    if vae.missingness is not None:
        raise ValueError(
            "cells hidden at random are not missing in the way that this model says: compare "
            "vae.impute(x) with the truth of a study, pv.ampute(frame, 'MNAR', share)"
        )
    x = vae.record.take(x, vae.example)
    with reading(vae, seed):
        generator = np.random.default_rng(int(torch.randint(2**62, ())))
        cells, kept = vae.record.cells(x), vae.representative(x)
        offered = cells
        if isinstance(vae.record, Sequences):
            offered = cells.clone()
            offered[torch.arange(len(x)), lengths_of(cells) - 1] = math.nan
        p = vae.decode(vae.prior_at(x[:1]).expand([1]).sample(), x[:1])
        each_kind = by_cell(p, lambda part: KINDS.index(_kind(part))).tolist()
        kinds = dict(zip(names_of(vae.record, len(each_kind)), each_kind, strict=True))
        margins = by_column(vae.record, cells[kept])
        seen = by_cell(p, lambda part: not isinstance(innermost(part), RightCensored))
        seen &= torch.tensor([name in margins for name in kinds])  # bits of holes stay
        hide = _hide_visits if isinstance(vae.record, VisitsRecord) else _hide
        hidden = [
            some & seen.to(some.device).reshape(cells.shape[1:])
            for some in hide(offered, kept, share, repeats, generator)
        ]
        each = [part for some in hidden for part in _draw(vae, x, some, draws, num_samples)]
    drawn_parts, doubtful = zip(*each, strict=True)
    rows, parts = {}, []
    for name, own in _pooled(vae.record, margins).items():
        columns = zip(*(part[cell] for cell in own for part in drawn_parts), strict=True)
        place, truth, drawn = (np.concatenate(column, -1) for column in columns)
        if len(truth) < LEAST:
            continue
        margin = np.concatenate([margins[cell][~np.isnan(margins[cell])] for cell in own])
        rows[name], part = _column(truth, drawn, margin, KINDS[kinds[own[0]]], generator)
        parts.append(part.assign(column=name, row=place))
    if not rows:
        raise ValueError(
            f"no column has {LEAST} cells to hide: give more rows, or a larger share than {share:g}"
        )
    table = pd.DataFrame(rows).T.infer_objects().rename_axis("column")
    order = ["row", "column", "value", "imputed", "pit", "score"]
    cells = pd.concat(parts, ignore_index=True).reindex(columns=order)
    return ImputationCheck(table, cells, sum(doubtful))


def _hide(
    cells: Tensor, kept: Tensor, share: float, repeats: int, generator: np.random.Generator
) -> list[Tensor]:
    """Which cells are hidden: the same share of the known ones of each column, others each time."""
    known = ~cells.isnan().flatten(1) & kept[:, None]
    order = torch.as_tensor(generator.random(known.shape), device=cells.device)
    rank = torch.where(known, order, 2.0).argsort(0).argsort(0)
    ends = [(k * share * known.sum(0)).round() for k in range(repeats + 1)]
    return [((low <= rank) & (rank < high)).reshape(cells.shape) for low, high in pairwise(ends)]


def _hide_visits(
    cells: Tensor, kept: Tensor, share: float, repeats: int, generator: np.random.Generator
) -> list[Tensor]:
    """Which cells ``(N, T, D)`` are hidden: of a subject and column one at a time."""
    known = ~cells.isnan() & kept[:, None, None]
    order = torch.as_tensor(generator.random(known.shape), device=cells.device)
    rank = torch.where(known, order, 2.0).argsort(1).argsort(1)
    chance = share * known.sum(1, keepdim=True).cpu().numpy()
    some = (torch.as_tensor(generator.random(chance.shape) < chance) for _ in range(repeats))
    return [known & (rank == k) & one.to(known.device) for k, one in enumerate(some)]


def _pooled(record: Record, names: Iterable[str]) -> dict[str, list[str]]:
    """The cells of each column: of visits those of all."""
    pooled: dict[str, list[str]] = {}
    for name in names:
        column = name.rpartition("[")[0] if isinstance(record, VisitsRecord) else name
        pooled.setdefault(column, []).append(name)
    return pooled


def _kind(likelihood: dist.TorchDistribution) -> Kind:
    """What its values are: levels have no order."""
    base = innermost(likelihood)
    if isinstance(base, ANGLES):
        return "angles"
    levels = isinstance(base, dist.Categorical | dist.Bernoulli)
    return "levels" if levels and not isinstance(base, dist.OrderedLogistic) else "numbers"


def _draw(
    vae: VAE, x: Tensor, hidden: Tensor, draws: int, num_samples: int
) -> Iterator[tuple[Drawn, int]]:
    """Some rows at a time, and how many are doubtful.

    By column the rows and the values of hidden cells, ``(n,)``, and their draws, ``(S, n)``.
    """
    record = vae.record
    for rows in torch.arange(len(x)).split(max(1, CELLS // (draws * hidden[0].numel()))):
        cells, gone = record.cells(x[rows]), hidden[rows]
        holed = record.with_cells(x[rows], torch.where(gone, math.nan, cells))
        filled = vae.imputations(holed, draws=draws, num_samples=num_samples)
        truth, values = by_column(record, cells), by_column(record, filled.values)
        each = gone.flatten(1).T.cpu().numpy()
        some = dict(zip(names_of(record, len(each)), each, strict=True))
        here = {name: np.flatnonzero(some[name]) for name in truth}
        found = {k: (rows.numpy()[at], truth[k][at], values[k][:, at]) for k, at in here.items()}
        yield found, int(filled.doubtful.sum())


def _column(
    truth: np.ndarray,
    draws: np.ndarray,
    margin: np.ndarray,
    kind: Kind,
    generator: np.random.Generator,
) -> tuple[dict[str, object], pd.DataFrame]:
    """The figures of a column, and its cells."""
    some = margin if len(margin) <= MARGIN else generator.choice(margin, MARGIN, replace=False)
    nominal, angles = kind == "levels", kind == "angles"
    score = {"levels": brier, "angles": crps_of_angles, "numbers": crps}[kind]
    each, plain = score(draws, truth), score(some[:, None], truth)
    if len(margin) <= MARGIN:  # it holds the truth, which is no prediction of itself
        far = some[:, None] - truth
        apart = 2.0 * (far != 0) if nominal else np.abs(turned(far) if angles else far)
        plain = plain + apart.mean(0) / (len(some) - 1)
    ranked, size = (draws, truth), set_size if nominal else interval_width
    if nominal:
        ranked = commonness(draws, truth)
    elif angles:  # about the direction of all of them, of which the truth is one
        centre = np.angle(np.exp(1j * draws).sum(0) + np.exp(1j * truth))
        ranked = turned(draws - centre), turned(truth - centre)
    u = pit(*ranked, generator)
    ratio = each.sum() / plain.sum() if plain.sum() > 0 else math.nan
    figures: dict[str, object] = {"cells": len(truth), "score": "Brier" if nominal else "CRPS"}
    figures |= _mean("value", each)
    figures |= {
        "skill": 1 - ratio,
        "skill_error": math.sqrt(((ratio * plain - each) ** 2).sum()) / plain.sum(),
    }
    for level in LEVELS:
        percent = round(100 * level)
        figures |= _mean(f"coverage_{percent}", _inside(u, level, nominal))
        figures |= _mean(f"width_{percent}", size(draws if nominal else ranked[0], level))
    figures |= dict(zip(UNIFORMITY, uniformity(torch.tensor(u)), strict=True))
    cells = {"value": truth, "imputed": draws[0], "pit": u, "score": each}
    return figures, pd.DataFrame(cells)


def _mean(name: str, values: np.ndarray) -> dict[str, object]:
    error = values.std(ddof=1) / math.sqrt(len(values))
    return {name: values.mean(), f"{name}_error": error}


def _inside(u: np.ndarray, level: float, nominal: "bool | np.ndarray") -> np.ndarray:
    """Whether cells lie in their central interval, or among the most probable levels."""
    return np.where(nominal, u <= level, np.abs(u - 0.5) <= level / 2).astype(float)


def _with_error(row: Any, name: str = "value") -> str:  # noqa: ANN401
    """A figure and its standard error, to the digits that the error leaves."""
    value, error = float(row[name]), float(row[f"{name}_error"])
    digits = 1 - math.floor(math.log10(error)) if error > 0 else 3
    if digits < 0:
        value, error, digits = round(value, digits), round(error, digits), 0
    return f"{value:.{digits}f} ({error:.{digits}f})"


def _how(row: Any) -> str:  # noqa: ANN401
    """In which way a column's distributions are wrong."""
    bias, spread = float(row["bias_z"]), float(row["spread_z"])
    nominal = row["score"] == "Brier"
    # A shift moves the places to one end, which widens them as well, by twice as much at the most.
    if not nominal and abs(bias) > max(3, 0.4 * abs(spread)):
        return "too low" if bias > 0 else "too high"
    return "too narrow" if (bias if nominal else spread) > 0 else "too wide"
