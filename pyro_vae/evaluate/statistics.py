"""Means of weights, standard errors, chunks and tables: what several evaluations share."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..data.ragged import joined
from ..model.face import Face

__all__ = [
    "UNIFORMITY",
    "Sample",
    "best_column",
    "by_observation",
    "check_equal",
    "chosen_rows",
    "chunks",
    "combined_error",
    "deviations",
    "given_rows",
    "log_mean_exp",
    "mean",
    "mean_and_error",
    "smallest_p",
    "standard_error",
    "tails",
    "uniformity",
]

BINS = 20
UNIFORMITY = ("p_value", "bias_z", "spread_z")


def chosen_rows(x: Tensor, n: int) -> Tensor:
    """The numbers of at most n rows, chosen at random, in their order: rows may come sorted."""
    return torch.randperm(len(x))[:n].sort().values.to(x.device)


def given_rows(vae: Face, given: Tensor | ArrayLike | None, n: int) -> Tensor | None:
    """Rows whose context n draws have: of more than n as many at random, else those in turn."""
    rows = vae.observations if given is None else vae.as_data(given)
    return rows if rows is None or len(rows) <= n else rows[chosen_rows(rows, n)]


class Sample:
    """At most n of the rows that come in parts, each as likely, in their order."""

    rows: Tensor | None = None

    def __init__(self, n: int) -> None:
        self._n, self._places = n, torch.empty(0)
        self._generator = torch.Generator().manual_seed(0)  # of its own: other draws stay

    def add(self, some: Tensor) -> None:
        """Take notice of further rows."""
        places = torch.cat([self._places, torch.rand(len(some), generator=self._generator)])
        kept = places.topk(min(self._n, len(places))).indices.sort().values
        rows = some if self.rows is None else joined([self.rows, some])
        self.rows, self._places = rows[kept.to(rows.device)], places[kept]


def chunks(values: Tensor, cost: float, budget: int) -> tuple[Tensor, ...]:
    """Split along the first dimension, so that each part costs at most ``budget``.

    Args:
        values: ``(N, ...)``.
        cost: numbers in memory for one entry.
        budget: numbers in memory at once; one entry is always allowed.
    """
    return values.split(max(1, int(budget // cost)))


def check_equal(weights: Sequence[Tensor | None], who: str) -> None:
    """Raise if observations have unequal weights, of figures in which each counts once.

    Args:
        weights: of parts of the observations, ``(N,)`` each, or ``None``.
        who: gives the figures.

    Raises:
        ValueError: they have.
    """
    found = [part for part in weights if part is not None]
    if found and (torch.cat(found) != found[0][0]).any():
        raise ValueError(
            f"{who} counts each observation once, and these have weights: draw rows by their "
            "weight, torch.multinomial(weights, n, True), and give all of these weight 1"
        )


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the first dimension, weighted where observations have weights ``(N,)``."""
    if weights is None:
        return values.mean(0)
    return values.mul(_share(values, weights)).mean(0)


def deviations(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """What each value moves their mean by, times N: their mean is 0."""
    away = values - mean(values, weights)
    return away if weights is None else away * _share(values, weights)


def standard_error(values: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Standard error of the mean over the first dimension; NaN of a single value.

    Of a weighted mean it is that of a ratio, by linearization, as of a sample from a survey:

    .. math:: \frac{1}{\sum_n w_n} \sqrt{\frac{N}{N-1} \sum_n w_n^2 (v_n - \bar v)^2}
    """
    if len(values) < 2:
        return torch.full_like(values[0], math.nan)
    if weights is not None:
        values = deviations(values, weights)
    return values.std(0) / math.sqrt(len(values))


def mean_and_error(values: Tensor, weights: Tensor | None = None) -> tuple[float, float]:
    """The mean of ``(N,)``, and its standard error."""
    return mean(values, weights).item(), standard_error(values, weights).item()


def combined_error(errors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Standard error of a mean over the first dimension, of values with independent errors."""
    if weights is not None:
        errors = errors * _share(errors, weights)
    return errors.square().sum(0).sqrt() / len(errors)


def best_column(scores: pd.DataFrame, weights: Tensor | None = None) -> str:
    """The column with the highest mean, of a row an observation."""
    means = mean(torch.tensor(scores.to_numpy()), weights).numpy(force=True)
    return str(pd.Series(means, scores.columns).idxmax())


def _share(values: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(values)
    return (weights / weights.mean()).reshape(-1, *[1] * (values.ndim - 1))


def log_mean_exp(log_w: Tensor) -> tuple[Tensor, Tensor]:
    r"""Logarithm of the mean weight, and its standard error by the delta method.

    .. math:: \frac{\mathrm{sd}(w)}{\bar w \sqrt K}

    Args:
        log_w: ``(K, N)``.

    Returns:
        ``(N,)`` each.
    """
    k, log_w = len(log_w), log_w.double()
    share = log_w.softmax(0)
    error = ((share.square().sum(0) - 1 / k) * (k / (k - 1))).clamp(min=0).sqrt()
    return log_w.logsumexp(0) - math.log(k), error


def by_observation(columns: Mapping[str, Tensor]) -> pd.DataFrame:
    """A table with a row for each observation, of vectors ``(N,)``."""
    arrays = {name: values.cpu().numpy() for name, values in columns.items()}
    return pd.DataFrame(arrays).rename_axis("observation")


def uniformity(u: Tensor, levels: int | None = None) -> tuple[float, float, float]:
    """Whether numbers are uniform on (0, 1): what :data:`UNIFORMITY` names.

    The p-value of a chi-squared test, of 20 bins at most, and the z-scores of the mean and of the
    variance, which show a slow drift long before it shows in the bins.

    Args:
        u: ``(n,)``; of ranks the middles of their shares.
        levels: how many values u has, where it is a rank.
    """
    u = u.double()
    n, bins = len(u), int(min(BINS, levels or BINS, max(2, len(u) / 5)))
    share, fine = torch.full((bins,), 1 / bins, dtype=u.dtype), 0.0  # of a bin; of a rank's steps
    if levels:
        middles, fine = (torch.arange(levels, dtype=u.dtype) + 0.5) / levels, 1 / levels**2
        share = torch.bincount((middles * bins).long(), minlength=bins) / levels
    counts = torch.bincount((u * bins).long().clamp(max=bins - 1), minlength=bins).double()
    chi2 = ((counts - n * share) ** 2 / (n * share)).sum()
    away, variance, fourth = u - 0.5, (1 - fine) / 12, (1 - fine) * (3 - 7 * fine) / 240
    p_value = torch.special.gammaincc(torch.tensor((bins - 1) / 2).double(), chi2 / 2)
    bias = away.mean() / math.sqrt(variance / n)
    apart = away.square().mean() - variance  # two ranks are equally far from their mean
    spread = 0 * apart if levels == 2 else apart / math.sqrt((fourth - variance**2) / n)
    return p_value.item(), bias.item(), spread.item()


def tails(z: np.ndarray) -> np.ndarray:
    """Two-sided p-values of z-scores."""
    return torch.special.erfc(torch.tensor(z).abs() / math.sqrt(2)).numpy()


def smallest_p(table: pd.DataFrame, names: Sequence[str] = UNIFORMITY) -> np.ndarray:
    """Of each row the smallest of its three p-values, corrected for those of all rows.

    Args:
        table: a row a test of three figures.
        names: of the columns: a p-value, and two z-scores.
    """
    p_value, *z_scores = (table[name].to_numpy(float) for name in names)
    return 3 * np.minimum(tails(np.stack(z_scores)).min(0), p_value) * len(table)
