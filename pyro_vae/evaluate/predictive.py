"""Whether data drawn from the model are like the data: each column, and each pair of columns."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import whole
from ..distributions import RightCensored
from ..families.support import innermost
from ..model.columns import by_cell, names_of
from ..model.entry import of_model
from ..model.joint import reading
from ..model.simulation import in_turn, simulate
from ..model.vae import VAE
from .statistics import chosen_rows, smallest_p, tails

__all__ = ["PredictiveCheck", "predictive_check"]

LEVEL = 0.01  # of the tests that the verdict rests on, all columns and pairs together
LEAST = 20  # observations
MOST = 500  # columns; of more, evenly spaced ones are looked at
NAMED = 3  # columns or pairs that the verdict names
TESTS = ("shape_p", "mean_z", "spread_z")


@dataclass(frozen=True)
class PredictiveCheck:
    """Data beside data that were drawn from the model.

    Attributes:
        columns: a row for each column: ``mean_z`` and ``spread_z``, z-scores of data minus model in
            its mean and its mean square around it, and ``shape_p``, the p-value of Kolmogorov and
            Smirnov for the whole margin.
        pairs: ``(D, D)``, the z-score of data minus model in the mean product of two columns.
        num_data: observations.
        num_drawn: draws of the model.
    """

    columns: pd.DataFrame
    pairs: pd.DataFrame
    num_data: int
    num_drawn: int

    @property
    def verdict(self) -> str:
        """Which columns and pairs the model does not reproduce, in words.

        The level of .01 is that of all of them together.
        """
        p = pd.Series(smallest_p(self.columns, TESTS), self.columns.index)
        wrong = [str(name) for name, value in p.sort_values().items() if value <= LEVEL]
        z = self.pairs.to_numpy()
        rows, cols = np.triu_indices(len(z), 1)
        p_pairs = tails(z[rows, cols]) * len(rows)
        order = [i for i in np.argsort(p_pairs) if p_pairs[i] <= LEVEL]
        names = self.pairs.index
        worst = [f"{names[rows[i]]} and {names[cols[i]]}" for i in order]
        return (
            f"{_sentence('columns', len(p), wrong)} "
            f"{_sentence('pairs of columns', len(rows), worst)}"
        )

    @property
    def departs(self) -> bool:
        """Whether any column or pair is seen to depart from the model."""
        return "are not as the model draws" in self.verdict


@of_model
@torch.no_grad()
def predictive_check(
    vae: VAE, x: Tensor | ArrayLike, *, num_samples: int = 2000, seed: int | None = 0
) -> PredictiveCheck:
    r"""Compare data with draws of the model: margins, and the dependence of pairs.

    .. math:: z_{ij} = \frac{\bar{u_i u_j} - \bar{v_i v_j}}{s_{ij} \sqrt{1 / N + 1 / M}}

    for data u and draws v of p(x), both standardized by the data, with the standard deviation s of
    the products of both together. Where draws are made beside something of a row (a condition, an
    offset, visits), each row has as many, M is rounded up for that, and s is that of a row's data
    from its draw, over :math:`\sqrt2`: what rows have beside them moves both alike (p-values of
    the whole margin are then too large). Of more rows than M as many are taken at random. A model
    of noise passes where the data are noise: whether x has anything to model, :func:`baselines`
    says. Of observations with weights each is kept with a probability in proportion to its weight,
    as the model is of what they stand for.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``, data that it was not trained on; NaN where a cell is missing.
        num_samples: M, draws of the model, with context and offset of the rows of x in turn.
        seed: of the draws.

    Censored times are left out: what is drawn is the time until the event, seen or not.

    Returns:
        :class:`PredictiveCheck`: ``columns``, ``pairs``, ``verdict``.

    Raises:
        ValueError: data that the model refuses, fewer than 20 observations, or of draws, or a
            model of which cells are missing.

    References:
        Gelman, Meng & Stern (1996), Statistica Sinica 6.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> predictive_check(vae, torch.randn(50, 2)).pairs.shape
    (2, 2)
    """
    num_samples = whole("num_samples", num_samples, LEAST)
    x = vae.check(x)
    if vae.missingness is not None:
        raise ValueError(
            "the cells that are observed are no fair draws of the model's, which says which are "
            "missing: compare vae.impute(x) with vae.sample(n) instead"
        )
    with reading(vae, seed):
        x = x[vae.representative(x)]
        if len(x) < LEAST:
            raise ValueError(
                f"a predictive check needs at least {LEAST} observations, got {len(x)}"
            )
        beside = any(b.role in ("context", "offset") for b in vae.record.blocks)
        paired = beside or vae.prior_reads or vae.record.there(x) is not None
        if paired:
            x = x[chosen_rows(x, num_samples)]
            num_samples = len(x) * math.ceil(num_samples / len(x))
        z, drawn = simulate(vae, num_samples, x)
        p = vae.decode(z[:1], x[:1])
    alike = by_cell(p, lambda part: not isinstance(innermost(part), RightCensored))
    drawn = vae.record.cells(drawn).flatten(1).double()[:, alike]
    data = vae.record.cells(x).flatten(1).double()[:, alike]
    if paired:
        drawn = torch.where(in_turn(data, num_samples).isnan(), math.nan, drawn)
    each = zip(names_of(vae.record, len(alike)), alike, strict=True)
    names = [name for name, kept in each if kept]
    if not names:
        raise ValueError("every column is a censored time, and what is drawn is not censored")
    if len(names) > MOST:
        some = torch.linspace(0, len(names) - 1, MOST).long()
        data, drawn, names = data[:, some], drawn[:, some], [names[i] for i in some]
    u, v = _standardized(data, drawn)
    columns = {
        "mean_z": _score(u, v, paired),
        "spread_z": _score(u.square(), v.square(), paired),
        "shape_p": _smirnov(data, drawn),
    }
    table = pd.DataFrame({k: c.cpu().numpy() for k, c in columns.items()}, index=names)
    pairs = pd.DataFrame(_products(u, v, paired).cpu().numpy(), index=names, columns=names)
    return PredictiveCheck(table.rename_axis("column"), pairs, len(x), num_samples)


def _standardized(data: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the data's units of each column; of a constant one in those of both."""
    mean = data.nanmean(0)
    scale = (data - mean).square().nanmean(0).sqrt()
    both = (drawn - mean).square().nanmean(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.where(both > 0, both, 1.0))
    return (data - mean) / scale, (drawn - mean) / scale


def _score(u: Tensor, v: Tensor, paired: bool) -> Tensor:
    """z-scores of the means of columns, NaN left out; 0 where nothing varies."""
    n, m = ((~x.isnan()).sum(0) for x in (u, v))
    u, v = u.nan_to_num(0.0), v.nan_to_num(0.0)
    squares = u.square().sum(0) + v.square().sum(0)
    if paired:
        squares = (in_turn(u, len(v)) - v).square().sum(0)
    return _difference(n, m, u.sum(0), v.sum(0), squares, paired)


def _products(u: Tensor, v: Tensor, paired: bool) -> Tensor:
    """z-scores of the mean products of all pairs, as :func:`_score` of each."""
    n, m = (seen.T @ seen for seen in ((~x.isnan()).double() for x in (u, v)))
    u, v = u.nan_to_num(0.0), v.nan_to_num(0.0)
    many = in_turn(u, len(v)) if paired else u
    squares = many.square().T @ many.square() + v.square().T @ v.square()
    if paired:
        squares = squares - 2 * (many * v).T @ (many * v)
    return _difference(n, m, u.T @ u, v.T @ v, squares, paired)


def _difference(
    n: Tensor, m: Tensor, first: Tensor, second: Tensor, squares: Tensor, paired: bool
) -> Tensor:
    """The z-score of a difference of means, from the numbers of values, their sums and squares.

    Those of pairs are of the differences of n rows from their m draws.
    """
    if paired:
        variance = squares / (2 * m)
    else:
        variance = squares / (n + m) - ((first + second) / (n + m)).square()
    error = (variance.clamp_min(0) * (1 / n + 1 / m)).sqrt()
    return ((first / n - second / m) / error).nan_to_num(0.0, 0.0, 0.0)


def _smirnov(data: Tensor, drawn: Tensor) -> Tensor:
    """p-values of the largest difference of two distribution functions; ties make them larger."""
    from scipy.special import kolmogorov

    p = []
    for u, v in zip(data.T, drawn.T, strict=True):
        u, v = (x[~x.isnan()].sort().values for x in (u, v))
        if not len(u) * len(v):
            p.append(1.0)
            continue
        at = torch.cat([u, v]).contiguous()
        below = [torch.searchsorted(s.contiguous(), at, right=True) / len(s) for s in (u, v)]
        largest = (below[0] - below[1]).abs().max()
        root = math.sqrt(len(u) * len(v) / (len(u) + len(v)))
        p.append(kolmogorov((root + 0.12 + 0.11 / root) * largest.item()))
    return torch.tensor(p, dtype=torch.double)


def _sentence(what: str, total: int, wrong: list[str]) -> str:
    if not wrong:
        return f"None of {total} {what} is seen to depart from the model's draws (p > {LEVEL})."
    some = ", ".join(wrong[:NAMED]) + (" ..." if len(wrong) > NAMED else "")
    return f"{len(wrong)} of {total} {what} are not as the model draws them: {some}."
