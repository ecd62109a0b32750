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
from torch.distributions import constraints

from ..core.checks import whole
from ..families.support import innermost, support_bounds
from ..model.joint import reading
from ..model.vae import VAE
from .statistics import by_observation

__all__ = ["baselines"]

LEAST = 20  # observations
CLUSTERS = 10  # of the mixture, at most
MOST_VALUES = 256  # of a cell whose values are counted one by one
FLOOR = 1e-4  # of the columns' median variance: the least variance of a column
Density = Callable[[np.ndarray], np.ndarray]  # (M, D) to log densities (M,)
Fit = Callable[[np.ndarray, np.ndarray], Density]  # of some rows, and of all that are known


@torch.no_grad()
def baselines(vae: VAE, x: Tensor | ArrayLike, *, seed: int = 0) -> pd.DataFrame:
    """log p(x) of each observation under simple models, fitted to the other half of x.

    A VAE is worth its network where its log p(x) is above theirs. They read no context or offset.

    Args:
        vae: a model; its likelihood says whether x is continuous, finite or counts.
        x: ``(N, *x_shape)``.
        seed: of the halves and of the clusters.

    Returns:
        A row for each observation, nats: ``independent columns`` (normal, or the frequencies of
        finite values, or negative binomial), ``mixture`` of such columns over up to 10 clusters,
        and for continuous x ``probabilistic PCA`` with as many components as z has numbers.

    Raises:
        ValueError: data that the model refuses, fewer than 20
            observations, missing cells, or cells that are not of one kind.

    References:
        Tipping & Bishop (1999), Journal of the Royal Statistical Society B 61, for the PCA.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> list(baselines(vae, torch.randn(40, 2)))
    ['independent columns', 'mixture', 'probabilistic PCA']
    """
    seed = whole("seed", seed, 0, 2**32 - 1)
    x = vae.check(x)
    cells = vae.record.cells(x)
    if len(x) < LEAST or cells.isnan().any():
        raise ValueError(f"baselines need at least {LEAST} observations without missing cells")
    columns, continuous = _columns(vae, x)
    fits: dict[str, Fit] = {
        "independent columns": columns,
        "mixture": lambda rows, _: _mixture(rows, columns, seed),
    }
    if continuous:
        fits["probabilistic PCA"] = lambda rows, _: _pca(rows, math.prod(vae.z_shape))
    values = cells.flatten(1).double().cpu().numpy()
    first, second = np.array_split(np.random.default_rng(seed).permutation(len(x)), 2)
    scores = {name: torch.empty(len(x), dtype=torch.float64) for name in fits}
    for name, fit in fits.items():
        for train, test in ((first, second), (second, first)):
            density = fit(values[train], values[train])
            scores[name][test] = torch.as_tensor(density(values[test]))
    return by_observation(scores)


def _columns(vae: VAE, x: Tensor) -> tuple[Fit, bool]:
    """Independent columns for the likelihood's support, and whether it is continuous."""
    with reading(vae, 0):
        p = vae.decode(vae.prior_at(x[:1]).expand([1]).sample(), x[:1])
    base = innermost(p)
    support: Any = base.support
    if p.event_shape != vae.x_shape or base.event_dim or isinstance(support, constraints.cat):
        raise ValueError("baselines need an x whose cells are independent and of one kind")
    kind, lower, upper = support_bounds(support)
    if kind == "continuous":
        return _normal, True
    lower, upper = (0, 1) if kind == "boolean" else (lower, upper)
    if upper - lower < MOST_VALUES:
        return lambda rows, _: _frequencies(rows, int(lower), int(upper)), False
    return lambda rows, _: _counts(rows), False


def _floor(variance: np.ndarray) -> float:
    return FLOOR * float(np.median(variance[variance > 0])) if variance.any() else FLOOR


def _normal(rows: np.ndarray, known: np.ndarray) -> Density:
    """Normal columns; the variance of all that is known counts as one further row."""
    mean, spread, n = rows.mean(0), known.var(0), len(rows)
    variance = np.maximum((n * rows.var(0) + spread) / (n + 1), _floor(spread))
    return lambda x: -0.5 * ((x - mean) ** 2 / variance + np.log(2 * math.pi * variance)).sum(1)


def _frequencies(rows: np.ndarray, lower: int, upper: int) -> Density:
    size = upper - lower + 1
    counts = np.stack([(rows == value).sum(0) for value in range(lower, upper + 1)])
    log_p = np.log((counts + 0.5) / (len(rows) + 0.5 * size))
    place = np.arange(rows.shape[1])
    return lambda x: log_p[(x - lower).astype(int), place].sum(1)


def _counts(rows: np.ndarray) -> Density:
    """Negative binomials by moments, Poisson where the variance is not above the mean."""
    from scipy.stats import nbinom

    mean = rows.mean(0) + 0.5 / len(rows)
    excess = np.maximum(rows.var(0) - mean, 1e-6 * mean)
    r = mean**2 / excess
    return lambda x: nbinom.logpmf(x, r, r / (r + mean)).sum(1)


def _mixture(rows: np.ndarray, columns: Fit, seed: int) -> Density:
    from scipy.special import logsumexp
    from sklearn.cluster import KMeans

    k = max(1, min(CLUSTERS, len(rows) // LEAST))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters
        which = KMeans(k, random_state=seed).fit_predict(rows)
    parts = [rows[which == cluster] for cluster in np.unique(which)]
    weights = [math.log(len(part) / len(rows)) for part in parts]
    densities = [columns(part, rows) for part in parts]

    def density(x: np.ndarray) -> np.ndarray:
        terms = [w + d(x) for w, d in zip(weights, densities, strict=True)]
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
