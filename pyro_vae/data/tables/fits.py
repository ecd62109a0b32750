"""How well a family fits a column: its log likelihood at parameters that are (nearly) the best."""

import math
from collections.abc import Callable

import numpy as np

__all__ = ["FITS", "fitted"]


def _normal(x: np.ndarray) -> float:
    variance = x.var()
    return -0.5 * len(x) * (math.log(2 * math.pi * variance) + 1)


def _student(x: np.ndarray) -> float:
    """The best of a few degrees of freedom, location and scale by iterated reweighting."""
    from scipy.special import gammaln

    best = -math.inf
    for df in (2.0, 3.0, 5.0, 10.0):
        loc, scale = np.median(x), x.std()
        for _ in range(15):
            weights = (df + 1) / (df + ((x - loc) / scale) ** 2)
            loc = (weights * x).sum() / weights.sum()
            scale = math.sqrt((weights * (x - loc) ** 2).mean()) or scale
        square = ((x - loc) / scale) ** 2 / df
        constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(df * math.pi)
        terms = constant - math.log(scale) - (df + 1) / 2 * np.log1p(square)
        best = max(best, float(terms.sum()))
    return best


def _log_normal(x: np.ndarray) -> float:
    logs = np.log(x)
    return _normal(logs) - logs.sum()


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
    "Normal": _normal,
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

    The density of whole numbers stands for the probability of a bin of width 1.

    Args:
        name: of the family.
        x: ``(N,)``, within its support, of two values at least.
    """
    return FITS[name](x) - PRICES.get(name, 2) / 2 * math.log(len(x))
