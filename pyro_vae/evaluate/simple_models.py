"""Simple models of the same data, with log p(x) in the same units as a VAE's."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import whole
from ..distributions import CensoredTime, Joined, SpikeOr, support_of_cell
from ..families.likelihoods import has_independent_cells, parts_of
from ..families.support import innermost, support_bounds
from ..model.joint import reading
from ..model.vae import VAE
from .statistics import by_observation

__all__ = ["baselines"]

LEAST = 20  # observations
CLUSTERS = 10  # of the mixture, at most
MOST_VALUES = 256  # of a cell whose values are counted one by one
FLOOR = 1e-4  # of the columns' median variance: the least variance of a column
Density = Callable[[np.ndarray], np.ndarray]  # (M, D) to log densities, (M, D) or of rows (M,)
Fit = Callable[[np.ndarray, np.ndarray], Density]  # of some rows, and of all that are known


@torch.no_grad()
def baselines(vae: VAE, x: Tensor | ArrayLike, *, seed: int = 0) -> pd.DataFrame:
    """log p(x) of each observation under simple models, fitted to the other half of x.

    A VAE is worth its network where its log p(x) is above theirs. They read no context or offset.
    Of observations with weights they are fitted to as many, drawn by these; a mean over rows is to
    be weighted too.

    Args:
        vae: a model; its likelihood says whether x is continuous, finite or counts.
        x: ``(N, *x_shape)``.
        seed: of the halves and of the clusters.

    Returns:
        A row for each observation, nats: ``independent columns`` (normal or log-normal, the
        frequencies of finite values, negative binomial, exponential with censoring),
        ``mixture`` of such columns over up to 10 clusters, and for continuous x without missing
        cells ``probabilistic PCA`` with as many components as z has numbers. Missing cells drop
        out.

    Raises:
        ValueError: data that the model refuses, fewer than 20 observations, or cells that are not
            independent given z.

    References:
        Tipping & Bishop (1999), Journal of the Royal Statistical Society B 61, for the PCA.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> list(baselines(vae, torch.randn(40, 2)))
    ['independent columns', 'mixture', 'probabilistic PCA']
    """
    seed = whole("seed", seed, 0, 2**32 - 1)
    x = vae.check(x)
    cells = vae.record.cells(x)
    if len(x) < LEAST:
        raise ValueError(f"baselines need at least {LEAST} observations, got {len(x)}")
    columns, continuous = _columns(vae, x)
    fits: dict[str, Fit] = {
        "independent columns": lambda rows, known: _summed(columns(rows, known)),
        "mixture": lambda rows, _: _mixture(rows, columns, seed),
    }
    if continuous and not cells.isnan().any():
        fits["probabilistic PCA"] = lambda rows, _: _pca(rows, math.prod(vae.z_shape))
    values = cells.flatten(1).double().cpu().numpy()
    counts = vae.counts_as(x).double().cpu().numpy()
    first, second = np.array_split(np.random.default_rng(seed).permutation(len(x)), 2)
    scores = {name: torch.empty(len(x), dtype=torch.float64) for name in fits}
    for name, fit in fits.items():
        for train, test in ((first, second), (second, first)):
            steps = counts[train].cumsum() / counts[train].sum() * len(train)
            some = train[np.searchsorted(steps, np.arange(len(train)) + 0.5)]  # each by its weight
            density = fit(values[some], values[some])
            scores[name][test] = torch.as_tensor(density(values[test]))
    return by_observation(scores)


def _summed(density: Density) -> Density:
    return lambda x: np.nansum(density(x), 1)


def _columns(vae: VAE, x: Tensor) -> tuple[Fit, bool]:
    """Independent columns for each cell's support, and whether they are of one continuous kind."""
    with reading(vae, 0):
        p = vae.decode(vae.prior_at(x[:1]).expand([1]).sample(), x[:1])
    parts = parts_of(p)
    if p.event_shape != vae.x_shape or not has_independent_cells(p):
        raise ValueError("baselines need an x whose cells are independent given z")
    kinds = [_kind(innermost(part).support) for part in parts]
    places: list[Any] = p.layout.places if isinstance(p, Joined) else [slice(None)]

    def fit(rows: np.ndarray, known: np.ndarray) -> Density:
        each = [kind(rows[:, at], known[:, at]) for kind, at in zip(kinds, places, strict=True)]
        return lambda x: np.concatenate(
            [density(x[:, at]) for density, at in zip(each, places, strict=True)], 1
        )

    return fit, kinds in ([_normal], [_positive])


def _kind(support: Any) -> Fit:  # noqa: ANN401
    """The columns of a support."""
    cell = support_of_cell(support)
    if isinstance(cell, SpikeOr):
        inner = _kind(cell.support)
        return lambda rows, known: _spike(rows, known, cell.member, inner)
    if isinstance(cell, CensoredTime):
        return lambda rows, _: _censored(rows)
    kind, lower, upper = support_bounds(cell)
    if kind == "continuous":
        return _positive if (lower, upper) == (0, math.inf) else _normal
    lower, upper = (0, 1) if kind == "boolean" else (lower, upper)
    if upper - lower < MOST_VALUES:
        return lambda rows, _: _frequencies(rows, int(lower), int(upper))
    return lambda rows, _: _counts(rows)


# Columns: from rows, NaN where a cell is missing, to the log density of each cell, (M, D).


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number, mean and variance of the known cells of each column."""
    there = ~np.isnan(rows)
    n = there.sum(0)
    mean = np.where(there, rows, 0).sum(0) / np.maximum(n, 1)
    return n, mean, np.where(there, (rows - mean) ** 2, 0).sum(0) / np.maximum(n, 1)


def _floor(variance: np.ndarray) -> float:
    return FLOOR * float(np.median(variance[variance > 0])) if variance.any() else FLOOR


def _normal(rows: np.ndarray, known: np.ndarray) -> Density:
    """Normal columns; the variance of all that is known counts as one further row."""
    (n, mean, variance), (_, everywhere, spread) = _moments(rows), _moments(known)
    mean = np.where(n > 0, mean, everywhere)
    variance = np.maximum((n * variance + spread) / (n + 1), _floor(spread))
    return lambda x: -0.5 * ((x - mean) ** 2 / variance + np.log(2 * math.pi * variance))


def _positive(rows: np.ndarray, known: np.ndarray) -> Density:
    """Normal or log-normal columns, whichever fits a column better."""
    normal = _normal(rows, known)
    if not (known[~np.isnan(known)] > 0).all():
        return normal
    of_logs = _normal(np.log(rows), np.log(known))

    def log_normal(x: np.ndarray) -> np.ndarray:
        logs = np.log(x)
        return of_logs(logs) - logs

    better = np.nansum(log_normal(rows) - normal(rows), 0) > 0
    return lambda x: np.where(better, log_normal(x), normal(x))


def _spike(rows: np.ndarray, known: np.ndarray, at: float, inner: Fit) -> Density:
    """How often the spike occurs, and columns of the rest."""
    there, spikes = (~np.isnan(rows)).sum(0), (rows == at).sum(0)
    share = (spikes + 0.5) / (there + 1)
    rest = inner(*(np.where(part == at, np.nan, part) for part in (rows, known)))
    return lambda x: np.where(
        x == at, np.log(share), np.log1p(-share) + rest(np.where(x == at, np.nan, x))
    )


def _censored(rows: np.ndarray) -> Density:
    """Exponential columns, whose rate is the number of events over the total time."""
    total = np.nansum(np.abs(rows), 0)
    rate = ((rows > 0).sum(0) + 0.5) / np.where(total > 0, total, 1.0)
    return lambda x: np.where(x > 0, np.log(rate), 0) - rate * np.abs(x)


def _frequencies(rows: np.ndarray, lower: int, upper: int) -> Density:
    size = upper - lower + 1
    counts = np.stack([(rows == value).sum(0) for value in range(lower, upper + 1)])
    log_p = np.log((counts + 0.5) / (counts.sum(0) + 0.5 * size))
    place = np.arange(rows.shape[1])

    def density(x: np.ndarray) -> np.ndarray:
        codes = np.nan_to_num(x - lower).astype(int)
        return np.where(np.isnan(x), np.nan, log_p[codes, place])

    return density


def _counts(rows: np.ndarray) -> Density:
    """Negative binomials by moments, Poisson where the variance is not above the mean."""
    from scipy.stats import nbinom

    n, mean, variance = _moments(rows)
    mean = mean + 0.5 / np.maximum(n, 1)
    excess = np.maximum(variance - mean, 1e-6 * mean)
    r = mean**2 / excess
    return lambda x: nbinom.logpmf(x, r, r / (r + mean))


def _mixture(rows: np.ndarray, columns: Fit, seed: int) -> Density:
    """Columns by cluster of the rows, whose missing cells hold the column's mean there."""
    from scipy.special import logsumexp
    from sklearn.cluster import KMeans

    k = max(1, min(CLUSTERS, len(rows) // LEAST))
    gone, (_, mean, variance) = np.isnan(rows), _moments(rows)
    whole = (np.where(gone, mean, rows) - mean) / np.sqrt(variance + (variance == 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters
        which = KMeans(k, random_state=seed).fit_predict(whole if gone.any() else rows)
    parts = [rows[which == cluster] for cluster in np.unique(which)]
    weights = [math.log(len(part) / len(rows)) for part in parts]
    densities = [columns(part, rows) for part in parts]

    def density(x: np.ndarray) -> np.ndarray:
        terms = [w + np.nansum(d(x), 1) for w, d in zip(weights, densities, strict=True)]
        return np.asarray(logsumexp(terms, 0))

    return density


def _pca(rows: np.ndarray, components: int) -> Density:
    mean = rows.mean(0)
    variance, vectors = np.linalg.eigh(np.cov(rows.T, bias=True).reshape(len(mean), -1))
    rest = len(mean) - min(components, len(mean) - 1)
    variance[:rest] = variance[:rest].mean()
    variance = np.maximum(variance, _floor(rows.var(0)))

    def density(x: np.ndarray) -> np.ndarray:
        scores = (x - mean) @ vectors
        return -0.5 * (scores**2 / variance + np.log(2 * math.pi * variance)).sum(1)

    return density
