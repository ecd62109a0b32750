"""Estimates from several imputations as one (Rubin's rules)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..core.checks import fraction, positive

__all__ = ["Pooled", "pool"]


@dataclass(frozen=True)
class Pooled:
    """An estimate and what is uncertain of it; arrays where several were pooled.

    Attributes:
        estimate: the mean of the imputations' estimates.
        standard_error: the root of ``within + (1 + 1/m) between``.
        df: degrees of freedom of its t distribution (Barnard and Rubin, 1999).
        fraction_missing: of the information about the estimate.
        within: the mean of the imputations' variances.
        between: the variance of their estimates.
    """

    estimate: np.ndarray
    standard_error: np.ndarray
    df: np.ndarray
    fraction_missing: np.ndarray
    within: np.ndarray
    between: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """The ends of a confidence interval."""
        from scipy.special import ndtri, stdtrit

        tail = 0.5 + fraction("level", level) / 2
        large = self.df > 1e10
        quantile = np.where(large, ndtri(tail), stdtrit(np.where(large, 1.0, self.df), tail))
        width = quantile * self.standard_error
        return self.estimate - width, self.estimate + width


def pool(estimates: ArrayLike, variances: ArrayLike, *, df_complete: float | None = None) -> Pooled:
    r"""One estimate from those of m imputed tables.

    .. math::
        \bar q = \tfrac1m \sum_i q_i, \qquad
        t = \bar u + (1 + \tfrac1m) b, \qquad
        \lambda = (1 + \tfrac1m) b / t,

    with the mean :math:`\bar u` of the variances and the variance b of the estimates. The degrees
    of freedom are :math:`\nu = (m-1)/\lambda^2`, and where the complete data would leave
    :math:`\nu_c`, those of Barnard and Rubin, :math:`1/(1/\nu + 1/\nu_o)` with
    :math:`\nu_o = \frac{\nu_c+1}{\nu_c+3} \nu_c (1-\lambda)`. The fraction of missing information
    is :math:`(r + 2/(\nu+3))/(r+1)`, with :math:`r = (1 + \tfrac1m) b/\bar u`.

    Args:
        estimates: ``(m,)`` or ``(m, ...)``, an estimate or several from each imputed table.
        variances: of the same shape, their squared standard errors.
        df_complete: the degrees of freedom that a complete table would leave, such as rows less
            coefficients; infinite where it is not given.

    Returns:
        A :class:`Pooled`.

    Raises:
        ValueError: fewer than two imputations, other shapes, or numbers that are not finite.

    References:
        D. B. Rubin, Multiple Imputation for Nonresponse in Surveys, 1987.
        J. Barnard and D. B. Rubin, Small-sample degrees of freedom with multiple imputation,
        Biometrika 1999.

    >>> pooled = pool([4.2, 4.8, 4.5], [0.04, 0.05, 0.03], df_complete=48)
    >>> round(float(pooled.estimate), 2), round(float(pooled.standard_error), 3)
    (4.5, 0.4)
    """
    _check_names([*_named(estimates), *_named(variances)])
    try:
        q, u = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    except (ValueError, TypeError) as problem:
        raise ValueError(f"estimates and variances are numbers, m of each: {problem}") from problem
    if q.ndim == 0 or len(q) < 2 or q.shape != u.shape:
        raise ValueError(
            "expected estimates and variances of one shape (m, ...), of at least two imputations, "
            f"got {q.shape} and {u.shape}; of a covariance matrix give the diagonal"
        )
    if not (np.isfinite(q).all() and np.isfinite(u).all() and (u > 0).all()):
        raise ValueError("estimates are finite numbers, and variances finite and greater than 0")
    complete = math.inf if df_complete is None else positive("df_complete", df_complete)
    m, within, between = len(q), u.mean(0), q.var(0, ddof=1)
    added = (1 + 1 / m) * between
    total = within + added
    share, ratio = added / total, added / within
    with np.errstate(divide="ignore"):
        df = (m - 1) / share**2
        if complete < math.inf:
            observed = (complete + 1) / (complete + 3) * complete * (1 - share)
            df = 1 / (1 / df + 1 / observed)
    missing = (ratio + 2 / (df + 3)) / (ratio + 1)
    return Pooled(q.mean(0), np.sqrt(total), df, missing, within, between)


def _named(rows: object) -> list[list[object]]:
    """The names of the estimates of each table, where pandas' ``Series`` have them."""
    listed = rows if isinstance(rows, list | tuple) else []
    return [[*row.index] for row in listed if hasattr(row, "to_numpy")]


def _check_names(names: list[list[object]]) -> None:
    """Raise unless what would be averaged has one name."""
    if other := next((found for found in names if found != names[0]), None):
        raise ValueError(
            f"estimates and variances have other names, or another order, in some table: {other}, "
            f"where the first has {names[0]}: give all in one order, series.reindex(first.index)"
        )
