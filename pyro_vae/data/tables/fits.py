"""How well a family fits a column: its log likelihood at parameters that are (nearly) the best."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

__all__ = ["FITS", "fitted"]

PLACES = (np.arange(8) + 0.5) / 8 - 0.5  # in a bin of width 1, where a density is evaluated
WIDE = 3.0  # a scale, in widths of a bin, from which a density is that of all its bin
NARROW = 0.3  # the least scale, in widths of a bin: that of rounding alone


def _width(x: np.ndarray) -> float:
    """The least distance between two values: to such bins they are rounded, it may be."""
    return float(np.diff(np.unique(x)).min())


def _in_bins(
    log_density: Callable[[np.ndarray], np.ndarray], x: np.ndarray, width: float, scale: float
) -> float:
    """The sum of the logarithms of mean densities in bins, which no narrow scale makes large."""
    from scipy.special import logsumexp

    if scale > WIDE * width:  # the mean is the density
        return float(log_density(x).sum())
    values, counts = np.unique(x, return_counts=True)
    means = logsumexp(log_density(values[:, None] + width * PLACES), axis=1) - math.log(len(PLACES))
    return float(counts @ means)


def _normal(x: np.ndarray, width: float) -> float:
    loc, scale = x.mean(), max(x.std(), NARROW * width)
    constant = -math.log(scale) - 0.5 * math.log(2 * math.pi)
    return _in_bins(lambda y: constant - 0.5 * ((y - loc) / scale) ** 2, x, width, scale)


def _student(x: np.ndarray) -> float:
    """The best of a few degrees of freedom, location and scale by iterated reweighting."""
    from scipy.special import gammaln

    best, width = -math.inf, _width(x)
    for df in (2.0, 3.0, 5.0, 10.0):
        loc, scale = np.median(x), x.std()
        for _ in range(15):
            weights = (df + 1) / (df + ((x - loc) / scale) ** 2)
            loc = (weights * x).sum() / weights.sum()
            scale = max(math.sqrt((weights * (x - loc) ** 2).mean()), NARROW * width)
        constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(df * math.pi)

        def log_density(y: np.ndarray, df: float, loc: float, scale: float) -> np.ndarray:
            return -math.log(scale) - (df + 1) / 2 * np.log1p(((y - loc) / scale) ** 2 / df)

        density = partial(log_density, df=df, loc=loc, scale=scale)
        best = max(best, constant * len(x) + _in_bins(density, x, width, scale))
    return best


def _log_normal(x: np.ndarray) -> float:
    logs = np.log(x)
    return _normal(logs, 0.0) - logs.sum()


def _gamma(x: np.ndarray) -> float:
    """By Minka's approximation of the shape (2002)."""
    from scipy.special import gammaln

    mean, logs = x.mean(), np.log(x)
    gap = max(math.log(mean) - logs.mean(), 1e-12)
    shape = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    rate = shape / mean
    terms = shape * math.log(rate) - gammaln(shape) + (shape - 1) * logs - rate * x
    return float(terms.sum())


def _beta(x: np.ndarray) -> float:
    """By the moments."""
    from scipy.special import betaln

    mean, variance = x.mean(), x.var()
    total = mean * (1 - mean) / variance - 1
    a, b = mean * total, (1 - mean) * total
    if total <= 0:
        return -math.inf
    return float(((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - betaln(a, b)).sum())


def _poisson(x: np.ndarray) -> float:
    from scipy.special import gammaln

    return float((x * math.log(x.mean()) - x.mean() - gammaln(x + 1)).sum())


def _negative_binomial(x: np.ndarray) -> float:
    """The best of a grid of total counts, at the column's mean."""
    from scipy.special import gammaln

    mean, best = x.mean(), -math.inf
    values, counts = np.unique(x, return_counts=True)
    for total in np.geomspace(0.05, 500, 40):
        terms = gammaln(values + total) - gammaln(total) - gammaln(values + 1)
        terms += total * math.log(total / (total + mean))
        terms += values * math.log(mean / (total + mean))
        best = max(best, float((counts * terms).sum()))
    return best


FITS: dict[str, Callable[[np.ndarray], float]] = {
    "Normal": lambda x: _normal(x, _width(x)),
    "StudentT": _student,
    "LogNormal": _log_normal,
    "Gamma": _gamma,
    "Beta": _beta,
    "Poisson": _poisson,
    "NegativeBinomial": _negative_binomial,
}
PRICES = {"StudentT": 3, "Poisson": 1}  # parameters; two where it is not said


def fitted(name: str, x: np.ndarray) -> float:
    """The log likelihood of a family less what its parameters cost (half of the BIC).

    The density of whole numbers stands for the probability of a bin of width 1; that of a normal or
    Student's t distribution is the mean over as wide a bin as values lie apart: it would be without
    bound where most are one value.

    Args:
        name: of the family.
        x: ``(N,)``, within its support, of two values at least.
    """
    return FITS[name](x) - PRICES.get(name, 2) / 2 * math.log(len(x))
