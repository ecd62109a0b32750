"""Imputations by a normal distribution of rows, at the exact maximum of the likelihood.

Beside a model whose imputations are drawn at its estimated parameters they tell what is lost by
that alone, from what is lost by the model or by its training.
"""

from collections.abc import Iterator

import numpy as np

__all__ = ["imputed", "maximum"]

Normal = tuple[np.ndarray, np.ndarray]  # mean ``(D,)`` and covariance ``(D, D)``


def maximum(x: np.ndarray, steps: int = 60) -> Normal:
    """Mean and covariance by EM, of rows ``(N, D)`` with NaN where a cell is missing."""
    mean, cov = np.nanmean(x, 0), np.diag(np.nanvar(x, 0))
    for _ in range(steps):
        filled, left = x.copy(), np.zeros_like(cov)
        for rows, gone, expected, spread in _holes(x, mean, cov):
            filled[np.ix_(rows, gone)] = expected
            left[np.ix_(gone, gone)] += len(rows) * spread
        mean = filled.mean(0)
        cov = ((filled - mean).T @ (filled - mean) + left) / len(x)
    return mean, cov


def imputed(x: np.ndarray, fitted: Normal, rng: np.random.Generator) -> np.ndarray:
    """Rows with missing cells drawn given the others."""
    filled = x.copy()
    for rows, gone, expected, spread in _holes(x, *fitted):
        noise = rng.normal(size=expected.shape) @ np.linalg.cholesky(spread).T
        filled[np.ix_(rows, gone)] = expected + noise
    return filled


def _holes(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> Iterator[tuple]:
    """By pattern: its rows, the missing columns, their mean ``(n, G)`` and covariance given x."""
    known = ~np.isnan(x)
    for seen in np.unique(known, axis=0):
        if seen.all():
            continue
        rows, gone = np.flatnonzero((known == seen).all(1)), ~seen
        gain = cov[np.ix_(gone, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
        expected = mean[gone] + (x[np.ix_(rows, seen)] - mean[seen]) @ gain.T
        yield rows, gone, expected, cov[np.ix_(gone, gone)] - gain @ cov[np.ix_(seen, gone)]
